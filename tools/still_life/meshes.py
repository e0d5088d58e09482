"""Triangle meshes from parametric surfaces (metres, z up)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: vertices [V, 3], normals [V, 3], uv [V, 2], faces [F, 3]."""

    vertices: Array
    normals: Array
    uv: Array
    faces: NDArray[np.int64]

    def moved(self, by: ArrayLike) -> Mesh:
        """Return the mesh translated by the vector `by` [3]."""
        return Mesh(self.vertices + np.asarray(by, float), self.normals, self.uv, self.faces)

    def turned(self, rotation: Array) -> Mesh:
        """Return the mesh rotated about the origin by the matrix `rotation` [3, 3]."""
        return Mesh(self.vertices @ rotation.T, self.normals @ rotation.T, self.uv, self.faces)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of all the triangles of `meshes`."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]),
    )


def rotation(axis: str, degrees: float) -> Array:
    """Rotation matrix [3, 3] about the axis "x", "y" or "z"."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[j, j], matrix[i, j], matrix[j, i] = c, c, -s, s
    return matrix


def unit(vectors: Array) -> Array:
    """Vectors [..., 3] divided by their lengths; null vectors stay null."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12))


def _slope(points: Array, axis: int, closed: bool) -> Array:
    if not closed:
        return np.asarray(np.gradient(points, axis=axis))
    # The last row repeats the first: leave it out of the periodic difference, then put it back.
    ring = np.delete(points, -1, axis=axis)
    slope = np.roll(ring, -1, axis=axis) - np.roll(ring, 1, axis=axis)
    return np.concatenate([slope, np.take(slope, [0], axis=axis)], axis=axis)


def surface(points: Array, closed: tuple[bool, bool] = (False, False)) -> Mesh:
    """Smooth mesh of a parametric surface.

    Args:
        points: [R, C, 3] samples; a closed direction repeats its first row or column at its end.
        closed: whether rows and columns close up. Normals point along d/dcolumn x d/drow; texture
            u runs over columns and v over rows.
    """
    rows, columns = points.shape[:2]
    normals = unit(np.cross(_slope(points, 1, closed[1]), _slope(points, 0, closed[0])))
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    uv = np.stack([u, v], -1).reshape(-1, 2)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), uv, faces)


def curve(knots: ArrayLike, samples: int) -> Array:
    """Smooth curve [samples, D] through `knots` [K, D] (Catmull-Rom)."""
    p = np.asarray(knots, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(p) - 3, samples)
    i = np.minimum(t.astype(int), len(p) - 4)
    x = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    cubic = (3 * (b - c) + d - a) * x**3 + (2 * a - 5 * b + 4 * c - d) * x**2 + (c - a) * x
    return np.asarray(b + 0.5 * cubic)


def revolve(profile: ArrayLike, segments: int = 72, samples: int = 0) -> Mesh:
    """Surface of revolution about z of the (radius, height) `profile` [K, 2], bottom to top.

    Normals point outwards where the profile climbs. `samples` > 0 first smooths the profile.
    """
    line = curve(profile, samples) if samples else np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    r, z = np.maximum(line[:, :1], 0.0), line[:, 1:]
    points = np.stack(
        [r * np.cos(angle), r * np.sin(angle), np.broadcast_to(z, r.shape) + 0 * angle], -1
    )
    mesh = surface(points, closed=(False, True))
    # At a pole the columns coincide: take the normals of the neighbouring row there.
    normals = mesh.normals.reshape(len(line), segments + 1, 3).copy()
    for row, inner in ((0, 1), (-1, -2)):
        if line[row, 0] < 1e-6:
            normals[row] = unit(normals[inner].mean(axis=0))
    return Mesh(mesh.vertices, normals.reshape(-1, 3), mesh.uv, mesh.faces)


def disk(radius: float, z: float, segments: int = 48) -> Mesh:
    """Horizontal disk facing up, with texture coordinates of its bounding square."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rim = np.stack([np.cos(angle), np.sin(angle)], -1)
    flat = np.concatenate([np.zeros((1, 2)), rim])
    vertices = np.concatenate([radius * flat, np.full((segments + 1, 1), z)], axis=1)
    i = np.arange(segments)
    faces = np.stack([np.zeros_like(i), 1 + i, 1 + (i + 1) % segments], -1)
    return Mesh(vertices, np.tile([0.0, 0, 1], (segments + 1, 1)), 0.5 + 0.5 * flat, faces)


def tube(path: ArrayLike, radius: ArrayLike, segments: int = 10) -> Mesh:
    """Tube around the polyline `path` [K, 3] with one radius or K radii, its ends closed."""
    p = np.asarray(path, float)
    r = np.broadcast_to(np.asarray(radius, float), (len(p),)).copy()
    tangent = unit(np.gradient(p, axis=0))
    side = np.empty_like(p)
    helper = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    for k, t in enumerate(tangent):  # parallel transport keeps the frame from twisting
        helper = unit(helper - t * (helper @ t))
        side[k] = helper
    other = np.cross(tangent, side)
    # A point of radius 0 on either end makes the caps.
    p, side, other = (np.concatenate([a[:1], a, a[-1:]]) for a in (p, side, other))
    r = np.concatenate([[0.0], r, [0.0]])
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None, :, None]
    offset = np.cos(angle) * side[:, None] + np.sin(angle) * other[:, None]
    mesh = surface(p[:, None] + r[:, None, None] * offset, closed=(False, True))
    normals = np.broadcast_to(offset, (len(p), segments + 1, 3)).copy()
    normals[0], normals[-1] = -tangent[0], tangent[-1]
    return Mesh(mesh.vertices, normals.reshape(-1, 3), mesh.uv, mesh.faces)


def rounded_box(size: ArrayLike, radius: float, steps: int = 3) -> Mesh:
    """Box of full `size` [3] centred at 0 with rounded edges; u, v run over 0..1 on every face."""
    half = np.asarray(size, float) / 2
    radius = min(radius, 0.999 * float(half.min()))
    parts = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            i, j = [(1, 2), (0, 2), (0, 1)][axis]
            bend = np.sin(np.linspace(0, np.pi / 4, steps + 1))[1:] / np.sin(np.pi / 4)
            lines = []
            for k in (i, j):
                inner = half[k] - radius
                edge = inner + radius * bend
                lines.append(np.concatenate([-edge[::-1], [-inner, inner], edge]))
            grid_j, grid_i = np.meshgrid(lines[1], lines[0], indexing="ij")
            points = np.zeros((*grid_i.shape, 3))
            points[..., axis] = sign * half[axis]
            points[..., i], points[..., j] = grid_i, grid_j
            core = np.clip(points, -(half - radius), half - radius)
            normal = unit(points - core)
            mesh = surface(core + radius * normal)
            uv = np.stack([grid_i / half[i], grid_j / half[j]], -1).reshape(-1, 2) / 2 + 0.5
            if sign * (-1 if axis == 1 else 1) < 0:
                uv[:, 0] = 1 - uv[:, 0]  # pictures read the right way round from outside
            parts.append(Mesh(mesh.vertices, normal.reshape(-1, 3), uv, mesh.faces))
    return join(parts)


def panel(origin: ArrayLike, along_u: ArrayLike, along_v: ArrayLike) -> Mesh:
    """Flat quadrilateral origin + u along_u + v along_v, facing along_u x along_v."""
    o, a, b = (np.asarray(x, float) for x in (origin, along_u, along_v))
    return surface(np.stack([np.stack([o, o + a]), np.stack([o + b, o + a + b])]))
