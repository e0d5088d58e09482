"""Camera paths, and cameras in files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.quaternions import quat_from_rotation, rotations_from_quats
from splatrender.rendering import trajectories
from splatrender.scenes.cameras import load_cameras, write_cameras_json

UP = (0.0, -1.0, 0.0)


def ring(azimuths: list[float], target: tuple[float, ...] = (0, 0, 0)) -> list[Camera]:
    """Place cameras at radius 3 around the y axis, one above the target."""
    x, y, z = target
    return [
        Camera.look_at((x + 3 * math.cos(a), y - 1, z + 3 * math.sin(a)), target, UP)
        for a in azimuths
    ]


def around(count: int) -> list[float]:
    return [2 * math.pi * i / count for i in range(count)]


def centers(cameras: list[Camera]) -> Tensor:
    return torch.stack([camera.center for camera in cameras])


def forward(cameras: list[Camera]) -> Tensor:
    return torch.stack([camera.viewmat[2, :3] for camera in cameras])


def misses(cameras: list[Camera], target: Tensor) -> Tensor:
    """Return distances from a point to the optical axes."""
    across: Tensor = torch.linalg.cross(target - centers(cameras), forward(cameras))
    return across.square().sum(dim=1).sqrt()


def test_orbit_of_a_ring_is_the_ring() -> None:
    target = (5.0, 2.0, -1.0)
    path = trajectories.orbit(ring(around(12), target), 90)
    assert len(path) == 90
    offset = centers(path) - torch.tensor(target, dtype=torch.float64)
    torch.testing.assert_close(offset[:, 1], torch.full((90,), -1.0, dtype=torch.float64))
    radius = offset[:, [0, 2]].norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, 3.0), atol=1e-6, rtol=0)
    assert misses(path, torch.tensor(target, dtype=torch.float64)).max() < 5e-3
    steps = (centers(path) - centers(path).roll(1, 0)).norm(dim=1)  # closed and even
    assert steps.max() < 1.01 * steps.min()
    assert all(camera.viewmat[1, 1] > 0.9 for camera in path)  # the image's down is the world's


def test_orbit_follows_an_oval_capture() -> None:
    oval = [
        Camera.look_at((4 * math.cos(a), -1, 2 * math.sin(a)), (0, 0, 0), UP) for a in around(24)
    ]
    path = centers(trajectories.orbit(oval, 60))
    assert torch.cdist(path, centers(oval)).min(dim=1).values.max() < 0.6
    assert path[:, 0].max() > 3.5 and path[:, 2].max() < 2.4


def test_orbit_ignores_cameras_that_are_far_out() -> None:
    angles = [2 * math.pi * n / 17 for n in range(17)]
    cameras = ring(angles)
    far = Camera.look_at(tuple((33 * cameras[5].center).tolist()), (0, 0, 0))
    plain = trajectories.orbit([*cameras[:5], *cameras[6:]], 8)
    for one, other in zip(
        plain, trajectories.orbit([*cameras[:5], far, *cameras[6:]], 8), strict=True
    ):
        assert torch.equal(one.viewmat, other.viewmat)


def test_orbit_ignores_a_few_odd_cameras() -> None:
    odd = [Camera.look_at((2, 0, 2), (9, 0, 9), UP), Camera.look_at((1, 0, 2), (0, -9, 3), UP)]
    path = trajectories.orbit(ring(around(20)) + odd, 30)
    assert misses(path, torch.zeros(3, dtype=torch.float64)).max() < 0.1
    radius = centers(path)[:, [0, 2]].norm(dim=1)
    assert radius.min() > 2.7 and radius.max() < 3.3


def test_a_capture_from_one_side_is_not_left() -> None:
    given = ring([math.radians(a) for a in range(-50, 51, 5)])
    path = centers(trajectories.orbit(given, 40))
    azimuths = torch.atan2(path[:, 2], path[:, 0]).rad2deg()
    assert azimuths.abs().max() <= 50.01
    assert azimuths.min() < -40 and azimuths.max() > 40
    assert torch.cdist(path, centers(given)).min(dim=1).values.max() < 0.2


def test_parallel_cameras_give_a_path_among_them() -> None:
    grid = [
        Camera.look_at((x / 2, y / 2, -4), (x / 2, y / 2, 0), UP)
        for x in range(-2, 3)
        for y in range(-1, 2)
    ]
    path = trajectories.orbit(grid, 40)
    assert centers(path)[:, 0].abs().max() < 1.1
    assert centers(path)[:, 1].abs().max() < 0.6
    assert (centers(path)[:, 2] + 4).abs().max() < 0.3
    assert forward(path)[:, 2].min() > 0.95


def test_a_room_seen_from_its_middle_is_flown_through() -> None:
    outward = [
        Camera.look_at(
            (math.cos(a) / 2, 0, math.sin(a) / 2), (math.cos(a) * 5, 0, math.sin(a) * 5), UP
        )
        for a in around(10)
    ]
    path = trajectories.orbit(outward, 30)
    torch.testing.assert_close(centers(path), centers(trajectories.interpolate(outward, 30)))


def test_images_upside_down_or_looking_straight_down() -> None:
    down = [
        Camera.look_at((x, -5, z), (x, 0, z), (math.cos(x), 0, math.sin(z)))
        for x in range(4)
        for z in range(4)
    ]
    for path in (trajectories.orbit(down, 10), trajectories.orbit(down[:1], 5)):
        assert all(camera.viewmat.isfinite().all() for camera in path)
        assert forward(path)[:, 1].min() > 0.5
    flipped = [Camera.look_at(c.center, (0, 0, 0), (0, 1, 0)) for c in ring(around(8))]
    assert all(camera.viewmat[1, 1] < -0.9 for camera in trajectories.orbit(flipped, 8))


def test_interpolation_meets_the_cameras_and_is_smooth() -> None:
    given = ring([0.0, 0.3, 0.4, 1.0, 1.2, 2.0])
    path = trajectories.interpolate(given, 400)
    for end in (0, -1):
        torch.testing.assert_close(path[end].viewmat, given[end].viewmat, atol=1e-9, rtol=0)
    for camera in given:
        nearest = (centers(path) - camera.center).norm(dim=1).argmin()
        assert (path[nearest].center - camera.center).norm() < 0.02
        assert (path[nearest].viewmat[:3, :3] - camera.viewmat[:3, :3]).abs().max() < 0.02
    steps = centers(path)[1:] - centers(path)[:-1]
    lengths = steps.norm(dim=1)
    assert lengths.max() < 2 * lengths.median()
    assert (steps[1:] - steps[:-1]).norm(dim=1).max() < 0.05 * lengths.median()
    assert (centers(path)[:, [0, 2]].norm(dim=1) - 3).abs().max() < 0.15  # the chord: 0.24


def test_closed_interpolation_comes_back() -> None:
    path = centers(trajectories.interpolate(ring(around(8)), 80, closed=True))
    steps = (path - path.roll(1, 0)).norm(dim=1)
    assert steps.max() < 1.2 * steps.min()
    assert (path[:, [0, 2]].norm(dim=1) - 3).abs().max() < 0.06


def test_interpolation_takes_the_short_way_round() -> None:
    tilted = [Camera.look_at((0, 0, 0), (math.cos(a), 0, math.sin(a)), UP) for a in (3.0, 3.3)]
    path = forward(trajectories.interpolate(tilted, 9))
    assert (path @ forward(tilted)[0]).min() > math.cos(0.31)


def test_one_camera_or_one_place() -> None:
    alone = ring([0.5])
    for path in (trajectories.interpolate(alone, 3), trajectories.interpolate(alone * 4, 3)):
        assert len(path) == 3
        for camera in path:
            torch.testing.assert_close(camera.viewmat, alone[0].viewmat, atol=1e-9, rtol=0)
    assert len(trajectories.interpolate(ring([0, 1]), 1)) == 1
    assert len(trajectories.orbit(ring([0, 1]), 4)) == 4


def test_size_and_lens_are_the_commonest() -> None:
    cameras = ring(around(5))
    cameras[0] = cameras[0].resized(80, 60)
    for path in (trajectories.orbit(cameras, 3), trajectories.interpolate(cameras, 3)):
        assert {(camera.width, camera.height, camera.fx) for camera in path} == {
            (800, 600, cameras[1].fx)
        }


def test_no_cameras_or_frames_are_refused() -> None:
    for make in (trajectories.orbit, trajectories.interpolate):
        with pytest.raises(InputError, match="expected at least one camera"):
            make([], 3)
        with pytest.raises(InputError, match="frames: expected at least 1, got 0"):
            make(ring([0.0]), 0)
    with pytest.raises(InputError, match=r"^radius: expected a finite number > 0, got 0.0"):
        trajectories.orbit_sphere(torch.zeros(3), 0.0)


@pytest.mark.parametrize(("width", "height"), [(960, 540), (300, 600)])
def test_orbit_of_a_ball_shows_all_of_it(width: int, height: int) -> None:
    center = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    path = trajectories.orbit_sphere(center, 2.0, 12, width=width, height=height)
    directions = torch.nn.functional.normalize(torch.randn(500, 3, dtype=torch.float64), dim=1)
    points = center + 2.0 * directions
    for camera in path:
        local = points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
        x = camera.fx * local[:, 0] / local[:, 2] + camera.cx
        y = camera.fy * local[:, 1] / local[:, 2] + camera.cy
        assert local[:, 2].min() > 0
        assert x.min() >= 0 and x.max() <= width and y.min() >= 0 and y.max() <= height
        assert max((x.max() - x.min()) / width, (y.max() - y.min()) / height) > 0.8
        assert camera.center[1] < center[1]  # from above: -y is up


def test_bounding_sphere_forgets_outliers() -> None:
    points = torch.randn(1000, 3).clamp(-2, 2) + 10
    points[:50] = 1e6
    center, radius = trajectories.bounding_sphere(points)
    assert (center - 10).norm() < 0.5 and 1 < radius < 4
    assert trajectories.bounding_sphere(torch.zeros(1, 3))[1] > 0


def test_quaternions_of_rotations() -> None:
    quats = torch.nn.functional.normalize(torch.randn(50, 4, dtype=torch.float64), dim=1)
    half_turns = torch.eye(4, dtype=torch.float64)
    for quat in torch.cat([quats, half_turns]):
        rotation = rotations_from_quats(quat)
        again = rotations_from_quats(quat_from_rotation(rotation))
        torch.testing.assert_close(again, rotation)


def test_cameras_json_goes_round(tmp_path: Path) -> None:
    cameras = ring(around(3))
    cameras[1] = Camera(cameras[1].viewmat, 700.0, 710.0, 390.0, 311.0, 801, 601, "b/c.jpg")
    write_cameras_json(tmp_path / "cameras.json", cameras)
    found = load_cameras(tmp_path / "cameras.json")
    for a, b in zip(cameras, found, strict=True):
        torch.testing.assert_close(a.viewmat, b.viewmat)
        assert (a.fx, a.fy, a.cx, a.cy) == (b.fx, b.fy, b.cx, b.cy)
        assert (a.width, a.height, a.name) == (b.width, b.height, b.name)


def test_cameras_json_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    turned = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks along +x of the world
    row: dict[str, Any] = {"id": 0, "width": 64, "height": 48, "fx": 50, "fy": 51}
    path.write_text(json.dumps([{**row, "position": [1, 2, 3], "rotation": turned}]))
    (camera,) = load_cameras(path)
    assert camera.center.tolist() == [1, 2, 3]
    assert forward([camera])[0].tolist() == [1, 0, 0]
    assert (camera.cx, camera.cy, camera.fx, camera.fy) == (32, 24, 50, 51)


GOOD = {
    "width": 64,
    "height": 48,
    "position": [0, 0, 0],
    "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "fx": 50,
    "fy": 50,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": None}, "camera 1: expected a finite number as 'fx', got None"),
        ({"fx": -1}, "camera 1: camera '00001': fx: expected"),
        ({"position": [1, 2]}, r"camera 1: expected finite numbers of shape \(3,\) as 'position'"),
        ({"rotation": [[1, 2, 3]] * 3}, "camera 1: .*expected a rotation"),
        ({"rotation": "x"}, "camera 1: expected finite numbers"),
        ({"position": [0, 0, float("nan")]}, "camera 1: expected finite numbers"),
        ({"width": 0}, "camera 1: .*width: expected"),
        ({"width": 1e12}, "camera 1: .*width: expected an integer from 1 to 65535"),
        ({"height": 48.5}, r"camera 1: .*height: expected an integer .* got 48\.5"),
        ({"fx": 10**400}, "camera 1: expected a finite number as 'fx'"),
    ],
)
def test_bad_cameras_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps([GOOD, {**GOOD, **change}]))
    with pytest.raises(InputError, match=message):
        load_cameras(tmp_path / "a.json")


def test_rounded_rotations_far_from_the_origin_keep_the_camera_in_place(tmp_path: Path) -> None:
    camera = Camera.look_at((1e7, -2e7, 3e6), (1e7 + 1, -2e7 + 2, 3e6 + 3))
    write_cameras_json(tmp_path / "a.json", [camera])
    (row,) = json.loads((tmp_path / "a.json").read_text())
    row["rotation"] = torch.tensor(row["rotation"]).tolist()  # through float32
    row["position"] = [1e7, -2e7, 3e6]
    (tmp_path / "a.json").write_text(json.dumps([row]))
    (found,) = load_cameras(tmp_path / "a.json")
    assert (found.center - torch.tensor([1e7, -2e7, 3e6]).double()).abs().max() < 1e-6


def test_bounding_sphere_far_from_the_origin_is_as_large_as_near() -> None:
    points = torch.randn(200, 3, dtype=torch.float64)
    center, radius = trajectories.bounding_sphere(points)
    far_center, far_radius = trajectories.bounding_sphere(points + 1e7)
    assert far_radius == pytest.approx(radius, rel=1e-6)
    torch.testing.assert_close(far_center - 1e7, center, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", GOOD)
def test_missing_fields_are_named(tmp_path: Path, name: str) -> None:
    row = {key: value for key, value in GOOD.items() if key != name}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=f"camera 0: expected a field '{name}', got none"):
        load_cameras(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "found"), [("{}", "an object"), ("[]", "an empty list"), ("7", "a number")]
)
def test_other_json_is_refused(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=f"expected a list of cameras, got {found}"):
        load_cameras(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[3]")
    with pytest.raises(InputError, match="camera 0: expected an object, got a number"):
        load_cameras(tmp_path / "a.json")
