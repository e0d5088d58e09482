"""The formats by name and by ending."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from splatrender.errors import InputError
from splatrender.formats import compressed_ply, glb, ply, sog, splat, spz
from splatrender.formats.stored import StoredSplats
from splatrender.model.splats import MAX_DEGREE, Splats


class Writer(Protocol):
    """Function that writes splats to a file."""

    def __call__(self, path: Path, splats: Splats, antialiased: bool = ...) -> None:
        """Write splats and, if the format has a place for it, the antialias flag."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: name of `--format`.
        ending: end of a file's name, lower case.
        read, write: functions of the format's module.
        begins: bytes that a file of this kind begins with, any of them; none if it has no mark.
        degree: highest degree of harmonics that is written.
        loss: what writing changes, in few words; empty if nothing.
        keeps_antialiased: whether the format has a place for the antialias flag.
    """

    name: str
    ending: str
    read: Callable[[Path], StoredSplats]
    write: Writer
    begins: tuple[bytes, ...] = ()
    degree: int = MAX_DEGREE
    loss: str = "quantised"
    keeps_antialiased: bool = False


_SPZ = (b"\x1f\x8b", b"NGSP")
FORMATS = {
    entry.name: entry
    for entry in (
        Format("compressed.ply", ".compressed.ply", ply.read, compressed_ply.write, (b"ply",)),
        Format("ply", ".ply", ply.read, ply.write, (b"ply",), loss=""),
        Format("splat", ".splat", splat.read, splat.write, degree=0),
        Format("spz", ".spz", spz.read, spz.write, _SPZ, keeps_antialiased=True),
        Format("spz2", ".spz", spz.read, spz.write_version_2, _SPZ, keeps_antialiased=True),
        Format("spz4", ".spz", spz.read, spz.write_version_4, _SPZ, keeps_antialiased=True),
        Format("sog", ".sog", sog.read, sog.write, (b"PK",), keeps_antialiased=True),
        Format("glb", ".glb", glb.read, glb.write, (b"glTF",), loss=""),
    )
}
"""Formats by name, in the order in which endings are tried."""


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that a file's name ends in; `meta.json` is an unpacked SOG.

    Raises:
        InputError: no format has this ending.
    """
    name = Path(path).name.lower()
    if name == "meta.json":
        return FORMATS["sog"]
    for entry in FORMATS.values():
        if name.endswith(entry.ending):
            return entry
    endings = ", ".join(dict.fromkeys(entry.ending for entry in FORMATS.values()))
    raise InputError(f"{path}: expected a name ending in {endings} or meta.json, got {name!r}")


def read_stored(path: str | os.PathLike[str]) -> StoredSplats:
    """Read a file in the format that its name ends in, with the antialias flag.

    Raises:
        InputError: the ending is unknown, the file is missing or damaged, or has no usable splat.
    """
    return format_of(path).read(Path(path))


def read_splats(path: str | os.PathLike[str]) -> Splats:
    """Read splats from a file in the format that its name ends in.

    Args:
        path: file to read: .ply, .compressed.ply, .splat, .spz, .sog, meta.json or .glb.

    Returns:
        Splats in the axes of .ply files, on the CPU.

    Raises:
        InputError: the ending is unknown, the file is missing or damaged, or has no usable splat.

    Example:
        >>> read_splats("biker.spz")  # doctest: +SKIP
        Splats(152,746 splats, degree 0, torch.float32, cpu)
    """
    return read_stored(path).splats


def write_splats(
    path: str | os.PathLike[str],
    splats: Splats,
    name: str | None = None,
    antialiased: bool = False,
) -> None:
    """Write splats to a file, atomically, in the format that its name ends in.

    Args:
        path: file to write.
        splats: splats in the axes of .ply files.
        name: name of another format, a key of `FORMATS`.
        antialiased: whether they were trained with antialiasing; kept where the format can.

    Raises:
        InputError: the format is unknown or cannot hold the splats, or the file cannot be made.

    Example:
        >>> write_splats("ten.spz", Splats.random(10))  # doctest: +SKIP
    """
    if name is not None and name not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    entry = format_of(path) if name is None else FORMATS[name]
    entry.write(Path(path), splats.with_degree(min(splats.degree, entry.degree)), antialiased)
