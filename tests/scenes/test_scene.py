"""Whole scenes: what `load_scene` finds, splits, normalises and refuses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.colmap import FileCamera, smooth_photo, write_scene
from PIL import Image

from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.scenes import Scene, View, load_scene

MANY_CAMERAS = {
    1: FileCamera(0, 48, 32, [40.0, 24.0, 16.0]),
    2: FileCamera(1, 60, 31, [50.0, 52.0, 31.0, 15.0]),
    5: FileCamera(4, 64, 48, [50.0, 51.0, 32.0, 24.0, -0.1, 0.02, 0.001, -0.002]),
}


def views_of(scene: Scene) -> list[View]:
    return sorted((*scene.train, *scene.test), key=lambda view: view.name)


def project(points: torch.Tensor, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """Return [P, 2] pixels and [P] camera depths."""
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


def test_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_duplicate_points_are_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
def test_test_txt_decides(tmp_path: Path, sparse: str, caplog: pytest.LogCaptureFixture) -> None:
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
    tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture
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
def test_bad_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
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
    """Compare with `fox`: `fox_opencv` undistorted by COLMAP and saved again as JPEG."""
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
