"""The files of COLMAP's sparse models, binary and text, as records.

The binary files are little-endian and packed:

    cameras.bin     count u64;  id u32, model i32, width u64, height u64, PARAMS[] f64
    images.bin      count u64;  id u32, quaternion wxyz f64[4], translation f64[3], camera u32,
                    name up to a zero byte, keypoints u64, (x f64, y f64, point i64)[keypoints]
    points3D.bin    count u64;  id u64, xyz f64[3], rgb u8[3], error f64,
                    length u64, (u32, u32)[length]

Keypoints and tracks are checked and skipped; rigs and frames are not read.

Source: COLMAP, output format (https://colmap.github.io/format.html).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from splatrender.errors import InputError
from splatrender.scenes.camera_models import CAMERA_MODELS, unknown_model
from splatrender.scenes.text import file_name, read_bytes, read_lines


@dataclass(frozen=True)
class CameraRecord:
    """A camera as the file has it, unchecked.

    Args:
        where: file and place, for messages.
        model: COLMAP's name of the camera model.
        size: width and height [px].
        params: PARAMS[].
    """

    where: str
    model: str
    size: tuple[int, int]
    params: list[float]


@dataclass(frozen=True)
class ImageRecord:
    """A photo as the file has it, unchecked.

    Args:
        name: path of the photo, as COLMAP writes it.
        camera_id: number of its camera.
        pose: qw qx qy qz tx ty tz, world-to-camera.
    """

    name: str
    camera_id: int
    pose: list[float]


@dataclass(frozen=True, eq=False)
class PointRecords:
    """The points of a file: float64 [P, 3] and uint8 [P, 3]."""

    xyz: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    rgb: np.ndarray = field(default_factory=lambda: np.empty((0, 3), dtype=np.uint8))


def read_cameras(path: Path) -> dict[int, CameraRecord]:
    """Read the cameras in cameras.bin or cameras.txt, by id.

    Raises:
        InputError: the file is cut off or corrupt, or a line is no camera.
    """
    return _read_cameras_text(path) if path.suffix == ".txt" else _read_cameras_binary(path)


def read_images(path: Path) -> tuple[list[ImageRecord], list[str]]:
    """Read the photos in images.bin or images.txt; return also remarks about oddities.

    Raises:
        InputError: the file is cut off or corrupt, or a line is no photo.
    """
    return _read_images_text(path) if path.suffix == ".txt" else (_read_images_binary(path), [])


def read_points(path: Path) -> PointRecords:
    """Read the points in points3D.bin or points3D.txt.

    Raises:
        InputError: the file is cut off or corrupt, or a line is no point.
    """
    return _read_points_text(path) if path.suffix == ".txt" else _read_points_binary(path)


def count_images(path: Path) -> int:
    """Count the photos, as cheaply as the format allows; 0 if the file cannot be read."""
    try:
        if path.suffix == ".txt":
            return len(_read_images_text(path)[0])
        with open(path, "rb") as file:
            return int(_COUNT.unpack(file.read(_COUNT.size))[0])
    except (InputError, OSError, struct.error):
        return 0  # a broken model must not win; if it is the only one, reading it reports why


# ---- binary


class _Buffer:
    """A file's bytes and a place in them; reading past the end is an InputError."""

    def __init__(self, path: Path):
        self.path = path
        self.data = read_bytes(path)
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

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        self.need(layout.size)
        values = layout.unpack_from(self.data, self.place)
        self.place += layout.size
        return values

    def take_count(self, smallest: int) -> int:
        """Read a count of records of at least `smallest` bytes each."""
        count = int(self.take(_COUNT)[0])
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


def _read_cameras_binary(path: Path) -> dict[int, CameraRecord]:
    buffer = _Buffer(path)
    cameras = {}
    for _ in range(buffer.take_count(_CAMERA.size)):
        camera_id, model_id, width, height = buffer.take(_CAMERA)
        where = f"{path}: camera {camera_id}"
        if model_id not in CAMERA_MODELS:  # the length of its record is unknown
            raise InputError(f"{where}: {unknown_model(f'number {model_id}')}")
        model, keys = CAMERA_MODELS[model_id]
        params = list(buffer.take(struct.Struct(f"<{len(keys)}d")))
        cameras[camera_id] = CameraRecord(where, model, (width, height), params)
    buffer.finish()
    return cameras


