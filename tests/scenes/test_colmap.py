"""COLMAP models: what is read equals what was written, and broken files are refused by name."""

from __future__ import annotations

import logging
import os
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.colmap import (
    MODEL_NAMES,
    FileCamera,
    FileImage,
    FileModel,
    random_params,
    small_model,
)

from splatrender.errors import InputError
from splatrender.scenes.colmap import read_model
from splatrender.scenes.layout import find_model

FORMATS = pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
NAMES = ["b.jpg", "left/a 1.jpg", "left/deep/z.png", "a.jpg"]


def viewmat_of(image: FileImage) -> np.ndarray:
    """Return [4, 4] by the sandwich product q p q*, not by the matrix formula."""
    w, *vector = np.array(image.quat) / np.linalg.norm(image.quat)
    vector = np.array(vector)
    matrix = np.eye(4)
    for axis in range(3):
        point = np.eye(3)[axis]
        turn = np.cross(vector, point)
        matrix[:3, axis] = point + 2 * w * turn + 2 * np.cross(vector, turn)
    matrix[:3, 3] = image.translation
    return matrix


@FORMATS
def test_reads_what_was_written(tmp_path: Path, text: bool) -> None:
    cameras = {
        7: FileCamera(1, 48, 32, [40.0, 41.0, 24.0, 16.0]),
        2: FileCamera(4, 64, 20, [40.0, 41.0, 24.0, 16.0, 0.1, -0.2, 0.003, 0.004]),
    }
    written = small_model(NAMES, cameras)
    written.images[0].keypoints = []  # a blank line in the text format
    read = read_model(written.write(tmp_path, text))
    assert [image.name for image in read.images] == sorted(NAMES)
    by_name = {image.name: image for image in read.images}
    for image in written.images:
        np.testing.assert_allclose(by_name[image.name].viewmat, viewmat_of(image), atol=1e-14)
        assert by_name[image.name].camera_id == image.camera
    np.testing.assert_array_equal(read.points, written.points)
    np.testing.assert_array_equal(read.colors, written.colors)
    assert (read.cameras[7].fx, read.cameras[7].fy, read.cameras[7].cx) == (40.0, 41.0, 24.0)
    lens = read.cameras[2]
    assert (lens.k1, lens.k2, lens.p1, lens.p2) == (0.1, -0.2, 0.003, 0.004)
    assert (lens.width, lens.height) == (64, 20)


def test_binary_is_preferred(tmp_path: Path) -> None:
    small_model(["text.jpg"]).write(tmp_path, text=True)
    small_model(["binary.jpg"]).write(tmp_path)
    assert [image.name for image in read_model(tmp_path).images] == ["binary.jpg"]


@FORMATS
def test_equals_pycolmap(tmp_path: Path, text: bool) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is the oracle")
    rng = np.random.default_rng(3)
    made = pycolmap.Reconstruction()
    for model, name in enumerate(MODEL_NAMES):
        camera = pycolmap.Camera(model=name, width=640, height=480, camera_id=model + 1)
        camera.params = random_params(model, rng)
        made.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=f"sub/{name}.jpg", camera_id=model + 1, image_id=model + 1)
        image.points2D = [pycolmap.Point2D(xy) for xy in rng.uniform(0, 400, (5, 2))]
        quat = rng.normal(size=4)
        pose = pycolmap.Rigid3d(
            pycolmap.Rotation3d(quat / np.linalg.norm(quat)), rng.normal(size=3)
        )
        made.add_image_with_trivial_frame(image, pose)
    for index, xyz in enumerate(rng.normal(size=(30, 3))):
        track = pycolmap.Track()
        track.add_element(1 + index % len(MODEL_NAMES), index // len(MODEL_NAMES))
        made.add_point3D(xyz, track, rng.integers(0, 256, 3).astype(np.uint8))
    (made.write_text if text else made.write_binary)(tmp_path)
    read = read_model(tmp_path)
    rays = np.concatenate([rng.uniform(-0.3, 0.3, (9, 2)), np.ones((9, 1))], axis=1)
    assert len(read.images) == len(read.cameras) == len(MODEL_NAMES)
    for image in read.images:
        theirs = made.find_image_with_name(image.name)
        pose = theirs.cam_from_world()
        np.testing.assert_allclose(image.viewmat[:3], pose.matrix(), atol=1e-12)
        seen = read.cameras[image.camera_id].img_from_cam(rays)
        np.testing.assert_allclose(seen, theirs.camera.img_from_cam(rays), atol=1e-9)
    theirs = sorted(made.points3D.values(), key=lambda point: tuple(point.xyz))
    order = np.lexsort(read.points.T[::-1])
    np.testing.assert_allclose(read.points[order], [p.xyz for p in theirs], atol=1e-14)
    np.testing.assert_array_equal(read.colors[order], [p.color for p in theirs])


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_any_cut_is_refused(tmp_path: Path, name: str) -> None:
    file = small_model(NAMES, points=5).write(tmp_path) / f"{name}.bin"
    whole = file.read_bytes()
    for size in range(0, len(whole), 3):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=f"{re.escape(str(file))}: cut off or corrupt"):
            read_model(tmp_path)
    file.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match=f"{name}.bin: corrupt: its records take"):
        read_model(tmp_path)
    file.write_bytes(struct.pack("<Q", 2**60) + whole[8:])
    with pytest.raises(InputError, match="cut off or corrupt: needs"):
        read_model(tmp_path)


