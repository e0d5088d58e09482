"""Files of fitted models: a dict of tensors and plain values with the name of its format."""

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
        content: values by name, "format" among them.
    """
    write_tensors(path, content)


def read_content(path: str | os.PathLike[str], kind: str, content_name: str) -> dict[str, Any]:
    """Read a file that `write_content` wrote, as data: nothing in it is run.

    Args:
        path: file to read.
        kind: expected format.
        content_name: expected content, for messages: "a fitted model".

    Returns:
        The dict.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
        if content["format"] != kind:
            raise KeyError("format")
    except FileNotFoundError:
        raise InputError(f"{path}: expected {content_name}, got no file") from None
    except Exception as error:  # any error that unpickling another file raises
        raise InputError(f"{path}: expected {content_name}, got something else") from error
    return content
