"""The two frames of a scene: normalisation, similarities, the extent of cameras."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from helpers.colmap import write_scene

from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.splats import Splats
from splatrender.scenes import Scene, Similarity, View, load_scene
from splatrender.scenes import scene as scene_module
from splatrender.scenes.extent import camera_extent


def views_of(scene: Scene) -> list[View]:
    return sorted((*scene.train, *scene.test), key=lambda view: view.name)


def project(points: torch.Tensor, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """Return [P, 2] pixels and [P] camera depths."""
    seen = points.double() @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    focal = torch.tensor([camera.fx, camera.fy], dtype=torch.float64)
    center = torch.tensor([camera.cx, camera.cy], dtype=torch.float64)
    return seen[:, :2] / seen[:, 2:] * focal + center, seen[:, 2]


def test_cameras_have_mean_zero_and_extent_one(tmp_path: Path) -> None:
    write_scene(tmp_path)
    for eval in (True, False):
        scene = load_scene(tmp_path, eval=eval)
        centers = torch.stack([view.camera.center for view in views_of(scene)])
        assert centers.mean(dim=0).abs().max() < 1e-12
        assert 1.1 * float(centers.norm(dim=1).max()) == pytest.approx(1)


def test_normalising_moves_nothing_in_the_image(tmp_path: Path) -> None:
    write_scene(tmp_path)
    scene = load_scene(tmp_path)
    move = scene.similarity
    for view in views_of(scene):
        inside, depths = project(scene.points, view.camera)
        world, world_depths = project(move.invert(scene.points.double()), move.invert(view.camera))
        torch.testing.assert_close(inside, world, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(depths, world_depths * move.scale)


def test_similarity_round_trips() -> None:
    move = Similarity(0.03, torch.tensor([400.0, -30.0, 2000.0]))
    points = torch.randn(50, 3, dtype=torch.float64) * 40
    torch.testing.assert_close(move.apply(points), 0.03 * (points - move.center))
    torch.testing.assert_close(move.invert(move.apply(points)), points, atol=1e-10, rtol=0)
    assert move.apply(points.float()).dtype == torch.float32

    camera = Camera.look_at((30, 20, 10), (1, 2, 3))
    inside = move.apply(camera)
    torch.testing.assert_close(inside.center, move.apply(camera.center))
    torch.testing.assert_close(move.invert(inside).viewmat, camera.viewmat, atol=1e-10, rtol=0)
    assert inside.fx == camera.fx

    splats = Splats.random(30, seed=2).to(torch.float64)
    there = move.apply(splats)
    torch.testing.assert_close(there.means, move.apply(splats.means))
    torch.testing.assert_close(there.scales, 0.03 * splats.scales)
    assert there.sh is splats.sh and there.quats is splats.quats
    back = move.invert(there)
    for (_, one), (_, other) in zip(splats.items(), back.items(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_similarity_keeps_splats_in_the_image() -> None:
    """Check that a splat's spread in the image, J W A, is the same in both frames."""
    move = Similarity(2.5, torch.tensor([1.0, -2.0, 0.5]))
    splats, camera = Splats.random(30).to(torch.float64), Camera.look_at((5, 4, 3), (0, 0, 0))
    there, camera_there = move.apply(splats), move.apply(camera)
    _, depths = project(splats.means, camera)
    _, depths_there = project(there.means, camera_there)
    torch.testing.assert_close(
        splats.scales / depths[:, None], there.scales / depths_there[:, None]
    )


def test_similarity_is_differentiable() -> None:
    points = torch.randn(4, 3, requires_grad=True)
    Similarity(3.0, torch.ones(3)).apply(points).sum().backward()
    assert points.grad is not None and bool((points.grad == 3).all())


def test_float32_points_far_from_the_origin_keep_their_digits() -> None:
    move = Similarity(1.0, torch.tensor([1e6, 0.0, 0.0], dtype=torch.float64))
    inside = move.apply(torch.tensor([[1e6 + 0.25, 0.0, 0.0]]))
    assert inside[0, 0] == 0.25


