"""Cameras as the `cameras.json` of 3D Gaussian splatting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.json_files import read_json, write_json
from splatrender.model.camera import Camera


def write_cameras_json(path: str | os.PathLike[str], cameras: Sequence[Camera]) -> None:
    """Write cameras as the `cameras.json` of 3D Gaussian splatting, atomically.

    Each has id, img_name, width, height, position (centre), rotation (rows of the camera-to-world
    rotation), fx, fy, and cx, cy [px], which other programs leave out.

    Args:
        path: file to write.
        cameras: in the world.

    Raises:
        InputError: the file cannot be made.
    """
    rows = [
        {
            "id": i,
            "img_name": camera.name,
            "width": camera.width,
            "height": camera.height,
            "position": camera.center.tolist(),
            "rotation": camera.viewmat[:3, :3].T.tolist(),
            "fy": camera.fy,
            "fx": camera.fx,
            "cx": camera.cx,
            "cy": camera.cy,
        }
        for i, camera in enumerate(cameras)
    ]
    write_json(path, rows)


def load_cameras(path: str | os.PathLike[str]) -> list[Camera]:
    """Read cameras from a file as written by `write_cameras_json` or by 3D Gaussian splatting.

    Args:
        path: JSON file: a list of objects with width, height, position [3] in the world (that of
            the .ply file beside it), rotation [3][3], fx, fy, and optionally img_name, cx, cy
            (the middle by default).

    Returns:
        The cameras, in the file's order and in its world: that of `Splats.load`. For splats of a
        loaded scene, `scene.similarity.apply` moves them inside.

    Raises:
        InputError: the file is missing or is not JSON, or a camera lacks a field or has a bad one.
    """
    path = Path(path)
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a list of cameras, got {_kind(rows)}")
    return [_camera_from_json(path, i, row) for i, row in enumerate(rows)]


@dataclass(frozen=True)
class _Field:
    """A field of a camera in JSON: its name and the shape of its numbers."""

    name: str
    shape: tuple[int, ...]
    optional: bool = False


_FIELDS = (
    _Field("width", ()),
    _Field("height", ()),
    _Field("position", (3,)),
    _Field("rotation", (3, 3)),
    _Field("fx", ()),
    _Field("fy", ()),
    _Field("cx", (), optional=True),
    _Field("cy", (), optional=True),
)


def _camera_from_json(path: Path, i: int, row: Any) -> Camera:
    where = f"{path}: camera {i}"
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object, got {_kind(row)}")
    values = {}
    for field in _FIELDS:
        if field.name not in row:
            if field.optional:
                continue
            raise InputError(f"{where}: expected a field {field.name!r}, got none")
        try:
            value = torch.tensor(row[field.name], dtype=torch.float64)
        except (TypeError, ValueError, OverflowError):
            value = torch.empty(0)
        if value.shape != field.shape or not value.isfinite().all():
            wanted = f"finite numbers of shape {field.shape}" if field.shape else "a finite number"
            raise InputError(
                f"{where}: expected {wanted} as {field.name!r}, got {row[field.name]!r:.80}"
            )
        values[field.name] = value
    rotation = _orthonormal(values["rotation"]).T
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ values["position"]
    width, height = float(values["width"]), float(values["height"])
    try:
        return Camera(
            viewmat=viewmat,
            fx=float(values["fx"]),
            fy=float(values["fy"]),
            cx=float(values.get("cx", width / 2)),
            cy=float(values.get("cy", height / 2)),
            width=width,  # type: ignore[arg-type]  # Camera refuses what is not whole
            height=height,  # type: ignore[arg-type]
            name=str(row.get("img_name", f"{i:05d}")),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _orthonormal(rotation: Tensor) -> Tensor:
    """Return the rotation nearest to a rounded one: few digits are left far from the origin."""
    error = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
    if not 1e-12 < error < 1e-4:  # as it should be, or no rotation, which `Camera` refuses
        return rotation
    left, _, right = torch.linalg.svd(rotation)
    nearest: Tensor = left @ right
    return nearest


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    return {dict: "an object", str: "a string", type(None): "null"}.get(type(value), "a number")
