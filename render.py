"""Trained splats -> pictures and videos; the same as `splatrender render`."""

from splatrender.cli.main import run
from splatrender.cli.render import render

if __name__ == "__main__":
    run(render, "render.py")
