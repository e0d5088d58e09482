"""Splats of a file with what the file states of them, and checks that all formats share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from splatrender.errors import InputError
from splatrender.model.splats import MAX_DEGREE, Splats

MOST_EXPANSION = 1032
"""Bytes that one byte of a file may stand for: the bound of deflate, far above that of real scenes.

A file that claims more splats is damaged or made to fill the memory.
"""


@dataclass(frozen=True)
class StoredSplats:
    """Splats as a file holds them.

    Attributes:
        splats: splats on the CPU, in the axes of .ply files, and each of them finite and visible.
        antialiased: whether they were trained with the compensation of small footprints; None if
            the format has no place for it.
    """

    splats: Splats
    antialiased: bool | None = None


def read_content(path: Path, kind: str) -> bytes:
    """Read a file as bytes.

    Args:
        path: the file.
        kind: name of its format, for messages.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: expected a {kind} file, got none") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a {kind} file, got a folder") from None
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from error


def check_expansion(path: Path, bytes_of_splats: int, size: int) -> None:
    """Check that a file is large enough for the splats that it claims, before they get memory.

    Args:
        path: the file, for the message.
        bytes_of_splats: decompressed size that follows from its header.
        size: size of the compressed file.

    Raises:
        InputError: no file of this size holds as much.
    """
    if bytes_of_splats > MOST_EXPANSION * size:
        raise InputError(
            f"{path}: expected at most {MOST_EXPANSION * size:,} bytes of splats in a file of "
            f"{size:,} bytes, got a header that claims {bytes_of_splats:,}"
        )


def check_degree(path: Path, degree: int, most: int = MAX_DEGREE) -> None:
    """Check a degree of harmonics that a header names.

    Raises:
        InputError: it is above `most`.
    """
    if not 0 <= degree <= most:
        raise InputError(f"{path}: expected harmonics of degree 0 to {most}, got {degree}")


def writable(path: Path, splats: Splats) -> Splats:
    """Return splats on the CPU, detached, with unit quaternions.

    Args:
        path: file to be written, for messages.
        splats: any splats.

    Raises:
        InputError: there is none, or one that is not finite or has a quaternion of zeros.
    """
    splats = splats.detach().to("cpu")
    if len(splats) == 0:
        raise InputError(f"{path}: expected at least one splat to write, got none")
    broken = ~splats.finite() | (splats.quats.abs().amax(dim=1) == 0)
    if broken.any():
        raise InputError(
            f"{path}: expected splats of finite numbers to write, got {int(broken.sum())} of "
            f"{len(splats)} that are not"
        )
    quats = torch.nn.functional.normalize(splats.quats.double(), dim=1).to(splats.dtype)
    return Splats(splats.means, quats, splats.log_scales, splats.opacity_logits, splats.sh)
