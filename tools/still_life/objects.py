# ruff: noqa: RUF005 - an array plus a list is a sum of vectors here, not a longer list
"""What stands on the table. The table top is the plane z = 0, its middle the origin."""

from __future__ import annotations

import numpy as np

from tools.still_life import prints, textures, vessels
from tools.still_life.materials import BRASS, COPPER, STEEL, Part, glossy, matte, metal
from tools.still_life.meshes import curve, join, revolve, rotation, rounded_box, surface, tube, unit
from tools.still_life.noise import grid, noise
from tools.still_life.vessels import CLOTH


def _table() -> list[Part]:
    top = rounded_box((1.5, 1.0, 0.036), 0.012).moved((0, 0, -0.018))
    oak = textures.wood((1024, 1536), 11, (0.27, 0.155, 0.075), (0.68, 0.47, 0.28), planks=7)
    legs = [
        rounded_box((0.06, 0.06, 0.70), 0.01).moved((sx * 0.68, sy * 0.43, -0.39))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    apron = [rounded_box((1.3, 0.02, 0.09), 0.004).moved((0, sy * 0.43, -0.08)) for sy in (-1, 1)]
    apron += [rounded_box((0.02, 0.84, 0.09), 0.004).moved((sx * 0.68, 0, -0.08)) for sx in (-1, 1)]
    dark = textures.wood((256, 512), 12, (0.22, 0.12, 0.06), (0.50, 0.32, 0.18))
    return [
        Part("table_top", top, glossy(oak, 0.22)),
        Part("table_legs", join(legs + apron), glossy(dark, 0.3)),
    ]


def _cloth() -> list[Part]:
    """Make a runner with soft wrinkles where nothing stands on it, and a fringe at both ends."""
    length, width = 1.16, 0.42
    rows, columns = 240, 100
    y, x = np.meshgrid(
        np.linspace(-length / 2, length / 2, rows),
        np.linspace(-width / 2, width / 2, columns),
        indexing="ij",
    )
    turn, shift = rotation("z", 98), np.array([0.04, 0.07, 0.0])
    flat = np.stack([x, y, 0 * x], -1) @ turn.T + shift
    free = np.ones_like(x)
    for px, py, radius in FOOTPRINTS:
        distance = np.hypot(flat[..., 0] - px, flat[..., 1] - py) - radius
        free = np.minimum(free, np.clip(distance / 0.10, 0, 1))
    wrinkle = np.clip(noise(x.shape, 21, 2.6, stretch=(0.8, 1.6), low=2) + 0.5, 0, None)
    wave = 0.010 * np.sin(2 * np.pi * (y / 0.9 + 0.2))
    z = CLOTH + free**2 * 0.0075 * wrinkle
    points = flat + np.stack([0 * z, wave * free, z], -1)
    color = textures.woven(
        (1400, 560), 22, (0.83, 0.79, 0.69),
        [(0.07, 0.13, (0.22, 0.34, 0.46)), (0.15, 0.165, (0.66, 0.28, 0.19)),
         (0.87, 0.93, (0.22, 0.34, 0.46)), (0.835, 0.85, (0.66, 0.28, 0.19))], (320, 120),
    )  # fmt: skip
    rng = np.random.default_rng(23)
    fringe = []
    for row, out in ((0, points[0] - points[1]), (-1, points[-1] - points[-2])):
        for k in range(0, columns, 2):
            start, way = points[row, k], unit(out[k])
            bend = rng.normal(0, 0.006, (3, 2))
            knots = [
                start + way * 0.011 * j + np.append(bend[min(j, 2)] * j / 3, 0.0) for j in range(4)
            ]
            path = curve(knots, 8)
            path[:, 2] = np.linspace(start[2], 0.0012, 8)
            fringe.append(tube(path, 0.0011, 5))
    return [
        Part("cloth", surface(points), matte(color)),
        Part("fringe", join(fringe), matte((0.80, 0.76, 0.66))),
    ]


def _books() -> list[Part]:
    """Four cloth-bound books, each a little askew, 125 mm high together."""
    books = [
        ((0.265, 0.190, 0.036), 14.0, (0.18, 0.27, 0.36), (0.86, 0.74, 0.46), "LIGHT AND SHADE"),
        ((0.245, 0.180, 0.026), 20.0, (0.48, 0.15, 0.12), (0.88, 0.76, 0.48), "THE ORCHARD"),
        (
            (0.250, 0.172, 0.035),
            8.0,
            (0.74, 0.66, 0.48),
            (0.24, 0.18, 0.12),
            "A FIELD GUIDE TO MOSSES",
        ),
        ((0.215, 0.150, 0.028), 27.0, (0.22, 0.36, 0.26), (0.87, 0.77, 0.50), "ON COLOUR"),
    ]
    parts, z = [], CLOTH
    for k, ((length, depth, thick), angle, cloth, foil, title) in enumerate(books):
        board = 0.0028
        words = title.split()
        rows = [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
        cover = textures.book_cover((560, 400), 71 + k, cloth, foil, [r for r in rows if r])
        spine = textures.book_spine((96, 720), 75 + k, cloth, foil, title)
        # Reading a cover, the spine is on its left: covers turn by 90 degrees onto the long side.
        boards = [
            rounded_box((depth, length, board), 0.001).turned(rotation("z", 90)).moved((0, 0, h))
            for h in (board / 2, thick - board / 2)
        ]
        block = rounded_box((length - 0.008, depth - 0.010, thick - 2 * board), 0.0006)
        back = rounded_box((length, 0.007, thick), 0.003)
        place = rotation("z", angle)
        at = np.array([-0.27, 0.105, z])
        parts += [
            Part(f"book{k}_boards", join(boards).turned(place).moved(at), glossy(cover, 0.35)),
            Part(
                f"book{k}_pages",
                block.moved((0, 0.001, thick / 2)).turned(place).moved(at),
                matte(textures.pages((64, 512), 79 + k)),
            ),
            Part(
                f"book{k}_spine",
                back.moved((0, -depth / 2 - 0.001, thick / 2)).turned(place).moved(at),
                glossy(spine, 0.35),
            ),
        ]
        z += thick
    return parts


def _spectacles() -> list[Part]:
    """Wire spectacles lying on the books."""
    ring = np.linspace(0, 2 * np.pi, 40)
    wires = []
    for side in (-1, 1):
        rim = np.stack(
            [side * 0.032 + 0.022 * np.cos(ring), 0 * ring, 0.0205 + 0.019 * np.sin(ring)], -1
        )
        wires.append(tube(rim, 0.0011, 6))
        ear = [
            (side * 0.054, 0, 0.026),
            (side * 0.058, 0.02, 0.026),
            (side * 0.056, 0.09, 0.014),
            (side * 0.052, 0.12, 0.002),
        ]
        wires.append(tube(curve(ear, 24), 0.0010, 6))
    wires.append(
        tube(curve([(-0.011, 0, 0.024), (0, -0.003, 0.029), (0.011, 0, 0.024)], 12), 0.0011, 6)
    )
    at = (-0.283, 0.031, 0.125 + CLOTH + 0.0004)
    return [
        Part(
            "spectacles",
            join(wires).turned(rotation("z", 27)).moved(at),
            metal((0.42, 0.33, 0.2), 0.2),
        )
    ]


def _globe() -> list[Part]:
    """Small globe in a wire ring on three thin legs."""
    at, middle, radius = np.array([0.375, 0.215, CLOTH]), 0.185, 0.078
    a = np.linspace(0, np.pi, 60)
    ball = revolve(radius * np.stack([np.sin(a), -np.cos(a)], -1), 80).turned(rotation("x", 23))
    ring = np.linspace(0, 2 * np.pi, 72)
    wires = [
        tube(
            0.089 * np.stack([np.cos(ring), np.sin(ring), 0 * ring], -1) + [0, 0, middle],
            0.0024,
            10,
        ),
        tube(
            0.089 * np.stack([0 * ring, np.cos(ring), np.sin(ring)], -1) + [0, 0, middle],
            0.0018,
            10,
        ),
    ]
    for k in range(3):
        out = np.array([np.cos(2.1 * k + 0.4), np.sin(2.1 * k + 0.4), 0.0])
        shape = [(0.089, middle), (0.080, 0.11), (0.050, 0.06), (0.062, 0.02), (0.078, 0.0022)]
        leg = curve([out * r + [0, 0, z] for r, z in shape], 40)
        wires.append(tube(leg, 0.0022, 8))
    wires.append(
        tube(0.052 * np.stack([np.cos(ring), np.sin(ring), 0 * ring], -1) + [0, 0, 0.06], 0.0015, 8)
    )
    world = prints.chart((600, 1200), 91, (12, 24))
    return [
        Part("globe", ball.moved(at + [0, 0, middle]), glossy(world, 0.12)),
        Part("globe_stand", join(wires).moved(at), metal(COPPER, 0.22)),
    ]


def _tin_map_candle_yarn() -> list[Part]:
    turn, at = rotation("z", 28), np.array([0.175, -0.300, 0.0])
    body = rounded_box((0.115, 0.078, 0.072), 0.005).moved((0, 0, 0.036))
    lid = rounded_box((0.118, 0.081, 0.016), 0.005).moved((0, 0, 0.078))
    knob = revolve(
        [
            (0.0, 0.084),
            (0.004, 0.086),
            (0.004, 0.091),
            (0.009, 0.096),
            (0.008, 0.102),
            (0.0, 0.104),
        ],
        32,
        40,
    )
    tin = textures.checkered_tin((420, 600), 101)
    parts = [
        Part("tin", body.turned(turn).moved(at), glossy(tin, 0.14)),
        Part("tin_lid", join([lid, knob]).turned(turn).moved(at), metal(STEEL, 0.24)),
    ]
    rows, columns = 40, 50
    y, x = np.meshgrid(
        np.linspace(-0.115, 0.115, rows), np.linspace(-0.16, 0.16, columns), indexing="ij"
    )
    curl = (
        0.016 * np.clip(x * 6 - y * 4 - 0.95, 0, None) ** 2
        + 0.02 * np.clip(-x * 6 - y * 3 - 0.9, 0, None) ** 2
    )
    ripple = 0.0007 * (1 + np.sin(2 * np.pi * x / 0.107))
    sheet = (
        surface(np.stack([x, y, 0.0009 + ripple + curl], -1))
        .turned(rotation("z", -9))
        .moved((-0.09, -0.335, 0))
    )
    parts.append(Part("map", sheet, matte(prints.chart((700, 980), 102, (6, 8), "WEST COAST"))))
    turned = [
        (0.0, 0.0), (0.046, 0.0), (0.047, 0.004), (0.030, 0.010), (0.008, 0.020), (0.005, 0.05),
        (0.009, 0.075), (0.005, 0.10), (0.005, 0.16), (0.012, 0.175), (0.022, 0.180),
        (0.022, 0.183), (0.013, 0.184), (0.013, 0.20),
    ]  # fmt: skip
    stick = revolve(turned, 56, 140)
    candle = revolve(
        [(0.0112, 0.18), (0.0110, 0.24), (0.0105, 0.292), (0.009, 0.297), (0.0, 0.295)], 40, 60
    )
    wick = tube(curve([(0, 0, 0.294), (0.0005, 0, 0.302), (0.003, 0.001, 0.309)], 8), 0.0008, 6)
    spot = (-0.10, 0.375, 0.0)
    parts += [
        Part("candlestick", stick.moved(spot), metal(BRASS, 0.13)),
        Part(
            "candle",
            candle.moved(spot),
            glossy(textures.plaster((128, 128), 103, (0.88, 0.83, 0.70)), 0.3),
        ),
        Part("wick", wick.moved(spot), matte((0.16, 0.13, 0.11))),
    ]
    return parts + _yarn()


def _yarn() -> list[Part]:
    """Ball of wool wound from great circles, with a loose end."""
    rng = np.random.default_rng(111)
    middle = np.array([-0.50, -0.07, 0.052])
    angle = np.linspace(0, 2 * np.pi, 56)
    strands = []
    pole = np.array([0.2, 0.1, 1.0])
    for k in range(90):
        if k % 9 == 0:  # wound in bands, as by hand
            pole = unit(rng.normal(0, 1, 3))
        normal = unit(pole + rng.normal(0, 0.16, 3))
        a = unit(np.cross(normal, rng.normal(0, 1, 3)))
        b = np.cross(normal, a)
        radius = 0.0475 + 0.0022 * rng.random() + 0.0006 * np.sin(3 * angle + rng.uniform(0, 6))
        shift = normal * rng.normal(0, 0.007)
        loop = (np.cos(angle)[:, None] * a + np.sin(angle)[:, None] * b) * radius[:, None] + shift
        strands.append(tube(loop, 0.0019, 6))
    knots = [
        (-0.50, -0.118, 0.030), (-0.505, -0.135, 0.004), (-0.47, -0.20, 0.002),
        (-0.52, -0.28, 0.002), (-0.44, -0.33, 0.002), (-0.36, -0.30, 0.002), (-0.33, -0.36, 0.002),
    ]  # fmt: skip
    tail = tube(np.maximum(curve(knots, 90), [-9, -9, 0.0019]), 0.0019, 6)
    u, _ = grid((16, 512))
    twist = 0.86 + 0.14 * np.sin(2 * np.pi * (24 * u + np.linspace(0, 2, 16)[:, None]))
    wool = np.asarray([0.64, 0.33, 0.38]) * twist[..., None]
    return [
        Part(
            "yarn",
            join([s.moved(middle) for s in strands] + [tail]),
            matte(np.swapaxes(wool, 0, 1)),
        )
    ]


# x, y and radius of what stands on the cloth.
FOOTPRINTS = (
    (0.06, 0.19, 0.06), (0.0, -0.045, 0.06), (0.275, -0.025, 0.065), (0.375, 0.215, 0.09),
    (-0.27, 0.105, 0.10), (-0.35, 0.09, 0.10), (-0.19, 0.12, 0.10), (0.085, -0.165, 0.05),
)  # fmt: skip


def parts() -> list[Part]:
    """Everything on the table, and the table."""
    groups = (_table(), _cloth(), vessels.parts(), _books(), _spectacles(), _globe())
    return [part for group in (*groups, _tin_map_candle_yarn()) for part in group]
