"""Checks of arguments, by an `InputError` `NAME: expected X, got Y`."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor

from splatrender.errors import InputError

T = TypeVar("T")

MOST_PIXELS = 65535
"""Maximum number of pixels along a side of an image: kernels keep places in 16 bits."""
MOST_SEED = 2**63 - 1
_NONE: Mapping[str, Tensor | None] = MappingProxyType({})


def require_type(name: str, value: Any, kind: type[T]) -> T:
    """Refuse a value of another type; return the value.

    Example:
        >>> require_type("name", "x", str)
        'x'
    """
    if not isinstance(value, kind):
        raise InputError(f"{name}: expected {_article(kind.__name__)}, got {described(value)}")
    return value


def require_integer(name: str, value: Any, least: int, most: int) -> int:
    """Refuse what is no integer within least ... most; return it as int.

    Integers of numpy and torch, and floats without a fraction, are integers too; bools are not.

    Example:
        >>> require_integer("width", 640.0, 1, MOST_PIXELS)
        640
    """
    whole = None
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
    elif not isinstance(value, bool) and hasattr(value, "__index__"):
        try:
            whole = operator.index(value)
        except TypeError:  # a tensor or an array that is no integer
            whole = None
    if whole is None or not least <= whole <= most:
        raise InputError(
            f"{name}: expected an integer from {least} to {most}, got {described(value)}"
        )
    return whole


def require_number(
    name: str, value: Any, least: float = -math.inf, *, open_: bool = False
) -> float:
    """Refuse what is no finite number >= least (> least if `open_`); return it as float.

    Example:
        >>> require_number("eps2d", 0, least=0.0)
        0.0
    """
    number = math.nan
    if not isinstance(value, bool | str | bytes):
        try:
            number = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number = math.nan
    if not math.isfinite(number) or number < least or (open_ and number == least):
        bound = "" if least == -math.inf else f" {'>' if open_ else '>='} {least:g}"
        raise InputError(f"{name}: expected a finite number{bound}, got {described(value)}")
    return number


def require_flag(name: str, value: Any) -> bool:
    """Refuse what is neither True nor False (nor 1 nor 0); return it as bool.

    Example:
        >>> require_flag("depth", 1)
        True
    """
    scalar = isinstance(value, bool | int)
    if type(value).__module__ == "numpy":
        scalar = value.ndim == 0
    if not scalar or value not in (0, 1):
        raise InputError(f"{name}: expected True or False, got {described(value)}")
    return bool(value)


def require_path(name: str, value: Any) -> Path:
    """Refuse what is no path of a file or folder; return it with ~ as the home folder.

    Example:
        >>> require_path("path", "scene").name
        'scene'
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name}: expected a path, got {described(value)}")
    return Path(value).expanduser()


def require_tensors(optional: Mapping[str, Tensor | None] = _NONE, **tensors: Tensor) -> None:
    """Refuse arguments that are no tensors, and tensors on another device than the first.

    Args:
        optional: name = tensor, for arguments that may be None.
        tensors: name = tensor. The first one sets the device.

    Raises:
        InputError: names the first argument that is no tensor, or is on another device.

    Example:
        >>> require_tensors({"quats": None}, means=torch.ones(1))
    """
    device = None
    for name, tensor in (*tensors.items(), *optional.items()):
        if tensor is None and name in optional:
            continue
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name}: expected a torch tensor, got {described(tensor)}")
        own = tensor.device
        if device is None:
            device = own
        elif own != device:
            raise InputError(f"{name}: expected device {device}, got device {own}")


def described(value: Any) -> str:
    """Describe a value in a few words, for the end of a message.

    Example:
        >>> described(torch.ones(2, 3)), described("white"), described({})
        ('a float32 tensor of shape [2, 3]', "'white'", 'a dict')
    """
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.device.type == "cpu":
            return f"{value.tolist()}"
        return f"{_article(dtype_name(value.dtype))} tensor of shape {list(value.shape)}"
    if type(value).__name__ == "ndarray":
        return "a numpy array (torch.from_numpy makes a tensor of it)"
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return f"{value!r:.60}"
    return _article(type(value).__name__)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the dtype as it is written in messages.

    Example:
        >>> dtype_name(torch.float32)
        'float32'
    """
    return str(dtype).removeprefix("torch.")


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOaeio' else 'a'} {noun}"  # a uint8
