"""Splats packed into 16 bytes each: the 'compressed PLY' of the SuperSplat editor.

Splats come in chunks of 256. A chunk has the range of each quantity; a splat has four 32-bit words:
    packed_position   x y z as 11, 10, 11 bits within the chunk's range
    packed_rotation   2 bits name the largest of w x y z, 10 bits for each of the others
    packed_scale      natural logarithms of the scales, as the position
    packed_color      red, green, blue (in the chunk's range, if it has one), opacity; 8 bits each
An element `sh` may hold the other harmonics as bytes over [-4, 4].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.io.ply_table import columns_of, harmonics, rest_names
from splatrender.model.splats import SH_C0, Splats

CHUNK = 256
SH_RANGE = 4.0


def is_compressed(elements: dict[str, np.ndarray]) -> bool:
    """Return true if the elements of a PLY file are those of a compressed one."""
    vertices = elements.get("vertex")
    names = () if vertices is None else vertices.dtype.names or ()
    return "chunk" in elements and "packed_position" in names


def unpack(path: Path, elements: dict[str, np.ndarray]) -> Splats:
    """Return splats from the elements of a compressed PLY file.

    Args:
        path: the file, for messages.
        elements: structured arrays `chunk` [ceil(N / 256)], `vertex` [N] and perhaps `sh` [N].

    Returns:
        N splats in float32.

    Raises:
        InputError: a property or a chunk is missing.
    """
    chunks, vertices = elements["chunk"], elements["vertex"]
    count = len(vertices)
    if count == 0:
        raise InputError(f"{path}: expected at least one splat, got an empty file")
    if len(chunks) * CHUNK < count:
        raise InputError(
            f"{path}: expected {-(-count // CHUNK)} chunks for {count} splats, got {len(chunks)}"
        )

    def words(name: str) -> np.ndarray:
        if name not in (vertices.dtype.names or ()):
            raise InputError(f"{path}: expected a property {name!r} of compressed splats")
        return vertices[name].astype(np.uint32)

    def within(unit: np.ndarray, names: tuple[str, str, str]) -> np.ndarray:
        """Map [0, 1] to the range of the chunk."""
        low = columns_of(path, chunks, tuple(f"min_{name}" for name in names))
        high = columns_of(path, chunks, tuple(f"max_{name}" for name in names))
        chunk = np.arange(count) // CHUNK
        quantity: np.ndarray = low[chunk] + unit * (high - low)[chunk]
        return quantity

    color = _fields(words("packed_color"), (8, 8, 8, 8))
    rgb, alpha = color[:, :3], color[:, 3]
    if "min_r" in (chunks.dtype.names or ()):
        rgb = within(rgb, ("r", "g", "b"))
    alpha = alpha.clip(0.5 / 255, 1 - 0.5 / 255)  # a logit has no 0 and no 1
    return Splats(
        means=torch.from_numpy(
            within(_fields(words("packed_position"), (11, 10, 11)), ("x", "y", "z"))
        ),
        quats=torch.from_numpy(_rotations(words("packed_rotation"))),
        log_scales=torch.from_numpy(
            within(_fields(words("packed_scale"), (11, 10, 11)), ("scale_x", "scale_y", "scale_z"))
        ),
        opacity_logits=torch.from_numpy(np.log(alpha / (1 - alpha))),
        sh=harmonics((rgb - 0.5) / np.float32(SH_C0), _rest(path, elements, count)),
    )


def _fields(words: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Return unsigned fields of words, highest bits first, as float32 [N, F] in [0, 1]."""
    result = np.empty((len(words), len(bits)), dtype=np.float32)
    shift = 32
    for i, width in enumerate(bits):
        shift -= width
        top = (1 << width) - 1
        result[:, i] = ((words >> np.uint32(shift)) & np.uint32(top)) / np.float32(top)
    return result


def _rotations(words: np.ndarray) -> np.ndarray:
    """Return unit quaternions wxyz [N, 4] from three components and the place of the largest."""
    largest = (words >> np.uint32(30)).astype(np.int64)
    shift = np.array([20, 10, 0], dtype=np.uint32)
    others = ((words[:, None] >> shift) & np.uint32(1023)) / np.float32(1023)
    others = (others - np.float32(0.5)) * np.float32(np.sqrt(2))
    quats = np.empty((len(words), 4), dtype=np.float32)
    place = np.arange(4)[None] != largest[:, None]
    quats[place] = others.reshape(-1)
    left = 1 - np.square(others).sum(axis=1)
    quats[~place] = np.sqrt(left.clip(0, 1))
    return quats


def _rest(path: Path, elements: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Return the harmonics above degree 0, channel-major float32 [N, 3(K-1)]."""
    if "sh" not in elements:
        return np.zeros((count, 0), dtype=np.float32)
    table = elements["sh"]
    if len(table) != count:
        raise InputError(f"{path}: expected {count} rows of harmonics, got {len(table)}")
    codes = columns_of(path, table, rest_names(path, table))
    unit = np.where(codes == 0, 0, np.where(codes == 255, 1, (codes + 0.5) / 256))
    return ((unit - 0.5) * 2 * SH_RANGE).astype(np.float32)
