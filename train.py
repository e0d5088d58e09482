"""Scene folder -> trained splats; the same as `splatrender train`."""

from splatrender.cli.main import run
from splatrender.cli.train import train

if __name__ == "__main__":
    run(train, "train.py")
