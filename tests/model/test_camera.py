"""The pinhole camera: its numbers, its frame, its refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.quaternions import rotations_from_quats
from splatrender.model.splats import Splats
from splatrender.operators.render import render


def camera(**changes: Any) -> Camera:
    fields = {"viewmat": torch.eye(4), "fx": 100.0, "fy": 90.0, "cx": 32.0, "cy": 20.0}
    return Camera(**{**fields, "width": 64, "height": 48, **changes})


def test_fields_are_normalised() -> None:
    made = camera(fx=100, width=64.0, viewmat=torch.eye(4, dtype=torch.float32).numpy())
    assert made.viewmat.dtype == torch.float64 and not made.viewmat.requires_grad
    assert isinstance(made.fx, float) and isinstance(made.width, int)
    assert made.intrinsics().tolist() == [100.0, 90.0, 32.0, 20.0]
    assert made.intrinsics().dtype == torch.float32
    assert made.intrinsics(torch.float64).dtype == torch.float64


def test_resized_keeps_the_field_of_view() -> None:
    small = camera(name="x").resized(16, 24)
    assert (small.fx, small.fy, small.cx, small.cy) == (25.0, 45.0, 8.0, 10.0)
    assert (small.width, small.height, small.name) == (16, 24, "x")


def test_center_is_where_the_camera_stands() -> None:
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotations_from_quats(torch.tensor([0.3, -0.5, 0.7, 0.2]).double())
    viewmat[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    center = camera(viewmat=viewmat).center
    seen = viewmat @ torch.cat([center, torch.ones(1, dtype=torch.float64)])
    torch.testing.assert_close(seen[:3], torch.zeros(3, dtype=torch.float64))


def test_look_at() -> None:
    made = Camera.look_at((1, -2, 3), (4, 5, 6), width=200, height=100, fov_x=90)
    torch.testing.assert_close(made.center, torch.tensor([1.0, -2, 3], dtype=torch.float64))
    rotation = made.viewmat[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.det(rotation)) == pytest.approx(1)
    target = rotation @ torch.tensor([4.0, 5, 6], dtype=torch.float64) + made.viewmat[:3, 3]
    assert target[:2].abs().max() < 1e-12 and target[2] == pytest.approx(math.sqrt(67))
    # The world's -y is up: a point above the target appears higher, at a smaller y.
    above = rotation @ torch.tensor([4.0, 4, 6], dtype=torch.float64) + made.viewmat[:3, 3]
    assert above[1] < 0 and abs(above[0]) < 1e-12
    assert made.fx == made.fy == pytest.approx(100)
    assert (made.cx, made.cy) == (100, 50)


def random_camera(seed: int, **changes: Any) -> Camera:
    generator = torch.Generator().manual_seed(seed)
    eye, target = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return Camera.look_at(eye, target, **{"width": 24, "height": 18, **changes})


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, 3.1, 7.0])
def test_moved_is_the_exponential_map(angle: float) -> None:
    """Check Rodrigues' formula: pose' = pose exp(ξ), a screw motion in the camera's own axes."""
    start, generator = random_camera(0), torch.Generator().manual_seed(1)
    v, axis = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    axis = axis / axis.norm()
    cross = torch.tensor([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cross, one = cross.double(), torch.eye(3, dtype=torch.float64)
    turn = one + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    way = one
    if angle:
        way = one + (1 - math.cos(angle)) / angle * cross
        way = way + (angle - math.sin(angle)) / angle * cross @ cross
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = turn, way @ v
    pose = torch.linalg.inv(start.moved(torch.cat([v, angle * axis])).viewmat)
    expected = torch.linalg.inv(start.viewmat) @ motion
    torch.testing.assert_close(pose, expected, rtol=0, atol=1e-9 if angle == 1e-9 else 1e-12)


def test_moved_goes_along_its_own_axes() -> None:
    start = random_camera(2)
    right, down, forward = start.viewmat[:3, :3]
    ahead = start.moved((0, 0, 2.0, 0, 0, 0))
    torch.testing.assert_close(ahead.center, start.center + 2 * forward)
    # A turn around its y axis, which points down, looks to the right.
    turned = start.moved([0, 0, 0, 0, math.pi / 2, 0])
    torch.testing.assert_close(turned.center, start.center)
    torch.testing.assert_close(turned.viewmat[2, :3], right)
    torch.testing.assert_close(turned.viewmat[1, :3], down)
    same = start.moved(torch.zeros(6))
    assert torch.equal(same.viewmat, start.viewmat) and same.fx == start.fx


@pytest.mark.parametrize("twist", [(0.0,) * 6, (0.3, -0.2, 0.5, 0.4, 1.0, -0.7)])
def test_moved_is_differentiable(twist: tuple[float, ...]) -> None:
    start = random_camera(3)

    def pose(motion: torch.Tensor, eye: torch.Tensor) -> torch.Tensor:
        return Camera.look_at(eye, (0, 0, 0), width=24, height=18).moved(motion).viewmat

    inputs = [torch.tensor(twist, dtype=torch.float64), start.center.clone()]
    assert torch.autograd.gradcheck(pose, [value.requires_grad_() for value in inputs])


@pytest.mark.parametrize("twist", [(0,) * 5, (math.nan,) + 5 * (0,), "left", None])
def test_moved_refuses(twist: Any) -> None:
    with pytest.raises(InputError, match=r"^twist: expected"):
        random_camera(0).moved(twist)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_a_rendering_is_differentiable_in_poses(dtype: torch.dtype) -> None:
    """Move a pose back by gradients; compare each with a difference."""
    splats = Splats.random(12, extent=0.5, seed=1).to(dtype)
    splats = replace(splats, log_scales=splats.log_scales + 1)  # wide: few rims in the images
    start = random_camera(5)
    start = Camera.look_at(3 * start.center / start.center.norm(), (0, 0, 0), width=24, height=18)
    photo = render(splats, start).radiance

    def loss(twist: torch.Tensor) -> torch.Tensor:
        return (render(splats, start.moved(offset).moved(twist)).radiance - photo).square().mean()

    offset = torch.tensor([0.1, -0.05, 0.1, 0.05, 0.02, -0.1], dtype=torch.float64)
    twist = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(twist), twist)
    assert slope.dtype == torch.float64
    step, error = (1e-6, 1e-3) if dtype == torch.float64 else (3e-3, 0.03)
    for i in range(6):
        change = torch.zeros(6, dtype=torch.float64)
        change[i] = step
        difference = float(loss(change) - loss(-change)) / (2 * step)
        assert float(slope[i]) == pytest.approx(difference, rel=error, abs=error / 300), i
    viewmat = start.moved(offset).viewmat.float().requires_grad_()
    changed = replace(start, viewmat=viewmat)
    (render(splats, [changed, changed]).radiance - photo).square().mean().backward()
    assert viewmat.grad is not None and bool(viewmat.grad.any())
    assert changed.center.requires_grad and changed.resized(8, 6).viewmat.requires_grad


def test_a_lost_pose_is_found_again() -> None:
    splats = Splats.random(60, extent=0.5, seed=4)
    truth = Camera.look_at((0, 0, -3), (0, 0, 0), width=24, height=18)
    photo = render(splats, truth).radiance.detach()
    start = truth.moved((0.05, -0.05, 0.1, 0.02, -0.03, 0.05))
    twist = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([twist], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        (render(splats, start.moved(twist)).radiance - photo).square().mean().backward()
        optimizer.step()
    away = (start.moved(twist.detach()).viewmat - truth.viewmat).abs().max()
    assert float(away) < 0.2 * float((start.viewmat - truth.viewmat).abs().max())


def test_rotations_from_quats() -> None:
    half = math.sqrt(0.5)
    turn = rotations_from_quats(torch.tensor([[3 * half, 0.0, 0.0, 3 * half], [1.0, 0, 0, 0]]))
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter turn around z
    torch.testing.assert_close(turn, torch.stack([quarter, torch.eye(3)]))


SHIFTED = torch.eye(4)
SHIFTED[:3, 3] = 1
NAN, MIRROR = torch.full((4, 4), float("nan")), torch.diag(torch.tensor([-1.0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"viewmat": torch.eye(3)}, r"viewmat: expected shape \[4, 4\], got \[3, 3\]"),
        ({"viewmat": NAN}, r"viewmat: expected finite numbers, got \[\[nan"),
        ({"viewmat": 2 * torch.eye(4)}, "viewmat: expected a rotation"),
        ({"viewmat": MIRROR}, "viewmat: expected a rotation"),
        ({"viewmat": SHIFTED.T}, r"expected 0, 0, 0, 1 as the last row, got \[1.0, .*transpose"),
        ({"viewmat": "front"}, "viewmat: expected numbers, got 'front'"),
        ({"viewmat": None}, "viewmat: expected numbers, got None"),
        ({"fx": 0.0}, "fx: expected a finite number > 0, got 0.0"),
        ({"fy": math.inf}, "fy: expected a finite number > 0, got inf"),
        ({"fx": "wide"}, "fx: expected a finite number > 0, got 'wide'"),
        ({"cx": math.nan}, "cx: expected a finite number, got nan"),
        ({"fx": torch.ones((), requires_grad=True)}, "fx: .*a tensor that asks for a gradient"),
        ({"width": 0}, "width: expected an integer from 1 to 65535, got 0"),
        ({"width": 10**12}, "width: expected an integer from 1 to 65535, got 1000000000000"),
        ({"width": math.nan}, "width: expected an integer from 1 to 65535, got nan"),
        ({"height": 48.5}, "height: expected an integer from 1 to 65535, got 48.5"),
        ({"height": -3, "name": "a.jpg"}, "camera 'a.jpg': height: expected an integer"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        camera(**changes)


@pytest.mark.parametrize(
    ("eye", "target", "options", "message"),
    [
        ((0, 0, 0), (0, 0, 0), {}, "points that span a frame"),
        ((0, 0, 0), (0, 2, 0), {}, "points that span a frame"),
        ((0, 0, 0), (0, 0, 1), {"fov_x": 180}, r"fov_x: .*within \(0, 180\) degrees, got 180"),
        ((0, 0, 0), (0, 0, 1), {"fov_x": "wide"}, "fov_x: expected a finite number, got 'wide'"),
        ((0, 0, 0), (0, 0), {}, r"target: expected shape \[3\], got \[2\]"),
        ("here", (0, 0, 1), {}, "eye: expected numbers, got 'here'"),
        ((0, 0, 0), (0, 0, 1), {"width": 0}, "width: expected an integer"),
    ],
)
def test_look_at_refuses(eye: Any, target: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Camera.look_at(eye, target, **options)
