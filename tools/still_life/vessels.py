# ruff: noqa: RUF005 - an array plus a list is a sum of vectors here, not a longer list
"""Vessels of the still life with what they hold: twigs, fruit, pencils."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tools.still_life import textures
from tools.still_life.materials import BRASS, Part, Picture, bumpy, glossy, matte, metal
from tools.still_life.meshes import (
    Array,
    Mesh,
    curve,
    disk,
    join,
    revolve,
    rotation,
    surface,
    tube,
    unit,
)
from tools.still_life.noise import noise

CLOTH = 0.003  # height of the top of the flat cloth, m


def _vase() -> list[Part]:
    outer = [
        (0.0, 0.0), (0.046, 0.0), (0.050, 0.006), (0.066, 0.05), (0.083, 0.10), (0.086, 0.14),
        (0.070, 0.19), (0.044, 0.235), (0.033, 0.265), (0.036, 0.285), (0.046, 0.298),
    ]  # fmt: skip
    inner = [
        (0.046, 0.298),
        (0.042, 0.298),
        (0.032, 0.283),
        (0.029, 0.265),
        (0.030, 0.22),
        (0.0, 0.20),
    ]
    body = revolve(outer, 96, 90)
    # Texture height follows z, so that the bands keep their place whatever the profile.
    uv = np.stack([body.uv[:, 0], np.clip(body.vertices[:, 2] / 0.298, 0, 1)], -1)
    body = Mesh(body.vertices, body.normals, uv, body.faces)
    at = np.array([0.06, 0.19, CLOTH])
    paint = textures.painted_vase((800, 1400), 31)
    return [
        Part("vase", body.moved(at), glossy(paint, 0.06)),
        Part("vase_inside", revolve(inner, 64, 40).moved(at), glossy((0.80, 0.80, 0.76), 0.1)),
    ]


def _leaf(length: float, width: float, droop: float, cup: float) -> Mesh:
    """Leaf along +x from the origin, its upper side towards +z."""
    u, v = np.meshgrid(np.linspace(0, 1, 11), np.linspace(-1, 1, 7))
    half = width * np.sin(np.pi * u**0.75) ** 0.8
    points = np.stack(
        [length * u, half * v, cup * half * np.abs(v) ** 1.5 - droop * length * u**2], -1
    )
    return surface(points)


def _twigs() -> list[Part]:
    rng = np.random.default_rng(41)
    base = np.array([0.06, 0.19, 0.285])
    stems: list[Mesh] = []
    leaves: list[Mesh] = []
    pale: list[Mesh] = []
    berries: list[Mesh] = []
    for k in range(7):
        angle = 2 * np.pi * (k + rng.uniform(-0.2, 0.2)) / 7
        lean = rng.uniform(0.10, 0.24)
        height = rng.uniform(0.20, 0.31)
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        knots = [
            base + out * 0.004 - [0, 0, 0.07],
            base + out * 0.022 + [0, 0, 0.01],
            base + out * lean * 0.45 + [0, 0, height * 0.55],
            base + out * lean + [0, 0, height] + rng.normal(0, 0.01, 3),
        ]
        path = curve(knots, 40)
        stems.append(tube(path, np.linspace(0.0024, 0.0009, 40), 7))
        if k in (2, 5):  # two twigs carry berries instead of leaves
            stalks, fruit = _berries(path, rng)
            stems += stalks
            berries += fruit
            continue
        for blade in _blades(path, rng):
            (leaves if rng.random() < 0.7 else pale).append(blade)
    bark = (0.30, 0.22, 0.14)
    return [
        Part("stems", join(stems), matte(bark)),
        Part(
            "leaves", join(leaves), glossy(textures.leaf((128, 256), 42, (0.30, 0.42, 0.22)), 0.25)
        ),
        Part(
            "pale_leaves",
            join(pale),
            glossy(textures.leaf((128, 256), 43, (0.44, 0.52, 0.36)), 0.25),
        ),
        Part("berries", join(berries), glossy((0.62, 0.12, 0.09), 0.1)),
    ]


def _berries(path: Array, rng: np.random.Generator) -> tuple[list[Mesh], list[Mesh]]:
    """Make the stalks and the berries of a twig along `path` [40, 3]."""
    stems: list[Mesh] = []
    berries: list[Mesh] = []
    for j in range(14, 40, 2):
        way = unit(rng.normal(0, 1, 3) + [0, 0, 0.3])
        tip = path[j] + way * rng.uniform(0.018, 0.030)
        stems.append(tube(curve([path[j], (path[j] + tip) / 2 + [0, 0, 0.002], tip], 6), 0.0006, 5))
        profile = 0.0058 * np.stack([np.sin(a := np.linspace(0, np.pi, 12)), -np.cos(a)], -1)
        berries.append(revolve(profile, 16).moved(tip))
    return stems, berries


def _blades(path: Array, rng: np.random.Generator) -> Iterator[Mesh]:
    """Make the leaves of a twig along `path` [40, 3], one at a time."""
    for j in range(13, 40, 2):
        for side in (-1, 1):
            tangent = unit(path[min(j + 1, 39)] - path[j - 1])
            around = unit(np.cross(tangent, rng.normal(0, 1, 3)))
            forward = unit(side * around * 0.9 + tangent * 0.55 + rng.normal(0, 0.15, 3))
            up = unit(
                np.cross(np.cross(forward, np.array([0, 0, 1.0])), forward) + rng.normal(0, 0.25, 3)
            )
            across = unit(np.cross(up, forward))
            size = rng.uniform(0.036, 0.056) * (1.15 - j / 90)
            blade = _leaf(
                size,
                size * rng.uniform(0.30, 0.40),
                rng.uniform(0, 0.35),
                rng.uniform(0.1, 0.4),
            )
            frame = np.stack([forward, across, np.cross(forward, across)], axis=1)
            yield blade.turned(frame).moved(path[j])


def _jug() -> list[Part]:
    """Hammered brass jug with a handle."""
    outer = [
        (0.0, 0.0), (0.046, 0.0), (0.049, 0.004), (0.058, 0.03), (0.064, 0.065), (0.056, 0.105),
        (0.042, 0.135), (0.040, 0.155), (0.049, 0.182), (0.0505, 0.184), (0.0475, 0.182),
        (0.038, 0.155), (0.036, 0.12), (0.0, 0.10),
    ]  # fmt: skip
    body = revolve(outer, 96, 140)
    points = body.vertices.copy()
    lip = (
        np.clip((points[:, 2] - 0.15) / 0.034, 0, 1) ** 2 * np.clip(points[:, 0] / 0.05, 0, 1) ** 6
    )
    points += lip[:, None] * np.array([0.014, 0, 0.004])
    body = Mesh(points, body.normals, body.uv, body.faces)
    knots = [
        (-0.043, 0, 0.172),
        (-0.072, 0, 0.178),
        (-0.098, 0, 0.14),
        (-0.088, 0, 0.085),
        (-0.058, 0, 0.055),
    ]
    handle = tube(curve(knots, 40), 0.0048 + 0.0014 * np.cos(np.linspace(0, 2 * np.pi, 40)), 12)
    turn, at = rotation("z", 205), (0.0, -0.045, CLOTH)
    dents = noise((512, 512), 51, 0.4, low=7, high=17)
    return [
        Part("jug", body.turned(turn).moved(at), bumpy(metal(BRASS, 0.17), dents, 0.0012)),
        Part("jug_handle", handle.turned(turn).moved(at), metal(BRASS, 0.15)),
    ]


def _fruit(radius: float, squash: float, dimple: float, nose: float = 0.0) -> Mesh:
    """Round fruit centred at the origin: dimpled poles (apple) or a nose (lemon)."""
    a = np.linspace(0, np.pi, 60)
    r = np.sin(a) * (1 + 0.10 * (dimple > 0) * np.cos(a) * -1)
    z = -np.cos(a) * squash * (1 - dimple * np.exp(-((np.sin(a) / 0.42) ** 2)))
    z = z + nose * np.sign(z) * np.exp(-((np.sin(a) / 0.22) ** 2))
    mesh = revolve(radius * np.stack([r, z], -1), 64)
    angle = np.arctan2(mesh.vertices[:, 1], mesh.vertices[:, 0])
    bulge = 1 + 0.018 * np.cos(5 * angle) * (dimple > 0) * np.clip(
        -mesh.vertices[:, 2] / radius + 0.3, 0, 1
    )
    return Mesh(mesh.vertices * bulge[:, None], mesh.normals, mesh.uv, mesh.faces)


def _stalk(top: float) -> Mesh:
    return tube(
        curve([(0, 0, top), (0.002, 0, top + 0.012), (0.007, 0.001, top + 0.022)], 10), 0.0013, 6
    )


def _bowl_and_fruit() -> list[Part]:
    outer = [
        (0.0, 0.004), (0.040, 0.004), (0.043, 0.0), (0.052, 0.0), (0.053, 0.008), (0.088, 0.026),
        (0.118, 0.056), (0.130, 0.080), (0.1295, 0.0825), (0.125, 0.081), (0.112, 0.058),
        (0.083, 0.032), (0.045, 0.017), (0.0, 0.013),
    ]  # fmt: skip
    at = np.array([0.275, -0.025, CLOTH])
    glaze = textures.speckled((512, 1024), 61, (0.60, 0.68, 0.66), (0.24, 0.26, 0.24))
    parts = [Part("bowl", revolve(outer, 96, 150).moved(at), glossy(glaze, 0.09))]
    red = Picture(textures.apple((512, 512), 62, (0.62, 0.10, 0.08), (0.80, 0.66, 0.26)))
    green = Picture(textures.apple((512, 512), 63, (0.66, 0.58, 0.20), (0.56, 0.66, 0.24)))
    orange = Picture(textures.peel((512, 512), 64, (0.90, 0.50, 0.12), (0.80, 0.50, 0.16)))
    lemon = Picture(textures.peel((512, 512), 65, (0.92, 0.78, 0.22), (0.74, 0.72, 0.28)))
    pores = noise((256, 256), 66, 0.3, low=14, high=60)
    apple, citrus, sour = (
        _fruit(0.040, 0.90, 0.28),
        _fruit(0.039, 0.96, 0.06),
        _fruit(0.030, 1.18, 0, 0.16),
    )
    skins = {"red": glossy(red, 0.12), "green": glossy(green, 0.12)}
    skins["orange"] = bumpy(glossy(orange, 0.18), pores, 0.00022)
    skins["lemon"] = bumpy(glossy(lemon, 0.18), pores, 0.0002)
    stalks = []
    # name, shape, skin, middle, tilt about x, turn about z
    bowl = [
        ("apple_a", apple, "red", at + [0.050, 0.028, 0.064], 25, 20),
        ("orange_a", citrus, "orange", at + [-0.030, 0.048, 0.063], 70, 130),
        ("apple_b", apple, "green", at + [-0.046, -0.032, 0.064], -20, 210),
        ("orange_b", citrus, "orange", at + [0.036, -0.050, 0.064], 30, 300),
        ("lemon_a", sour, "lemon", at + [0.001, 0.004, 0.113], 80, 35),
    ]
    loose = [
        ("apple_c", apple, "red", np.array([0.435, -0.235, 0.0355]), 8, 80),
        ("lemon_b", sour, "lemon", np.array([0.085, -0.165, 0.030]), 90, 250),
        ("orange_c", citrus, "orange", np.array([-0.475, 0.235, 0.0375]), 0, 250),
        ("apple_d", apple, "red", np.array([-0.205, 0.150, 0.125 + CLOTH + 0.0355]), -10, 160),
    ]
    for name, shape, skin, middle, tilt, turn in bowl + loose:
        spin = rotation("z", turn) @ rotation("x", tilt)
        parts.append(Part(name, shape.turned(spin).moved(middle), skins[skin]))
        if shape is apple:
            stalks.append(_stalk(0.026).turned(spin).moved(middle))
    return [*parts, Part("stalks", join(stalks), matte((0.28, 0.19, 0.11)))]


def _pencil(start: Array, stop: Array, roll: float) -> tuple[Mesh, Mesh, Mesh]:
    """Hexagonal shaft, bare wooden cone and lead, from the blunt end to the tip."""
    way = unit(stop - start)
    length = float(np.linalg.norm(stop - start))
    side = unit(np.cross(way, np.array([0.3, 0.2, 0.9])))
    frame = np.stack([side, np.cross(way, side), way], axis=1) @ rotation("z", roll)
    angle = np.repeat(np.arange(7), 2)[1:-1] * np.pi / 3  # doubled corners keep the edges sharp
    hexagon = 0.0037 * np.stack([np.cos(angle), np.sin(angle)], -1)
    corners = np.stack([np.column_stack([hexagon, np.full(12, z)]) for z in (0.0, length - 0.022)])
    sides = [surface(corners[:, k : k + 2]) for k in range(0, 12, 2)]
    shaft = join([*sides, disk(0.0034, 0.0).turned(rotation("x", 180))])
    cone = revolve([(0.0037, length - 0.0225), (0.0012, length - 0.006)], 16)
    lead = revolve([(0.0012, length - 0.006), (0.0003, length)], 12)
    return tuple(m.turned(frame).moved(start) for m in (shaft, cone, lead))  # type: ignore[return-value]


def _mug_and_pencils() -> list[Part]:
    outer = [
        (0.0, 0.003), (0.030, 0.003), (0.034, 0.0), (0.038, 0.003), (0.0405, 0.012), (0.0415, 0.05),
        (0.042, 0.094), (0.041, 0.0965), (0.039, 0.094), (0.038, 0.02), (0.034, 0.008),
        (0.0, 0.007),
    ]  # fmt: skip
    body = revolve(outer, 72, 120)
    radial = np.sum(body.normals[:, :2] * body.vertices[:, :2], axis=1) > -1e-4
    v = np.where(radial, body.vertices[:, 2] / 0.0965, 0.93)
    body = Mesh(body.vertices, body.normals, np.stack([body.uv[:, 0], v], -1), body.faces)
    grip = curve(
        [
            (0.040, 0, 0.080),
            (0.062, 0, 0.082),
            (0.070, 0, 0.055),
            (0.060, 0, 0.026),
            (0.040, 0, 0.022),
        ],
        30,
    )
    at = np.array([-0.315, -0.185, 0.0])
    turn = rotation("z", 200)
    parts = [
        Part("mug", body.moved(at), glossy(textures.banded_mug((400, 900), 81), 0.1)),
        Part(
            "mug_handle",
            tube(grip, 0.0052, 12).turned(turn).moved(at),
            glossy((0.84, 0.78, 0.66), 0.1),
        ),
    ]
    rng = np.random.default_rng(82)
    paints = [
        (0.86, 0.62, 0.12),
        (0.62, 0.13, 0.11),
        (0.14, 0.32, 0.50),
        (0.16, 0.40, 0.28),
        (0.86, 0.62, 0.12),
        (0.20, 0.18, 0.18),
        (0.72, 0.36, 0.14),
    ]
    cones, leads = [], []
    for k, paint in enumerate(paints):
        angle = 2 * np.pi * k / len(paints) + rng.uniform(-0.2, 0.2)
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        rest = out * 0.0335 + np.array([0, 0, 0.0965])  # leans on the inner rim
        foot = -out * rng.uniform(0.005, 0.024) + np.array([0, 0, 0.009])
        tip = foot + unit(rest - foot) * rng.uniform(0.150, 0.178)
        shaft, cone, lead = _pencil(at + foot, at + tip, rng.uniform(0, 60))
        parts.append(Part(f"pencil{k}", shaft, glossy(paint, 0.12)))
        cones.append(cone)
        leads.append(lead)
    shaft, cone, lead = _pencil(
        np.array([-0.185, -0.385, 0.006]), np.array([-0.035, -0.285, 0.006]), 0
    )
    parts.append(Part("pencil_loose", shaft, glossy((0.14, 0.32, 0.50), 0.12)))
    return [
        *parts,
        Part("pencil_cones", join([*cones, cone]), matte((0.78, 0.60, 0.40))),
        Part("pencil_leads", join([*leads, lead]), matte((0.12, 0.12, 0.13))),
    ]


def parts() -> list[Part]:
    """Vase with twigs, jug, bowl of fruit, mug of pencils."""
    return [*_vase(), *_twigs(), *_jug(), *_bowl_and_fruit(), *_mug_and_pencils()]
