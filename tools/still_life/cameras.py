"""The camera and its hand-held path around the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.still_life.meshes import unit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pinhole:
    """Intrinsics in px; the centre of the first pixel is at (0.5, 0.5)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def of_size(cls, width: int, height: int) -> Pinhole:
        """Return the scene's camera for images of `width` x `height` px."""
        s = width / 640
        return cls(width, height, 566.4 * s, 566.4 * s, 322.6 * s, height / 2 - 1.9 * s)


@dataclass(frozen=True)
class Pose:
    """World-to-camera rotation [3, 3] (x right, y down, z forward) and camera centre [3], m."""

    rotation: Array
    center: Array

    def project(self, points: Array, pinhole: Pinhole) -> tuple[Array, Array]:
        """Pixel positions [N, 2] and depths [N] of world points [N, 3]."""
        p = (points - self.center) @ self.rotation.T
        z = np.where(np.abs(p[:, 2]) < 1e-9, 1e-9, p[:, 2])
        pixels = p[:, :2] / z[:, None] * [pinhole.fx, pinhole.fy] + [pinhole.cx, pinhole.cy]
        return pixels, p[:, 2]

    def rays(self, pixels: Array, pinhole: Pinhole) -> Array:
        """Return unit world directions [N, 3] through the pixel positions [N, 2]."""
        xy = (pixels - [pinhole.cx, pinhole.cy]) / [pinhole.fx, pinhole.fy]
        return unit(np.column_stack([xy, np.ones(len(xy))]) @ self.rotation)


def _looking(center: Array, target: Array, roll: float) -> Pose:
    forward = unit(target - center)
    right = unit(np.cross(forward, [0.0, 0, 1]))
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return Pose(np.stack([c * right + s * down, c * down - s * right, forward]), center)


def camera_path(count: int, seed: int = 7) -> list[Pose]:
    """Poses along three turns about the table: a low ring, a high ring, and a near-and-far wave.

    Neighbours on the path are about 18 degrees apart and the three turns are staggered, so that a
    picture left out always has close neighbours.
    """
    rng = np.random.default_rng(seed)
    poses = []
    for k in range(count):
        along = 3 * k / count
        turn = int(along)
        angle = 2 * np.pi * along + np.radians(6) * turn - np.radians(100)
        blend = along - turn
        if turn == 0:
            radius, height = 1.12, 0.36 + 0.06 * np.sin(2 * angle)
        elif turn == 1:
            radius, height = 1.02, 0.66 + 0.07 * np.sin(3 * angle)
        else:
            radius = 1.20 + 0.45 * np.sin(4 * np.pi * blend + 0.6)
            height = 0.50 + 0.16 * np.sin(6 * np.pi * blend)
        center = np.array([radius * np.cos(angle), 0.94 * radius * np.sin(angle), height])
        center += rng.normal(0, [0.025, 0.025, 0.02])
        target = np.array([0.0, 0.0, 0.125]) + rng.normal(0, [0.04, 0.04, 0.02])
        poses.append(_looking(center, target, rng.normal(0, np.radians(1.3))))
    return poses
