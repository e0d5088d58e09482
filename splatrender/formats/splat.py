"""The .splat files of the first web viewers: 32 bytes a splat, no header, degree 0.

    float32 x y z                     mean
    float32 sx sy sz                  standard deviations
    uint8 r g b a                     colour and opacity, of 255
    uint8 w x y z                     unit quaternion, 128 + 128 q

Viewers that draw while they load expect large and opaque splats first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.formats.quantise import bytes_of_unit, logits_of_bytes
from splatrender.formats.stored import StoredSplats, read_content, writable
from splatrender.io.atomic import atomic_write
from splatrender.model.ply import usable_splats
from splatrender.model.splats import SH_C0, Splats

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def read(path: Path) -> StoredSplats:
    """Read a .splat file; it has no place for the antialias flag.

    Raises:
        InputError: the file is missing, is not made of rows of 32 bytes, or has no usable splat.
    """
    content = read_content(path, ".splat")
    if not content or len(content) % ROW.itemsize:
        raise InputError(
            f"{path}: expected rows of {ROW.itemsize} bytes as in .splat files, got "
            f"{len(content):,} bytes"
        )
    rows = np.frombuffer(content, ROW)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_scales = np.log(rows["scale"])  # NaN of negative ones, which are then left out
    quats = (rows["quat"].astype(np.float32) - 128) / 128
    splats = Splats(
        means=torch.from_numpy(rows["mean"].astype(np.float32)),
        quats=torch.from_numpy(quats),
        log_scales=torch.from_numpy(log_scales.astype(np.float32)),
        opacity_logits=logits_of_bytes(rows["rgba"][:, 3]),
        sh=(torch.from_numpy(rows["rgba"][:, :3].astype(np.float32)) / 255 - 0.5)[:, None] / SH_C0,
    )
    return StoredSplats(usable_splats(path, splats))


def write(path: Path, splats: Splats, antialiased: bool = False) -> None:
    """Write a .splat file atomically, of degree 0, large and opaque splats first.

    Raises:
        InputError: a splat is not finite, or the file cannot be made.
    """
    splats = writable(path, splats)
    weight = splats.log_scales.double().sum(dim=1).exp() * splats.opacities
    splats = splats.index(weight.argsort(descending=True, stable=True))
    rows = np.zeros(len(splats), ROW)
    rows["mean"] = splats.means.numpy()
    rows["scale"] = splats.scales.numpy()
    rows["rgba"][:, :3] = bytes_of_unit(0.5 + SH_C0 * splats.sh[:, 0])
    rows["rgba"][:, 3] = bytes_of_unit(splats.opacities)
    codes = (splats.quats.double() * 128 + 128).round().clamp(0, 255)
    rows["quat"] = codes.to(torch.uint8).numpy()
    with atomic_write(path) as temporary:
        temporary.write_bytes(rows.tobytes())
