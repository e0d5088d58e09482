"""The compiled extension, which registers the operators `torch.ops.splatrender.*`.

Importing `splatrender` checks that the file exists, which costs nothing. `splatrender.operators`
loads it, because that needs torch, and importing torch takes seconds.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def require_built() -> None:
    """Check, without torch, that the extension is there.

    Raises:
        ImportError: it is not built; the message has the command to run.
    """
    if PathFinder.find_spec("_C", [str(_PACKAGE)]) is None:
        raise ImportError(f"splatrender's compiled extension is not built; run: {_fix()}")


def load() -> None:
    """Import `splatrender._C` and with it the operators.

    Raises:
        ImportError: it does not fit the installed torch; the message has the command to run.
    """
    import torch  # first: the extension's symbols come from torch's libraries

    try:
        import splatrender._C  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"splatrender's compiled extension does not load with torch {torch.__version__} "
            f"({error}); torch >= 2.10 is needed; to build it anew run: {_fix()}"
        ) from None


def _fix() -> str:
    if (_PACKAGE.parent / "setup.py").exists():
        return f'pip install -e "{_PACKAGE.parent}"'
    return "pip install --force-reinstall --no-deps splatrender"
