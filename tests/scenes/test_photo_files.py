"""Files of photos, masks and models: found as named, found otherwise, or pointed at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.colmap import small_model, write_scene

from splatrender.errors import InputError
from splatrender.scenes import load_scene
from splatrender.scenes.layout import find_model
from splatrender.scenes.photo_files import find_masks, find_photos, same_photos


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_find_masks(tmp_path: Path) -> None:
    names = ["a.jpg", "left/b.jpg", "c.jpg", "d.e.jpg"]
    expected = [tmp_path / "a.png", tmp_path / "left" / "b.jpg.png", None, tmp_path / "d.e.png"]
    touch(*(file for file in expected if file))
    assert find_masks(tmp_path, names) == expected
    with pytest.raises(InputError, match=r"expected masks such as c.jpg.png, got none for 1"):
        find_masks(tmp_path, ["c.jpg"])
    with pytest.raises(InputError, match="expected a folder of masks"):
        find_masks(tmp_path / "nowhere", names)


# ---- files


def test_find_photos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder of photos images, got no"):
        find_photos(tmp_path, "images", ["a.jpg"])
    touch(tmp_path / "images" / "a.jpg", tmp_path / "images" / "left" / "b.jpg")
    names = ["a.jpg", "left/b.jpg"]
    found = find_photos(tmp_path, "images", names, 2)
    assert found.paths == [tmp_path / "images" / name for name in names] and not found.reduced
    message = r"expected 4 photos that .* 2 missing, the first is .*c.jpg"
    with pytest.raises(InputError, match=message):
        find_photos(tmp_path, "images", [*names, "c.jpg", "d.jpg"])


def test_reduced_folders(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "a.jpg", tmp_path / "images_2" / "a.jpg")
    for resolution, folder in ((1, "images"), (2, "images_2"), (4, "images"), (-1, "images")):
        found = find_photos(tmp_path, "images", ["a.jpg"], resolution)
        assert found.paths == [tmp_path / folder / "a.jpg"]
        assert found.reduced == (folder != "images")
    touch(tmp_path / "images" / "b.jpg")
    with pytest.raises(InputError, match=r"images_2: expected 1 photos"):
        find_photos(tmp_path, "images", ["b.jpg"], 2)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a.jpg", "b.jpg"], ["a.JPG", "b.jpg"]),
        (["a.jpg", "b.jpg"], ["A.JPG", "B.Jpg"]),
        (["a.jpg", "b.jpg"], ["a.png", "b.png"]),
        (["a.jpeg", "b.jpeg"], ["a.jpg", "b.jpg"]),
        (["left\\\\0001.png"], ["left/0001.png"]),
        (["left\\\\0001.png", "right\\\\0001.png"], ["left/0001.PNG", "right/0001.png"]),
        (["images/a.jpg", "images/b.jpg"], ["a.jpg", "b.jpg"]),
        (["./a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
        (["Caf\u00e9.jpg"], ["Cafe\u0301.jpg"]),
        (["Cafe\u0301.jpg"], ["Caf\u00e9.JPG"]),
        (["a.jpg", "a.png"], ["a.JPG", "a.png"]),
    ],
)
def test_photos_that_are_spelled_otherwise_are_found(
    tmp_path: Path, names: list[str], files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = [name.replace("\\\\", "\\") for name in names]
    folder = tmp_path / "images"
    touch(*(folder / file for file in files))
    assert find_photos(tmp_path, "images", names).paths == [folder / file for file in files]
    assert "have other names than in the sparse model" in caplog.text or names[0] == "./a.jpg"


@pytest.mark.parametrize(
    ("names", "files", "message"),
    [
        (["a.jpg"], ["a.JPG", "A.jpg"], r"first is .*/a\.jpg; a\.JPG is there|A\.jpg is there"),
        (["a.jpg"], ["a.png", "a.tif"], r"a\.png is there"),
        (["a.jpg", "b.jpg"], ["a.jpg", "b.png"], r"1 missing, .*b\.jpg; b\.png is there"),
        (["a.jpg", "a.png"], ["a.png"], r"1 missing, the first is .*a\.jpg; a\.png is there"),
        (["0001.png"], ["l/0001.png", "r/0001.png"], r"l/0001\.png is there"),
        (["0001.png", "0002.png"], ["0001.png", "masks/0002.png"], r"masks/0002\.png is there"),
        (["photo_0012.jpg"], ["photo_0013.jpg"], r"photo_0013\.jpg is there"),
        (["first.jpg"], ["x.jpg", "y.jpg"], r"2 files are there, such as x\.jpg"),
        (["first.jpg"], [], r"the folder is empty"),
    ],
)
def test_doubtful_photos_are_refused_with_the_nearest(
    tmp_path: Path, names: list[str], files: list[str], message: str
) -> None:
    (tmp_path / "images").mkdir()
    touch(*(tmp_path / "images" / file for file in files))
    with pytest.raises(InputError, match=message):
        find_photos(tmp_path, "images", names)


def test_absolute_names_are_taken_as_they_are(tmp_path: Path) -> None:
    files = [tmp_path / "elsewhere" / "a.jpg", tmp_path / "images" / "b.jpg"]
    touch(*files)
    assert find_photos(tmp_path, "images", [str(file) for file in files]).paths == files
    moved = ["/gone/a.jpg", "/gone/b.jpg"]
    touch(tmp_path / "images" / "a.jpg")
    expected = [tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.jpg"]
    assert find_photos(tmp_path, "images", moved).paths == expected


def test_broken_link_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "b.jpg")
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"images/a\.jpg, a link that leads nowhere"):
        find_photos(tmp_path, "images", ["a.jpg", "b.jpg"])


def test_what_was_found_otherwise_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(*(tmp_path / "images" / f"{n}.JPG" for n in range(3)))
    find_photos(tmp_path, "images", ["0.jpg", "1.jpg", "2.JPG"])
    assert len(caplog.records) == 1
    assert "2 photos have other names than in the sparse model, for example 0.JPG" in caplog.text


def test_photos_without_a_camera_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    touch(*(folder / f"left/{n}.jpg" for n in range(3)), folder / "right" / "0.png")
    touch(folder / ".DS_Store", folder / "._0.jpg", folder / "Thumbs.db", folder / "notes.txt")
    find_photos(tmp_path, "images", ["left/0.jpg", "left/2.jpg", "left/0.jpg"])  # one twice
    assert "images: 2 of 4 photos have cameras in the sparse model" in caplog.text
    caplog.clear()
    find_photos(tmp_path, "images", [f"left/{n}.jpg" for n in range(3)] + ["right/0.png"])
    assert not caplog.records


@pytest.mark.parametrize("other", ["input", "rgb", "images_4", "."])
def test_the_only_folder_that_holds_all_photos_is_taken(
    tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / other / "a.jpg", tmp_path / other / "b.jpg", tmp_path / "some" / "a.jpg")
    found = find_photos(tmp_path, "images", ["a.jpg", "b.jpg"])
    assert found.paths == [tmp_path / other / "a.jpg", tmp_path / other / "b.jpg"]
    assert f"the photos in {tmp_path / other} are taken" in caplog.text
    with pytest.raises(InputError, match=r"folder of photos frames, .* name the folder with"):
        find_photos(tmp_path, "frames", ["a.jpg", "b.jpg"])


def test_folders_in_doubt_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "input" / "a.jpg", tmp_path / "rgb" / "a.jpg")
    with pytest.raises(InputError, match="all photos are in input and rgb: name the folder with"):
        find_photos(tmp_path, "images", ["a.jpg"])
    with pytest.raises(InputError, match=r"folders are input, rgb, and none holds b\.jpg"):
        find_photos(tmp_path, "images", ["b.jpg"])


def test_masks_may_be_spelled_otherwise_and_missing_ones_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "A.PNG", tmp_path / "b.JPG.png", tmp_path / "Cafe\u0301.png")
    names = ["a.jpg", "b.jpg", "Caf\u00e9.jpg", "d.jpg"]
    expected = [tmp_path / "A.PNG", tmp_path / "b.JPG.png", tmp_path / "Cafe\u0301.png", None]
    assert find_masks(tmp_path, names) == expected
    assert "3 of 4 photos have masks; the others are kept whole" in caplog.text


def test_same_photos() -> None:
    names = ["left/a.JPG", "right/a.jpg", "Caf\u00e9.png", "b.jpg"]
    wanted = ["left\\a.jpg", "Cafe\u0301", "images/b.jpg", "a.jpg", "c.jpg"]
    expected = {wanted[0]: names[0], wanted[1]: names[2], wanted[2]: names[3]}
    assert same_photos(wanted, names) == expected  # a.jpg may be either of two photos


# ---- layouts


@pytest.mark.parametrize("sparse", ["colmap/sparse/0", "colmap/sparse", "colmap", "."])
def test_model_in_the_place_of_another_program(
    tmp_path: Path, sparse: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_scene(tmp_path, sparse=sparse, text=True)
    assert len(load_scene(tmp_path).train) == 7
    assert "no COLMAP model is in sparse/0 or sparse, " in caplog.text


def test_flat_export(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_scene(tmp_path, sparse=".", images=".", text=True)
    assert len(load_scene(tmp_path).train) == 7
    assert f"the photos in {tmp_path} are taken" in caplog.text
    assert "have cameras" not in caplog.text


def test_scene_a_level_off_is_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "deep")
    for inside in ("images", "sparse", "sparse/0"):
        with pytest.raises(InputError, match=rf"its parent {tmp_path}/deep is the scene: give"):
            load_scene(tmp_path / "deep" / inside)
    with pytest.raises(InputError, match=rf"; {tmp_path}/deep is a scene: give that folder"):
        load_scene(tmp_path)
    write_scene(tmp_path / "other" / "dense")
    with pytest.raises(InputError, match=rf"; .*, {tmp_path}/other/dense are scenes: give one"):
        load_scene(tmp_path)


def test_transforms_json_is_explained(tmp_path: Path) -> None:
    (tmp_path / "transforms_train.json").write_text(json.dumps({"frames": []}))
    with pytest.raises(InputError, match=r"transforms_train\.json, .* NeRF .* run COLMAP .*-init"):
        load_scene(tmp_path)


def test_incomplete_model_is_listed(tmp_path: Path) -> None:
    folder = small_model(["a.jpg"]).write(tmp_path / "sparse" / "0")
    (folder / "images.bin").unlink()
    with pytest.raises(InputError, match=r"only cameras\.bin, points3D\.bin in .*sparse/0"):
        find_model(tmp_path)
