"""COLMAP's sparse models: cameras, poses and points, checked.

Poses are world-to-camera. `splatrender.scenes.colmap_files` reads the files.

Source: COLMAP, output format (https://colmap.github.io/format.html).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatrender.errors import InputError
from splatrender.scenes.camera_models import CAMERA_MODELS, unknown_model
from splatrender.scenes.colmap_files import (
    CameraRecord,
    ImageRecord,
    PointRecords,
    read_cameras,
    read_images,
    read_points,
)
from splatrender.scenes.distortion import Lens

logger = logging.getLogger(__name__)

FILES = ("cameras", "images", "points3D")
FARTHEST = 1e15  # beyond, a coordinate counts as infinite: its square must fit float32
RANDOM = "train from random ones with --random-init (random_init=True in Python)"
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
        cameras: lenses by camera id; at least those of all photos.
        images: registered photos, sorted by name; at least one.
        points: float64 [P, 3], finite, in the model's units.
        colors: uint8 [P, 3].
    """

    folder: Path
    cameras: dict[int, Lens]
    images: list[ColmapImage]
    points: np.ndarray
    colors: np.ndarray


def read_model(folder: str | Path, need_points: bool = True) -> ColmapModel:
    """Read a sparse model, from binary files if they exist and from text files otherwise.

    Faulty parts are left out with a warning: photos without a valid pose (COLMAP 3.10
    and other programs list unregistered photos with a quaternion of zeros), cameras that no photo
    has, and points that are not finite.

    Args:
        folder: holds cameras, images and points3D, all as .bin or all as .txt.
        need_points: refuse a model without points; otherwise points3D may be missing or empty.

    Returns:
        The model.

    Raises:
        InputError: a file is missing, cut off, corrupt, or empty; the camera of a photo is
            missing, faulty, or of an unknown model; no photo has a valid pose.

    Example:
        >>> read_model("scenes/still_life/sparse/0").points.shape  # doctest: +SKIP
        (8208, 3)
    """
    folder = Path(folder)
    suffix = model_suffix(folder)
    if not suffix:
        raise InputError(
            f"{folder}: expected {', '.join(FILES)} as .bin or as .txt, got {listing(folder)}"
        )
    cameras_file, images_file, points_file = (folder / (name + suffix) for name in FILES)
    if need_points and not points_file.is_file():
        raise InputError(
            f"{points_file}: expected the points of the model, got no such file; {RANDOM}"
        )
    records, remarks = read_images(images_file)
    for remark in remarks:
        logger.warning("%s", remark)
    images = _registered(images_file, records)
    cameras = _lenses(cameras_file, images_file, images)
    points = _finite(points_file, need_points)
    images.sort(key=lambda image: image.name)
    return ColmapModel(folder, cameras, images, points.xyz, points.rgb)


def model_suffix(folder: Path) -> str:
    """.bin or .txt, whichever the folder has a model of (rather one with points), or nothing."""
    for files in (FILES, FILES[:2]):
        for suffix in (".bin", ".txt"):
            if all((folder / (name + suffix)).is_file() for name in files):
                return suffix
    return ""


def listing(folder: Path) -> str:
    """Describe the content of a folder, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "an empty folder") + more


def _registered(path: Path, records: Sequence[ImageRecord]) -> list[ColmapImage]:
    """Return the photos with a valid pose; warn about the others."""
    images, faults = [], []
    for record in records:
        try:
            images.append(_image(record))
        except InputError as error:
            faults.append(str(error))
    if not images:
        found = f"none with a valid pose: {faults[0]}" if faults else "none"
        raise InputError(f"{path}: expected registered photos, got {found}")
    if faults:
        logger.warning(
            "%s: left out %d of %d photos, the first is %s",
            path,
            len(faults),
            len(records),
            faults[0],
        )
    return images


def _image(record: ImageRecord) -> ColmapImage:
    """Return the photo of a record, from quaternion and translation."""
    pose, name = record.pose, record.name
    norm = math.hypot(*pose[:4])
    if not name:
        raise InputError("a photo: expected its name, got an empty one")
    if not (all(map(math.isfinite, pose)) and norm > 1e-12):
        raise InputError(f"{name}: expected a finite pose, got {list(pose)}")
    w, x, y, z = (q / norm for q in pose[:4])
    viewmat = np.eye(4)
    viewmat[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    viewmat[:3, 3] = pose[4:]
    return ColmapImage(name, record.camera_id, viewmat)


def _lenses(path: Path, images_file: Path, images: Sequence[ColmapImage]) -> dict[int, Lens]:
    """Read the cameras in `path`; refuse faulty ones of photos, warn about faulty others."""
    records = read_cameras(path)
    users = {image.camera_id: image.name for image in images}
    for camera_id, name in users.items():
        if camera_id not in records:
            raise InputError(
                f"{images_file}: {name} has camera {camera_id}, which {path.name} does not list"
            )
    lenses = {}
    for camera_id, record in records.items():
        try:
            lenses[camera_id] = _lens(record)
        except InputError as error:
            if camera_id in users:
                raise
            logger.warning("%s; left out, as no photo has it", error)
    return lenses


def _lens(record: CameraRecord) -> Lens:
    """Return the lens of a record; messages on errors begin with file and camera."""
    try:
        if record.model not in _MODEL_IDS:
            raise InputError(unknown_model(record.model))
        return Lens.from_colmap(_MODEL_IDS[record.model], *record.size, record.params)
    except InputError as error:
        raise InputError(f"{record.where}: {error}") from error


def _finite(path: Path, needed: bool) -> PointRecords:
    """Read the finite points of a file; none if it does not exist."""
    points = read_points(path) if path.is_file() else PointRecords()
    finite = (np.abs(points.xyz) < FARTHEST).all(axis=1)  # False for NaN
    if not finite.all():
        logger.warning("%s: dropped %d points that are not finite", path, (~finite).sum())
    if needed and not finite.any():
        raise InputError(f"{path}: expected at least one finite point, got none; {RANDOM}")
    return PointRecords(points.xyz[finite], points.rgb[finite])
