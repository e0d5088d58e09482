"""Paths that begin with ~."""

from __future__ import annotations

import os
from pathlib import Path

from splatrender.errors import InputError


def expand_home(name: str, path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of ~ or ~user at its beginning.

    A shell replaces it only at the beginning of a word, not in `--model=~/out` or in quotes.

    Args:
        name: of the argument, for the message.
        path: as the user gave it.

    Raises:
        InputError: there is no such user, or no home folder.

    Example:
        >>> expand_home("model", "out/a").as_posix()
        'out/a'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{name}: expected a home folder for ~, got none for {path}") from None
