"""Videos from a stream of frames."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.images import to_uint8
from splatrender.io.packages import message as broken_package
from splatrender.io.packages import require_package


def encoder() -> ModuleType:
    """The module that brings the encoder, which is an optional dependency.

    Returns:
        imageio_ffmpeg.

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
    """Refuse a frame rate that no player shows.

    Args:
        fps: frames a second.

    Raises:
        InputError: it is not within 0.01 to 1000.
    """
    if not 0.01 <= fps <= 1000:
        raise InputError(f"fps: expected 0.01 to 1000 frames a second, got {fps}")


@contextmanager
def video_writer(
    path: str | os.PathLike[str], fps: float = 30.0, crf: int = 18
) -> Iterator[Callable[[Tensor], None]]:
    """Yield a function that appends a frame to an .mp4 file (H.264, yuv420p: plays everywhere).

    A frame is [H, W, 3], uint8 or floating point with white at 1, and all are of one size; none
    is kept. Odd sizes get one more row or column, a copy of the last. The file appears when the
    block ends without error.

    Args:
        path: file to write, ending in .mp4.
        fps: frames a second, 0.01 to 1000.
        crf: constant rate factor of H.264: less is better and larger, 18 looks lossless.

    Yields:
        The function that appends a frame.

    Raises:
        InputError: the name or fps is wrong, the encoder is missing, a frame differs in size from
            the first, or there is no frame.
        WriteError: the disk does not take the video.

    Example:
        >>> with video_writer("orbit.mp4", fps=30) as add:  # doctest: +SKIP
        ...     for frame in frames:
        ...         add(frame)
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: expected a name ending in .mp4, got {path.suffix!r}")
    check_rate(fps)
    write_frames = encoder().write_frames
    size: tuple[int, int] | None = None
    stream: Any = None

    def add(frame: Tensor) -> None:
        nonlocal size, stream
        height, width = frame.shape[:2]
        if stream is None:
            size = (width, height)
            stream = write_frames(
                str(temporary),
                (width + width % 2, height + height % 2),
                fps=fps,
                codec="libx264",
                pix_fmt_in="rgb24",
                pix_fmt_out="yuv420p",
                quality=None,  # crf instead
                macro_block_size=2,
                ffmpeg_log_level="error",
                output_params=["-crf", str(crf), "-movflags", "+faststart"],
            )
            stream.send(None)
        if (width, height) != size:
            raise InputError(f"frame: expected the size {size} of the first, got {width, height}")
        stream.send(_even(to_uint8(frame)).contiguous().numpy())

    with atomic_write(path) as temporary:
        try:
            yield add
        finally:
            if stream is not None:
                stream.close()  # waits for the encoder
        if stream is None:
            raise InputError(f"{path}: expected frames for a video, got none")
        if not _is_whole(temporary):  # ffmpeg ends without a word where the disk is full
            raise OSError("the encoder stopped before the end of the video")


def _even(pixels: Tensor) -> Tensor:
    """Pixels with the last row and column doubled where their number is odd."""
    if pixels.shape[0] % 2:
        pixels = torch.cat([pixels, pixels[-1:]])
    if pixels.shape[1] % 2:
        pixels = torch.cat([pixels, pixels[:, -1:]], dim=1)
    return pixels


def _is_whole(path: Path) -> bool:
    """Whether an .mp4 file has its frames and its index, and ends where its last box ends."""
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
