"""Loads the compiled extension, which registers the operators `torch.ops.splatrender.*`."""

from __future__ import annotations

from pathlib import Path

import torch  # first: the extension's symbols come from torch's libraries

ROOT = Path(__file__).resolve().parent.parent


def load() -> None:
    """Import `splatrender._C`.

    Raises:
        ImportError: the extension is not built, or was built for another torch; says what to run.
    """
    fix = f"pip install -e {ROOT}" if (ROOT / "setup.py").exists() else "pip install splatrender"
    try:
        import splatrender._C  # noqa: F401
    except ModuleNotFoundError:
        raise ImportError(f"splatrender's compiled extension is not built; run: {fix}") from None
    except ImportError as error:
        raise ImportError(
            f"splatrender's compiled extension does not load with torch {torch.__version__} "
            f"({error}); torch >= 2.10 is needed; to build it anew run: {fix}"
        ) from None


load()
