"""SuperSplat's compressed .ply: 16 bytes a splat, in chunks of 256; see `model.compressed_ply`.

Splats are put in Morton order first, so that those of a chunk are neighbours and its ranges small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from splatrender.formats.ply import read
from splatrender.formats.quantise import smallest_three
from splatrender.formats.stored import writable
from splatrender.io.atomic import atomic_write
from splatrender.model.compressed_ply import CHUNK, SH_RANGE
from splatrender.model.ordering import morton_order
from splatrender.model.splats import SH_C0, Splats

__all__ = ["read", "write"]

AXES = ("x", "y", "z", "scale_x", "scale_y", "scale_z", "r", "g", "b")
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
MOST_LOG_SCALE = 20.0  # larger ones and those of flat splats are clamped, as the editor does


def write(path: Path, splats: Splats, antialiased: bool = False) -> None:
    """Write a compressed .ply file atomically; it has no place for the antialias flag.

    Raises:
        InputError: a splat is not finite, or the file cannot be made.
    """
    splats = writable(path, splats)
    splats = splats.index(morton_order(splats.means))
    count, chunks = len(splats), -(-len(splats) // CHUNK)
    color = 0.5 + SH_C0 * splats.sh[:, 0]
    scales = splats.log_scales.clamp(-MOST_LOG_SCALE, MOST_LOG_SCALE)
    ranged = torch.cat([splats.means, scales, color], dim=1).double().numpy()
    starts = np.arange(0, count, CHUNK)
    low = np.minimum.reduceat(ranged, starts).astype("<f4")
    high = np.maximum.reduceat(ranged, starts).astype("<f4")
    chunk = np.arange(count) // CHUNK
    size = (high - low).astype(np.float64)
    unit = (ranged - low[chunk]) / np.where(size > 0, size, 1)[chunk]
    alpha = splats.opacities.double().numpy()[:, None]
    words = np.empty((count, 4), dtype="<u4")
    words[:, 0] = _packed(unit[:, 0:3], (11, 10, 11))
    words[:, 1] = _packed_rotations(splats.quats.numpy())
    words[:, 2] = _packed(unit[:, 3:6], (11, 10, 11))
    words[:, 3] = _packed(np.concatenate([unit[:, 6:9], alpha], axis=1), (8, 8, 8, 8))
    ranges = [part[:, i : i + 3] for i in (0, 3, 6) for part in (low, high)]
    rest = _harmonic_codes(splats)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(_header(count, chunks, rest.shape[1]))
        for table in (np.concatenate(ranges, axis=1), words, rest):
            file.write(table.tobytes())


def _header(count: int, chunks: int, rest: int) -> bytes:
    """Return the header of a file of `count` splats with `rest` coefficients each."""
    ranges = [
        f"{end}_{name}" for i in (0, 3, 6) for end in ("min", "max") for name in AXES[i : i + 3]
    ]
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in ranges]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in PACKED)]
    if rest:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{i}" for i in range(rest))]
    return "\n".join([*lines, "end_header", ""]).encode()


def _packed(unit: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Return columns of [0, 1] in fields of 32-bit words, from the highest bit down."""
    words = np.zeros(len(unit), dtype=np.uint32)
    for column, width in zip(unit.T, bits, strict=True):
        top = (1 << width) - 1
        field = np.rint(column * top).clip(0, top).astype(np.uint32)
        words = (words << np.uint32(width)) | field
    return words


def _packed_rotations(quats: np.ndarray) -> np.ndarray:
    """Return words: 2 bits name the largest of w x y z, 10 bits for each of the others."""
    largest, others = smallest_three(quats)
    words = _packed(others / np.sqrt(2) + 0.5, (10, 10, 10))
    words |= largest.astype(np.uint32) << np.uint32(30)
    return words


def _harmonic_codes(splats: Splats) -> np.ndarray:
    """Return harmonics above degree 0 as bytes over [-4, 4], channel-major [N, 3(K-1)]."""
    rest = splats.sh[:, 1:].transpose(1, 2).reshape(len(splats), -1).double().numpy()
    codes: np.ndarray = np.floor((rest / (2 * SH_RANGE) + 0.5) * 256).clip(0, 255).astype(np.uint8)
    return codes
