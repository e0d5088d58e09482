"""Image files of photos and masks: large ones are opened, warnings silenced, EXIF turns known.

They are read by Pillow itself and not through imageio, which decodes on opening. Only Pillow opens
an image without decoding it, of any size, and decodes a JPEG at 1/2, 1/4 or 1/8 of its size.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from PIL import Image

LARGE = 50_000_000  # pixels of an image that is decoded alone: it takes several times 150 MB
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


def open_image(path: Path) -> Image.Image:
    """Open an image of any size; it is decoded later.

    Pillow refuses 179 megapixels as a possible attack and warns from 89 on. Cameras have such
    sensors, and the sparse model confirms the size.

    Raises:
        OSError, SyntaxError, ValueError: those of `PIL.Image.open`.
    """
    with _opening:  # the limit is Pillow's global variable
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def room_for(image: Image.Image) -> AbstractContextManager[object]:
    """Return a context for decoding an image: large ones are decoded one after the other."""
    return _decoding if image.width * image.height > LARGE else nullcontext()


@contextmanager
def no_image_warnings() -> Iterator[None]:
    """Silence Pillow's warnings: broken EXIF and transparent colours do not matter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, as stored, where there is none or it is broken."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the image to search for it
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken block raises errors of any type
        return 1
    return value if value in _TURNS else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image as its EXIF orientation shows it."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height of an image after `turned`."""
    return (size[1], size[0]) if orientation >= 5 else size
