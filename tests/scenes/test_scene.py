"""Whole scenes: what `load_scene` finds, splits, normalises and refuses."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.colmap import FileCamera, smooth_photo, write_scene
from PIL import Image

from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.splats import Splats
from splatrender.scenes import Scene, Similarity, View, load_scene
from splatrender.scenes import scene as scene_module
from splatrender.scenes.extent import camera_extent

MANY_CAMERAS = {
    1: FileCamera(0, 48, 32, [40.0, 24.0, 16.0]),
    2: FileCamera(1, 60, 31, [50.0, 52.0, 31.0, 15.0]),
    5: FileCamera(4, 64, 48, [50.0, 51.0, 32.0, 24.0, -0.1, 0.02, 0.001, -0.002]),
}


def views_of(scene: Scene) -> list[View]:
    return sorted((*scene.train, *scene.test), key=lambda view: view.name)


def project(points: torch.Tensor, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """[P, 2] pixels and [P] camera depths."""
    seen = points.double() @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    focal = torch.tensor([camera.fx, camera.fy], dtype=torch.float64)
    center = torch.tensor([camera.cx, camera.cy], dtype=torch.float64)
    return seen[:, :2] / seen[:, 2:] * focal + center, seen[:, 2]


# ---- reading


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_scene_is_read(tmp_path: Path, text: bool) -> None:
    names = [f"left/{n}.png" for n in range(5)] + [f"{n} b.png" for n in range(5)]
    write_scene(tmp_path, names, text=text)
    scene = load_scene(tmp_path)
    assert scene.path == tmp_path
    assert [view.name for view in views_of(scene)] == sorted(names)
    assert [view.name for view in scene.test] == sorted(names)[::8]
    assert len(scene.train) == 8
    for view in views_of(scene):
        number = names.index(view.name)
        np.testing.assert_array_equal(view.photo, smooth_photo(48, 32, number))
        assert view.mask is None
        assert view.camera.name == view.name
        assert (view.camera.fx, view.camera.fy) == (40.0, 41.0)
    assert scene.points.shape == (20, 3) and scene.points.dtype == torch.float32
    assert scene.colors.shape == (20, 3) and scene.colors.dtype == torch.uint8
    assert repr(scene).endswith("8 train + 2 test views, 20 points)")


def test_cameras_of_many_kinds_and_sizes(tmp_path: Path) -> None:
    model = write_scene(tmp_path, cameras=MANY_CAMERAS)
    for image, view in zip(model.images, views_of(load_scene(tmp_path)), strict=True):
        camera = model.cameras[image.camera]
        assert view.photo.shape == (view.camera.height, view.camera.width, 3)
        size = (view.camera.width, view.camera.height)
        if camera.model == 4:
            assert size != (camera.width, camera.height)
            assert min(size) > 40
        else:
            assert size == (camera.width, camera.height)


def test_scene_with_many_photos(tmp_path: Path) -> None:
    write_scene(tmp_path, [f"{n:02d}.png" for n in range(40)])
    scene = load_scene(str(tmp_path), resolution=2)
    assert (len(scene.train), len(scene.test)) == (35, 5)
    assert scene.train[0].photo.shape == (16, 24, 3)


def test_reduced_folder_is_used_with_its_real_size(tmp_path: Path) -> None:
    cameras = {1: FileCamera(1, 49, 33, [40.0, 42.0, 24.5, 16.5])}
    model = write_scene(tmp_path, cameras=cameras)
    for image in model.images:
        file = tmp_path / "images_2" / image.name
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((17, 25, 3), 7, np.uint8)).save(file)
    reduced, normal = load_scene(tmp_path, resolution=2), load_scene(tmp_path, resolution=4)
    view = reduced.train[0]
    assert view.photo.shape == (17, 25, 3) and bool((view.photo == 7).all())
    assert view.camera.fx == pytest.approx(40 * 25 / 49)
    assert view.camera.cy == pytest.approx(16.5 * 17 / 33)
    assert normal.train[0].photo.shape == (8, 12, 3)
    assert normal.train[0].camera.fx == pytest.approx(40 * 12 / 49)


def test_folder_of_photos_can_be_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene", images="frames")
    assert len(views_of(load_scene(tmp_path / "scene", images="frames"))) == 9
    elsewhere = str(tmp_path / "scene" / "frames")
    assert len(views_of(load_scene(tmp_path / "scene", images=elsewhere))) == 9
    with pytest.raises(InputError, match=r"expected a folder of photos other, .* in frames: name"):
        load_scene(tmp_path / "scene", images="other")


def test_masks(tmp_path: Path, caplog) -> None:
    write_scene(tmp_path, ["a.png", "left/b.png", "c.png"])
    keep = np.zeros((32, 48), np.uint8)
    keep[:, :24] = 255
    (tmp_path / "masks" / "left").mkdir(parents=True)
    Image.fromarray(keep).save(tmp_path / "masks" / "a.png")
    Image.fromarray(keep).save(tmp_path / "masks" / "left" / "b.png.png")
    views = views_of(load_scene(tmp_path, masks="masks", resolution=2))
    assert views[1].mask is None
    for view in (views[0], views[2]):
        assert view.mask is not None and view.mask.dtype == torch.uint8
        np.testing.assert_array_equal(view.mask, keep[::2, ::2] // 255)
    with caplog.at_level(logging.INFO):
        assert all(view.mask is None for view in views_of(load_scene(tmp_path)))
    assert "masks is not used" in caplog.text


def test_duplicate_points_are_dropped(tmp_path: Path, caplog) -> None:
    model = write_scene(tmp_path)
    model.points[7] = model.points[12] = model.points[3]
    model.write(tmp_path / "sparse" / "0")
    with caplog.at_level(logging.INFO):
        scene = load_scene(tmp_path)
    assert "dropped 2 duplicate points" in caplog.text
    keep = np.delete(np.arange(20), [7, 12])
    world = scene.similarity.invert(scene.points.double())
    np.testing.assert_allclose(world, model.points[keep], atol=1e-6)
    np.testing.assert_array_equal(scene.colors, model.colors[keep])


# ---- split


def test_no_split_without_eval(tmp_path: Path) -> None:
    write_scene(tmp_path)
    scene = load_scene(tmp_path, eval=False)
    assert (len(scene.train), len(scene.test)) == (9, 0)


def test_holdout(tmp_path: Path) -> None:
    write_scene(tmp_path)
    names = [view.name for view in load_scene(tmp_path, holdout=3).test]
    assert names == ["000.png", "003.png", "006.png"]


@pytest.mark.parametrize("sparse", ["sparse/0", "sparse"])
def test_test_txt_decides(tmp_path: Path, sparse: str, caplog) -> None:
    write_scene(tmp_path, sparse=sparse)
    listing = tmp_path / sparse / "test.txt"
    listing.write_text("005.png\n\n  002.png\r\n")
    assert [view.name for view in load_scene(tmp_path).test] == ["002.png", "005.png"]
    assert not load_scene(tmp_path, eval=False).test
    assert not caplog.records
    listing.write_text("005\nimages/002.PNG\n")
    assert [view.name for view in load_scene(tmp_path).test] == ["002.png", "005.png"]
    assert not caplog.records
    listing.write_text("005.png\nunregistered.png\n")
    assert [view.name for view in load_scene(tmp_path).test] == ["005.png"]
    assert "1 of 2 names are no registered photos, for example unregistered.png" in caplog.text


@pytest.mark.parametrize("content", [b"", b"nothing.png\n", b"\xff\xfe\x00"])
def test_useless_test_txt_is_refused(tmp_path: Path, content: bytes) -> None:
    write_scene(tmp_path)
    (tmp_path / "sparse" / "0" / "test.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"test.txt: expected (names of|text)"):
        load_scene(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_keeps_no_photo_from_the_test_views(
    tmp_path: Path, encoding: str, caplog
) -> None:
    write_scene(tmp_path)
    text = "005.png\r\n002.png\r\n"
    (tmp_path / "sparse" / "0" / "test.txt").write_bytes(text.encode(encoding))
    assert [view.name for view in load_scene(tmp_path).test] == ["002.png", "005.png"]
    assert not caplog.records


def test_scene_without_points(tmp_path: Path) -> None:
    write_scene(tmp_path)
    whole = load_scene(tmp_path)
    (tmp_path / "sparse" / "0" / "points3D.bin").unlink()
    with pytest.raises(InputError, match=r"points3D\.bin: expected the points.*--random-init"):
        load_scene(tmp_path)
    scene = load_scene(tmp_path, need_points=False)
    assert scene.points.shape == (0, 3) and scene.colors.shape == (0, 3)
    assert scene.similarity.scale == whole.similarity.scale


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    write_scene(tmp_path, ["only.png"])
    with pytest.raises(InputError, match=r"all 1 photos are held out .* --no-eval \(eval=False"):
        load_scene(tmp_path)
    assert len(load_scene(tmp_path, eval=False).train) == 1


# ---- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"resolution": 3},
            "resolution: expected -1, 1, 2, 4, 8 or a width in px above 8, got 3",
        ),
        ({"resolution": 0}, "resolution: expected"),
        ({"resolution": -2}, "resolution: expected"),
        ({"holdout": 1}, "holdout: expected a whole number of at least 2, got 1"),
        ({"masks": "masks"}, "masks: expected a folder of masks, got no such folder"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    write_scene(tmp_path)
    with pytest.raises(InputError, match=message):
        load_scene(tmp_path, **options)


def test_missing_things_are_refused(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="nowhere: expected the folder of a scene, got nothing"):
        load_scene(nowhere)
    with pytest.raises(InputError, match=r"got nothing, nor a folder .*/nowhere$"):
        load_scene(nowhere / "scene")
    (tmp_path / "My_Scene").mkdir()
    with pytest.raises(InputError, match=r"got nothing; .*/My_Scene is there"):
        load_scene(tmp_path / "my_scenes")
    (tmp_path / "My_Scene").rmdir()
    nowhere.write_text("")
    with pytest.raises(InputError, match="nowhere: expected the folder of a scene, got a file"):
        load_scene(nowhere)
    with pytest.raises(InputError, match="expected a COLMAP model"):
        load_scene(tmp_path)
    write_scene(tmp_path)
    (tmp_path / "images" / "004.png").unlink()
    (tmp_path / "images" / "003.png").unlink()
    with pytest.raises(InputError, match=r"2 missing, the first is .*003\.png"):
        load_scene(tmp_path)


def test_broken_photo_is_named(tmp_path: Path) -> None:
    write_scene(tmp_path)
    (tmp_path / "images" / "004.png").write_text("nothing")
    with pytest.raises(InputError, match=r"004\.png: expected a readable photo"):
        load_scene(tmp_path)


# ---- the frame inside


def test_cameras_have_mean_zero_and_extent_one(tmp_path: Path) -> None:
    write_scene(tmp_path)
    for eval in (True, False):
        scene = load_scene(tmp_path, eval=eval)
        centers = torch.stack([view.camera.center for view in views_of(scene)])
        assert centers.mean(dim=0).abs().max() < 1e-12
        assert 1.1 * float(centers.norm(dim=1).max()) == pytest.approx(1)


def test_normalising_moves_nothing_in_the_picture(tmp_path: Path) -> None:
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


def test_similarity_keeps_splats_in_the_picture() -> None:
    """A splat's spread in the picture, J W A, is the same in both frames."""
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
    """Camera centres on a circle around (9, 9, 9); those in `far` so many times as far out."""
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


