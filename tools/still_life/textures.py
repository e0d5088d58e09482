"""Procedural materials: every function returns an sRGB picture [H, W, 3] with values in 0..1.

Row 0 is the top of the picture (v = 1 on a mesh).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tools.still_life.lettering import text_mask
from tools.still_life.noise import Array, grid, mix, noise, step

Shape = tuple[int, int]
Color = Sequence[float] | Array


def wood(shape: Shape, seed: int, dark: Color, light: Color, planks: int = 1) -> Array:
    """Boards along u with rings, fibres and thin joints."""
    u, v = grid(shape)
    rng = np.random.default_rng(seed)
    board = np.minimum((v * planks).astype(int), planks - 1)
    across = v * planks - board
    offset = rng.uniform(0, 10, planks)[board]
    bend = noise(shape, seed + 1, 2.2, stretch=(1, 7)) * 0.35
    rings = 0.5 + 0.5 * np.sin(
        2 * np.pi * (4.5 * across + offset + bend + 0.8 * np.sin(2 * u + offset))
    )
    fibre = noise(shape, seed + 2, 0.8, stretch=(1, 30), low=20)
    cloud = noise(shape, seed + 3, 1.6, stretch=(1, 4))
    tone = 0.46 + 0.26 * (rings**1.5 - 0.4) + 0.085 * fibre + 0.07 * cloud
    tone = tone + rng.uniform(-0.1, 0.1, planks)[board]
    color = mix(dark, light, np.clip(tone, 0, 1))
    if planks > 1:
        joint = np.minimum(across, 1 - across) * shape[0] / planks
        color = color * (0.45 + 0.55 * step(joint, 0.4, 2.2))[..., None]
    return np.clip(color, 0, 1)


def parquet(
    shape: Shape,
    seed: int,
    rows: int = 16,
    dark: Color = (0.36, 0.22, 0.12),
    light: Color = (0.72, 0.53, 0.34),
) -> Array:
    """Floor strips of random lengths and tones."""
    u, v = grid(shape)
    rng = np.random.default_rng(seed)
    row = np.minimum((v * rows).astype(int), rows - 1)
    along = u * 4 + rng.uniform(0, 1, rows)[row]
    strip = np.floor(along).astype(int)
    tone = rng.uniform(0.3, 0.75, (rows, 6))[row, strip]
    tone = tone + 0.08 * noise(shape, seed + 1, 0.9, stretch=(1, 20), low=12)
    tone = tone + 0.06 * noise(shape, seed + 2, 1.8, stretch=(1, 4))
    gap_v = np.abs(v * rows - np.rint(v * rows)) * shape[0] / rows
    gap_u = np.abs(along - np.rint(along)) * shape[1] / 4
    seam = 0.5 + 0.5 * step(np.minimum(gap_v, gap_u), 0.3, 1.6)
    return np.clip(mix(dark, light, np.clip(tone, 0, 1)) * seam[..., None], 0, 1)


def woven(
    shape: Shape,
    seed: int,
    base: Color,
    stripes: Sequence[tuple[float, float, Color]],
    threads: Shape,
) -> Array:
    """Plain weave; `stripes` are (u from, u to, colour), `threads` the counts along v and u."""
    u, v = grid(shape)
    color = np.broadcast_to(np.asarray(base, float), (*shape, 3)).copy()
    wobble = 0.0015 * noise(shape, seed + 3, 1.5)
    for start, stop, paint in stripes:
        inside = step(u + wobble, start - 0.0015, start + 0.0015) * step(
            -u - wobble, -stop - 0.0015, -stop + 0.0015
        )
        color = mix(color, paint, inside)
    weave = np.sin(np.pi * threads[1] * u) * np.sin(np.pi * threads[0] * v)
    slub_u = noise(shape, seed, 0.7, stretch=(1, 40), low=10)
    slub_v = noise(shape, seed + 1, 0.7, stretch=(40, 1), low=10)
    cloud = noise(shape, seed + 2, 1.7)
    shade = 1 + 0.10 * weave + 0.045 * slub_u + 0.045 * slub_v + 0.03 * cloud
    clipped: Array = np.clip(color * shade[..., None], 0, 1)
    return clipped


def plaster(shape: Shape, seed: int, color: Color, depth: float = 0.03) -> Array:
    """Painted wall with soft mottling."""
    shade = 1 + depth * noise(shape, seed, 1.3) + 0.4 * depth * noise(shape, seed + 1, 0.4, low=30)
    return np.clip(np.asarray(color) * shade[..., None], 0, 1)


def wallpaper(shape: Shape, seed: int, ground: Color, figure: Color, repeat: Shape) -> Array:
    """Ogee lattice with a small flower in every mesh."""
    u, v = grid(shape)
    x, y = u * repeat[1], v * repeat[0]
    lattice = np.abs(np.sin(np.pi * (x + 0.14 * np.sin(2 * np.pi * y))) * np.cos(np.pi * y))
    line = step(-lattice, -0.16, -0.06)
    color = mix(ground, figure, 0.75 * line)
    for shift in (0.0, 0.5):
        px = (x + shift + 0.5) % 1 - 0.5
        py = (y + shift) % 1 - 0.5
        radius, angle = np.hypot(px, py), np.arctan2(py, px)
        petal = step(-radius, -0.18, -0.11) * step(np.cos(6 * angle), -0.6, 0.4)
        color = mix(color, figure, 0.8 * petal)
        color = mix(color, ground, step(-radius, -0.05, -0.035))
    shade = 1 + 0.025 * noise(shape, seed, 1.4)
    clipped: Array = np.clip(color * shade[..., None], 0, 1)
    return clipped


def rug(shape: Shape, seed: int) -> Array:
    """Bordered rug with lozenges, slightly faded."""
    u, v = grid(shape)
    palette = np.array(
        [[0.50, 0.17, 0.14], [0.16, 0.22, 0.34], [0.80, 0.70, 0.52], [0.62, 0.36, 0.18]]
    )
    edge = np.minimum(np.minimum(u, 1 - u) * shape[1] / shape[0], np.minimum(v, 1 - v))
    a, b = (u - 0.5) * 6 * shape[1] / shape[0], (v - 0.5) * 6
    lozenge = np.abs((a + 0.5) % 1 - 0.5) + np.abs((b + 0.5) % 1 - 0.5)
    index = (lozenge * 8).astype(int) % 4
    color = palette[np.array([0, 2, 1, 3])[index]]
    step_edge = (np.sin(2 * np.pi * (u * shape[1] / shape[0] + v) * 14) > 0).astype(int)
    color = np.where((edge < 0.15)[..., None], palette[1], color)
    color = np.where(
        ((edge > 0.05) & (edge < 0.10))[..., None], palette[np.where(step_edge, 2, 0)], color
    )
    color = np.where(((edge > 0.135) & (edge < 0.15))[..., None], palette[2], color)
    pile = 1 + 0.09 * noise(shape, seed, 0.3) + 0.07 * noise(shape, seed + 1, 1.6)
    return np.clip(mix(color, (0.55, 0.48, 0.4), np.full(shape, 0.18)) * pile[..., None], 0, 1)


def speckled(shape: Shape, seed: int, base: Color, speck: Color, amount: float = 1.5) -> Array:
    """Stoneware glaze with iron specks."""
    spots = noise(shape, seed, 0.9, low=shape[1] / 24, high=shape[1] / 5)
    cloud = noise(shape, seed + 1, 1.8)
    color = mix(base, speck, 0.85 * step(spots, amount, amount + 0.5))
    return np.clip(color * (1 + 0.03 * cloud)[..., None], 0, 1)


def painted_vase(shape: Shape, seed: int) -> Array:
    """White glaze with cobalt bands, scrolls and petals."""
    u, v = grid(shape)
    blue, white = np.array([0.10, 0.20, 0.50]), np.array([0.90, 0.90, 0.86])
    ink = np.zeros(shape)
    for height, half in (
        (0.10, 0.008),
        (0.135, 0.003),
        (0.60, 0.004),
        (0.63, 0.010),
        (0.90, 0.004),
        (0.94, 0.012),
    ):
        ink = np.maximum(ink, step(-np.abs(v - height), -half - 0.002, -half))
    wave = 0.365 + 0.10 * np.sin(2 * np.pi * 6 * u)
    ink = np.maximum(ink, step(-np.abs(v - wave), -0.013, -0.007))
    for phase in (0.25, 0.75):
        x = ((u * 6 + phase + 0.5) % 1 - 0.5) / 6 * 3.2
        y = v - (0.33 if phase < 0.5 else 0.40)
        r, angle = np.hypot(x, y), np.arctan2(y, x)
        flower = 0.062 * (0.62 + 0.38 * np.abs(np.cos(4 * angle)))
        ink = np.maximum(ink, 0.85 * step(flower - r, -0.001, 0.004) * step(r, 0.016, 0.021))
        ink = np.maximum(ink, step(0.009 - r, 0, 0.003))
    petal = np.abs((u * 18) % 1 - 0.5)
    ink = np.maximum(
        ink, step(-np.abs(v - 0.20 + 0.07 * petal * 2), -0.012, -0.006) * step(v, 0.13, 0.14)
    )
    leaf = np.abs((u * 14) % 1 - 0.5) * 2
    ink = np.maximum(
        ink,
        step(leaf - (v - 0.66) / 0.22, -0.05, 0.05)
        * (v > 0.645)
        * (v < 0.885)
        * (0.55 + 0.2 * noise(shape, seed, 1.0)),
    )
    ink = np.clip(ink * (0.88 + 0.10 * noise(shape, seed + 1, 1.2)), 0, 1)
    return np.clip(
        mix(white * (1 + 0.012 * noise(shape, seed + 2, 1.5))[..., None], blue, ink), 0, 1
    )


def banded_mug(shape: Shape, seed: int) -> Array:
    """Cream mug with a dipped foot and a zigzag band."""
    u, v = grid(shape)
    color = speckled(shape, seed, (0.86, 0.80, 0.68), (0.45, 0.33, 0.22), 1.9)
    edge = 0.30 + 0.015 * noise(shape, seed + 5, 2.0, stretch=(3, 1))
    color = mix(
        color,
        np.array([0.20, 0.42, 0.44]) * (1 + 0.06 * noise(shape, seed + 6, 1.4))[..., None],
        step(edge - v, -0.01, 0.01),
    )
    zigzag = 0.62 + 0.055 * (4 * np.abs((u * 12) % 1 - 0.5) - 1)
    line = step(-np.abs(v - zigzag), -0.026, -0.016)
    rule = np.maximum(
        step(-np.abs(v - 0.74), -0.011, -0.006), step(-np.abs(v - 0.50), -0.011, -0.006)
    )
    return np.clip(mix(color, (0.62, 0.26, 0.16), np.maximum(line, rule)), 0, 1)


def apple(shape: Shape, seed: int, blush: Color, ground: Color) -> Array:
    """Streaked skin, greener near the stem, with fine dots."""
    _, v = grid(shape)
    streak = noise(shape, seed, 0.9, stretch=(14, 1), low=6)
    cloud = noise(shape, seed + 1, 2.0)
    red = step(0.55 + 0.5 * cloud + 0.22 * streak - 1.2 * np.maximum(v - 0.72, 0) * 3, 0.05, 0.95)
    dots = step(noise(shape, seed + 2, 0.4, low=shape[1] / 20, high=shape[1] / 6), 2.0, 2.5)
    color = mix(mix(ground, blush, red), (0.86, 0.78, 0.52), 0.6 * dots)
    return np.clip(color * (1 + 0.04 * streak)[..., None], 0, 1)


def peel(shape: Shape, seed: int, color: Color, ends: Color) -> Array:
    """Citrus peel with pores and paler or greener ends."""
    _, v = grid(shape)
    pores = noise(shape, seed, 0.2, low=shape[1] / 16, high=shape[1] / 5)
    tint = step(np.abs(v - 0.5), 0.36, 0.52)
    shade = 1 - 0.07 * step(pores, 0.6, 1.8) + 0.035 * noise(shape, seed + 1, 1.6)
    return np.clip(mix(color, ends, 0.7 * tint) * shade[..., None], 0, 1)


def leaf(shape: Shape, seed: int, color: Color) -> Array:
    """Leaf with a pale midrib (along u) and side veins."""
    u, v = grid(shape)
    side = np.abs(v - 0.5)
    midrib = step(-side, -0.035, -0.012)
    veins = step(np.cos(2 * np.pi * 9 * (u - 0.55 * side)), 0.90, 0.99)
    color_map = mix(
        np.asarray(color) * (1 + 0.08 * noise(shape, seed, 1.4))[..., None],
        (0.72, 0.76, 0.50),
        np.maximum(0.75 * midrib, 0.4 * veins),
    )
    return np.clip(color_map, 0, 1)


def checkered_tin(shape: Shape, seed: int) -> Array:
    """Lacquered tin: checks, a cream label with print, rubbed edges."""
    u, v = grid(shape)
    check = ((np.floor(u * 10) + np.floor(v * 7)) % 2).astype(bool)
    color = np.where(check[..., None], [0.70, 0.16, 0.13], [0.88, 0.82, 0.66])
    label = (np.abs(u - 0.5) < 0.30) & (np.abs(v - 0.5) < 0.28)
    rim = label & ((np.abs(u - 0.5) > 0.285) | (np.abs(v - 0.5) > 0.255))
    color = np.where(label[..., None], [0.90, 0.85, 0.70], color)
    print_ = text_mask(shape, [("FINE TEA", 0.5, 0.50, 0.088), ("NO. 27", 0.5, 0.66, 0.08)])
    color = mix(np.where(rim[..., None], [0.15, 0.2, 0.3], color), (0.13, 0.19, 0.30), print_)
    worn = step(noise(shape, seed, 1.2), 1.7, 2.4)
    return np.clip(
        mix(color, (0.62, 0.60, 0.55), 0.6 * worn)
        * (1 + 0.02 * noise(shape, seed + 1, 1.2))[..., None],
        0,
        1,
    )


def pages(shape: Shape, seed: int) -> Array:
    """Fore-edge of a book: many thin sheets along u."""
    lines = noise((shape[0], 1), seed, 0.3)
    tone = (
        1
        + 0.055 * lines
        + 0.03 * noise(shape, seed + 1, 1.0, stretch=(1, 30))
        + 0.02 * noise(shape, seed + 2, 2)
    )
    return np.clip(np.array([0.87, 0.82, 0.70]) * tone[..., None], 0, 1)


def book_cover(shape: Shape, seed: int, cloth: Color, foil: Color, title: list[str]) -> Array:
    """Cloth-bound board with a foil frame, a rosette and a title."""
    u, v = grid(shape)
    weave = 0.05 * noise(shape, seed, 0.3, stretch=(1, 6)) + 0.05 * noise(
        shape, seed + 1, 0.3, stretch=(6, 1)
    )
    color = np.asarray(cloth) * (1 + weave + 0.05 * noise(shape, seed + 2, 1.8))[..., None]
    edge = np.minimum(np.minimum(u, 1 - u) * shape[1], np.minimum(v, 1 - v) * shape[0]) / min(shape)
    ink = np.maximum(
        step(-np.abs(edge - 0.07), -0.011, -0.006), step(-np.abs(edge - 0.095), -0.005, -0.002)
    )
    x, y = (u - 0.5) * shape[1] / shape[0], v - 0.36
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    ink = np.maximum(
        ink,
        step(0.13 * (0.55 + 0.45 * np.abs(np.cos(4 * angle))) - r, 0, 0.006) * step(r, 0.03, 0.036),
    )
    ink = np.maximum(ink, step(-np.abs(r - 0.155), -0.007, -0.003))
    rows = [(line, 0.5, 0.25 + 0.10 * k, 0.052) for k, line in enumerate(title)]
    return np.clip(mix(color, foil, 0.92 * np.maximum(ink, text_mask(shape, rows))), 0, 1)


def book_spine(shape: Shape, seed: int, cloth: Color, foil: Color, title: str) -> Array:
    """Spine lying along u with raised-band lines and a lettered title."""
    u, _ = grid(shape)
    weave = 0.06 * noise(shape, seed, 0.3) + 0.04 * noise(shape, seed + 1, 1.8)
    color = np.asarray(cloth) * (1 + weave)[..., None]
    ink = np.zeros(shape)
    for at in (0.05, 0.075, 0.17, 0.83, 0.925, 0.95):
        ink = np.maximum(ink, step(-np.abs(u - at), -0.006, -0.003))
    label = step(-np.abs(u - 0.5), -0.30, -0.295)
    color = mix(color, np.asarray(cloth) * 0.55, 0.6 * label)
    # As tall as the spine allows without the title outgrowing its label.
    letter = min(0.5, 0.56 * shape[1] / shape[0] / max(len(title), 1))
    ink = np.maximum(ink, text_mask(shape, [(title, 0.5, 0.5 + letter / 2, letter)]))
    return np.clip(mix(color, foil, 0.92 * ink), 0, 1)
