"""Trained splats -> pictures and videos; the same as `splatrender render`."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an import would swallow it, or show a traceback
    from splatrender.cli.main import run
    from splatrender.cli.render import render

    run(render, "render.py")
