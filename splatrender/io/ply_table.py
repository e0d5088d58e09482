"""PLY files as tables: elements with properties by name, and messages that name what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splatrender.errors import InputError


def read_elements(path: Path) -> dict[str, np.ndarray]:
    """The elements of a PLY file.

    Args:
        path: file to read.

    Returns:
        Structured arrays by name.

    Raises:
        InputError: the file is missing, is not PLY or is not whole.
    """
    from plyfile import PlyData, PlyParseError  # GPL: used where it is called, nowhere else

    try:
        with open(path, "rb") as file:
            if file.read(3) != b"ply":
                raise InputError(f"{path}: expected a PLY file, which begins with 'ply'")
        data: Any = PlyData.read(str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a .ply file, found none") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a .ply file, found a folder") from None
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {error.strerror}") from error
    except (PlyParseError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected a whole PLY file, found: {error}") from error
    return {element.name: np.asarray(element.data) for element in data.elements}


def columns_of(path: Path, table: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Properties by name, float32 [N, len(names)].

    Args:
        path: the file, for messages.
        table: structured array [N] of an element.
        names: properties, in the order wanted.

    Returns:
        One column for each name.

    Raises:
        InputError: a property is missing or is a list.
    """
    available = table.dtype.names or ()
    result = np.empty((len(table), len(names)), dtype=np.float32)
    for i, name in enumerate(names):
        if name not in available:
            raise InputError(
                f"{path}: expected a property {name!r} as in 3D Gaussian splatting files, "
                f"found only {some(available)}"
            )
        if table.dtype[name].hasobject:
            raise InputError(f"{path}: expected a number as property {name!r}, found a list")
        result[:, i] = table[name]
    return result


def rest_names(path: Path, table: np.ndarray) -> tuple[str, ...]:
    """Names of the `f_rest` properties of an element, in order.

    Args:
        path: the file, for messages.
        table: structured array [N] of an element.

    Returns:
        None, 9, 24 or 45 names.

    Raises:
        InputError: there is another number of them.
    """
    count = sum(name.startswith("f_rest_") for name in table.dtype.names or ())
    if count not in (0, 9, 24, 45):
        raise InputError(
            f"{path}: expected 0, 9, 24 or 45 properties f_rest_* (degree 0 to 3), found {count}"
        )
    return tuple(f"f_rest_{i}" for i in range(count))


def harmonics(color: np.ndarray, rest: np.ndarray) -> torch.Tensor:
    """Coefficients [N, K, 3] from f_dc [N, 3] and channel-major f_rest [N, 3(K-1)]."""
    by_channel = torch.from_numpy(rest).reshape(len(rest), 3, rest.shape[1] // 3)
    return torch.cat([torch.from_numpy(color)[:, None], by_channel.transpose(1, 2)], dim=1)


def some(names: Iterable[object]) -> str:
    """A few names, for a message."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") or "nothing"
