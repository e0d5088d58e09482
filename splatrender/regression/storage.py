"""Files of fitted models: a dict of tensors and plain values that names its own format."""

from __future__ import annotations

import os
from typing import Any

import torch

from splatrender.errors import InputError
from splatrender.io.checkpoint import write_tensors


def write_content(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values, atomically.

    Args:
        path: file to write or to replace.
        content: with the key "format".
    """
    write_tensors(path, content)


def read_content(path: str | os.PathLike[str], kind: str, what: str) -> dict[str, Any]:
    """Read what `write_content` wrote. The file is read as data: nothing in it is run.

    Args:
        path: file to read.
        kind: the format that it must have.
        what: it holds, for messages: "a fitted model".

    Returns:
        The dict.

    Raises:
        InputError: the file is missing or is something else.
    """
    try:
        content = torch.load(path, weights_only=True)
        if content["format"] != kind:
            raise KeyError("format")
    except FileNotFoundError:
        raise InputError(f"{path}: expected {what}, got no file") from None
    except Exception as error:  # whatever unpickling another file runs into
        raise InputError(f"{path}: expected {what}, got something else") from error
    return content
