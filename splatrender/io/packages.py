"""Packages that a command needs late, got missing or broken before it begins its work."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from splatrender.errors import InputError

# module: its use, the package's name, and its name for pip
PACKAGES = {
    "plyfile": (".ply files", "plyfile", "plyfile"),
    "imageio_ffmpeg": ("videos", "imageio-ffmpeg", '"splatrender[video]"'),
    "zstandard": (".spz files of version 4", "zstandard", '"splatrender[formats]"'),
    "matplotlib": ("plots", "matplotlib", '"splatrender[plots]"'),
}


def require_package(module: str, hint: str = "") -> ModuleType:
    """Import a package that the work ahead will need.

    Args:
        module: a key of `PACKAGES`.
        hint: how to do without it, appended to the message.

    Returns:
        The module.

    Raises:
        InputError: the package is missing or broken; the message names it and the pip command.

    Example:
        >>> require_package("plyfile").__name__
        'plyfile'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # a name of another module: the package is there, and lacks one that it needs itself
        missing = error.name in (None, module)
        raise InputError(message(module, None if missing else error, hint)) from error
    except Exception as error:  # a broken package raises whatever it likes
        raise InputError(message(module, error, hint)) from error


def message(module: str, error: BaseException | None = None, hint: str = "") -> str:
    """Return the message on a package that cannot be used.

    Args:
        module: a key of `PACKAGES`.
        error: what importing or using it raised; None if it is missing.
        hint: how to do without it.
    """
    use, name, install = PACKAGES[module]
    if error is None:
        return f"{use}: expected the package {name}, got none; pip install {install}{hint}"
    reason = " ".join((str(error) or type(error).__name__).split())
    again = f"pip install --force-reinstall {install}"
    return f"{use}: expected a package {name} that works, got: {reason:.200}; {again}{hint}"


def pyplot() -> Any:
    """Return matplotlib.pyplot, drawing into files.

    Raises:
        InputError: matplotlib is missing or broken.
    """
    require_package("matplotlib").use("Agg")
    try:
        import matplotlib.pyplot as plt
    except Exception as error:  # compiled parts that do not fit, fonts that do not load
        raise InputError(message("matplotlib", error)) from error
    return plt
