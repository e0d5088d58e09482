# ruff: noqa: RUF005 - an array plus a list is a sum of vectors here, not a longer list
"""The room around the table: floor, walls, shelves, pictures, window, furniture and lights.

The table top is the plane z = 0; the floor is at -0.75 m and the ceiling at 1.85 m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.still_life import prints, textures
from tools.still_life.materials import Part, Picture, glossy, matte, metal
from tools.still_life.meshes import (
    Array,
    Mesh,
    curve,
    disk,
    join,
    panel,
    revolve,
    rotation,
    rounded_box,
    surface,
    tube,
    unit,
)
from tools.still_life.noise import Array as Pixels

FLOOR, CEILING = -0.75, 1.85
HALF_X, HALF_Y = 3.1, 2.7
HEIGHT = CEILING - FLOOR


@dataclass(frozen=True)
class Light:
    """A flat emitter: quadrilateral origin + u along_u + v along_v, facing along_u x along_v."""

    name: str
    origin: tuple[float, float, float]
    along_u: tuple[float, float, float]
    along_v: tuple[float, float, float]
    radiance: tuple[float, float, float]
    weight: float  # share of the light samples
    picture: Pixels | None = None


def _box(
    size: tuple[float, float, float], middle: tuple[float, float, float], radius: float = 0.004
) -> Mesh:
    return rounded_box(size, radius, steps=2).moved(middle)


def _shell() -> list[Part]:
    floor = panel((-HALF_X, -HALF_Y, FLOOR), (2 * HALF_X, 0, 0), (0, 2 * HALF_Y, 0))
    planks = textures.parquet((1024, 1024), 211, rows=22)
    ceiling = panel((-HALF_X, HALF_Y, CEILING), (2 * HALF_X, 0, 0), (0, -2 * HALF_Y, 0))
    paper = textures.wallpaper((512, 512), 212, (0.60, 0.66, 0.61), (0.73, 0.76, 0.68), (2, 3))
    paint = textures.plaster((512, 512), 213, (0.80, 0.75, 0.66))
    rust = textures.plaster((512, 512), 214, (0.70, 0.60, 0.49), 0.05)
    north = panel((-HALF_X, HALF_Y, FLOOR), (2 * HALF_X, 0, 0), (0, 0, HEIGHT))
    south = panel((HALF_X, -HALF_Y, FLOOR), (-2 * HALF_X, 0, 0), (0, 0, HEIGHT))
    east = panel((HALF_X, HALF_Y, FLOOR), (0, -2 * HALF_Y, 0), (0, 0, HEIGHT))
    west = panel((-HALF_X, -HALF_Y, FLOOR), (0, 2 * HALF_Y, 0), (0, 0, HEIGHT))
    skirting = [
        _box((2 * HALF_X, 0.02, 0.12), (0, sy * (HALF_Y - 0.01), FLOOR + 0.06)) for sy in (-1, 1)
    ] + [_box((0.02, 2 * HALF_Y, 0.12), (sx * (HALF_X - 0.01), 0, FLOOR + 0.06)) for sx in (-1, 1)]
    carpet = _box((3.0, 2.1, 0.012), (0.05, 0.0, FLOOR + 0.006), 0.005)
    return [
        Part("floor", floor, glossy(Picture(planks, (2.4, 2.2)), 0.28)),
        Part("rug", carpet, matte(textures.rug((700, 1000), 215))),
        Part("ceiling", ceiling, matte((0.84, 0.83, 0.80))),
        Part("wall_north", north, matte(Picture(paint, (3, 1.3)))),
        Part("wall_south", south, matte(Picture(rust, (3, 1.3)))),
        Part("wall_east", east, matte(Picture(paint, (3, 1.3)))),
        Part("wall_west", west, matte(Picture(paper, (6, 3)))),
        Part("skirting", join(skirting), glossy((0.82, 0.80, 0.75), 0.3)),
    ]


def _bookshelf() -> list[Part]:
    """Open shelves on the north wall, filled with leaning rows of books."""
    left, width, depth, top = -2.2, 2.5, 0.28, 1.35
    y = HALF_Y - depth / 2 - 0.01
    levels = np.linspace(FLOOR + 0.08, top, 6)
    boards = [_box((width, depth, 0.024), (left + width / 2, y, float(z))) for z in levels]
    boards += [
        _box((0.026, depth, top - FLOOR), (left + f * width, y, (top + FLOOR) / 2))
        for f in (0, 0.5, 1)
    ]
    back = _box((width, 0.012, top - FLOOR), (left + width / 2, HALF_Y - 0.012, (top + FLOOR) / 2))
    rng = np.random.default_rng(221)
    atlas, cells = prints.spine_atlas((400, 46), 28, 222), 28
    books, vases = [], []
    for z in levels[:-1]:
        for start in (left + 0.02, left + width / 2 + 0.02):
            x, stop = start, start + width / 2 - 0.05
            gap = rng.uniform(0.55, 0.9) * (stop - start) + start
            while x < stop - 0.06:
                thick, tall, deep = (
                    rng.uniform(0.022, 0.052),
                    rng.uniform(0.23, 0.33),
                    rng.uniform(0.16, 0.23),
                )
                if x < gap < x + thick:  # a vessel instead of a few books
                    h = rng.uniform(0.14, 0.24)
                    profile = np.array(
                        [
                            (0, 0),
                            (0.035, 0),
                            (0.055, 0.3),
                            (0.05, 0.6),
                            (0.022, 0.85),
                            (0.03, 1.0),
                            (0.0, 0.99),
                        ]
                    ) * [1, h]
                    vases.append(revolve(profile, 32, 30).moved((x + 0.07, y, z + 0.012)))
                    x += 0.15
                    continue
                book = rounded_box((thick, deep, tall), 0.004, steps=1)
                cell = int(rng.integers(cells))
                uv = book.uv * [0.96 / cells, 1] + [(cell + 0.02) / cells, 0]
                lean = rotation("y", rng.normal(0, 1.2))
                middle = (
                    x + thick / 2,
                    y - depth / 2 + deep / 2 + rng.uniform(0.01, 0.05),
                    z + 0.012 + tall / 2,
                )
                books.append(
                    Mesh(book.vertices, book.normals, uv, book.faces).turned(lean).moved(middle)
                )
                x += thick + 0.002 + 0.02 * (rng.random() < 0.08)
    timber = textures.wood((512, 512), 223, (0.30, 0.19, 0.11), (0.58, 0.41, 0.26))
    glaze = textures.speckled((256, 256), 224, (0.34, 0.50, 0.55), (0.16, 0.24, 0.28))
    return [
        Part("shelves", join([*boards, back]), glossy(timber, 0.3)),
        Part("shelf_books", join(books), glossy(atlas, 0.35)),
        Part("shelf_vases", join(vases), glossy(glaze, 0.12)),
    ]


def _framed(
    name: str,
    picture: Pixels,
    size: tuple[float, float],
    middle: Array,
    turn: float,
    rim: tuple[float, float, float],
) -> list[Part]:
    """Frame a picture of `size` (width, height), front towards -y before the turn about z."""
    w, h = size
    bar, deep = 0.028, 0.024
    frame = [_box((w + 2 * bar, deep, bar), (0, 0, s * (h + bar) / 2)) for s in (-1, 1)]
    frame += [_box((bar, deep, h), (s * (w + bar) / 2, 0, 0)) for s in (-1, 1)]
    sheet = panel((-w / 2, -0.004, -h / 2), (w, 0, 0), (0, 0, h))
    r = rotation("z", turn)
    return [
        Part(f"{name}_frame", join(frame).turned(r).moved(middle), glossy(rim, 0.25)),
        Part(name, sheet.turned(r).moved(middle), matte(picture)),
    ]


def _pictures() -> list[Part]:
    gold, black, oak = (0.62, 0.47, 0.24), (0.16, 0.15, 0.15), (0.50, 0.35, 0.21)
    y, x = HALF_Y - 0.015, HALF_X - 0.015
    hung = [
        ("landscape", prints.landscape((480, 640), 231), (1.00, 0.74), (1.55, y, 0.72), 0.0, gold),
        ("botanical", prints.botanical((640, 460), 232), (0.50, 0.70), (2.55, y, 0.70), 0.0, oak),
        ("abstract", prints.shapes((640, 500), 233), (0.66, 0.84), (-1.25, -y, 0.66), 180.0, black),
        (
            "chart",
            prints.chart((640, 860), 234, (5, 7), "THE NORTHERN SEA"),
            (1.05, 0.78),
            (0.05, -y, 0.70),
            180.0,
            oak,
        ),
        ("fern", prints.botanical((640, 460), 235), (0.44, 0.60), (1.15, -y, 0.82), 180.0, gold),
        ("hills", prints.landscape((420, 420), 236), (0.44, 0.44), (-x, 1.55, 0.95), 90.0, black),
        ("discs", prints.shapes((420, 420), 237), (0.44, 0.44), (-x, 1.55, 0.40), 90.0, black),
    ]
    return [part for h in hung for part in _framed(h[0], h[1], h[2], np.asarray(h[3]), h[4], h[5])]


def _window() -> list[Part]:
    """Frame, sill and curtains of the window on the east wall (its light is in `lights`)."""
    x, low, high, half = HALF_X - 0.03, -0.05, 1.50, 0.95
    middle = (low + high) / 2
    bars = [_box((0.06, 2 * half + 0.14, 0.07), (x, 0, z)) for z in (low - 0.035, high + 0.035)]
    bars += [_box((0.06, 0.07, high - low), (x, s * (half + 0.035), middle)) for s in (-1, 1)]
    bars += [
        _box((0.04, 0.05, high - low), (x, 0, middle)),
        _box((0.04, 2 * half, 0.03), (x, 0, low + 1.0)),
    ]
    bars += [_box((0.16, 2 * half + 0.3, 0.03), (x - 0.05, 0, low - 0.085))]
    curtains = []
    for s in (-1.0, 1.0):
        v, u = np.meshgrid(np.linspace(0, 1, 30), np.linspace(0, 1, 160), indexing="ij")
        y = s * (half + 0.02 + 0.42 * u * (1 - 0.12 * np.sin(np.pi * v)))
        fold = (0.030 + 0.02 * (1 - v)) * np.sin(2 * np.pi * 7 * u + 1.2 * np.sin(2.5 * v + s) + s)
        fold = fold + 0.012 * np.sin(2 * np.pi * 3 * u + s)
        points = np.stack([x - 0.12 + fold, y, FLOOR + 0.03 + v * (1.64 - FLOOR)], -1)
        curtains.append(surface(points))
    linen = textures.woven(
        (600, 400),
        241,
        (0.66, 0.50, 0.40),
        [(0.44, 0.47, (0.82, 0.74, 0.62)), (0.53, 0.56, (0.82, 0.74, 0.62))],
        (90, 60),
    )
    rod = tube([(x - 0.12, -1.6, 1.68), (x - 0.12, 1.6, 1.68)], 0.014, 12)
    pots = []
    for k, yy in enumerate((-0.55, 0.30, 0.62)):
        s = (1.0, 0.8, 1.1)[k]
        profile = (
            np.array([(0, 0), (0.045, 0), (0.06, 0.10), (0.064, 0.11), (0.054, 0.108), (0, 0.09)])
            * s
        )
        pots.append(revolve(profile, 32).moved((x - 0.07, yy, low - 0.07)))
    terracotta = textures.plaster((128, 128), 242, (0.66, 0.38, 0.25), 0.06)
    return [
        Part("window_frame", join(bars), glossy((0.84, 0.83, 0.79), 0.25)),
        Part("curtains", join(curtains), matte(Picture(linen, (6, 1)))),
        Part("curtain_rod", rod, metal((0.45, 0.36, 0.24), 0.2)),
        Part("sill_pots", join(pots), matte(terracotta)),
    ]


def _foliage(count: int, seed: int, reach: float, rise: float, size: float) -> tuple[Mesh, Mesh]:
    """Stalks and blades of a pot plant growing from the origin."""
    rng = np.random.default_rng(seed)
    stalks, blades = [], []
    for k in range(count):
        angle = 2.4 * k + rng.uniform(-0.3, 0.3)
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        tip = out * reach * rng.uniform(0.5, 1) + [0, 0, rise * rng.uniform(0.55, 1)]
        path = curve([np.zeros(3), 0.35 * tip + [0, 0, 0.25 * tip[2]], tip], 16)
        stalks.append(tube(path, np.linspace(0.007, 0.003, 16), 6))
        length = size * rng.uniform(0.7, 1.1)
        u, v = np.meshgrid(np.linspace(0, 1, 12), np.linspace(-1, 1, 7))
        half = 0.30 * length * np.sin(np.pi * u**0.8) ** 0.8
        shape = np.stack([length * u, half * v, 0.25 * half * np.abs(v) - 0.45 * length * u**2], -1)
        forward = unit(out + [0, 0, 0.45])
        across = unit(np.cross([0, 0, 1.0], forward))
        frame = np.stack([forward, across, np.cross(forward, across)], axis=1)
        blades.append(surface(shape).turned(frame).moved(path[-1]))
    return join(stalks), join(blades)


def _furniture() -> list[Part]:
    """Chair, sideboard with a lamp, a door, two big plants and a stool."""
    timber = textures.wood((512, 512), 251, (0.32, 0.19, 0.10), (0.60, 0.42, 0.25))
    return [_chair(timber), *_sideboard(), *_lamp(), _pile(), *_door(), *_plants(), _stool(timber)]


def _chair(timber: Pixels) -> Part:
    x, y = -0.28, -1.02
    corners = [(sx, sy) for sx in (-1, 1) for sy in (-1, 1)]
    ends = [
        ((x + 0.17 * a, y + 0.17 * b, -0.30), (x + 0.2 * a, y + 0.2 * b, FLOOR)) for a, b in corners
    ]
    legs = [tube(end, 0.015, 10) for end in ends]
    hoop = [(0.18, -0.17, -0.30), (0.19, -0.22, 0.0), (0.1, -0.25, 0.115)]
    left = [(x - dx, y + dy, z) for dx, dy, z in hoop]
    arch = curve(left + [(x + dx, y + dy, z) for dx, dy, z in hoop[::-1]], 60)
    slats = [
        tube([(x + d, y - 0.18, -0.30), (x + d, y - 0.245, 0.11)], 0.007, 8)
        for d in (-0.08, 0.0, 0.08)
    ]
    seat = _box((0.42, 0.42, 0.03), (x, y, -0.30), 0.012)
    return Part("chair", join([*legs, tube(arch, 0.014, 10), *slats, seat]), glossy(timber, 0.25))


def _sideboard() -> list[Part]:
    cabinet = [_box((1.7, 0.42, 0.68), (-0.35, -HALF_Y + 0.22, FLOOR + 0.42), 0.008)]
    doors = [
        _box((0.52, 0.02, 0.56), (-0.35 + d, -HALF_Y + 0.44, FLOOR + 0.42), 0.006)
        for d in (-0.555, 0, 0.555)
    ]
    feet = [
        _box((0.04, 0.04, 0.1), (-0.35 + d, -HALF_Y + 0.3, FLOOR + 0.05)) for d in (-0.78, 0.78)
    ]
    knob = revolve([(0.0, 0), (0.008, 0.0), (0.008, 0.012), (0.015, 0.02), (0.0, 0.03)], 16, 12)
    knob = knob.turned(rotation("x", -90)).moved((-0.35, -HALF_Y + 0.45, FLOOR + 0.50))
    knobs = [knob.moved((d, 0, 0)) for d in (-0.34, 0.2, 0.36)]
    paint = textures.wood((256, 512), 252, (0.24, 0.32, 0.33), (0.40, 0.49, 0.48))
    return [
        Part("sideboard", join([*cabinet, *doors, *feet]), glossy(paint, 0.3)),
        Part("knobs", join(knobs), metal((0.75, 0.58, 0.32), 0.2)),
    ]


def _lamp() -> list[Part]:
    base = (0.28, -HALF_Y + 0.22, 0.01)
    foot = revolve(
        [
            (0, 0),
            (0.07, 0),
            (0.085, 0.05),
            (0.075, 0.12),
            (0.03, 0.19),
            (0.012, 0.21),
            (0.012, 0.30),
            (0, 0.30),
        ],
        40,
        50,
    )
    shade = revolve([(0.17, 0.24), (0.11, 0.46)], 56)
    pleats = textures.woven(
        (128, 512),
        253,
        (0.84, 0.77, 0.62),
        [(k / 24, (k + 0.35) / 24, (0.76, 0.67, 0.51)) for k in range(24)],
        (40, 160),
    )
    glaze = textures.speckled((256, 512), 254, (0.62, 0.34, 0.22), (0.28, 0.16, 0.12))
    return [
        Part("lamp_foot", foot.moved(base), glossy(glaze, 0.1)),
        Part("lamp_shade", shade.moved(base), matte(pleats)),
    ]


def _pile() -> Part:
    pile = [_box((0.26, 0.19, 0.035), (-0.78, -HALF_Y + 0.22, 0.03 + 0.036 * k)) for k in range(3)]
    cover = glossy(textures.plaster((64, 64), 255, (0.50, 0.30, 0.22)), 0.35)
    return Part("sideboard_books", join(pile), cover)


def _door() -> list[Part]:
    door = [_box((0.04, 0.86, 2.02), (-HALF_X + 0.02, -1.25, FLOOR + 1.01), 0.006)]
    door += [
        _box((0.05, 0.09, 2.10), (-HALF_X + 0.025, -1.25 + s * 0.475, FLOOR + 1.05))
        for s in (-1, 1)
    ]
    door += [_box((0.05, 1.04, 0.09), (-HALF_X + 0.025, -1.25, FLOOR + 2.07))]
    door += [
        _box((0.02, 0.62, h), (-HALF_X + 0.048, -1.25, FLOOR + z), 0.008)
        for z, h in ((0.50, 0.62), (1.42, 0.84))
    ]
    lever = tube(
        curve(
            [
                (-HALF_X + 0.04, -0.90, 0.28),
                (-HALF_X + 0.09, -0.90, 0.28),
                (-HALF_X + 0.09, -0.94, 0.28),
                (-HALF_X + 0.09, -1.02, 0.28),
            ],
            20,
        ),
        0.008,
        8,
    )
    return [
        Part(
            "door",
            join(door),
            glossy(textures.wood((512, 256), 256, (0.66, 0.60, 0.50), (0.80, 0.76, 0.67)), 0.3),
        ),
        Part("door_lever", lever, metal((0.6, 0.58, 0.55), 0.2)),
    ]


def _plants() -> list[Part]:
    parts: list[Part] = []
    rim = np.array(
        [(0, 0), (0.13, 0), (0.18, 0.30), (0.188, 0.32), (0.170, 0.318), (0.16, 0.28), (0, 0.27)]
    )
    glaze = textures.speckled((256, 512), 257, (0.72, 0.70, 0.64), (0.32, 0.28, 0.24))
    for k, (px, py, count, rise) in enumerate([(-2.45, 0.35, 24, 1.10), (2.55, -2.15, 20, 1.25)]):
        stalks, blades = _foliage(count, 261 + k, 0.52, rise, 0.42)
        soil = (px, py, FLOOR + 0.26)
        tint = (0.24, 0.38, 0.22) if k == 0 else (0.32, 0.42, 0.24)
        parts += [
            Part(f"pot{k}", revolve(rim, 48).moved((px, py, FLOOR)), glossy(glaze, 0.15)),
            Part(
                f"soil{k}",
                disk(0.162, 0.0).moved((px, py, FLOOR + 0.275)),
                matte((0.26, 0.20, 0.15)),
            ),
            Part(f"stalks{k}", stalks.moved(soil), matte((0.36, 0.40, 0.22))),
            Part(
                f"blades{k}",
                blades.moved(soil),
                glossy(textures.leaf((256, 384), 263 + k, tint), 0.2),
            ),
        ]
    return parts


def _stool(timber: Pixels) -> Part:
    stool = [
        tube([(1.9, 1.7, -0.28), (1.9 + 0.2 * np.cos(a), 1.7 + 0.2 * np.sin(a), FLOOR)], 0.014, 8)
        for a in (0.5, 2.6, 4.7)
    ]
    stool += [revolve([(0, -0.30), (0.19, -0.30), (0.20, -0.285), (0.19, -0.27), (0, -0.27)], 48)]
    stool[-1] = stool[-1].moved((1.9, 1.7, 0))
    return Part("stool", join(stool), glossy(timber, 0.25))


def parts() -> list[Part]:
    """Return all parts of the room except its lights."""
    return [*_shell(), *_bookshelf(), *_pictures(), *_window(), *_furniture()]


def lights() -> list[Light]:
    """Make a dim garden behind the window, a skylight on the window side and a weak fill."""
    return [
        Light(
            "window",
            origin=(HALF_X - 0.01, 0.95, -0.05),
            along_u=(0, -1.9, 0),
            along_v=(0, 0, 1.55),
            radiance=(1.5, 1.55, 1.6),
            weight=0.14,
            picture=prints.garden((320, 400), 271),
        ),
        Light(
            "skylight",
            origin=(0.5, -0.2, CEILING - 0.01),
            along_u=(0, 1.7, 0),
            along_v=(1.5, 0, 0),
            radiance=(10.5, 10.1, 9.4),
            weight=0.54,
        ),
        Light(
            "fill",
            origin=(-2.3, -1.5, CEILING - 0.01),
            along_u=(0, 2.6, 0),
            along_v=(1.7, 0, 0),
            radiance=(3.2, 3.15, 3.0),
            weight=0.26,
        ),
    ]
