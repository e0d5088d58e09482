"""Photos and masks: read, undistorted and resized, in 8-bit RGB."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from splatrender.errors import InputError
from splatrender.scenes.distortion import Lens
from splatrender.scenes.image_files import (
    no_image_warnings,
    open_image,
    orientation_of,
    room_for,
    turned,
    turned_size,
)

logger = logging.getLogger(__name__)

AUTOMATIC_SIDE = 800  # px, longest side with resolution -1
MASK_KEEPS = 127  # a mask keeps what is lighter
_MANY = 20  # photos from which on a progress bar is shown
_THREADS = 4  # decoding gains little from more, and each holds a whole photo

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Job:
    """One photo to read.

    Args:
        photo: its file.
        mask: the file of its mask, or None.
        lens: the lens that took it; its size may differ from the file's, its proportions not.
        resolution: see `wanted_size`.
        upright: turn the photo by its EXIF orientation. Otherwise it is turned only where it fits
            its camera no other way.
    """

    photo: Path
    mask: Path | None
    lens: Lens
    resolution: int
    upright: bool = False


@dataclass(frozen=True, eq=False)
class Reading:
    """Result of a `Job`.

    Args:
        photo: uint8 [H, W, 3] RGB.
        mask: uint8 [H, W], 1 = keep, or None.
        lens: pinhole of the photo as it is now, of its size.
        orientation: the EXIF orientation of the file, 1 = as stored.
        upright: true if the photo was turned by it.
    """

    photo: torch.Tensor
    mask: torch.Tensor | None
    lens: Lens
    orientation: int = 1
    upright: bool = False


def wanted_size(width: int, height: int, resolution: int) -> Size:
    """Return the size to resize a photo to; never larger than it is.

    Args:
        width, height: its size [px].
        resolution: 1, 2, 4 or 8 divides it; a larger number is the width [px]; -1 makes the
            longest side at most 800 px.

    Returns:
        Width and height [px], at least 1.

    Example:
        >>> wanted_size(1600, 1200, -1), wanted_size(1600, 1200, 4), wanted_size(1600, 1200, 320)
        ((800, 600), (400, 300), (320, 240))
    """
    if resolution == -1:
        share = min(1.0, AUTOMATIC_SIDE / max(width, height))
    elif resolution in (1, 2, 4, 8):
        share = 1.0 / resolution
    else:
        share = min(1.0, resolution / width)
    return max(1, round(width * share)), max(1, round(height * share))


def read_all(jobs: Sequence[Job]) -> list[Reading]:
    """Read photos with several threads, and a progress bar if there are many.

    COLMAP ignores the EXIF orientation, other programs follow it. If one photo fits its camera
    only when turned, all photos are turned by their orientation, with a warning.

    Raises:
        InputError: see `read_photo`.
    """
    with no_image_warnings():
        readings = _read_in_threads(jobs)
        upright = [job.photo for job, read in zip(jobs, readings, strict=True) if read.upright]
        if upright:
            logger.warning(
                "%s: its camera has the size of the photo as its EXIF orientation turns it; all "
                "photos are turned by theirs",
                upright[0],
            )
            late = [i for i, r in enumerate(readings) if r.orientation != 1 and not r.upright]
            again = _read_in_threads([replace(jobs[i], upright=True) for i in late])
            for index, reading in zip(late, again, strict=True):
                readings[index] = reading
    return readings


def _read_in_threads(jobs: Sequence[Job]) -> list[Reading]:
    workers = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(read_photo, jobs)
        # None: shown on a terminal only.
        hidden = None if len(jobs) >= _MANY else True
        bar = tqdm(results, "photos", len(jobs), leave=False, disable=hidden)
        try:
            return list(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_photo(job: Job) -> Reading:
    """Read one photo as the pinhole image of the requested size, and its mask.

    Raises:
        InputError: a file cannot be read, has proportions other than its camera, is of an
            unknown kind; the lens cannot be undistorted; the mask keeps nothing.
    """
    of_camera = (job.lens.width, job.lens.height)
    try:
        with open_image(job.photo) as image, room_for(image):
            orientation = orientation_of(image)
            size = turned_size(image.size, orientation)
            upright = _proportional(size, of_camera) and (
                job.upright or not _proportional(image.size, of_camera)
            )
            if not upright:
                size = image.size
                _check_proportions(job.photo, size, of_camera, "camera")
            lens = job.lens.resized(*size)
            whole = _pinhole(lens)
            target = whole.resized(*wanted_size(whole.width, whole.height, job.resolution))
            photo = turned(image, orientation) if upright else image
            pixels = _as_pinhole(photo, lens, whole, target)
    except InputError as error:
        named = str(error).startswith(str(job.photo))
        raise error if named else InputError(f"{job.photo}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{job.photo}: expected a readable photo, {error}") from error
    except MemoryError as error:
        raise InputError(f"{job.photo}: expected a photo that fits in the memory") from error
    mask = None if job.mask is None else _read_mask(job.mask, size, lens, target)
    return Reading(torch.from_numpy(pixels), mask, target, orientation, upright)


@lru_cache(maxsize=1024)
def _pinhole(lens: Lens) -> Lens:
    return lens.pinhole()


def _proportional(size: Size, expected: Size) -> bool:
    """Return true if `size` is `expected` times a number, to within a pixel."""
    off_down = abs(size[0] * expected[1] / expected[0] - size[1])
    off_across = abs(size[1] * expected[0] / expected[1] - size[0])
    return min(off_down, off_across) <= 1


def _check_proportions(path: Path, size: Size, expected: Size, of: str) -> None:
    """Raise InputError unless `size` is `expected` times a number."""
    if not _proportional(size, expected):
        turned = _proportional(size[::-1], expected)
        hint = "; turned by 90 degrees it would fit" if turned else ""
        raise InputError(
            f"{path}: expected the proportions of its {of}, {expected[0]}x{expected[1]}, "
            f"got {size[0]}x{size[1]}{hint}"
        )


def _as_pinhole(image: Image.Image, lens: Lens, whole: Lens, target: Lens) -> np.ndarray:
    """Return the photo as `target` sees it, uint8 [H, W, 3].

    Args:
        image: the photo, opened but not decoded.
        lens: its lens, of its size.
        whole: the pinhole at the photo's resolution.
        target: the same pinhole at the wanted size.
    """
    share = target.width / whole.width
    if lens.is_pinhole:
        return np.array(_decoded(image, share, (target.width, target.height)))
    # Bilinear sampling softens an image of its own size and aliases one much smaller. Therefore it
    # takes place at twice the requested size, or at the photo's if that is less, with a filter
    # before and after it.
    share = min(1.0, 2 * share)
    photo = _decoded(image, share, _scaled(lens, share))
    if share < 1:
        whole = whole.resized(*_scaled(whole, share))
    grid = _grid(lens.resized(*photo.size), whole)
    planes = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
    bent = torch.nn.functional.grid_sample(
        planes, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    pixels = bent[0].round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if (whole.width, whole.height) == (target.width, target.height):
        return pixels
    size = (target.width, target.height)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _scaled(lens: Lens, share: float) -> Size:
    return max(1, round(lens.width * share)), max(1, round(lens.height * share))


def _decoded(image: Image.Image, share: float, size: Size) -> Image.Image:
    """Return the whole photo in 8-bit RGB at `size`, which is about `share` times its own."""
    box: tuple[float, float, float, float] = (0, 0, *image.size)
    if share < 0.5:
        # A JPEG decodes at 1/2, 1/4 or 1/8 at a fraction of the cost; never below twice the size.
        drafted = image.draft(image.mode, (2 * size[0], 2 * size[1]))
        if drafted:
            box = drafted[1]
    photo = _eight_bit(image).convert("RGB")
    if photo.size == size and box == (0, 0, *size):
        return photo
    return photo.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits per channel; 16-bit grey is scaled to 65535 = white."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(f"expected 8 or 16 bits a channel, got values up to {grey.max()}")
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise InputError("expected 8 or 16 bits a channel, got floating-point numbers")
    return image


def _read_mask(path: Path, photo: Size, lens: Lens, target: Lens) -> torch.Tensor:
    """Read a mask at the target's size, uint8 [H, W], 1 = keep, by its nearest pixels."""
    try:
        with open_image(path) as image, room_for(image):
            _check_proportions(path, image.size, photo, "photo")
            grey = _eight_bit(image).convert("L")
    except InputError as error:
        named = str(error).startswith(str(path))
        raise error if named else InputError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: expected a readable mask, {error}") from error
    keep = np.array(grey) > MASK_KEEPS
    size = (target.width, target.height)
    if not lens.is_pinhole:
        grid = _grid(lens.resized(*grey.size), target)
        plane = torch.from_numpy(keep)[None, None].float()
        mask = torch.nn.functional.grid_sample(
            plane, grid, mode="nearest", padding_mode="border", align_corners=False
        )[0, 0].to(torch.uint8)
    else:
        nearest = Image.fromarray(keep.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        mask = torch.from_numpy(np.array(nearest))
    if not mask.any():
        raise InputError(f"{path}: expected a mask that keeps some pixel (white), got none")
    return mask


@lru_cache(maxsize=4)
def _grid(lens: Lens, target: Lens) -> torch.Tensor:
    """Return the places to sample, float32 [1, H, W, 2], with outer edges at -1 and 1."""
    places = torch.from_numpy(lens.sampling_map(target))
    size = torch.tensor([lens.width, lens.height], dtype=places.dtype)
    return (places.mul_(2).div_(size).sub_(1))[None]
