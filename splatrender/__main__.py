"""`python -m splatrender` is the command `splatrender`."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an import would swallow it, or show a traceback
    from splatrender.cli.main import main

    main()
