"""COLMAP's sparse models, binary and text: cameras, poses and points.

The binary files are little-endian and packed:

    cameras.bin     count u64;  id u32, model i32, width u64, height u64, PARAMS[] f64
    images.bin      count u64;  id u32, quaternion wxyz f64[4], translation f64[3], camera u32,
                    name up to a zero byte, keypoints u64, (x f64, y f64, point i64)[keypoints]
    points3D.bin    count u64;  id u64, xyz f64[3], rgb u8[3], error f64,
                    length u64, (u32, u32)[length]

Poses are world-to-camera. Keypoints and tracks are skipped; rigs and frames are not read.

Source: COLMAP, output format (https://colmap.github.io/format.html).
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatrender.errors import InputError
from splatrender.scenes.distortion import CAMERA_MODELS, Lens

logger = logging.getLogger(__name__)

FILES = ("cameras", "images", "points3D")
FARTHEST = 1e15  # beyond, a coordinate counts as infinite: its square must fit float32
_MODEL_IDS = {name: model_id for model_id, (name, _) in CAMERA_MODELS.items()}


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A registered photo.

    Args:
        name: path of the photo within the folder of photos, with forward slashes.
        camera_id: key into `ColmapModel.cameras`.
        viewmat: float64 [4, 4], world-to-camera.
    """

    name: str
    camera_id: int
    viewmat: np.ndarray


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """A sparse model.

    Args:
        folder: where it was read.
        cameras: lenses by camera id.
        images: registered photos, sorted by name; at least one.
        points: float64 [P, 3], finite, P >= 1, in the model's units.
        colors: uint8 [P, 3].
    """

    folder: Path
    cameras: dict[int, Lens]
    images: list[ColmapImage]
    points: np.ndarray
    colors: np.ndarray


def find_model(root: Path) -> Path:
    """The folder of a scene's sparse model: of `sparse/*` and `sparse`, the one with most photos.

    Raises:
        InputError: there is none.
    """
    sparse = root / "sparse"
    subfolders = sorted(p for p in sparse.iterdir() if p.is_dir()) if sparse.is_dir() else []
    models = [folder for folder in (*subfolders, sparse) if _suffix(folder)]
    if not models:
        missing = "found no folder sparse" if not sparse.is_dir() else f"found none in {sparse}"
        raise InputError(
            f"{root}: expected a COLMAP model {{{','.join(FILES)}}}.bin or .txt in sparse/0 or "
            f"sparse, {missing}"
        )
    if len(models) == 1:
        return models[0]
    counts = [_count_images(folder) for folder in models]
    best = int(np.argmax(counts))  # the first of equals
    found = ", ".join(
        f"{folder.relative_to(root).as_posix()} ({count} photos)"
        for folder, count in zip(models, counts, strict=True)
    )
    chosen = models[best].relative_to(root).as_posix()
    logger.warning("%s: several sparse models: %s; using %s", root, found, chosen)
    return models[best]


def read_model(folder: str | Path) -> ColmapModel:
    """Read a sparse model, binary if it is there and text otherwise.

    Points that are not finite are dropped with a warning.

    Args:
        folder: holds cameras, images and points3D, all as .bin or all as .txt.

    Returns:
        The model.

    Raises:
        InputError: a file is missing, cut off, corrupt, or empty; a camera model is unknown.

    Example:
        >>> read_model("scenes/fox/sparse/0").points.shape  # doctest: +SKIP
        (8208, 3)
    """
    folder = Path(folder)
    suffix = _suffix(folder)
    if not suffix:
        raise InputError(
            f"{folder}: expected {', '.join(FILES)} as .bin or as .txt, found {_listing(folder)}"
        )
    files = [folder / (name + suffix) for name in FILES]
    if suffix == ".bin":
        cameras = _read_cameras_binary(files[0])
        images = _read_images_binary(files[1])
        points, colors = _read_points_binary(files[2])
    else:
        cameras = _read_cameras_text(files[0])
        images = _read_images_text(files[1])
        points, colors = _read_points_text(files[2])
    if not images:
        raise InputError(f"{files[1]}: expected registered photos, found none")
    for image in images:
        if image.camera_id not in cameras:
            raise InputError(
                f"{files[1]}: {image.name} has camera {image.camera_id}, which {files[0].name} "
                "does not list"
            )
    finite = (np.abs(points) < FARTHEST).all(axis=1)  # False for NaN
    if not finite.all():
        logger.warning("%s: dropped %d points that are not finite", files[2], (~finite).sum())
        points, colors = points[finite], colors[finite]
    if not len(points):
        raise InputError(f"{files[2]}: expected at least one finite point, found none")
    return ColmapModel(folder, cameras, sorted(images, key=lambda i: i.name), points, colors)


