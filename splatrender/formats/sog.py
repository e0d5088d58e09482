"""SOG files, version 2: each quantity as the pixels of a lossless WebP image, in a zip archive.

    meta.json           version, count, ranges, codebooks, names of the images
    means_l, means_u    low and high byte of sign(x) ln(1 + |x|), 16 bits over its range
    scales              indices of a codebook of ln s
    quats               three smaller components of w x y z, 255/2 (1 + √2 q); alpha: 252 + place of
                        the largest
    sh0                 indices of a codebook of sh[0]; alpha: opacity of 255
    shN_labels          row of the palette, low and high byte
    shN_centroids       palette of the other harmonics, 64 entries in a row of pixels, each pixel an
                        index of a codebook
The archive may be unpacked: meta.json beside its images. Version 1, which has ranges in place of
codebooks, is read. Splats are written in Morton order, in which images compress well. Axes are
those of .ply files.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from splatrender.formats.quantise import bytes_of_unit, codebook, codes_in, smallest_three
from splatrender.formats.sog_palette import palette_of
from splatrender.formats.sog_reader import MARK, META, PALETTE_WIDTH, STEPS, read
from splatrender.formats.stored import writable
from splatrender.io.atomic import atomic_write
from splatrender.io.json_files import json_text
from splatrender.model.ordering import morton_order
from splatrender.model.splats import Splats

__all__ = ["read", "write"]

EFFORT = 4  # of libwebp, 0 to 6


def write(path: Path, splats: Splats, antialiased: bool = False) -> None:
    """Write a .sog archive atomically, or, if the name is meta.json, the files beside it.

    Raises:
        InputError: a splat is not finite, or a file cannot be made.
    """
    splats = writable(path, splats)
    splats = splats.index(morton_order(splats.means))
    meta: dict[str, object] = {
        "version": 2,
        "asset": {"generator": "splatrender"},
        "count": len(splats),
        "antialias": antialiased,
    }
    images: dict[str, np.ndarray] = {}
    meta["means"] = _means(splats, images)
    meta["scales"] = _scales(splats, images)
    meta["quats"] = _quats(splats, images)
    meta["sh0"] = _base_colors(splats, images)
    if splats.degree > 0:
        meta["shN"] = _harmonics(splats, images)
    text = json_text(meta).encode()
    files = {name: _webp(image) for name, image in images.items()} | {META: text}
    if path.name.lower().endswith(".json"):
        for name, content in files.items():  # the one that names the others comes last
            with atomic_write(path if name == META else path.parent / name) as temporary:
                temporary.write_bytes(content)
        return
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def _means(splats: Splats, images: dict[str, np.ndarray]) -> dict[str, object]:
    """Make the images of the means; return their entry of meta.json."""
    means = splats.means.double().numpy()
    logs = np.sign(means) * np.log1p(np.abs(means))
    low, high = logs.min(axis=0), logs.max(axis=0)
    unit = (logs - low) / np.where(high > low, high - low, 1)
    codes = np.rint(unit * STEPS).astype(np.uint16)
    images["means_l.webp"] = _pixels((codes & 255).astype(np.uint8))
    images["means_u.webp"] = _pixels((codes >> 8).astype(np.uint8))
    return {
        "mins": low.tolist(),
        "maxs": high.tolist(),
        "files": ["means_l.webp", "means_u.webp"],
    }


def _scales(splats: Splats, images: dict[str, np.ndarray]) -> dict[str, object]:
    """Make the image of the scales; flat splats get the smallest finite scale of a float32."""
    values = splats.log_scales.clamp(min=-87.0).numpy()
    book = codebook(values)
    images["scales.webp"] = _pixels(codes_in(book, values))
    return {"codebook": book.tolist(), "files": ["scales.webp"]}


def _quats(splats: Splats, images: dict[str, np.ndarray]) -> dict[str, object]:
    """Make the image of the rotations."""
    largest, others = smallest_three(splats.quats.numpy())
    codes = np.rint(127.5 * (1 + np.sqrt(2) * others)).clip(0, 255)
    pixels = np.concatenate([codes, MARK + largest[:, None]], axis=1).astype(np.uint8)
    images["quats.webp"] = _pixels(pixels)
    return {"files": ["quats.webp"]}


def _base_colors(splats: Splats, images: dict[str, np.ndarray]) -> dict[str, object]:
    """Make the image of the mean colours and opacities."""
    values = splats.sh[:, 0].float().numpy()
    book = codebook(values)
    alpha = bytes_of_unit(splats.opacities)[:, None]
    images["sh0.webp"] = _pixels(np.concatenate([codes_in(book, values), alpha], axis=1))
    return {"codebook": book.tolist(), "files": ["sh0.webp"]}


def _harmonics(splats: Splats, images: dict[str, np.ndarray]) -> dict[str, object]:
    """Make the images of the palette of harmonics and of its labels."""
    size = splats.sh.shape[1] - 1
    palette, labels = palette_of(splats.sh[:, 1:].float().flatten(1))
    book = codebook(palette.numpy())
    rows = -(-len(palette) // PALETTE_WIDTH)
    codes = np.zeros((rows * PALETTE_WIDTH, size, 3), dtype=np.uint8)
    codes[: len(palette)] = codes_in(book, palette.numpy()).reshape(-1, size, 3)
    image = np.full((rows, PALETTE_WIDTH * size, 4), 255, dtype=np.uint8)
    image[..., :3] = codes.reshape(rows, PALETTE_WIDTH * size, 3)
    images["shN_centroids.webp"] = image
    pairs = torch.stack([labels & 255, labels >> 8, torch.zeros_like(labels)], dim=1)
    images["shN_labels.webp"] = _pixels(pairs.to(torch.uint8).numpy())
    return {
        "count": len(palette),
        "bands": splats.degree,
        "codebook": book.tolist(),
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }


def _pixels(columns: np.ndarray) -> np.ndarray:
    """Return rows [N, 3 or 4] as an image [H, W, 4] of sides that are multiples of 4."""
    count = len(columns)
    width = 4 * max(1, -(-int(np.ceil(np.sqrt(count))) // 4))
    height = 4 * -(-count // (4 * width))
    image = np.full((height * width, 4), 255, dtype=np.uint8)
    image[:count, : columns.shape[1]] = columns
    return image.reshape(height, width, 4)


def _webp(image: np.ndarray) -> bytes:
    """Return a lossless WebP image, colours under alpha 0 included."""
    stream = io.BytesIO()
    Image.fromarray(image, "RGBA").save(
        stream, format="WEBP", lossless=True, exact=True, quality=75, method=EFFORT
    )
    return stream.getvalue()
