"""The pinhole camera: its numbers, its frame, its refusals."""

from __future__ import annotations

import math

import pytest
import torch

from splatrender.camera import Camera
from splatrender.conventions import rotations_from_quats
from splatrender.errors import InputError


def camera(**changes) -> Camera:
    fields = {"viewmat": torch.eye(4), "fx": 100.0, "fy": 90.0, "cx": 32.0, "cy": 20.0}
    return Camera(**{**fields, "width": 64, "height": 48, **changes})


def test_fields_are_normalised() -> None:
    made = camera(fx=100, viewmat=torch.eye(4, dtype=torch.float32, requires_grad=True))
    assert made.viewmat.dtype == torch.float64 and not made.viewmat.requires_grad
    assert isinstance(made.fx, float)
    assert made.intrinsics().tolist() == [100.0, 90.0, 32.0, 20.0]
    assert made.intrinsics().dtype == torch.float32


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


def test_rotations_from_quats() -> None:
    half = math.sqrt(0.5)
    turn = rotations_from_quats(torch.tensor([[3 * half, 0.0, 0.0, 3 * half], [1.0, 0, 0, 0]]))
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter turn around z
    torch.testing.assert_close(turn, torch.stack([quarter, torch.eye(3)]))


NAN, MIRROR = torch.full((4, 4), float("nan")), torch.diag(torch.tensor([-1.0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"viewmat": torch.eye(3)}, r"viewmat must be a finite \[4, 4\] matrix, got \[3, 3\]"),
        ({"viewmat": NAN}, "with NaN or infinity in it"),
        ({"viewmat": 2 * torch.eye(4)}, "must be a rotation"),
        ({"viewmat": MIRROR}, "must be a rotation"),
        ({"fx": 0.0}, "fx must be a positive focal length, got 0.0"),
        ({"fy": float("inf")}, "fy must be a positive focal length"),
        ({"cx": float("nan")}, "cx must be finite"),
        ({"width": 0}, "width must be at least one pixel, got 0"),
        ({"height": -3, "name": "a.jpg"}, "camera 'a.jpg': height must be at least one pixel"),
    ],
)
def test_nonsense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        camera(**changes)


@pytest.mark.parametrize(
    ("eye", "target", "options", "message"),
    [
        ((0, 0, 0), (0, 0, 0), {}, "must span a frame"),
        ((0, 0, 0), (0, 2, 0), {}, "must span a frame"),
        ((0, 0, 0), (0, 0, 1), {"fov_x": 180}, r"within \(0, 180\) degrees, got 180"),
    ],
)
def test_look_at_refuses(eye: tuple, target: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Camera.look_at(eye, target, **options)
