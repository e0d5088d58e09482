"""The two frames of a scene: the world of its files, and the frame inside, of unit size."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.io.json_files import read_json, write_json
from splatrender.model.camera import Camera
from splatrender.model.ply import offset_for
from splatrender.model.splats import Splats
from splatrender.scenes.extent import camera_extent

FINE = 1e-3  # size of a small splat, in inside lengths


@dataclass(frozen=True, eq=False)
class Similarity:
    """Map from the world of the files to the frame inside: x_inside = scale (x_world - center).

    There is no rotation, so quaternions and spherical harmonics are the same in both. Opacities
    are too; extinctions [1/length] are not changed either: `Splats` does not distinguish them.

    The world is that of COLMAP's model, of .ply files and of cameras.json; the inside is where
    `Scene` has its cameras and points, and where training and near planes are defined. In the
    output folder of a run the similarity is kept in scene.json (`save`, `load`).

    Args:
        scale: inside lengths per world length, > 0.
        center: float64 [3], the world's point that becomes the origin.

    Raises:
        InputError: the scale is not positive, or the centre no finite point.

    Example:
        >>> move = Similarity(2.0, torch.tensor([1.0, 0.0, 0.0]))
        >>> move.apply(torch.tensor([[1.5, 0.0, 0.0]])).tolist()
        [[1.0, 0.0, 0.0]]
    """

    scale: float
    center: torch.Tensor

    def __post_init__(self) -> None:
        center = torch.as_tensor(self.center).detach().to("cpu", torch.float64)
        if center.shape != (3,) or not bool(center.isfinite().all()):
            raise InputError(f"Similarity: center must be a finite point [3], got {self.center}")
        if not 0 < self.scale < float("inf"):
            raise InputError(f"Similarity: scale must be positive, got {self.scale}")
        object.__setattr__(self, "center", center)

    @classmethod
    def of_cameras(cls, centers: torch.Tensor, points: torch.Tensor) -> Similarity:
        """Return the similarity after which the cameras have mean 0 and extent 1.

        The extent is that of `camera_extent`: 1.1 max |center - mean of centers| over the cameras
        that are not astray. Cameras that all stand in one place have no extent; then the median
        distance of the points becomes 1 instead.

        Args:
            centers: float64 [C, 3] camera centres.
            points: float64 [P, 3] seed points, P >= 0.
        """
        extent = camera_extent(centers)
        center, length = extent.center, extent.length
        if len(points):
            distance = float((points - center).norm(dim=1).median())
            if not length > 1e-9 * distance:
                length = distance
        return cls(1.0 / length if length > 0 else 1.0, center)

    @classmethod
    def identity(cls) -> Similarity:
        """Return the similarity that moves nothing: the frame inside is the world."""
        return cls(1.0, torch.zeros(3))

    @property
    def offset(self) -> torch.Tensor | None:
        """Place near the scene, float64 [3] in the world, that .ply files are relative to.

        None where float32 keeps the world's positions to 1e-5 of the scene's size.
        """
        return offset_for(self.center, 1 / self.scale, FINE / self.scale)

    def is_close(self, other: Similarity) -> bool:
        """Compare two similarities: true if they differ by less than 1e-6 of the inside's unit."""
        shift = float((self.center - other.center).abs().max()) * self.scale
        return shift < 1e-6 and abs(other.scale / self.scale - 1) < 1e-6

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the similarity as JSON: scale, center, and the offset of .ply files or null.

        Args:
            path: file to write, atomically.

        Raises:
            InputError: the file cannot be made.
        """
        offset = self.offset
        write_json(
            path,
            {
                "frames": "inside = scale (world - center); .ply and cameras.json are in the "
                "world, positions in a .ply relative to the offset if there is one",
                "scale": self.scale,
                "center": self.center.tolist(),
                "offset": None if offset is None else offset.tolist(),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Similarity:
        """Read a similarity as written by `save`.

        Args:
            path: JSON file with scale and center.

        Raises:
            InputError: the file is missing, is not JSON, or lacks one of the two.
        """
        value = read_json(path)
        try:
            center = torch.tensor(value["center"], dtype=torch.float64)
            return cls(float(value["scale"]), center)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{path}: {error}") from None
            raise InputError(
                f"{path}: expected an object with numbers scale and center [3], got {value!r:.80}"
            ) from None

    @overload
    def apply(self, thing: torch.Tensor) -> torch.Tensor: ...
    @overload
    def apply(self, thing: Camera) -> Camera: ...
    @overload
    def apply(self, thing: Splats) -> Splats: ...

    def apply(self, thing: torch.Tensor | Camera | Splats) -> torch.Tensor | Camera | Splats:
        """Move a thing from the world to the inside.

        Args:
            thing: points [..., 3] (floating point), a Camera, or Splats.

        Returns:
            The same kind of thing, dtype and device; differentiable for points and Splats.
        """
        return _move(thing, self.scale, self.center)

    @overload
    def invert(self, thing: torch.Tensor) -> torch.Tensor: ...
    @overload
    def invert(self, thing: Camera) -> Camera: ...
    @overload
    def invert(self, thing: Splats) -> Splats: ...

    def invert(self, thing: torch.Tensor | Camera | Splats) -> torch.Tensor | Camera | Splats:
        """Move a thing from the inside back to the world; see `apply`.

        float32 points and Splats become float64 where the world is so far from its origin that
        float32 would lose digits of positions (where there is an `offset`).
        """
        if not isinstance(thing, Camera) and self.offset is not None:
            thing = thing.to(torch.float64)
        # x_world = x_inside/scale + center = (1/scale) (x_inside - (-scale center))
        return _move(thing, 1.0 / self.scale, -self.scale * self.center)


def _move(
    thing: torch.Tensor | Camera | Splats, scale: float, center: torch.Tensor
) -> torch.Tensor | Camera | Splats:
    """Return `thing` after x -> scale (x - center)."""
    if isinstance(thing, Camera):
        # p_camera = W x + t must come out scaled: t' = scale (W center + t), W stays.
        viewmat = thing.viewmat.clone()
        viewmat[:3, 3] = scale * (viewmat[:3, :3] @ center + viewmat[:3, 3])
        return replace(thing, viewmat=viewmat)
    if isinstance(thing, Splats):
        means = _move(thing.means, scale, center)
        assert isinstance(means, torch.Tensor)
        log_scale = float(np.log(scale))
        return replace(thing, means=means, log_scales=thing.log_scales + log_scale)
    # In float64, as float32 would lose digits where the world's origin is far away.
    moved = scale * (thing.double() - center.to(thing.device))
    return moved.to(thing.dtype)
