"""3DGS .ply files and SuperSplat's compressed ones, read and written by `splatrender.model`."""

from __future__ import annotations

import re
from pathlib import Path

from splatrender.errors import InputError
from splatrender.formats.stored import StoredSplats, read_content
from splatrender.model.ply import read_ply, write_ply
from splatrender.model.splats import Splats

MOST_HEADER = 1 << 16  # bytes; that of degree 3 has 1,500
COUNT = re.compile(rb"^element[ \t]+(\S+)[ \t]+(\S+)[ \t]*\r?$", re.MULTILINE)


def read(path: Path) -> StoredSplats:
    """Read a .ply file, plain or compressed; it has no place for the antialias flag.

    Raises:
        InputError: the file is missing, is not a whole PLY file, or has no usable splat.
    """
    _check_counts(path, read_content(path, ".ply"))
    try:
        return StoredSplats(read_ply(path))
    except (ArithmeticError, LookupError, MemoryError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: expected a whole PLY file, got: {reason}") from error


def write(path: Path, splats: Splats, antialiased: bool = False) -> None:
    """Write a 3DGS .ply file atomically; every number is kept, and the flag is not."""
    write_ply(path, splats)


def _check_counts(path: Path, content: bytes) -> None:
    """Check the rows of a header against the size of the file: each takes a byte at least."""
    end = content.find(b"end_header", 0, MOST_HEADER)
    for name, count in COUNT.findall(content[: max(end, 0)]):
        if not count.isdigit() or int(count[:20]) > len(content):
            raise InputError(
                f"{path}: expected at most {len(content):,} rows in a file of as many bytes, got "
                f"element {name.decode('ascii', 'replace'):.40} "
                f"{count.decode('ascii', 'replace'):.40}"
            )
