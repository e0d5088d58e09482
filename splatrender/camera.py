"""A pinhole camera: where it stands, how it looks, how large its picture is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from splatrender.errors import InputError


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera in the OpenCV convention (x right, y down, z forward; see `conventions`).

    x = fx p_x/p_z + cx,  y = fy p_y/p_z + cy,  p = W p_world + t.

    Args:
        viewmat: float64 [4,4], world-to-camera: W = viewmat[:3,:3] a rotation, t = viewmat[:3,3].
            Kept on the CPU and without a gradient; `rasterize` differentiates by poses.
        fx, fy: focal lengths [px], > 0.
        cx, cy: principal point [px]; the first pixel's corner is (0, 0), its centre (0.5, 0.5).
        width, height: size of the picture [px], > 0.
        name: what the camera is called in messages and files.

    Raises:
        InputError: a field has the wrong shape, is not finite or not positive.

    Example:
        >>> camera = Camera(torch.eye(4), 100.0, 100.0, 32.0, 24.0, 64, 48)
        >>> camera.resized(32, 24).fx
        50.0
    """

    viewmat: torch.Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    name: str = ""

    def __post_init__(self) -> None:
        viewmat = torch.as_tensor(self.viewmat).detach().to("cpu", torch.float64)
        label = f"camera {self.name!r}" if self.name else "camera"
        if viewmat.shape != (4, 4) or not bool(torch.isfinite(viewmat).all()):
            raise InputError(
                f"{label}: viewmat must be a finite [4, 4] matrix, got {list(viewmat.shape)}"
                + ("" if viewmat.shape != (4, 4) else " with NaN or infinity in it")
            )
        rotation = viewmat[:3, :3]
        # Rigid or nothing: `center` and the projection both rely on W^-1 = W^T.
        gram, one = rotation @ rotation.T, torch.eye(3, dtype=torch.float64)
        if not (torch.allclose(gram, one, atol=1e-4) and float(torch.det(rotation)) > 0):
            found = rotation.tolist()
            raise InputError(f"{label}: viewmat[:3, :3] must be a rotation, got {found}")
        for field in ("fx", "fy"):
            value = float(getattr(self, field))
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{label}: {field} must be a positive focal length, got {value}")
            object.__setattr__(self, field, value)
        for field in ("cx", "cy"):
            value = float(getattr(self, field))
            if not math.isfinite(value):
                raise InputError(f"{label}: {field} must be finite, got {value}")
            object.__setattr__(self, field, value)
        for field in ("width", "height"):
            size = int(getattr(self, field))
            if size <= 0:
                raise InputError(f"{label}: {field} must be at least one pixel, got {size}")
            object.__setattr__(self, field, size)
        object.__setattr__(self, "viewmat", viewmat)

    @property
    def center(self) -> torch.Tensor:
        """Where the camera stands: -Wᵀ t, float64 [3], in the world."""
        return -self.viewmat[:3, :3].T @ self.viewmat[:3, 3]

    def intrinsics(self) -> torch.Tensor:
        """fx, fy, cx, cy as a float32 tensor [4], in px."""
        return torch.tensor([self.fx, self.fy, self.cx, self.cy], dtype=torch.float32)

    def resized(self, width: int, height: int) -> Camera:
        """The same camera with a picture of another size; each axis scales by its own ratio.

        Args:
            width, height: the new size [px], > 0.

        Returns:
            A camera that sees the same field of view.
        """
        across, down = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=self.cx * across,
            cy=self.cy * down,
            width=width,
            height=height,
        )

    @classmethod
    def look_at(
        cls,
        eye: Sequence[float] | torch.Tensor,
        target: Sequence[float] | torch.Tensor,
        up: Sequence[float] | torch.Tensor = (0.0, -1.0, 0.0),
        *,
        fov_x: float = 60.0,
        width: int = 800,
        height: int = 600,
        name: str = "",
    ) -> Camera:
        """A camera at `eye` that looks at `target`, with `up` upwards in the picture.

        z = unit(target - eye), x = unit(z × up), y = z × x; f = width / (2 tan(fov_x/2)).

        Args:
            eye, target: [3] points of the world, apart from each other.
            up: [3] direction, not along the line of sight; -y by default (as in COLMAP scenes).
            fov_x: horizontal field of view in degrees, within (0, 180).
            width, height: size of the picture [px]; the principal point is its middle.
            name: see `Camera`.

        Returns:
            A camera with square pixels.

        Raises:
            InputError: the three vectors span no frame, or fov_x is out of range.

        Example:
            >>> Camera.look_at((0, 0, -2), (0, 0, 0)).viewmat[:3, 3].tolist()
            [0.0, 0.0, 2.0]
        """
        if not 0.0 < fov_x < 180.0:
            raise InputError(f"look_at: fov_x must lie within (0, 180) degrees, got {fov_x}")
        start, end, above = (
            torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (eye, target, up)
        )
        forward = end - start
        right = torch.linalg.cross(forward, above)
        smallest = 1e-9 * float(forward.norm() * above.norm())
        if not float(right.norm()) > smallest:
            raise InputError(
                f"look_at: eye, target and up must span a frame, got eye {start.tolist()}, "
                f"target {end.tolist()}, up {above.tolist()}"
            )
        forward = forward / forward.norm()
        right = right / right.norm()
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward))
        viewmat[:3, 3] = -viewmat[:3, :3] @ start
        viewmat = viewmat + 0.0  # -0.0 becomes 0.0, so that printed cameras look tidy
        focal = width / (2 * math.tan(math.radians(fov_x) / 2))
        return cls(viewmat, focal, focal, width / 2, height / 2, width, height, name)
