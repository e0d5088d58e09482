"""Sparse points as structure from motion would find them, from the known scene.

True surface points behind corner-like pixels are followed into the other pictures where they are
really visible. Noisy keypoints are drawn there, and the point moves to where these keypoints
triangulate: one Gauss-Newton step, exact for small noise, so that its error is larger along the
viewing rays, as in a real reconstruction. A few points are wrong matches, far off along their ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tools.still_life.cameras import Pinhole, Pose
from tools.still_life.rendering import nearest_hits

Array = NDArray[np.float64]
Index = NDArray[np.int64]

KEYPOINT_NOISE = 0.5  # px, standard deviation in x and in y
OUTLIERS = 0.03  # share of wrong points
DETECTION = 0.38  # chance that a visible corner is found and matched in a picture
MIN_ANGLE = 2.0  # degrees between the outermost rays of a track
MAX_ERROR = 2.0  # px, mean reprojection error of a point that is kept


@dataclass(frozen=True)
class Model:
    """Points xyz [P, 3], rgb [P, 3] and mean error [P] (px), and their observations.

    Each of the O observations has the index of its view, of its point, and its pixel [O, 2].
    """

    xyz: Array
    rgb: NDArray[np.uint8]
    error: Array
    observed_view: Index
    observed_point: Index
    observed_pixel: Array


def corners(
    photo: NDArray[np.uint8], count: int, rng: np.random.Generator, spacing: int = 5
) -> Array:
    """Pixel positions [N, 2] of up to `count` random local maxima of the structure tensor.

    The score is its smaller eigenvalue; weak corners count like strong ones, so that the points
    spread over all of the picture.
    """
    grey = photo.astype(float) @ [0.299, 0.587, 0.114]
    gy, gx = np.gradient(grey)
    xx, yy, xy = (_blur(a) for a in (gx * gx, gy * gy, gx * gy))
    score = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    score[:4], score[-4:], score[:, :4], score[:, -4:] = 0, 0, 0, 0
    best = score.copy()
    for axis in (0, 1):
        shifts = range(-(spacing // 2), spacing // 2 + 1)
        best = np.max([np.roll(best, shift, axis) for shift in shifts], axis=0)
    rows, columns = np.nonzero((score == best) & (score > 4.0))
    chosen = rng.permutation(len(rows))[:count]
    return np.stack([columns[chosen] + 0.5, rows[chosen] + 0.5], axis=-1)


def _blur(image: Array) -> Array:
    for axis in (0, 1):
        image = np.asarray((np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4)
    return np.asarray(image)


def _inside(pinhole: Pinhole, pose: Pose, points: Array) -> NDArray[np.bool_]:
    """Return true for points in front of the camera and within its image."""
    pixels, depth = pose.project(points, pinhole)
    far_edge = [pinhole.width - 2, pinhole.height - 2]
    return np.asarray((depth > 0.05) & (pixels > 2).all(1) & (pixels < far_edge).all(1))


def visible(
    scene: Any, pinhole: Pinhole, pose: Pose, points: Array, normals: Array
) -> NDArray[np.bool_]:
    """Return true for surface points that a camera sees, not hidden and not too obliquely."""
    inside = _inside(pinhole, pose, points)
    offset = points - pose.center
    distance = np.linalg.norm(offset, axis=1)
    inside &= np.abs((offset * normals).sum(1)) > 0.2 * distance
    rows = np.flatnonzero(inside)
    hit, _ = nearest_hits(scene, pose.center, offset[rows] / distance[rows, None])
    inside[rows] = np.abs(hit - distance[rows]) < 0.002 * distance[rows]
    return inside


def _candidates(
    scene: Any,
    pinhole: Pinhole,
    poses: Sequence[Pose],
    photos: Sequence[NDArray[np.uint8]],
    per_view: int,
    rng: np.random.Generator,
) -> tuple[Array, Array, NDArray[np.uint8], Index]:
    """Surface points behind corners: position, normal, colour and source view."""
    found = []
    for view, (pose, photo) in enumerate(zip(poses, photos, strict=True)):
        pixels = corners(photo, per_view, rng)
        rays = pose.rays(pixels, pinhole)
        distance, normals = nearest_hits(scene, pose.center, rays)
        ok = np.isfinite(distance)
        rgb = photo[pixels[ok, 1].astype(int), pixels[ok, 0].astype(int)]
        points = pose.center + distance[ok, None] * rays[ok]
        found.append((points, normals[ok], rgb, np.full(int(ok.sum()), view)))
    points, normals, rgb, views = (np.concatenate(column) for column in zip(*found, strict=True))
    return points, normals, rgb, views


def _matched(
    points: Array,
    seen: NDArray[np.bool_],
    source: Index,
    poses: Sequence[Pose],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return the share of visible points that a matcher would find, [views, points].

    Corners look alike only from similar directions and distances; of those, chance decides.
    """
    offset = np.stack([points - pose.center for pose in poses])
    distance = np.linalg.norm(offset, axis=-1)
    own = np.arange(len(points))
    cosine = (offset * offset[source, own]).sum(-1) / (distance * distance[source, own])
    ratio = distance / distance[source, own]
    alike = (cosine > np.cos(np.radians(50))) & (ratio > 0.5) & (ratio < 2)
    found = seen & alike & (rng.random(seen.shape) < DETECTION * np.clip(cosine, 0, 1))
    found[source, own] = True
    found[:, found.sum(0) < min(3, len(poses))] = False
    return np.asarray(found)


