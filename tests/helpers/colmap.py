"""Tiny COLMAP scenes on disk, written by the format's description, independent of the reader."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODEL_NAMES = [
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE",
    "SIMPLE_DIVISION",
    "DIVISION",
    "SIMPLE_FISHEYE",
    "FISHEYE",
    "EUCM",
]


# Number of lens terms after focal lengths and principal point, in the order of MODEL_NAMES.
LENS_TERMS = (0, 0, 1, 2, 4, 4, 8, 1, 1, 2, 8, 12, 1, 1, 0, 0, 2)
ONE_FOCAL_LENGTH = (0, 2, 3, 8, 9, 12, 14)


def random_params(model: int, rng: np.random.Generator) -> list[float]:
    """Draw PARAMS[] of a plausible camera of 640x480 px."""
    focal = rng.uniform(400, 600, 1 if model in ONE_FOCAL_LENGTH else 2)
    center = np.array([320, 240]) + rng.uniform(-20, 20, 2)
    terms = rng.uniform(-0.04, 0.04, LENS_TERMS[model])
    if MODEL_NAMES[model] == "FOV":
        terms = rng.uniform(0.3, 1.2, 1)
    if MODEL_NAMES[model] in ("OPENCV", "FULL_OPENCV", "THIN_PRISM_FISHEYE"):
        terms[2:4] *= 0.1  # tangential
    if MODEL_NAMES[model] == "THIN_PRISM_FISHEYE":
        terms[6:] *= 0.1  # prism
    if MODEL_NAMES[model] == "RAD_TAN_THIN_PRISM_FISHEYE":
        terms[6:] *= 0.1  # tangential and prism
    if MODEL_NAMES[model] == "EUCM":
        terms = rng.uniform((0.2, 0.8), (0.8, 1.2))
    return [float(number) for number in (*focal, *center, *terms)]


@dataclass
class FileCamera:
    model: int
    width: int
    height: int
    params: list[float]


@dataclass
class FileImage:
    name: str
    quat: list[float]
    translation: list[float]
    camera: int = 1
    keypoints: list[tuple[float, float, int]] = field(default_factory=list)


@dataclass
class FileModel:
    cameras: dict[int, FileCamera]
    images: list[FileImage]
    points: NDArray[np.float64]  # [P, 3]
    colors: NDArray[np.uint8]  # [P, 3]
    tracks: list[int] = field(default_factory=list)  # length of each point's track

    def track(self, index: int) -> list[tuple[int, int]]:
        length = self.tracks[index] if self.tracks else 2
        return [(1 + n, 7 * n) for n in range(length)]

    def write(self, folder: Path, text: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (self._write_text if text else self._write_binary)(folder)
        return folder

    def _write_binary(self, folder: Path) -> None:
        out = struct.pack("<Q", len(self.cameras))
        for key, camera in self.cameras.items():
            out += struct.pack("<IiQQ", key, camera.model, camera.width, camera.height)
            out += struct.pack(f"<{len(camera.params)}d", *camera.params)
        (folder / "cameras.bin").write_bytes(out)
        out = struct.pack("<Q", len(self.images))
        for key, image in enumerate(self.images, start=1):
            out += struct.pack("<I7dI", key, *image.quat, *image.translation, image.camera)
            out += image.name.encode() + b"\0" + struct.pack("<Q", len(image.keypoints))
            out += b"".join(struct.pack("<ddq", *keypoint) for keypoint in image.keypoints)
        (folder / "images.bin").write_bytes(out)
        out = struct.pack("<Q", len(self.points))
        for key, (xyz, rgb) in enumerate(zip(self.points, self.colors, strict=True)):
            out += struct.pack("<Q3d3Bd", key + 1, *xyz, *rgb.tolist(), 0.5)
            out += struct.pack("<Q", len(self.track(key)))
            out += b"".join(struct.pack("<II", *entry) for entry in self.track(key))
        (folder / "points3D.bin").write_bytes(out)

    def _write_text(self, folder: Path) -> None:
        lines = ["# Camera list with one line of data per camera:"]
        for key, camera in self.cameras.items():
            params = " ".join(map(repr, map(float, camera.params)))
            lines.append(
                f"{key} {MODEL_NAMES[camera.model]} {camera.width} {camera.height} {params}"
            )
        (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
        lines = ["# Image list with two lines of data per image:", "#   POINTS2D[] as (X, Y, ID)"]
        for key, image in enumerate(self.images, start=1):
            pose = " ".join(repr(float(number)) for number in (*image.quat, *image.translation))
            lines.append(f"{key} {pose} {image.camera} {image.name}")
            lines.append(" ".join(f"{x!r} {y!r} {point}" for x, y, point in image.keypoints))
        (folder / "images.txt").write_text("\n".join(lines) + "\n")
        lines = ["# 3D point list with one line of data per point:"]
        for key, (xyz, rgb) in enumerate(zip(self.points, self.colors, strict=True)):
            track = " ".join(f"{image} {keypoint}" for image, keypoint in self.track(key))
            numbers = " ".join(repr(float(x)) for x in xyz) + " " + " ".join(map(str, rgb.tolist()))
            lines.append(f"{key + 1} {numbers} 0.5 {track}")
        (folder / "points3D.txt").write_text("\n".join(lines) + "\n")


def small_model(
    names: list[str], cameras: dict[int, FileCamera] | None = None, seed: int = 0, points: int = 20
) -> FileModel:
    """Make cameras on a ring that look roughly inwards, and points around the origin.

    Photo n has camera 1 if `cameras` holds one, and otherwise takes them in turn.
    """
    rng = np.random.default_rng(seed)
    cameras = cameras or {1: FileCamera(1, 48, 32, [40.0, 41.0, 24.0, 16.0])}
    keys = list(cameras)
    images = []
    for index, name in enumerate(names):
        quat = (np.eye(4)[0] + 0.1 * rng.normal(size=4)) * rng.uniform(0.5, 2)
        translation = 4 * np.eye(3)[2] + rng.normal(size=3)
        keypoints = [(1.5, 2.5, -1), (3.25, 4.0, 1 + index), (40.0, 30.0, -1)]
        camera = keys[index % len(keys)]
        images.append(FileImage(name, list(quat), list(translation), camera, keypoints))
    return FileModel(
        cameras,
        images,
        rng.normal(size=(points, 3)),
        rng.integers(0, 256, (points, 3)).astype(np.uint8),
        [int(n) for n in rng.integers(0, 6, points)],
    )


def smooth_photo(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Make a photo, uint8 [H, W, 3], of slow waves: resampling changes it little."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    x, y = (x + 0.5) / width, (y + 0.5) / height
    waves = rng.uniform(1, 6, (3, 3))
    planes = [np.sin(a * x + b * y + c) * 100 + 128 for a, b, c in waves]
    return np.round(np.stack(planes, axis=-1)).astype(np.uint8)


def write_scene(
    root: Path,
    names: list[str] | None = None,
    cameras: dict[int, FileCamera] | None = None,
    *,
    images: str = "images",
    text: bool = False,
    sparse: str = "sparse/0",
    **options: int,
) -> FileModel:
    """Write a scene folder: the model, and photos of its cameras' sizes."""
    names = names if names is not None else [f"{index:03d}.png" for index in range(9)]
    model = small_model(names, cameras, **options)
    model.write(root / sparse, text=text)
    for index, image in enumerate(model.images):
        camera = model.cameras[image.camera]
        file = root / images / image.name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth_photo(camera.width, camera.height, index)).save(file)
    return model
