"""A pinhole camera: its pose, its intrinsics and the size of its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from splatrender.arguments import (
    MOST_PIXELS,
    described,
    require_integer,
    require_number,
    require_type,
)
from splatrender.errors import InputError


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera in the OpenCV convention (x right, y down, z forward; see `conventions`).

    x = fx p_x/p_z + cx,  y = fy p_y/p_z + cy,  p = W p_world + t.

    Args:
        viewmat: float64 [4,4], world-to-camera: W = viewmat[:3,:3] a rotation, t = viewmat[:3,3].
            Kept in float64 on the CPU, with its graph: gradients of a rendering flow to it.
        fx, fy: focal lengths [px], > 0.
        cx, cy: principal point [px]; the first pixel's corner is (0, 0), its centre (0.5, 0.5).
        width, height: size of the image [px], 1 to 65535.
        name: name of the camera in messages and files.

    Raises:
        InputError: a field has another type or shape, is not finite or not positive; viewmat is no
            rigid motion; a focal length or the principal point asks for a gradient.

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
        require_type("camera: name", self.name, str)
        label = f"camera {self.name!r}: " if self.name else "camera: "
        set_ = object.__setattr__
        set_(self, "viewmat", _rigid(f"{label}viewmat", self.viewmat))
        for field in ("fx", "fy", "cx", "cy"):
            value, focal = getattr(self, field), field in ("fx", "fy")
            if isinstance(value, torch.Tensor) and value.requires_grad:
                raise InputError(
                    f"{label}{field}: expected a number, got a tensor that asks for a gradient "
                    "(a camera passes gradients to poses alone; rasterize also to intrinsics)"
                )
            least = 0.0 if focal else -math.inf
            set_(self, field, require_number(f"{label}{field}", value, least, open_=focal))
        for field in ("width", "height"):
            value = require_integer(f"{label}{field}", getattr(self, field), 1, MOST_PIXELS)
            set_(self, field, value)

    @property
    def center(self) -> torch.Tensor:
        """Centre of projection: -Wᵀ t, float64 [3], in the world."""
        return -self.viewmat[:3, :3].T @ self.viewmat[:3, 3]

    def intrinsics(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return fx, fy, cx, cy as a tensor [4], in px."""
        return torch.tensor([self.fx, self.fy, self.cx, self.cy], dtype=dtype)

    def moved(self, twist: Sequence[float] | torch.Tensor) -> Camera:
        """Return the camera after a rigid motion in its own axes, differentiable in twist and pose.

        With ξ = (v, ω), [ω]ₓ the matrix of u -> ω × u and ξ^ = [[[ω]ₓ, v], [0, 0]]:

            pose' = pose exp(ξ^),  and so  viewmat' = exp(-ξ^) viewmat,

        where pose = viewmat⁻¹ is camera-to-world: exp acts on the right of poses, on the left of
        viewmats. To first order the camera moves by v and turns by |ω| around ω, both in its own
        axes (x right, y down, z forward).

        Args:
            twist: [6] v in units of the world, then ω in radians. Zero changes nothing, and has a
                gradient: a pose is optimised as `camera.moved(twist)` from zero on.

        Returns:
            A camera whose viewmat carries the gradient.

        Raises:
            InputError: twist is not of shape [6], or not finite.

        Example:
            >>> camera = Camera(torch.eye(4), 100.0, 100.0, 32.0, 24.0, 64, 48)
            >>> camera.moved((0, 0, 0.5, 0, 0, 0)).center.tolist()  # half a unit forward
            [0.0, 0.0, 0.5]
        """
        motion = _tensor("twist", twist)
        if motion.shape != (6,) or not bool(motion.detach().isfinite().all()):
            raise InputError(f"twist: expected 6 finite numbers, got {motion.tolist()}")
        vx, vy, vz, x, y, z = motion.unbind()
        zero = torch.zeros_like(x)
        rows = (zero, -z, y, vx, z, zero, -x, vy, -y, x, zero, vz, zero, zero, zero, zero)
        generator = torch.stack(rows).reshape(4, 4)
        return replace(self, viewmat=torch.linalg.matrix_exp(-generator) @ self.viewmat)

    def resized(self, width: int, height: int) -> Camera:
        """Return the camera with images of another size; each axis scales by its own ratio.

        Args:
            width, height: new size [px], > 0.

        Returns:
            A camera with the same field of view.
        """
        width = require_integer("width", width, 1, MOST_PIXELS)
        height = require_integer("height", height, 1, MOST_PIXELS)
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
        """Return a camera at `eye` that looks at `target`, with `up` upwards in the image.

        z = unit(target - eye), x = unit(z × up), y = z × x; f = width / (2 tan(fov_x/2)).

        Args:
            eye, target: [3] points of the world, apart from each other.
            up: [3] direction, not along the line of sight; -y by default (as in COLMAP scenes).
            fov_x: horizontal field of view in degrees, within (0, 180).
            width, height: size of the image [px]; the principal point is its middle.
            name: see `Camera`.

        Returns:
            A camera with square pixels.

        Raises:
            InputError: the three vectors span no frame, or fov_x is out of range.

        Example:
            >>> Camera.look_at((0, 0, -2), (0, 0, 0)).viewmat[:3, 3].tolist()
            [0.0, 0.0, 2.0]
        """
        if not 0.0 < require_number("look_at: fov_x", fov_x) < 180.0:
            raise InputError(f"look_at: fov_x: expected within (0, 180) degrees, got {fov_x}")
        width = require_integer("look_at: width", width, 1, MOST_PIXELS)
        height = require_integer("look_at: height", height, 1, MOST_PIXELS)
        start, end, above = (
            _tensor(f"look_at: {part}", value)
            for part, value in (("eye", eye), ("target", target), ("up", up))
        )
        for part, value in (("eye", start), ("target", end), ("up", above)):
            if value.shape != (3,):
                raise InputError(f"look_at: {part}: expected shape [3], got {list(value.shape)}")
        forward = end - start
        right = torch.linalg.cross(forward, above)
        smallest = 1e-9 * forward.detach().norm() * above.detach().norm()
        if not bool(right.detach().norm() > smallest):
            raise InputError(
                f"look_at: eye, target, up: expected points that span a frame, "
                f"got eye {start.tolist()}, target {end.tolist()}, up {above.tolist()}"
            )
        forward = forward / forward.norm()
        right = right / right.norm()
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward))
        viewmat[:3, 3] = -viewmat[:3, :3] @ start
        viewmat = viewmat + 0.0  # -0.0 becomes 0.0, for tidy printed cameras
        focal = width / (2 * math.tan(math.radians(fov_x) / 2))
        return cls(viewmat, focal, focal, width / 2, height / 2, width, height, name)


