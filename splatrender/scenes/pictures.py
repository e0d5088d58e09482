"""Picture files through Pillow: large ones opened, its warnings silenced, EXIF turns known."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from PIL import Image

LARGE = 50_000_000  # pixels of a picture that is decoded alone: 150 MB, several times over
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_opening, _decoding = threading.Lock(), threading.Lock()


def open_picture(path: Path) -> Image.Image:
    """Open a picture of any size; it is decoded later.

    Pillow refuses 179 megapixels as a possible attack and warns from 89 on. Cameras have such
    sensors, and the sparse model vouches for the size.

    Raises:
        OSError, SyntaxError, ValueError: as `PIL.Image.open`.
    """
    with _opening:  # the limit is Pillow's global variable
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def room_for(image: Image.Image) -> AbstractContextManager:
    """A context in which a picture may be decoded: large ones one after the other."""
    return _decoding if image.width * image.height > LARGE else nullcontext()


@contextmanager
def no_picture_warnings() -> Iterator[None]:
    """Keep Pillow's warnings from the user: broken EXIF and transparent colours do not matter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1, as stored, where there is none or it is broken."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the picture to look for it
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever the parser of a broken block stumbles over
        return 1
    return value if value in _TURNS else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as its EXIF orientation shows it."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a picture after `turned`."""
    return (size[1], size[0]) if orientation >= 5 else size
