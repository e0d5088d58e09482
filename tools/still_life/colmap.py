"""COLMAP's binary files (little-endian), one PINHOLE camera.

Source: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.still_life.cameras import Pinhole, Pose
from tools.still_life.points import Model

_PINHOLE = 1


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit quaternion (w, x, y, z), w >= 0, of a rotation matrix [3, 3].

    The eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric 4 x 4 matrix.
    """
    m = rotation
    k = np.zeros((4, 4))
    k[0, 0] = np.trace(m)
    k[0, 1:] = k[1:, 0] = [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]
    k[1:, 1:] = m + m.T - np.trace(m) * np.eye(3)
    vector = np.linalg.eigh(k)[1][:, -1]
    return np.asarray(vector if vector[0] >= 0 else -vector)


def write_model(
    folder: Path, pinhole: Pinhole, poses: Sequence[Pose], names: Sequence[str], model: Model
) -> None:
    """Write cameras.bin, images.bin and points3D.bin; ids count from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    p = pinhole
    camera = struct.pack("<QiiQQ4d", 1, 1, _PINHOLE, p.width, p.height, p.fx, p.fy, p.cx, p.cy)
    (folder / "cameras.bin").write_bytes(camera)

    images = [struct.pack("<Q", len(poses))]
    slot = np.zeros(len(model.observed_view), dtype=np.int64)
    keypoint = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
    for k, (pose, name) in enumerate(zip(poses, names, strict=True)):
        rows = np.flatnonzero(model.observed_view == k)
        slot[rows] = np.arange(len(rows))
        points = np.zeros(len(rows), dtype=keypoint)
        points["x"], points["y"] = model.observed_pixel[rows].T
        points["point"] = model.observed_point[rows] + 1
        translation = -pose.rotation @ pose.center
        images.append(struct.pack("<i7di", k + 1, *quaternion(pose.rotation), *translation, 1))
        images.append(name.encode() + b"\0" + struct.pack("<Q", len(rows)) + points.tobytes())
    (folder / "images.bin").write_bytes(b"".join(images))

    order = np.argsort(model.observed_point, kind="stable")
    starts = np.searchsorted(model.observed_point[order], np.arange(len(model.xyz) + 1))
    points3d = [struct.pack("<Q", len(model.xyz))]
    for n, (xyz, rgb) in enumerate(zip(model.xyz, model.rgb, strict=True)):
        rows = order[starts[n] : starts[n + 1]]
        track = np.stack([model.observed_view[rows] + 1, slot[rows]], -1).astype("<i4")
        points3d.append(struct.pack("<Q3d3Bd", n + 1, *xyz, *rgb.tolist(), float(model.error[n])))
        points3d.append(struct.pack("<Q", len(rows)) + track.tobytes())
    (folder / "points3D.bin").write_bytes(b"".join(points3d))
