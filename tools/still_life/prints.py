"""Procedural pictures that hang, lie or stand in the scene: maps, prints, spines, the garden."""

from __future__ import annotations

import numpy as np

from tools.still_life.lettering import text_mask
from tools.still_life.noise import Array, grid, mix, noise, ramp, step
from tools.still_life.textures import Shape, book_spine

TITLES = (
    "LIGHT AND SHADE", "A FIELD GUIDE", "THE ORCHARD", "OPTICS", "NORTH WIND", "HERBAL", "ATLAS II",
    "SEA CHARTS", "ON COLOUR", "TEA & SPICE", "VOYAGES", "GARDENS", "STILL WATER", "THE POTTER",
    "MOSSES", "GEOMETRY", "LETTERS", "WINTER", "THE LATHE", "CLOUDS", "RIVERS", "A SMALL HOUSE",
    "ETCHING", "BIRDS",
)  # fmt: skip


def chart(shape: Shape, seed: int, cells: tuple[int, int], title: str = "") -> Array:
    """Map with coast lines, height tints, a graticule and, with a title, a cartouche."""
    u, v = grid(shape)
    land = noise(shape, seed, 2.1) + 0.25
    height = np.clip(land, -1.5, 2.2)
    color = ramp(height, [
        (-1.5, (0.42, 0.60, 0.68)), (-0.05, (0.66, 0.79, 0.78)), (0.02, (0.80, 0.80, 0.60)),
        (0.7, (0.72, 0.72, 0.46)), (1.4, (0.72, 0.56, 0.36)), (2.2, (0.55, 0.40, 0.28)),
    ])  # fmt: skip
    slope = np.hypot(*np.gradient(land)) + 1e-9
    coast = step(-np.abs(land) / slope, -1.6, -0.7)
    level = (land * 3 + 0.5) % 1 - 0.5
    contour = 0.35 * step(-np.abs(level) / (3 * slope), -1.0, -0.3) * (land > 0)
    color = mix(color, (0.30, 0.24, 0.18), np.maximum(0.85 * coast, contour))
    river = step(-np.abs(noise(shape, seed + 1, 2.2)) / slope, -1.0, -0.4) * (land > 0.1)
    color = mix(color, (0.30, 0.45, 0.60), 0.6 * river)
    gu = np.abs(u * cells[1] - np.rint(u * cells[1])) * shape[1] / cells[1]
    gv = np.abs(v * cells[0] - np.rint(v * cells[0])) * shape[0] / cells[0]
    color = mix(color, (0.35, 0.32, 0.28), 0.45 * step(-np.minimum(gu, gv), -1.2, -0.5))
    if title:
        edge = np.minimum(np.minimum(u, 1 - u) * shape[1], np.minimum(v, 1 - v) * shape[0]) / min(
            shape
        )
        box = (np.abs(u - 0.76) < 0.17) & (np.abs(v - 0.16) < 0.08)
        color = np.where(box[..., None], [0.90, 0.86, 0.74], color)
        ink = text_mask(shape, [(title, 0.76, 0.86, 0.045), ("1 - 50 000", 0.76, 0.91, 0.025)])
        color = np.where((edge < 0.05)[..., None], [0.90, 0.86, 0.75], color)
        ink = np.maximum(ink, step(-np.abs(edge - 0.05), -0.006, -0.003))
        color = mix(color, (0.25, 0.20, 0.16), ink)
        fold = np.minimum(
            np.abs(u - 1 / 3), np.minimum(np.abs(u - 2 / 3), np.abs(v - 0.5) * shape[0] / shape[1])
        )
        color = color * (1 - 0.10 * step(-fold, -0.004, -0.001))[..., None]
    return np.clip(color * (1 + 0.02 * noise(shape, seed + 2, 1.2))[..., None], 0, 1)


def _matted(
    picture: Array, mat: float, paper: tuple[float, float, float] = (0.89, 0.87, 0.81)
) -> Array:
    """Put the picture behind a bevelled mat of `mat` times its short side."""
    h, w = picture.shape[:2]
    u, v = grid((h, w))
    edge = np.minimum(np.minimum(u, 1 - u) * w, np.minimum(v, 1 - v) * h) / min(h, w)
    color = np.where((edge < mat)[..., None], paper, picture)
    return mix(color, (0.55, 0.52, 0.47), step(-np.abs(edge - mat), -0.008, -0.004))


def landscape(shape: Shape, seed: int) -> Array:
    """Hills fading into a pale evening sky."""
    _, v = grid(shape)
    color = ramp(
        v, [(0.35, (0.93, 0.80, 0.62)), (0.7, (0.72, 0.78, 0.82)), (1.0, (0.45, 0.60, 0.74))]
    )
    cloud = step(noise(shape, seed, 1.7, stretch=(1, 3)), 0.3, 1.8) * step(v, 0.5, 0.8)
    color = mix(color, (0.97, 0.93, 0.86), 0.75 * cloud)
    for k, tint in enumerate(
        [(0.62, 0.68, 0.72), (0.46, 0.56, 0.54), (0.36, 0.46, 0.32), (0.28, 0.33, 0.18)]
    ):
        ridge = noise((1, shape[1]), seed + 10 + k, 1.5 + 0.1 * k)[0]
        top = 0.56 - 0.11 * k + 0.05 * ridge
        body = (
            np.asarray(tint)
            * (1 + 0.12 * noise(shape, seed + 20 + k, 1.0, stretch=(1, 3)))[..., None]
        )
        color = mix(color, body, step(top - v, -0.003, 0.003))
    return np.clip(_matted(np.clip(color, 0, 1), 0.12), 0, 1)


