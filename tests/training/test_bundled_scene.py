"""The bundled scene is complete and consistent, and its generator still runs."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from helpers import REPOSITORY
from PIL import Image

SCENE = REPOSITORY / "scenes" / "still_life"
SPARSE = SCENE / "sparse" / "0"
GENERATOR = "tools.still_life"
MEGABYTES = 6

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Lens: TypeAlias = tuple[int, int, Array]
"""Width, height and (fx, fy, cx, cy)."""
Photo: TypeAlias = tuple[Any, ...]
"""qvec, tvec, camera id, name, keypoints [N, 2], point ids [N]."""
Point: TypeAlias = tuple[Array, tuple[int, int, int], float, Array]
"""xyz, rgb, error, track [(image id, keypoint index)]."""


def _take(data: bytes, at: int, layout: str) -> tuple[tuple[Any, ...], int]:
    return struct.unpack_from("<" + layout, data, at), at + struct.calcsize("<" + layout)


def read_images(path: Path) -> dict[int, Photo]:
    """Return the images of an images.bin by their ids."""
    data, images = path.read_bytes(), {}
    (count,), at = _take(data, 0, "Q")
    for _ in range(count):
        (number, *pose, camera), at = _take(data, at, "i7di")
        end = data.index(b"\0", at)
        name, at = data[at:end].decode(), end + 1
        (length,), at = _take(data, at, "Q")
        rows = np.frombuffer(data, [("xy", "<f8", 2), ("point", "<i8")], length, at)
        at += rows.nbytes
        images[number] = (*np.split(np.array(pose), [4]), camera, name, rows["xy"], rows["point"])
    assert at == len(data)
    return images


def read_points(path: Path) -> dict[int, Point]:
    """Return the points of a points3D.bin by their ids."""
    data, points = path.read_bytes(), {}
    (count,), at = _take(data, 0, "Q")
    for _ in range(count):
        (number, x, y, z, r, g, b, error, length), at = _take(data, at, "Q3d3BdQ")
        track = np.frombuffer(data, "<i4", 2 * length, at).reshape(length, 2)
        at += track.nbytes
        points[number] = (np.array([x, y, z]), (r, g, b), error, track)
    assert at == len(data)
    return points


def rotation(q: Array) -> Array:
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@pytest.fixture(scope="module")
def camera() -> Lens:
    (count, number, model, width, height, *params), end = _take(
        (SPARSE / "cameras.bin").read_bytes(), 0, "QiiQQ4d"
    )
    assert (count, number, model, end) == (1, 1, 1, (SPARSE / "cameras.bin").stat().st_size)
    return width, height, np.array(params)


@pytest.fixture(scope="module")
def images() -> dict[int, Photo]:
    return read_images(SPARSE / "images.bin")


@pytest.fixture(scope="module")
def points() -> dict[int, Point]:
    return read_points(SPARSE / "points3D.bin")


def test_is_small_enough_to_bundle() -> None:
    total = sum(f.stat().st_size for f in SCENE.rglob("*") if f.is_file())
    assert total <= MEGABYTES * 1_000_000


def test_photos_decode_at_the_stated_size(camera: Lens, images: dict[int, Photo]) -> None:
    names = [image[3] for image in images.values()]
    assert 56 <= len(names) <= 64
    assert sorted(names) == sorted(p.name for p in (SCENE / "images").iterdir())
    for name in names:
        with Image.open(SCENE / "images" / name) as photo:
            assert photo.size == camera[:2]
            pixels = np.asarray(photo.convert("RGB"), dtype=float)
        assert 60 < pixels.mean() < 190
        assert (pixels.max(-1) < 3).mean() < 0.01
        assert (pixels.min(-1) > 252).mean() < 0.02


def test_cameras_are_valid_and_go_around_the_table(camera: Lens, images: dict[int, Photo]) -> None:
    width, height, (fx, fy, cx, cy) = camera
    assert 0.5 < fx / width < 2 and 0.8 < fx / fy < 1.25
    assert abs(cx - width / 2) < 0.05 * width and abs(cy - height / 2) < 0.05 * height
    centers = []
    for q, t, camera_id, *_ in images.values():
        assert camera_id == 1
        assert abs(np.linalg.norm(q) - 1) < 1e-12
        r = rotation(q)
        assert np.allclose(r @ r.T, np.eye(3), atol=1e-12) and np.linalg.det(r) > 0
        centers.append(-r.T @ t)
    azimuths = np.sort(np.arctan2(*np.array(centers).T[:2]))
    gaps = np.diff(np.append(azimuths, azimuths[0] + 2 * np.pi))
    assert np.degrees(gaps.max()) < 20
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert steps.max() < 0.8  # a path: every held-out photo has close neighbours


def test_points_reproject_near_their_keypoints(
    camera: Lens, images: dict[int, Photo], points: dict[int, Point]
) -> None:
    (fx, fy, cx, cy) = camera[2]
    assert 2000 <= len(points) <= 8000
    errors, stated, lengths = [], [], []
    for number, (xyz, _, error, track) in points.items():
        gaps = []
        for image_id, row in track:
            q, t, _, _, keypoints, point_ids = images[image_id]
            assert point_ids[row] == number
            x, y, z = rotation(q) @ xyz + t
            assert z > 0
            gaps.append(np.hypot(*(np.array([fx * x / z + cx, fy * y / z + cy]) - keypoints[row])))
        errors.append(np.mean(gaps))
        stated.append(error)
        lengths.append(len(track))
    assert np.allclose(errors, stated, atol=1e-6)
    assert np.median(errors) < 1 and np.max(errors) < 2.5
    assert np.mean(lengths) > 3
    assert sum(lengths) == sum((image[5] > 0).sum() for image in images.values())


def test_colours_of_points_come_from_the_photos(
    images: dict[int, Photo], points: dict[int, Point]
) -> None:
    photos = {k: np.asarray(Image.open(SCENE / "images" / i[3])) for k, i in images.items()}
    best = []
    for _, rgb, _, track in points.values():
        near = []
        for image_id, row in track:
            x, y = images[image_id][4][row].astype(int)
            patch = photos[image_id][max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].astype(float)
            near.append(np.abs(patch - rgb).max(-1).min())
        best.append(min(near))
    assert np.median(best) < 8


def test_pycolmap_reads_the_model(images: dict[int, Photo], points: dict[int, Point]) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    model = pycolmap.Reconstruction(str(SPARSE))
    assert model.num_images() == len(images) and model.num_points3D() == len(points)
    assert model.compute_mean_reprojection_error() < 1


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPOSITORY)


needs_mitsuba = pytest.mark.skipif(
    importlib.util.find_spec("mitsuba") is None, reason="mitsuba is not installed (extra: dev)"
)


@pytest.mark.slow
@needs_mitsuba
def test_generator_makes_and_resumes_a_tiny_scene(tmp_path: Path) -> None:
    arguments = ["-m", GENERATOR, "--out", str(tmp_path), "--size", "64x48", "--spp", "4"]
    result = _run(*arguments, "--views", "2")
    assert result.returncode == 0, result.stderr
    photos = sorted((tmp_path / "images").iterdir())
    assert [p.name for p in photos] == ["frame_0000.jpg", "frame_0001.jpg"]
    assert all(Image.open(p).size == (64, 48) for p in photos)
    assert len(read_images(tmp_path / "sparse/0/images.bin")) == 2
    made = [p.stat().st_mtime_ns for p in photos]
    assert _run(*arguments, "--views", "2").returncode == 0
    assert [p.stat().st_mtime_ns for p in photos] == made


@needs_mitsuba
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--size", "64by48", "WIDTHxHEIGHT"), ("--variant", "abacus", "got abacus")],
)
def test_generator_names_a_bad_option(
    tmp_path: Path, option: str, value: str, message: str
) -> None:
    result = _run("-m", GENERATOR, "--out", str(tmp_path), option, value)
    assert result.returncode != 0
    assert option in result.stderr and message in result.stderr


def test_generator_says_how_to_get_mitsuba(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['mitsuba'] = None; "
    result = _run("-c", hide + "import tools.still_life.__main__")
    assert result.returncode != 0
    assert "pip install mitsuba" in result.stderr