def _suffix(folder: Path) -> str:
    """.bin or .txt, whichever the folder has a whole model of, or nothing."""
    for suffix in (".bin", ".txt"):
        if all((folder / (name + suffix)).is_file() for name in FILES):
            return suffix
    return ""


def _listing(folder: Path) -> str:
    """What lies in a folder, for messages."""
    if not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "an empty folder"


def _count_images(folder: Path) -> int:
    """Number of registered photos, as cheaply as the format allows; 0 if it is unreadable."""
    try:
        if _suffix(folder) == ".txt":
            return len(_read_images_text(folder / "images.txt"))
        with open(folder / "images.bin", "rb") as file:
            return int(struct.unpack("<Q", file.read(8))[0])
    except (InputError, OSError, struct.error):
        return 0  # a broken model must not win; if it is the only one, reading it says why


def _image(path: Path, name: str, camera_id: int, pose: Sequence[float]) -> ColmapImage:
    """A registered photo from quaternion and translation, pose = [qw qx qy qz tx ty tz]."""
    norm = math.hypot(*pose[:4])
    if not name:
        raise InputError(f"{path}: expected the name of a photo, found an empty one")
    if not (all(map(math.isfinite, pose)) and norm > 1e-12):
        raise InputError(f"{path}: {name}: expected a finite pose, found {list(pose)}")
    w, x, y, z = (q / norm for q in pose[:4])
    viewmat = np.eye(4)
    viewmat[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    viewmat[:3, 3] = pose[4:]
    return ColmapImage(name, camera_id, viewmat)


def _lens(
    path: Path, camera_id: int, model_id: int, size: tuple[int, int], params: list[float]
) -> Lens:
    """A lens, with the file and the camera in front of whatever is wrong with it."""
    try:
        return Lens.from_colmap(model_id, *size, params)
    except InputError as error:
        raise InputError(f"{path}: camera {camera_id}: {error}") from error


# ---- binary


class _Buffer:
    """A file's bytes and a place in them; reading past the end is an InputError."""

    def __init__(self, path: Path):
        self.path = path
        self.data = _read_bytes(path)
        self.place = 0

    def need(self, size: int) -> None:
        if self.place + size > len(self.data):
            raise InputError(
                f"{self.path}: cut off or corrupt: needs {self.place + size} bytes, "
                f"has {len(self.data)}"
            )

    def skip(self, size: int) -> None:
        self.need(size)
        self.place += size

    def take(self, layout: struct.Struct) -> tuple:
        self.need(layout.size)
        values = layout.unpack_from(self.data, self.place)
        self.place += layout.size
        return values

    def take_count(self, smallest: int) -> int:
        """A count of records of at least `smallest` bytes each."""
        (count,) = self.take(_COUNT)
        self.need(count * smallest)  # refuses nonsense before anything loops over it
        return count

    def take_name(self) -> str:
        end = self.data.find(b"\0", self.place)
        if end < 0:
            raise InputError(f"{self.path}: cut off or corrupt: a name has no end")
        name = os.fsdecode(self.data[self.place : end])
        self.place = end + 1
        return name

    def finish(self) -> None:
        if self.place != len(self.data):
            raise InputError(
                f"{self.path}: corrupt: its records take {self.place} bytes, has {len(self.data)}"
            )


_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = np.dtype(
    [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")]
)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _read_cameras_binary(path: Path) -> dict[int, Lens]:
    buffer = _Buffer(path)
    cameras = {}
    for _ in range(buffer.take_count(_CAMERA.size)):
        camera_id, model_id, width, height = buffer.take(_CAMERA)
        # Without a known model the length of the record is unknown: `_lens` refuses it.
        _, keys = CAMERA_MODELS.get(model_id, ("", ()))
        params = list(buffer.take(struct.Struct(f"<{len(keys)}d")))
        cameras[camera_id] = _lens(path, camera_id, model_id, (width, height), params)
    buffer.finish()
    return cameras


def _read_images_binary(path: Path) -> list[ColmapImage]:
    buffer = _Buffer(path)
    images = []
    for _ in range(buffer.take_count(_IMAGE.size + 1 + _COUNT.size)):
        _, *pose, camera_id = buffer.take(_IMAGE)
        images.append(_image(path, buffer.take_name(), camera_id, pose))
        (keypoints,) = buffer.take(_COUNT)
        buffer.skip(24 * keypoints)
    buffer.finish()
    return images


def _read_points_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    buffer = _Buffer(path)
    count = buffer.take_count(_POINT.itemsize)
    # Records differ in length, so their places come one by one; their contents come in one go.
    places = np.empty(count, dtype=np.int64)
    length = struct.Struct(f"<{_POINT.itemsize - _COUNT.size}xQ")
    for index in range(count):
        places[index] = buffer.place
        (track,) = buffer.take(length)
        buffer.skip(8 * track)
    buffer.finish()
    raw = np.frombuffer(buffer.data, dtype=np.uint8)
    if not count:
        return np.empty((0, 3)), np.empty((0, 3), dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(raw, _POINT.itemsize)
    records = windows[places].view(_POINT)[:, 0]
    return records["xyz"].astype(np.float64), records["rgb"].copy()


# ---- text


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and stripped lines, blank ones and comments too."""
    text = _read_bytes(path).decode("utf-8", errors="surrogateescape")
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))


def _refuse(path: Path, number: int, expected: str, line: str) -> InputError:
    found = line if len(line) <= 60 else line[:57] + "..."
    return InputError(f"{path}, line {number}: expected {expected}, found '{found}'")


def _is_record(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _read_cameras_text(path: Path) -> dict[int, Lens]:
    cameras = {}
    for number, line in _lines(path):
        if not _is_record(line):
            continue
        try:
            camera_text, model, width, height, *params = line.split()
            camera_id, size = int(camera_text), (int(width), int(height))
            values = list(map(float, params))
        except ValueError:
            raise _refuse(path, number, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", line) from None
        if model not in _MODEL_IDS:
            raise _refuse(path, number, f"a camera model of {', '.join(_MODEL_IDS)}", line)
        cameras[camera_id] = _lens(path, camera_id, _MODEL_IDS[model], size, values)
    return cameras


def _read_images_text(path: Path) -> list[ColmapImage]:
    images = []
    lines = _lines(path)
    for number, line in lines:
        if not _is_record(line):
            continue
        try:
            fields = line.split(None, 9)
            pose, camera_id, name = list(map(float, fields[1:8])), int(fields[8]), fields[9]
        except (ValueError, IndexError):
            wanted = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise _refuse(path, number, wanted, line) from None
        images.append(_image(path, name, camera_id, pose))
        # The line after is this photo's keypoints, even when it is blank.
        number, keypoints = next(lines, (number + 1, ""))
        if len(keypoints.split()) % 3:
            raise _refuse(path, number, "triples X Y POINT3D_ID", keypoints)
    return images


def _read_points_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    points, colors = [], []
    for number, line in _lines(path):
        if not _is_record(line):
            continue
        fields = line.split(None, 8)
        try:
            points.append((float(fields[1]), float(fields[2]), float(fields[3])))
            colors.append((int(fields[4]), int(fields[5]), int(fields[6])))
            float(fields[7])
        except (ValueError, IndexError):
            raise _refuse(path, number, "POINT3D_ID X Y Z R G B ERROR TRACK[]", line) from None
        if not all(0 <= channel <= 255 for channel in colors[-1]):
            raise _refuse(path, number, "colours within 0 to 255", line)
    shape = (-1, 3)
    return (
        np.array(points, dtype=np.float64).reshape(shape),
        np.array(colors, dtype=np.uint8).reshape(shape),
    )