def shapes(shape: Shape, seed: int) -> Array:
    """Abstract print: overlapping discs and bars on paper."""
    u, v = grid(shape)
    rng = np.random.default_rng(seed)
    color = np.broadcast_to(np.array([0.90, 0.85, 0.74]), (*shape, 3))
    palette = [
        (0.78, 0.34, 0.20),
        (0.16, 0.30, 0.42),
        (0.86, 0.66, 0.26),
        (0.34, 0.47, 0.38),
        (0.14, 0.14, 0.16),
    ]
    x, y = u * shape[1] / shape[0], v
    for k in range(9):
        cx, cy = rng.uniform(0.15, 0.85, 2) * (shape[1] / shape[0], 1)
        r = rng.uniform(0.08, 0.24)
        if k % 3 == 2:
            angle = rng.uniform(0, np.pi)
            a = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            b = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
            inside = step(0.02 - np.abs(b), -0.002, 0.002) * step(0.4 - np.abs(a), -0.002, 0.002)
        else:
            inside = step(r - np.hypot(x - cx, y - cy), -0.002, 0.002)
        color = mix(color, palette[k % 5], 0.86 * inside)
    return np.clip(_matted(color * (1 + 0.04 * noise(shape, seed, 0.8))[..., None], 0.1), 0, 1)


def botanical(shape: Shape, seed: int) -> Array:
    """Plate of a fern-like plant with a caption."""
    u, v = grid(shape)
    x, y = (u - 0.5) * shape[1] / shape[0], v
    color = (
        np.broadcast_to(np.array([0.91, 0.88, 0.78]), (*shape, 3))
        * (1 + 0.02 * noise(shape, seed, 1.4))[..., None]
    )
    stem = 0.03 * np.sin(4 * y)
    ink = step(-np.abs(x - stem), -0.007, -0.004) * (y > 0.2) * (y < 0.86)
    leaves = np.zeros(shape)
    for k in range(13):
        base, side = 0.27 + 0.045 * k, 1 if k % 2 else -1
        length = 0.20 * (1 - k / 16)
        dx, dy = x - 0.03 * np.sin(4 * base), y - base
        a = (side * dx * 0.85 + dy * 0.53) / length
        b = (-side * dx * 0.53 + dy * 0.85) / length
        inside = step(0.16 * np.sin(np.pi * np.clip(a, 0, 1)) - np.abs(b), 0, 0.02)
        leaves = np.maximum(leaves, inside * (0.75 + 0.25 * step(np.abs(b), 0.008, 0.02)))
    color = mix(color, (0.30, 0.42, 0.24), np.maximum(leaves, ink))
    color = mix(color, (0.25, 0.22, 0.18), text_mask(shape, [("FILIX MINOR", 0.5, 0.885, 0.035)]))
    return np.clip(_matted(color, 0.06, (0.80, 0.80, 0.74)), 0, 1)


def garden(shape: Shape, seed: int) -> Array:
    """Out-of-focus trees and sky, as seen through a window."""
    _, v = grid(shape)
    color = ramp(
        v,
        [
            (0.0, (0.40, 0.50, 0.30)),
            (0.3, (0.58, 0.66, 0.44)),
            (0.5, (0.80, 0.86, 0.88)),
            (1.0, (0.58, 0.74, 0.90)),
        ],
    )
    crown = (
        0.42
        + 0.07 * noise((1, shape[1]), seed, 1.2, high=5)[0]
        + 0.06 * noise(shape, seed + 1, 1.8, high=24)
    )
    tree = mix(
        (0.32, 0.44, 0.24),
        (0.60, 0.70, 0.42),
        step(noise(shape, seed + 2, 1.3, high=40), -1.5, 1.8),
    )
    return np.clip(mix(color, tree, step(crown - v, -0.04, 0.04)), 0, 1)


def spine_atlas(cell: Shape, columns: int, seed: int) -> Array:
    """`columns` upright book spines side by side, for the shelves."""
    rng = np.random.default_rng(seed)
    strips = []
    for k in range(columns):
        hue, value = rng.uniform(0, 1), rng.uniform(0.22, 0.62)
        cloth = value * (
            1 + rng.uniform(0.1, 0.36) * np.cos(2 * np.pi * (hue - np.array([0, 0.33, 0.6])))
        )
        foil = (0.86, 0.76, 0.48) if value < 0.5 else (0.16, 0.13, 0.11)
        strip = book_spine(
            (cell[1], cell[0]), seed + k, np.clip(cloth, 0.1, 0.85), foil, TITLES[k % len(TITLES)]
        )
        strips.append(np.rot90(strip, k=-1))
    return np.concatenate(strips, axis=1)
