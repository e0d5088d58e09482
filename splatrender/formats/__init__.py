"""Splats in the files of other tools: a module for each format, with `read` and `write`.

`read_splats` and `write_splats` choose the module by the name of the file.
"""

from splatrender.formats.registry import (
    FORMATS,
    Format,
    format_of,
    read_splats,
    read_stored,
    write_splats,
)
from splatrender.formats.stored import StoredSplats

__all__ = [
    "FORMATS",
    "Format",
    "StoredSplats",
    "format_of",
    "read_splats",
    "read_stored",
    "write_splats",
]
