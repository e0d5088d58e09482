"""Conversion of splat files: a selection of the splats, a check of the target, and one line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from splatrender.errors import InputError
from splatrender.formats.registry import FORMATS, Format, format_of
from splatrender.formats.sog_reader import META
from splatrender.formats.splat import ROW
from splatrender.formats.stored import StoredSplats
from splatrender.model.splats import Splats


@dataclass(frozen=True)
class Selection:
    """The splats and harmonics that a conversion keeps.

    Attributes:
        sh_degree: highest degree of harmonics; None for all.
        max_splats: largest number of splats; None for all. Those of the largest opacity times the
            product of their two largest standard deviations are kept: the area that they can
            cover, times how much they cover it.
        crop: x0, y0, z0, x1, y1, z1 of a box that centres must be in, in the axes of .ply files.
    """

    sh_degree: int | None = None
    max_splats: int | None = None
    crop: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.crop is not None:
            low, high = self.crop[:3], self.crop[3:]
            if not all(a < b for a, b in zip(low, high, strict=True)):
                raise InputError(
                    f"crop: expected X0,Y0,Z0,X1,Y1,Z1 with X0 < X1, Y0 < Y1 and Z0 < Z1, got "
                    f"{','.join(f'{number:g}' for number in self.crop)}"
                )

    def apply(self, splats: Splats) -> tuple[Splats, list[str]]:
        """Return what is kept, in the same order, and in words what is not.

        Raises:
            InputError: the box is empty.
        """
        lost = []
        if self.crop is not None:
            box = torch.tensor(self.crop, dtype=torch.float64)
            means = splats.means.double()
            inside = ((means >= box[:3]) & (means <= box[3:])).all(dim=1)
            if not inside.any():
                raise InputError(
                    f"crop: expected a box with splats in it, got none of {len(splats):,}; they "
                    f"are between {_point(means.amin(dim=0))} and {_point(means.amax(dim=0))}"
                )
            lost += _left_out(len(splats), int(inside.sum()), "outside of the box")
            splats = splats.index(inside)
        if self.max_splats is not None and len(splats) > self.max_splats:
            largest = splats.log_scales.double().topk(2, dim=1).values.sum(dim=1).exp()
            worth = largest * splats.opacities
            kept = worth.topk(self.max_splats).indices.sort().values
            lost += _left_out(len(splats), len(kept), "of least opacity times area")
            splats = splats.index(kept)
        if self.sh_degree is not None and splats.degree > self.sh_degree:
            lost.append(f"harmonics above degree {self.sh_degree} cut")
            splats = splats.with_degree(self.sh_degree)
        return splats, lost


def convert(
    stored: StoredSplats, target: str | os.PathLike[str], name: str | None, selection: Selection
) -> str:
    """Write splats in another format.

    Args:
        stored: splats and their antialias flag.
        target: file to write; it may replace one of the same format.
        name: key of `FORMATS`; None for the format of the target's ending.
        selection: the part to keep.

    Returns:
        One line: file, splats, bytes, and what was lost.

    Raises:
        InputError: the format is unknown, another kind of file is in the way, or nothing is left.
    """
    path = Path(target)
    entry = format_of(path) if name is None else FORMATS[name]
    check_target(path, entry)
    splats, lost = selection.apply(stored.splats)
    if splats.degree > entry.degree:
        lost.append(f"harmonics above degree {entry.degree} cut")
        splats = splats.with_degree(entry.degree)
    if stored.antialiased and not entry.keeps_antialiased:
        lost.append("antialias flag dropped")
    if splats.dtype == torch.float64 and entry.name != "ply":
        lost.append("positions in float32")
    if entry.loss:
        lost.append(entry.loss)
    entry.write(path, splats, bool(stored.antialiased))
    size = sum(file.stat().st_size for file in _files_of(path))
    return f"{path}: {len(splats):,} splats, {size:,} bytes; lost: {', '.join(lost) or 'nothing'}"


def check_target(path: Path, entry: Format) -> None:
    """Check that a file is free, or of the format that is to replace it.

    Raises:
        InputError: another kind of file is in the way.
    """
    if path.name.lower() == META:
        others = [path.parent / name for name in _IMAGES]
        mine = _sog_meta(path) is not None if path.exists() else not any(o.exists() for o in others)
    elif not path.exists():
        return
    elif entry.begins:
        with open(path, "rb") if path.is_file() else open(os.devnull, "rb") as file:
            mine = file.read(4).startswith(entry.begins)
    else:
        mine = path.is_file() and path.stat().st_size % ROW.itemsize == 0
    if not mine:
        raise InputError(
            f"{path}: expected nothing, or a {entry.ending} file to replace, got another kind of "
            "file; choose another name"
        )


_IMAGES = tuple(
    f"{name}.webp"
    for name in ("means_l", "means_u", "scales", "quats", "sh0", "shN_centroids", "shN_labels")
)


def _sog_meta(path: Path) -> list[str] | None:
    """Return the names of the images of an unpacked SOG; None if it is none."""
    try:
        meta = json.loads(path.read_bytes())
        owners = [meta[name] for name in ("means", "scales", "quats", "sh0")]
        return [str(name) for owner in [*owners, meta.get("shN", {})] for name in owner["files"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _files_of(path: Path) -> list[Path]:
    """Return a file, and the images beside it if it is the meta.json of a SOG."""
    names = (_sog_meta(path) or []) if path.name.lower() == META else []
    return [path, *(path.parent / name for name in names)]


def _left_out(before: int, after: int, reason: str) -> list[str]:
    return [f"{before - after:,} of {before:,} splats {reason}"] if after < before else []


def _point(values: torch.Tensor) -> str:
    return ",".join(f"{number:.4g}" for number in values.tolist())
