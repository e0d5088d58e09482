"""Tensors and plain values in files: the state of a training run, to resume from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write

FORMAT = "splatrender checkpoint"
VERSION = 1


def write_tensors(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values atomically, by `torch.save`.

    Args:
        path: file to write or to replace.
        content: what to write.

    Raises:
        InputError: the file cannot be made.
        WriteError: the disk does not take it.
    """
    # into an open file: given a name, torch.save reports a full disk as "unexpected pos"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # the file's, which torch covers up
                raise error.__context__ from None
            raise


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a state atomically, as a file that holds data and no code.

    Args:
        path: file to write.
        state: dict, nested at will, of tensors, numbers, strings, booleans, None, lists, tuples
            and dicts.

    Raises:
        InputError: a value is of another kind, or the file cannot be made.
        WriteError: the disk does not take it; the checkpoint before is intact.

    Example:
        >>> save_checkpoint("step.pt", {"step": 7, "means": torch.zeros(2, 3)})  # doctest: +SKIP
    """
    _check_plain(state, "state")
    write_tensors(path, {"format": FORMAT, "version": VERSION, "state": state})


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a state written by `save_checkpoint`, with its tensors on the CPU.

    The file is read as data: nothing in it is run.

    Args:
        path: file to read.

    Returns:
        The state.

    Raises:
        InputError: the file is missing, damaged, of another kind or of another version.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise InputError(f"{path}: expected a checkpoint file, got {found}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen kinds for damaged files
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: expected a whole {FORMAT}, got a damaged or foreign file: {first}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: expected a {FORMAT}, got another kind of file")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: expected version {VERSION} of a {FORMAT}, got {content.get('version')}; "
            "resume with the release of splatrender that wrote it"
        )
    state: dict[str, Any] = content["state"]
    return state


def _check_plain(value: Any, where: str) -> None:
    """Refuse what `torch.load(weights_only=True)` would refuse when it is too late."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise InputError(f"{where}: expected keys of str or int, got {key!r}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif type(value) not in (torch.Tensor, torch.nn.Parameter, int, float, str, bool, type(None)):
        raise InputError(
            f"{where}: expected a tensor, number, string, list or dict, got {type(value).__name__}"
        )