def _with_wrong_matches(
    points: Array,
    seen: NDArray[np.bool_],
    source: Index,
    pinhole: Pinhole,
    poses: Sequence[Pose],
    rng: np.random.Generator,
) -> tuple[Array, NDArray[np.bool_]]:
    """Points and visibility with a few points displaced along their first ray, on short tracks."""
    points, seen = points.copy(), seen.copy()
    for n in np.flatnonzero(rng.random(len(points)) < OUTLIERS):
        center = poses[int(source[n])].center
        factor = np.exp(rng.choice([-1, 1]) * rng.uniform(0.12, 0.7))
        points[n] = center + factor * (points[n] - center)
        others = [v for v in np.flatnonzero(seen[:, n]) if v != source[n]]
        inside = [v for v in others if _inside(pinhole, poses[int(v)], points[n : n + 1])[0]]
        seen[:, n] = False
        seen[[source[n], *inside[:2]], n] = True
    return points, seen


def _jacobians(pose: Pose, pinhole: Pinhole, points: Array) -> Array:
    """Return the derivative [N, 2, 3] of the pixels with respect to the world points."""
    p = (points - pose.center) @ pose.rotation.T
    j = np.zeros((len(p), 2, 3))
    j[:, 0, 0], j[:, 0, 2] = pinhole.fx / p[:, 2], -pinhole.fx * p[:, 0] / p[:, 2] ** 2
    j[:, 1, 1], j[:, 1, 2] = pinhole.fy / p[:, 2], -pinhole.fy * p[:, 1] / p[:, 2] ** 2
    return np.asarray(j @ pose.rotation)


def _spread(points: Array, poses: Sequence[Pose], seen: NDArray[np.bool_]) -> Array:
    """Largest angle in degrees between rays of each point's track; `seen` is [views, points]."""
    smallest = np.ones(len(points))
    rays = np.stack([points - pose.center for pose in poses])
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    for view in range(len(poses)):
        cosines = (rays * rays[view]).sum(-1)
        both = seen & seen[view]
        smallest = np.minimum(smallest, np.where(both, cosines, 1.0).min(axis=0))
    return np.degrees(np.arccos(np.clip(smallest, -1, 1)))


def _triangulate(
    points: Array,
    pixels: Array,
    noise: Array,
    seen: NDArray[np.bool_],
    pinhole: Pinhole,
    poses: Sequence[Pose],
) -> tuple[Array, Array]:
    """Points where the noisy keypoints meet, and their mean reprojection errors in px."""
    normal, right = np.tile(1e-9 * np.eye(3), (len(points), 1, 1)), np.zeros((len(points), 3))
    for view, pose in enumerate(poses):
        j = _jacobians(pose, pinhole, points) * seen[view][:, None, None]
        normal += np.swapaxes(j, 1, 2) @ j
        right += np.einsum("nij,ni->nj", j, noise[view])
    moved = points + np.linalg.solve(normal, right[..., None])[..., 0]
    total = np.zeros(len(points))
    for view, pose in enumerate(poses):
        gap = pose.project(moved, pinhole)[0] - (pixels[view] + noise[view])
        total += np.where(seen[view], np.linalg.norm(gap, axis=1), 0)
    return moved, total / np.maximum(seen.sum(0), 1)


def reconstruct(
    scene: Any,
    pinhole: Pinhole,
    poses: Sequence[Pose],
    photos: Sequence[NDArray[np.uint8]],
    count: int,
    seed: int,
) -> Model:
    """Sparse model of about `count` points.

    Args:
        scene: the Mitsuba scene.
        pinhole: camera of all pictures.
        poses: one per picture.
        photos: pictures uint8 [H, W, 3].
        count: number of points aimed at.
        seed: of all random choices.
    """
    rng = np.random.default_rng(seed)
    per_view = max(8, round(3 * count / len(poses)))
    points, normals, rgb, source = _candidates(scene, pinhole, poses, photos, per_view, rng)
    order = rng.permutation(len(points))
    points, normals, rgb, source = points[order], normals[order], rgb[order], source[order]
    progress = tqdm(poses, desc="points", unit="view")
    seen = np.stack([visible(scene, pinhole, pose, points, normals) for pose in progress])
    seen = _matched(points, seen, source, poses, rng)
    points, seen = _with_wrong_matches(points, seen, source, pinhole, poses, rng)
    pixels = np.stack([pose.project(points, pinhole)[0] for pose in poses])
    noise = rng.normal(0, KEYPOINT_NOISE, pixels.shape)
    moved, error = _triangulate(points, pixels, noise, seen, pinhole, poses)
    good = (seen.sum(0) >= 2) & (_spread(points, poses, seen) > MIN_ANGLE) & (error < MAX_ERROR)
    keep = np.flatnonzero(good)[:count]
    views, rows = np.nonzero(seen[:, keep])
    keypoints = (pixels + noise)[views, keep[rows]]
    return Model(moved[keep], rgb[keep], error[keep], views, rows, keypoints)