def _read_images_binary(path: Path) -> list[ImageRecord]:
    buffer = _Buffer(path)
    images = []
    for _ in range(buffer.take_count(_IMAGE.size + 1 + _COUNT.size)):
        _, *pose, camera_id = buffer.take(_IMAGE)
        images.append(ImageRecord(buffer.take_name(), camera_id, pose))
        (keypoints,) = buffer.take(_COUNT)
        buffer.skip(24 * keypoints)
    buffer.finish()
    return images


def _read_points_binary(path: Path) -> PointRecords:
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
        return PointRecords()
    windows = np.lib.stride_tricks.sliding_window_view(raw, _POINT.itemsize)
    records = windows[places].view(_POINT)[:, 0]
    return PointRecords(records["xyz"].astype(np.float64), records["rgb"].copy())


# ---- text

_ANNOUNCED = re.compile(r"# Number of images: (\d+)")


def _records(path: Path) -> Iterator[tuple[int, str]]:
    """Return the lines that are neither blank nor comments, with their numbers from 1."""
    return ((number, line) for number, line in _numbered(path) if _is_record(line))


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    return enumerate(read_lines(path), start=1)


def _refuse(path: Path, number: int, expected: str, line: str) -> InputError:
    found = line if len(line) <= 60 else line[:57] + "..."
    return InputError(f"{path}, line {number}: expected {expected}, got '{found}'")


def _is_record(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _read_cameras_text(path: Path) -> dict[int, CameraRecord]:
    cameras = {}
    for number, line in _records(path):
        try:
            camera_text, model, width, height, *params = line.split()
            camera_id, size = int(camera_text), (int(width), int(height))
            values = list(map(float, params))
        except ValueError:
            raise _refuse(path, number, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", line) from None
        where = f"{path}, line {number}: camera {camera_id}"
        cameras[camera_id] = CameraRecord(where, model, size, values)
    return cameras


def _read_images_text(path: Path) -> tuple[list[ImageRecord], list[str]]:
    images: list[ImageRecord] = []
    without_keypoints, announced = 0, None
    complete = True  # the photo before has had its second line
    for number, line in _numbered(path):
        if header := _ANNOUNCED.match(line):
            announced = int(header[1])
        if not complete and (not line or _are_keypoints(line)):
            complete = True
            continue
        if not _is_record(line):
            continue
        image = _image_of(line)
        if image is None:
            wanted = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            if not complete:
                wanted = f"keypoints as triples X Y POINT3D_ID, or the next photo {wanted}"
            raise _refuse(path, number, wanted, line)
        without_keypoints += not complete
        images.append(image)
        complete = False
    remarks = []
    if without_keypoints:
        remarks.append(
            f"{path}: {without_keypoints} of {len(images)} photos have no line of keypoints, "
            "which is not needed here; other programs would skip photos"
        )
    if announced not in (None, len(images)):
        remarks.append(f"{path}: its header announces {announced} photos, it holds {len(images)}")
    return images, remarks


def _image_of(line: str) -> ImageRecord | None:
    fields = line.split(None, 9)
    try:
        int(fields[0])
        return ImageRecord(file_name(fields[9]), int(fields[8]), list(map(float, fields[1:8])))
    except (ValueError, IndexError):
        return None


def _are_keypoints(line: str) -> bool:
    """Return true if a line is X Y POINT3D_ID[] in numbers: a name of three words is not."""
    fields = line.split()
    try:
        numbers = list(map(float, fields))
    except ValueError:
        return False
    return len(fields) % 3 == 0 and all(map(float.is_integer, numbers[2::3]))


def _read_points_text(path: Path) -> PointRecords:
    points, colors = [], []
    for number, line in _records(path):
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
    return PointRecords(
        np.array(points, dtype=np.float64).reshape(shape),
        np.array(colors, dtype=np.uint8).reshape(shape),
    )
