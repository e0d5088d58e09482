"""Splats as .ply files in the layout of 3D Gaussian splatting, which every viewer reads.

One `vertex` element of float32 properties, little-endian:
    x y z                    mean, in the world of the cameras
    nx ny nz                 zero (a field of the first program; many writers leave it out)
    f_dc_0..2                sh[0]; the mean colour is 1/2 + 0.28209479 f_dc
    f_rest_0..3(K-1)-1       sh[1:], channel by channel: all of red, all of green, all of blue
    opacity                  logit
    scale_0..2               natural logarithm of the standard deviations
    rot_0..3                 quaternion wxyz, of any norm
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.ply_table import columns_of, harmonics, read_elements, rest_names, some
from splatrender.model.compressed_ply import is_compressed, unpack
from splatrender.model.splats import Splats

logger = logging.getLogger(__name__)

MEAN = ("x", "y", "z")
NORMAL = ("nx", "ny", "nz")
COLOR = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALE = ("scale_0", "scale_1", "scale_2")
ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")


def write_ply(path: str | os.PathLike[str], splats: Splats) -> None:
    """Write splats, already in world coordinates, as a 3DGS .ply file, atomically.

    Args:
        path: file to write.
        splats: N splats of any degree; the file gets 3(K-1) `f_rest` properties.

    Raises:
        InputError: the file cannot be made.

    Example:
        >>> write_ply("point_cloud.ply", Splats.random(10))  # doctest: +SKIP
    """
    from plyfile import PlyData, PlyElement  # GPL: used where it is called, nowhere else

    count, size = len(splats), splats.sh.shape[1]
    rest = tuple(f"f_rest_{i}" for i in range(3 * (size - 1)))
    names = (*MEAN, *NORMAL, *COLOR, *rest, "opacity", *SCALE, *ROTATION)
    columns = (
        splats.means,
        torch.zeros_like(splats.means),
        splats.sh[:, 0],
        splats.sh[:, 1:].transpose(1, 2).reshape(count, len(rest)),
        splats.opacity_logits[:, None],
        splats.log_scales,
        splats.quats,
    )
    table = torch.cat([column.detach().float().cpu() for column in columns], dim=1)
    rows = table.numpy().astype("<f4").view([(name, "<f4") for name in names])[:, 0]
    with atomic_write(path) as temporary:
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(temporary))


def read_ply(path: str | os.PathLike[str]) -> Splats:
    """Read splats from a 3DGS .ply file, plain or compressed (`.compressed.ply`).

    Properties are found by name, whatever their order and type; the degree of the harmonics
    follows from the number of `f_rest` properties. Splats with a number that is not finite, or
    with a quaternion of zeros, are left out, and a warning tells how many.

    Args:
        path: file to read.

    Returns:
        Splats in float32, in the file's coordinates.

    Raises:
        InputError: the file is missing, is not PLY, lacks a property, or has no usable splat.
    """
    path = Path(path)
    elements = read_elements(path)
    if is_compressed(elements):
        splats = unpack(path, elements)
    else:
        splats = _splats_from_vertices(path, elements)
    usable = splats.finite() & (splats.quats.abs().amax(dim=1) > 0)
    left_out = len(splats) - int(usable.sum())
    if left_out == len(splats):
        raise InputError(f"{path}: expected splats of finite numbers, found none")
    if left_out:
        logger.warning(
            "%s: left out %d of %d splats, which are not finite", path, left_out, len(splats)
        )
        splats = splats.index(usable)
    return splats


def _splats_from_vertices(path: Path, elements: dict[str, np.ndarray]) -> Splats:
    if "vertex" not in elements:
        raise InputError(f"{path}: expected an element 'vertex', found {some(elements)}")
    table = elements["vertex"]
    if len(table) == 0:
        raise InputError(f"{path}: expected at least one splat, found an empty file")
    return Splats(
        means=torch.from_numpy(columns_of(path, table, MEAN)),
        quats=torch.from_numpy(columns_of(path, table, ROTATION)),
        log_scales=torch.from_numpy(columns_of(path, table, SCALE)),
        opacity_logits=torch.from_numpy(columns_of(path, table, ("opacity",))[:, 0]),
        sh=harmonics(
            columns_of(path, table, COLOR), columns_of(path, table, rest_names(path, table))
        ),
    )