def test_name_without_end_is_refused(tmp_path: Path) -> None:
    file = small_model(["a.jpg"]).write(tmp_path) / "images.bin"
    file.write_bytes(file.read_bytes()[:72] + b"x" * 40)
    with pytest.raises(InputError, match="a name has no end"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("cameras", "1 PINHOLE 48 32 40.0 41.0 24.0", 1),
        ("cameras", "1 PINHOLE 48", 1),
        ("cameras", "1 PINHOLE 48 32 forty 41.0 24.0 16.0", 1),
        ("cameras", "1 POLAROID 48 32 40.0 41.0 24.0 16.0", 1),
        ("images", "# comment\n1 1 0 0 0 0 0 4 1", 2),
        ("images", "1 1 0 0 zero 0 0 4 1 a.jpg\n", 1),
        ("images", "1 1 0 0 0 0 0 4 1 a.jpg\n1.5 2.5 -1 3.0", 2),
        ("points3D", "1 0.0 0.0 0.0 1 2 3", 1),
        ("points3D", "1 0.0 0.0 0.0 1 2 3.5 0.5", 1),
        ("points3D", "\n1 0.0 0.0 0.0 1 2 256 0.5", 2),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, name: str, text: str, line: int) -> None:
    file = small_model(["a.jpg"]).write(tmp_path, text=True) / f"{name}.txt"
    file.write_text(text)
    where = re.escape(str(file)) + f", line {line}: (camera 1: )?(expected|camera model PINHOLE)"
    with pytest.raises(InputError, match=where):
        read_model(tmp_path)


def test_text_may_end_without_keypoints(tmp_path: Path) -> None:
    file = small_model(["a.jpg"]).write(tmp_path, text=True) / "images.txt"
    file.write_text("1 1 0 0 0 0 0 4 1 a.jpg")
    assert [image.name for image in read_model(tmp_path).images] == ["a.jpg"]


THREE_WORDS = [f"my photo {number}.png" for number in range(6)]


