"""`python -m splatrender` is the command `splatrender`."""

from splatrender.cli.main import main

if __name__ == "__main__":
    main()
