"""Videos from a stream of frames."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.images import to_uint8
from splatrender.io.packages import message as broken_package
from splatrender.io.packages import require_package


def encoder() -> ModuleType:
    """Return the module that brings the encoder, which is an optional dependency.

    Returns:
        imageio_ffmpeg, the backend of imageio for .mp4 files.

    Raises:
        InputError: it is missing or broken, or finds no ffmpeg; the message names the pip command.
    """
    without = ", or do without by --no-video"
    module = require_package("imageio_ffmpeg", without)
    try:
        module.get_ffmpeg_exe()
    except RuntimeError as error:
        raise InputError(broken_package("imageio_ffmpeg", error, without)) from error
    return module


def check_rate(fps: float) -> None:
    """Check that players support a frame rate.

    Args:
        fps: frames per second.

    Raises:
        InputError: it is not within 0.01 to 1000.
    """
    if not 0.01 <= fps <= 1000:
        raise InputError(f"fps: expected 0.01 to 1000 frames per second, got {fps}")


def write_video(
    path: str | os.PathLike[str], frames: Iterable[Tensor], fps: float = 30.0, crf: int = 18
) -> None:
    """Write an .mp4 file that every player supports (H.264, yuv420p), atomically.

    Args:
        path: file to write, ending in .mp4.
        frames: [H, W, 3] each, uint8 or floating point with white at 1, all of one size. They are
            encoded one by one, and none is kept. Odd sizes get one more row or column, a copy of
            the last.
        fps: frames per second, 0.01 to 1000.
        crf: constant rate factor of H.264: a lower one gives better and larger videos; at 18 the
            loss is invisible.

    Raises:
        InputError: the name or fps is wrong, the encoder is missing, a frame differs in size from
            the first, or there is no frame.
        WriteError: the disk does not take the video.

    Example:
        >>> write_video("fade.mp4", (torch.full((48, 64, 3), i / 30) for i in range(30)))
        ... # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: expected a name ending in .mp4, got {path.suffix!r}")
    check_rate(fps)
    encoder()
    import imageio.v2  # here, as most commands write no video

    with atomic_write(path) as temporary:
        # Not imageio.v3.imwrite, which leaves ffmpeg running when a frame cannot be made.
        writer = imageio.v2.get_writer(
            temporary,
            format="FFMPEG",
            mode="I",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,  # crf instead
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-crf", str(crf), "-movflags", "+faststart"],
        )
        with closing(writer):  # waits for the encoder
            for frame in _frames(path, frames):
                writer.append_data(frame)
        if not _is_whole(temporary):  # ffmpeg reports no error when the disk is full
            raise OSError("the encoder stopped before the end of the video")


def _frames(path: Path, frames: Iterable[Tensor]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames as the encoder takes them; refuse another size, and a video of none."""
    size: tuple[int, int] | None = None
    for frame in frames:
        height, width = frame.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise InputError(f"frame: expected the size {size} of the first, got {width, height}")
        yield _even(to_uint8(frame)).contiguous().numpy()
    if size is None:
        raise InputError(f"{path}: expected frames for a video, got none")


def _even(pixels: Tensor) -> Tensor:
    """Repeat the last row and column where their number is odd."""
    if pixels.shape[0] % 2:
        pixels = torch.cat([pixels, pixels[-1:]])
    if pixels.shape[1] % 2:
        pixels = torch.cat([pixels, pixels[:, -1:]], dim=1)
    return pixels


def _is_whole(path: Path) -> bool:
    """Check that an .mp4 file has its frames and its index, and ends where its last box ends."""
    kinds, place, end = set(), 0, path.stat().st_size
    with open(path, "rb") as file:
        while place + 8 <= end:
            file.seek(place)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:  # the size follows, in 64 bits
                size = int.from_bytes(file.read(8), "big")
            if size < 8:
                return False
            kinds.add(kind)
            place += size
    return place == end and {b"moov", b"mdat"} <= kinds