@pytest.mark.parametrize("blank", [[], [0], [2, 3]], ids=["none", "first", "two"])
def test_photos_without_a_line_of_keypoints_are_all_read(
    tmp_path: Path, blank: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Read names of three words: such a photo has as many fields as four keypoints."""
    model = small_model(THREE_WORDS)
    for image in model.images:
        image.keypoints = []
    file = model.write(tmp_path, text=True) / "images.txt"
    records = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    lines = [line + "\n" * (1 + (index in blank)) for index, line in enumerate(records)]
    file.write_text("".join(lines))
    assert [image.name for image in read_model(tmp_path).images] == THREE_WORDS
    missing = len(records) - len(blank) - (5 not in blank)  # nothing comes after the last photo
    assert f"images.txt: {missing} of 6 photos have no line of keypoints" in caplog.text


@pytest.mark.parametrize(
    "keypoints", ["1.5 2.5 seven", "1.5 2.5 0.5", "1.5 2.5 -1 3.5", "1 x y z", "my own words"]
)
def test_a_line_that_is_neither_keypoints_nor_a_photo_is_refused(
    tmp_path: Path, keypoints: str
) -> None:
    file = small_model(["a.jpg"]).write(tmp_path, text=True) / "images.txt"
    file.write_text(f"1 1 0 0 0 0 0 4 1 a.jpg\n{keypoints}\n")
    with pytest.raises(InputError, match=r"line 2: expected keypoints as triples .* or the next"):
        read_model(tmp_path)


def test_a_text_file_that_lost_photos_is_pointed_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = small_model(NAMES).write(tmp_path, text=True) / "images.txt"
    file.write_text("# Number of images: 9, mean observations per image: 3\n" + file.read_text())
    read_model(tmp_path)
    assert "images.txt: its header announces 9 photos, it holds 4" in caplog.text


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", "utf-16"], ids=["utf-8", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["unix", "windows", "mac"])
def test_byte_order_mark_and_line_ends_change_nothing(
    tmp_path: Path, mark: bytes | str, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["Caf\u00e9 \u5199.jpg", "b.jpg"]
    plain = read_model(small_model(names).write(tmp_path / "plain", text=True))
    marked = small_model(names).write(tmp_path / "marked", text=True)
    for file in marked.iterdir():
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        text = ends.join(lines) + ends  # no comment: the mark is before the first record
        file.write_bytes(mark + text.encode() if isinstance(mark, bytes) else text.encode(mark))
    read = read_model(marked)
    assert [image.name for image in read.images] == sorted(names)
    assert read.cameras == plain.cameras and not caplog.records
    np.testing.assert_array_equal(read.points, plain.points)


def test_names_of_no_encoding_are_the_bytes_on_disk(tmp_path: Path) -> None:
    file = small_model(["a.jpg"]).write(tmp_path, text=True) / "images.txt"
    file.write_bytes(b"1 1 0 0 0 0 0 4 1 caf\xe9.jpg\n\n")
    assert [os.fsencode(image.name) for image in read_model(tmp_path).images] == [b"caf\xe9.jpg"]


# ---- records that are faulty in themselves


@FORMATS
def test_photos_without_a_pose_are_left_out(
    tmp_path: Path, text: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model(NAMES)
    model.images[1].quat, model.images[2].translation[0] = [0.0] * 4, float("nan")
    read = read_model(model.write(tmp_path, text))
    assert [image.name for image in read.images] == ["a.jpg", "b.jpg"]
    assert "left out 2 of 4 photos, the first is left/a 1.jpg: expected a finite" in caplog.text


@FORMATS
@pytest.mark.parametrize("fault", ["nan", "no size", "focal length"])
def test_faulty_camera_that_no_photo_has_is_left_out(
    tmp_path: Path, text: bool, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model(NAMES)
    model.cameras[4] = FileCamera(1, 48, 32, [40.0, 41.0, 24.0, 16.0])
    if fault == "no size":
        model.cameras[4].width = 0
    else:
        model.cameras[4].params[0] = float("nan") if fault == "nan" else -40.0
    read = read_model(model.write(tmp_path, text))
    assert list(read.cameras) == [1] and len(read.images) == 4
    assert re.search(r"camera 4: .*left out, as no photo has it", caplog.text)
    model.images[0].camera = 4
    with pytest.raises(InputError, match=r"cameras.*: camera 4: camera model PINHOLE"):
        read_model(model.write(tmp_path, text))


@FORMATS
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_points_may_be_missing_where_none_are_needed(tmp_path: Path, text: bool, how: str) -> None:
    model = small_model(NAMES, points=0)
    folder = model.write(tmp_path, text)
    if how == "missing":
        (folder / f"points3D{'.txt' if text else '.bin'}").unlink()
    with pytest.raises(InputError, match=r"points3D\..*--random-init"):
        read_model(folder)
    read = read_model(folder, need_points=False)
    assert read.points.shape == (0, 3) and read.colors.shape == (0, 3)


def change(model: FileModel, what: str) -> str:
    """Break a model in one way; return the text that the message must have."""
    if what == "camera model":
        model.cameras[1].model = 99
        return "cameras.bin: camera 1: expected a camera model of SIMPLE_PINHOLE, .* number 99"
    if what == "focal length":
        model.cameras[1].params[0] = 0.0
        return "camera 1: camera model PINHOLE: focal lengths and size must be positive"
    if what == "parameter":
        model.cameras[1].params[2] = float("nan")
        return "camera 1: camera model PINHOLE: parameters must be finite"
    if what == "pose":
        model.images[0].translation[1] = float("nan")
        return r"images.bin: expected registered photos, .* 0.jpg: expected a finite pose"
    if what == "rotation":
        model.images[0].quat = [0.0] * 4
        return r"images.bin: expected registered photos, .* 0.jpg: expected a finite pose"
    if what == "name":
        model.images[0].name = ""
        return "a photo: expected its name, got an empty one"
    if what == "camera id":
        model.images[0].camera = 5
        return "0.jpg has camera 5, which cameras.bin does not list"
    if what == "images":
        model.images = []
        return "images.bin: expected registered photos, got none"
    if what == "points":
        model.points, model.colors = np.empty((0, 3)), np.empty((0, 3), np.uint8)
        return "points3D.bin: expected at least one finite point, got none"
    model.points[:] = np.nan
    return "points3D.bin: expected at least one finite point, got none"


@pytest.mark.parametrize(
    "what",
    [
        "camera model",
        "focal length",
        "parameter",
        "pose",
        "rotation",
        "name",
        "camera id",
        "images",
        "points",
        "nan",
    ],
)
def test_nonsense_is_refused(tmp_path: Path, what: str) -> None:
    model = small_model(["0.jpg"])
    message = change(model, what)
    with pytest.raises(InputError, match=message):
        read_model(model.write(tmp_path))


def test_points_that_are_not_finite_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model(["0.jpg"])
    model.points[3, 1], model.points[5, 0], model.points[6, 2] = np.nan, np.inf, 1e300
    read = read_model(model.write(tmp_path))
    keep = np.delete(np.arange(20), [3, 5, 6])
    np.testing.assert_array_equal(read.points, model.points[keep])
    np.testing.assert_array_equal(read.colors, model.colors[keep])
    assert "dropped 3 points that are not finite" in caplog.text


@FORMATS
def test_finds_the_largest_model(
    tmp_path: Path, text: bool, caplog: pytest.LogCaptureFixture
) -> None:
    small_model(NAMES[:2]).write(tmp_path / "sparse" / "0", text)
    assert find_model(tmp_path) == tmp_path / "sparse" / "0"
    assert not caplog.records
    small_model(NAMES).write(tmp_path / "sparse" / "1", text)
    small_model(NAMES[:1]).write(tmp_path / "sparse", text)
    (tmp_path / "sparse" / "2").mkdir()
    with caplog.at_level(logging.WARNING):
        assert find_model(tmp_path) == tmp_path / "sparse" / "1"
    assert "sparse/0 (2 photos), sparse/1 (4 photos), sparse (1 photos)" in caplog.text
    assert "using sparse/1" in caplog.text


def test_broken_model_does_not_win(tmp_path: Path) -> None:
    small_model(NAMES).write(tmp_path / "sparse" / "0")
    small_model(NAMES).write(tmp_path / "sparse" / "1")
    (tmp_path / "sparse" / "0" / "images.bin").write_bytes(b"\0")
    assert find_model(tmp_path) == tmp_path / "sparse" / "1"


def test_finds_a_flat_model(tmp_path: Path) -> None:
    small_model(NAMES).write(tmp_path / "sparse")
    assert find_model(tmp_path) == tmp_path / "sparse"


def test_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a COLMAP model .* got an empty folder"):
        find_model(tmp_path)
    folder = small_model(NAMES).write(tmp_path / "sparse" / "0")
    (folder / "points3D.bin").unlink()
    with pytest.raises(InputError, match=r"points3D\.bin: expected the points .* --random-init"):
        read_model(find_model(tmp_path))
    (folder / "images.bin").unlink()
    with pytest.raises(InputError, match=r"expected a COLMAP model .* got only cameras\.bin in"):
        find_model(tmp_path)
    with pytest.raises(InputError, match=r"got cameras\.bin"):
        read_model(folder)
    with pytest.raises(InputError, match="no such folder"):
        read_model(tmp_path / "nowhere")


def test_three_megabytes_are_read_at_once(tmp_path: Path) -> None:
    keypoints = [(1.0, 2.0, -1)] * 2500
    model = small_model([f"{n}.jpg" for n in range(50)], points=10_000)
    for image in model.images:
        image.keypoints = keypoints
    model.write(tmp_path)
    assert (tmp_path / "images.bin").stat().st_size > 2.9e6
    start = time.process_time()
    read_model(tmp_path)
    assert time.process_time() - start < 0.5  # measured: 0.01 to 0.03 s


def test_shared_models(shared_data: Path) -> None:
    fox = read_model(shared_data / "scenes" / "fox" / "sparse" / "0")
    assert (len(fox.images), len(fox.points), len(fox.cameras)) == (50, 8208, 1)
    assert fox.images[0].name == "0001.jpg"
    text = read_model(shared_data / "formats" / "video7_text" / "sparse" / "0")
    binary = read_model(shared_data / "formats" / "video7_simple_radial" / "sparse" / "0")
    assert text.cameras == binary.cameras and len(binary.cameras) == 7
    assert len(binary.points) == 699
    for one, other in zip(text.images, binary.images, strict=True):
        assert (one.name, one.camera_id) == (other.name, other.camera_id)
        np.testing.assert_allclose(one.viewmat, other.viewmat, atol=1e-12)
    order, other_order = (np.lexsort(model.points.T) for model in (text, binary))
    np.testing.assert_allclose(text.points[order], binary.points[other_order], atol=1e-12)
    np.testing.assert_array_equal(text.colors.sum(axis=0), binary.colors.sum(axis=0))


def test_shared_model_equals_pycolmap(shared_data: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is the oracle")
    folder = shared_data / "scenes" / "fox_opencv" / "sparse" / "0"
    ours, theirs = read_model(folder), pycolmap.Reconstruction(folder)
    for image in ours.images:
        pose = theirs.find_image_with_name(image.name).cam_from_world()
        np.testing.assert_allclose(image.viewmat[:3], pose.matrix(), atol=1e-12)
    assert len(ours.points) == len(theirs.points3D)