def test_camera_astray_is_named_and_changes_no_step_size(tmp_path: Path, caplog) -> None:
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


# ---- real scenes


def test_fox(shared_data: Path) -> None:
    scene = load_scene(shared_data / "scenes" / "fox", resolution=4)
    tests = [view.name for view in scene.test]
    assert tests == [f"{n:04d}.jpg" for n in (1, 12, 27, 42, 73, 89, 110)]
    assert len(scene.train) == 43 and scene.train[0].photo.shape == (240, 134, 3)
    # The points are seen: nearly all of them by some camera, in front of it.
    seen = torch.zeros(len(scene.points), dtype=torch.bool)
    for view in scene.train:
        pixels, depths = project(scene.points, view.camera)
        size = torch.tensor([view.camera.width, view.camera.height])
        seen |= (depths > 0) & ((pixels > 0) & (pixels < size)).all(dim=1)
    assert seen.double().mean() > 0.99


@pytest.mark.parametrize("resolution", [1, 2, 4])
def test_undistorted_fox_looks_like_fox(shared_data: Path, resolution: int) -> None:
    """`fox` is `fox_opencv` undistorted by COLMAP and saved once more as JPEG."""
    folder = shared_data / "scenes"
    expected = load_scene(folder / "fox", resolution=resolution)
    distorted = load_scene(folder / "fox_opencv", resolution=resolution)
    for one, other in list(zip(expected.test, distorted.test, strict=True))[::2]:
        a, b = one.camera, other.camera
        y, x = torch.meshgrid(
            torch.arange(a.height) + 0.5, torch.arange(a.width) + 0.5, indexing="ij"
        )
        x = ((x - a.cx) / a.fx * b.fx + b.cx) / b.width * 2 - 1
        y = ((y - a.cy) / a.fy * b.fy + b.cy) / b.height * 2 - 1
        planes = other.photo.permute(2, 0, 1)[None].float()
        moved = torch.nn.functional.grid_sample(
            planes, torch.stack([x, y], dim=-1)[None], mode="bicubic", align_corners=False
        )[0].permute(1, 2, 0)
        error = (moved - one.photo)[5:-5, 5:-5] / 255
        # Measured: 41.5 to 43.7 dB; half a pixel of shift costs: 36.7 at full size, 30.5 at 1/4.
        assert -10 * torch.log10(error.square().mean()) > 40


def test_seven_cameras_of_seven_sizes(shared_data: Path) -> None:
    scene = load_scene(shared_data / "formats" / "video7_pinhole_multicam", resolution=1)
    sizes = {(view.camera.width, view.camera.height) for view in views_of(scene)}
    assert len(sizes) > 4 and (1225, 688) in sizes and (1251, 703) in sizes
    radial = load_scene(shared_data / "formats" / "video7_simple_radial", resolution=320)
    assert all(view.photo.shape[1] == 320 for view in views_of(radial))


def test_banana(shared_data: Path) -> None:
    scene = load_scene(shared_data / "scenes" / "banana")
    assert [view.name for view in scene.test] == ["dsc_0423.jpg", "dsc_0432.jpg"]
    assert scene.train[0].photo.shape == (532, 800, 3)
