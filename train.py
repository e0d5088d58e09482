"""Scene folder -> trained splats; the same as `splatrender train`."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an import would swallow it, or show a traceback
    from splatrender.cli.main import run
    from splatrender.cli.train import train

    run(train, "train.py")
