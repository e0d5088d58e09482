"""PLY files as tables: elements with properties by name, and messages that name what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.packages import require_package


@dataclass(frozen=True)
class PlyFile:
    """Content of a PLY file.

    Attributes:
        elements: structured arrays by name.
        comments: lines of the header.
    """

    elements: dict[str, np.ndarray]
    comments: list[str]


def _plyfile() -> ModuleType:
    """Return the package of the format; GPL, so it is imported by a call and nowhere else."""
    return require_package("plyfile")


def write_vertices(
    path: str | os.PathLike[str], rows: np.ndarray, comments: Sequence[str] = ()
) -> None:
    """Write a little-endian PLY file of one element `vertex`, atomically.

    Args:
        path: file to write.
        rows: structured array [N] of numbers.
        comments: lines for the header.

    Raises:
        InputError: the file cannot be made, or the package plyfile is missing.
    """
    plyfile = _plyfile()
    element = plyfile.PlyElement.describe(rows, "vertex")
    data = plyfile.PlyData([element], byte_order="<", comments=list(comments))
    with atomic_write(path) as temporary:
        data.write(str(temporary))


def read_table(path: Path) -> PlyFile:
    """Read a PLY file: ASCII or binary, of any byte order.

    Args:
        path: file to read.

    Returns:
        Its elements and comments.

    Raises:
        InputError: the file is missing, is not PLY or is not whole, or the package plyfile is
            missing.
    """
    plyfile = _plyfile()
    try:
        with open(path, "rb") as file:
            if file.read(3) != b"ply":
                raise InputError(f"{path}: expected a PLY file, which begins with 'ply'")
        data: Any = plyfile.PlyData.read(str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a .ply file, got none") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a .ply file, got a folder") from None
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from error
    except InputError:
        raise
    except (plyfile.PlyParseError, ValueError) as error:
        raise InputError(f"{path}: expected a whole PLY file, got: {error}") from error
    elements = {element.name: np.asarray(element.data) for element in data.elements}
    return PlyFile(elements, list(data.comments))


def columns_of(
    path: Path, table: np.ndarray, names: tuple[str, ...], dtype: type = np.float32
) -> np.ndarray:
    """Return properties by name, [N, len(names)].

    Args:
        path: the file, for messages.
        table: structured array [N] of an element.
        names: properties, in the order wanted.
        dtype: floating-point type of the result.

    Returns:
        One column for each name.

    Raises:
        InputError: a property is missing or is a list.
    """
    available = table.dtype.names or ()
    result: np.ndarray = np.empty((len(table), len(names)), dtype=dtype)
    for i, name in enumerate(names):
        if name not in available:
            raise InputError(
                f"{path}: expected a property {name!r} as in 3D Gaussian splatting files, "
                f"got only {some(available)}"
            )
        if table.dtype[name].hasobject:
            raise InputError(f"{path}: expected a number as property {name!r}, got a list")
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite
            result[:, i] = table[name]
    return result


def rest_names(path: Path, table: np.ndarray) -> tuple[str, ...]:
    """Return the names of the `f_rest` properties of an element, in order.

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
            f"{path}: expected 0, 9, 24 or 45 properties f_rest_* (degree 0 to 3), got {count}"
        )
    return tuple(f"f_rest_{i}" for i in range(count))


def harmonics(color: np.ndarray, rest: np.ndarray) -> torch.Tensor:
    """Return coefficients [N, K, 3] from f_dc [N, 3] and channel-major f_rest [N, 3(K-1)]."""
    by_channel = torch.from_numpy(rest).reshape(len(rest), 3, rest.shape[1] // 3)
    return torch.cat([torch.from_numpy(color)[:, None], by_channel.transpose(1, 2)], dim=1)


def some(names: Iterable[object]) -> str:
    """Join a few names, for a message."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") or "nothing"