def _tensor(name: str, value: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """Return numbers as float64 on the CPU, with their graph if they have one."""
    try:
        return torch.as_tensor(value).to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: expected numbers, got {described(value)}") from None


def _rigid(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a viewmat as a camera keeps it; refuse what is no rigid motion."""
    viewmat = _tensor(name, value)
    plain = viewmat.detach()
    if plain.shape != (4, 4):
        raise InputError(f"{name}: expected shape [4, 4], got {list(plain.shape)}")
    if not bool(plain.isfinite().all()):
        raise InputError(f"{name}: expected finite numbers, got {plain.tolist()}")
    rotation = plain[:3, :3]
    # Rigid or nothing: `center` and the projection both rely on W⁻¹ = Wᵀ.
    gram, one = rotation @ rotation.T, torch.eye(3, dtype=torch.float64)
    if not (torch.allclose(gram, one, atol=1e-4) and float(torch.det(rotation)) > 0):
        found = rotation.tolist()
        raise InputError(f"{name}: expected a rotation as its first 3x3 numbers, got {found}")
    if not torch.allclose(plain[3], plain.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6):
        raise InputError(
            f"{name}: expected 0, 0, 0, 1 as the last row, got {plain[3].tolist()} (points are "
            "columns here, p_camera = viewmat p_world: transpose a matrix that is meant for rows)"
        )
    return viewmat