def test_splats_of_a_file_fit_the_cameras(tmp_path: Path) -> None:
    pytest.importorskip("plyfile")
    write_scene(tmp_path)
    scene = load_scene(tmp_path)
    splats = Splats.from_points(scene.points, scene.colors)
    scene.save_splats(splats, tmp_path / "a.ply")
    world = Splats.load(tmp_path / "a.ply")
    view = scene.train[0]
    seen, depths = project(world.means, scene.similarity.invert(view.camera))
    expected, expected_depths = project(splats.means, view.camera)
    torch.testing.assert_close(seen, expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(depths * scene.similarity.scale, expected_depths)
    again = scene.load_splats(tmp_path / "a.ply")
    for (name, one), (_, other) in zip(splats.items(), again.items(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_without_normalising_the_frames_are_one(tmp_path: Path) -> None:
    write_scene(tmp_path)
    scene, plain = load_scene(tmp_path), load_scene(tmp_path, normalize=False)
    move = scene.similarity
    assert plain.similarity.scale == 1 and not plain.similarity.center.any()
    torch.testing.assert_close(plain.points, move.invert(scene.points))
    for one, other in zip(views_of(plain), views_of(scene), strict=True):
        torch.testing.assert_close(one.camera.viewmat, move.invert(other.camera).viewmat)
    given = load_scene(tmp_path, normalize=Similarity(2.0, torch.ones(3)))
    assert given.similarity.scale == 2.0
    torch.testing.assert_close(given.points, 2 * (plain.points - 1))


def test_a_far_world_without_normalising_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    centers = torch.randn(5, 3, dtype=torch.float64)
    points = 3 * torch.randn(20, 3, dtype=torch.float64)
    with caplog.at_level(logging.WARNING):
        assert scene_module._chosen(False, centers, points).scale == 1
        assert not caplog.text
        assert scene_module._chosen(False, centers + 1e7, points + 1e7).scale == 1
    assert "normalize=False: cameras near [" in caplog.text


def test_similarities_are_kept_in_files(tmp_path: Path) -> None:
    move = Similarity(1 / 3, torch.tensor([500_012.3, 5_400_003.7, 300.1], dtype=torch.float64))
    move.save(tmp_path / "scene.json")
    found = Similarity.load(tmp_path / "scene.json")
    assert found.scale == move.scale and torch.equal(found.center, move.center)
    assert json.loads((tmp_path / "scene.json").read_text())["offset"] == [500010, 5400000, 300]
    for content, message in (
        ('{"scale": 1}', "expected an object with numbers scale and center"),
        ('{"scale": "a", "center": [0, 0, 0]}', "expected an object with numbers"),
        ("[]", "expected an object with numbers"),
        ('{"scale": 0, "center": [0, 0, 0]}', "scene.json: Similarity: scale must be positive"),
        ('{"scale": 1, "center": [0, 0]}', "scene.json: Similarity: center must be a finite"),
    ):
        (tmp_path / "scene.json").write_text(content)
        with pytest.raises(InputError, match=message):
            Similarity.load(tmp_path / "scene.json")


def test_far_worlds_are_in_float64() -> None:
    near, far = Similarity(0.5, torch.ones(3)), Similarity(0.5, torch.full((3,), 1e7))
    splats = Splats.random(30)
    assert near.offset is None and near.invert(splats).dtype == torch.float32
    assert far.offset is not None and far.offset.tolist() == [1e7, 1e7, 1e7]
    world = far.invert(splats)
    assert world.dtype == torch.float64
    torch.testing.assert_close(far.apply(world).means.float(), splats.means, atol=1e-7, rtol=0)
    assert far.invert(splats.means).dtype == torch.float64


def test_cameras_in_one_place_are_scaled_by_the_points() -> None:
    centers = torch.tensor([[3.0, 0.0, 0.0]] * 4, dtype=torch.float64)
    points = centers[:1] + torch.tensor([[1.0, 0, 0], [0, 4.0, 0], [0, 0, 9.0]]).double()
    move = Similarity.of_cameras(centers, points)
    assert move.scale == pytest.approx(1 / 4) and move.center.tolist() == [3, 0, 0]
    assert Similarity.of_cameras(centers, centers).scale == 1.0


def ring(count: int, far: dict[int, float] | None = None) -> torch.Tensor:
    """Place centres on a circle around (9, 9, 9); those in `far` so many times as far out."""
    angles = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count)
    circle = torch.stack([angles.cos(), angles.sin(), 0.1 * (7 * angles).sin()], dim=1)
    for index, times in (far or {}).items():
        circle[index] *= times
    return circle + 9


def test_extent_of_a_capture_is_the_plain_formula_to_the_bit() -> None:
    for centers in (ring(17), ring(17, {3: 4.0}), ring(2), ring(1), ring(60)[:, [2, 0, 1]]):
        extent = camera_extent(centers)
        center = centers.mean(dim=0)
        assert not extent.astray and torch.equal(extent.center, center)
        assert extent.length == 1.1 * float((centers - center).norm(dim=1).max())


@pytest.mark.parametrize("far", [{5: 33.0}, {0: 1e6}, {2: 8.0, 11: -40.0}])
def test_cameras_astray_do_not_set_the_unit(far: dict[int, float]) -> None:
    extent, plain = camera_extent(ring(21, far)), camera_extent(ring(21))
    assert extent.astray == sorted(far)
    assert extent.length == pytest.approx(plain.length, rel=0.2)
    assert (extent.center - plain.center).norm() < 0.2
    for times, index in zip(extent.times, extent.astray, strict=True):
        assert times == pytest.approx(abs(far[index]), rel=0.3)


def test_most_cameras_in_one_place_are_no_reason_to_leave_others_out() -> None:
    centers = torch.zeros(20, 3, dtype=torch.float64)
    centers[0, 0] = 5.0
    assert camera_extent(centers).length == pytest.approx(1.1 * 5 * 19 / 20)
    assert camera_extent(ring(3, {0: 90.0})).astray == []


def test_camera_astray_is_named_and_changes_no_step_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{index:02d}.png" for index in range(17)]
    model = write_scene(tmp_path, names)
    plain = load_scene(tmp_path).similarity
    assert "far out" not in caplog.text
    model.images[4].translation = [50 * number for number in model.images[4].translation]
    model.write(tmp_path / "sparse" / "0")
    moved = load_scene(tmp_path).similarity
    assert moved.scale == pytest.approx(plain.scale, rel=0.3)
    assert re.search(r"1 of 17 cameras are far out, .* that of 04\.png: \d+ times", caplog.text)


@pytest.mark.parametrize(
    ("scale", "center", "message"),
    [
        (0.0, torch.zeros(3), "scale must be positive, got 0.0"),
        (float("nan"), torch.zeros(3), "scale must be positive"),
        (1.0, torch.zeros(2), r"center must be a finite point \[3\]"),
        (1.0, torch.full((3,), float("inf")), "center must be a finite point"),
    ],
)
def test_bad_similarities_are_refused(scale: float, center: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Similarity(scale, center)
