"""Splats as .ply files in the layout of 3D Gaussian splatting, which every viewer reads.

One `vertex` element of float32 properties, little-endian:
    x y z                    mean, in the world of the cameras, less the offset if there is one
    nx ny nz                 zero (a field of the first program; many writers leave it out)
    f_dc_0..2                sh[0]; the mean colour is 1/2 + 0.28209479 f_dc
    f_rest_0..3(K-1)-1       sh[1:], channel by channel: all of red, all of green, all of blue
    opacity                  logit; inf is opaque
    scale_0..2               natural logarithm of the standard deviations; -inf is flat
    rot_0..3                 quaternion wxyz, of any norm

float32 has steps of 0.5 at 5,000,000, which is a usual northing [m]: splats of a georeferenced
scene would be moved by more than their size. Viewers read float32 only, so positions far from the
origin are relative to an offset that a line of the header keeps:
    comment offset 500000.0 5400000.0 300.0 (world = x y z + offset)
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.ply_table import (
    columns_of,
    harmonics,
    read_table,
    rest_names,
    some,
    write_vertices,
)
from splatrender.model.compressed_ply import is_compressed, unpack
from splatrender.model.splats import Splats

logger = logging.getLogger(__name__)

MEAN = ("x", "y", "z")
NORMAL = ("nx", "ny", "nz")
COLOR = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALE = ("scale_0", "scale_1", "scale_2")
ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
ROUNDING = 0.01  # of a splat's size: a shift by less is not seen


def write_ply(path: str | os.PathLike[str], splats: Splats, offset: Tensor | None = None) -> None:
    """Write splats, already in world coordinates, as a 3DGS .ply file, atomically.

    Args:
        path: file to write.
        splats: N splats of any degree; the file gets 3(K-1) `f_rest` properties.
        offset: [3] point of the world that positions in the file are relative to. None: one is
            chosen if the splats are float64 and float32 would move them (`offset_for`).

    Raises:
        InputError: the file cannot be made.

    Example:
        >>> write_ply("point_cloud.ply", Splats.random(10))  # doctest: +SKIP
    """
    count, size = len(splats), splats.sh.shape[1]
    rest = tuple(f"f_rest_{i}" for i in range(3 * (size - 1)))
    names = (*MEAN, *NORMAL, *COLOR, *rest, "opacity", *SCALE, *ROTATION)
    means, comments = splats.means.detach().cpu(), []
    if offset is None and splats.dtype == torch.float64:
        offset = _offset_of(splats)
    if offset is not None:
        offset = offset.detach().double().cpu()
        means = means.double() - offset
        numbers = " ".join(repr(number) for number in offset.tolist())
        comments = [f"offset {numbers} (world = x y z + offset)"]
    columns = (
        means,
        torch.zeros_like(means),
        splats.sh[:, 0],
        splats.sh[:, 1:].transpose(1, 2).reshape(count, len(rest)),
        splats.opacity_logits[:, None],
        splats.log_scales,
        splats.quats,
    )
    table = torch.cat([column.detach().float().cpu() for column in columns], dim=1)
    rows = table.numpy().astype("<f4").view([(name, "<f4") for name in names])[:, 0]
    write_vertices(path, rows, comments)


def read_ply(path: str | os.PathLike[str]) -> Splats:
    """Read splats from a 3DGS .ply file, plain or compressed (`.compressed.ply`).

    Properties are found by name, whatever their order and type; the degree of the harmonics
    follows from the number of `f_rest` properties. Opaque splats (opacity inf) and flat ones
    (scale -inf) are read as they are. Splats with NaN or another infinite number, or with a
    quaternion of zeros, are left out, and so are invisible ones (opacity -inf); a warning gives
    their number.

    Args:
        path: file to read.

    Returns:
        Splats in the file's world. float32; float64 if positions are doubles that float32 does
        not hold, or relative to an offset.

    Raises:
        InputError: the file is missing, is not PLY, lacks a property, or has no usable splat.
    """
    path = Path(path)
    file = read_table(path)
    if is_compressed(file.elements):
        splats = unpack(path, file.elements)
    else:
        splats = _splats_from_vertices(path, file.elements)
    splats = usable_splats(path, splats)
    offset = _written_offset(path, file.comments)
    if offset is not None:
        splats = splats.to(torch.float64)
        return replace(splats, means=splats.means + offset)
    if splats.dtype == torch.float32:
        _warn_of_rounding(path, splats)
    return splats


def offset_for(center: Tensor, extent: float, size: float) -> Tensor | None:
    """Choose an offset for positions that float32 does not keep.

    float32 rounds x by up to 2^-24 |x|. An offset is needed where that is more than a hundredth
    of a splat's size.

    Args:
        center: float64 [3] place that the positions are around.
        extent: distance from it [length]; the offset is rounded to a power of ten above it.
        size: size of a typical splat [length].

    Returns:
        float64 [3], or None where float32 serves.

    Example:
        >>> offset_for(torch.tensor([500003.2, 5400001.7, 12.0]), 8.0, 0.01).tolist()
        [500000.0, 5400000.0, 10.0]
        >>> offset_for(torch.tensor([3.2, 1.7, 12.0]), 8.0, 0.01) is None
        True
    """
    center = center.detach().double().cpu()
    rounding = float(center.abs().max()) * 2.0**-24
    if not 0 < ROUNDING * size < rounding:
        return None
    digits = -math.ceil(math.log10(max(extent, size, 1e-300)))
    rounded = [round(number, digits) for number in center.tolist()]
    return torch.tensor(rounded, dtype=torch.float64)


def _offset_of(splats: Splats, slack: float = 1.0) -> Tensor | None:
    """Return the offset that splats need around their median place, if they move by `slack`."""
    splats = splats.detach().index(splats.means.isfinite().all(dim=1))
    if len(splats) == 0:
        return None
    center = splats.means.median(dim=0).values
    extent = (splats.means - center).norm(dim=1).median()
    size = float(splats.log_scales.amax(dim=1).median().exp())
    return offset_for(center, float(extent), slack * size)


def _written_offset(path: Path, comments: list[str]) -> Tensor | None:
    """Return the offset that a header names, float64 [3]."""
    lines = [line for line in comments if line.split()[:1] == ["offset"]]
    if not lines:
        return None
    try:
        offset = torch.tensor([float(word) for word in lines[0].split()[1:4]], dtype=torch.float64)
    except ValueError:
        offset = torch.empty(0)
    if offset.shape != (3,) or not bool(offset.isfinite().all()):
        raise InputError(
            f"{path}: expected 'comment offset X Y Z' with three numbers, "
            f"got 'comment {lines[0]:.80}'"
        )
    return offset


def usable_splats(path: Path, splats: Splats) -> Splats:
    """Leave out splats that no image can show, with a warning.

    Args:
        path: file that they are from, for messages.
        splats: splats as read.

    Returns:
        Those of finite numbers, quaternions that are not zero, and opacities above 0.

    Raises:
        InputError: there is none.
    """
    broken = ~splats.finite() | (splats.quats.abs().amax(dim=1) == 0)
    invisible = ~broken & (splats.opacity_logits == -torch.inf)
    usable = ~(broken | invisible)
    if not usable.any():
        found = f"{int(broken.sum())} that are not finite, {int(invisible.sum())} of opacity 0"
        raise InputError(f"{path}: expected splats of finite numbers, got {found}")
    for mask, reason in ((broken, "not finite"), (invisible, "invisible (opacity 0)")):
        if mask.any():
            logger.warning(
                "%s: left out %d of %d splats, which are %s",
                path, int(mask.sum()), len(splats), reason,
            )  # fmt: skip
    return splats if usable.all() else splats.index(usable)


def _warn_of_rounding(path: Path, splats: Splats) -> None:
    """Report positions that lost their digits before they came into the file."""
    offset = _offset_of(splats, slack=10)  # from a tenth of a splat on it may be seen
    if offset is not None:
        largest = float(splats.means.abs().max())
        step = float(np.spacing(np.float32(offset.abs().max())))
        logger.warning(
            "%s: positions are float32 up to %.4g, where steps are %.2g, more than splats of this "
            "size bear; write them as doubles, or relative to an offset",
            path, largest, step,
        )  # fmt: skip


def _splats_from_vertices(path: Path, elements: dict[str, np.ndarray]) -> Splats:
    if "vertex" not in elements:
        raise InputError(f"{path}: expected an element 'vertex', got {some(elements)}")
    table = elements["vertex"]
    if len(table) == 0:
        raise InputError(f"{path}: expected at least one splat, got an empty file")
    _refuse_flat_layout(path, table)
    means = torch.from_numpy(columns_of(path, table, MEAN, np.float64))
    splats = Splats(
        means=means.float(),
        quats=torch.from_numpy(columns_of(path, table, ROTATION)),
        log_scales=torch.from_numpy(columns_of(path, table, SCALE)),
        opacity_logits=torch.from_numpy(columns_of(path, table, ("opacity",))[:, 0]),
        sh=harmonics(
            columns_of(path, table, COLOR), columns_of(path, table, rest_names(path, table))
        ),
    )
    if bool(((splats.means == means) | means.isnan()).all()):
        return splats
    return replace(splats.to(torch.float64), means=means)


def _refuse_flat_layout(path: Path, table: np.ndarray) -> None:
    """Name files of 2D Gaussian splatting, whose discs have two scales."""
    names = table.dtype.names or ()
    if "scale_2" not in names and {"scale_0", "scale_1", "rot_0"} <= set(names):
        raise InputError(
            f"{path}: expected 3D Gaussian splats with scale_0, scale_1 and scale_2, got the "
            "flat discs of 2D Gaussian splatting (2DGS, no scale_2), which are not read; train "
            "the scene here, or add a property scale_2 of -20 to see the discs as thin splats"
        )
