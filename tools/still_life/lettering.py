"""A small stroke alphabet, so that the scene's print needs no font file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# Each letter: polylines separated by "|", points as two digits x (0..4) and y (0..6, up).
_GLYPHS = {
    "A": "00 26 40|12 32",
    "B": "00 06 36 45 44 33 03|33 42 41 30 00",
    "C": "45 36 16 05 01 10 30 41",
    "D": "00 06 26 44 42 20 00",
    "E": "40 00 06 46|03 33",
    "F": "00 06 46|03 33",
    "G": "45 36 16 05 01 10 30 41 43 23",
    "H": "00 06|40 46|03 43",
    "I": "20 26",
    "J": "46 41 30 10 01",
    "K": "00 06|46 03 40",
    "L": "06 00 40",
    "M": "00 06 23 46 40",
    "N": "00 06 40 46",
    "O": "10 01 05 16 36 45 41 30 10",
    "P": "00 06 36 45 44 33 03",
    "Q": "10 01 05 16 36 45 41 30 10|22 40",
    "R": "00 06 36 45 44 33 03|23 40",
    "S": "45 36 16 05 04 13 33 42 41 30 10 01",
    "T": "06 46|26 20",
    "U": "06 01 10 30 41 46",
    "V": "06 20 46",
    "W": "06 10 23 30 46",
    "X": "00 46|06 40",
    "Y": "06 23 46|23 20",
    "Z": "06 46 00 40",
    "1": "15 26 20",
    "2": "05 16 36 45 44 00 40",
    "3": "06 46 23 33 42 41 30 10 01",
    "4": "30 36 02 42",
    "5": "46 06 03 33 42 41 30 00",
    "6": "36 05 01 10 30 41 42 33 03",
    "7": "06 46 10",
    "8": "13 04 05 16 36 45 44 33 13 02 01 10 30 41 42 33",
    "9": "43 13 04 05 16 36 45 41 10",
    "0": "10 01 05 16 36 45 41 30 10",
    "&": "40 05 16 35 02 11 20 42",
    "-": "13 33",
    ".": "20 21",
}
_ADVANCE = 6.0


def text_mask(
    size: tuple[int, int], lines: list[tuple[str, float, float, float]], weight: float = 0.13
) -> NDArray[np.float64]:
    """Coverage [H, W] in 0..1 of centred lines of print.

    Args:
        size: height and width in px.
        lines: (text, x of the middle, y of the baseline, letter height), all as fractions of the
            width, height and height.
        weight: stroke width over letter height.
    """
    height, width = size
    over = 3
    picture = Image.new("L", (width * over, height * over), 0)
    draw = ImageDraw.Draw(picture)
    for text, x, y, letter in lines:
        unit = letter * height * over / 6
        left = x * width * over - unit * (_ADVANCE * len(text) - 2) / 2
        for k, character in enumerate(text.upper()):
            for polyline in _GLYPHS.get(character, "").split("|"):
                points = [
                    (left + unit * (k * _ADVANCE + int(p[0])), y * height * over - unit * int(p[1]))
                    for p in polyline.split()
                ]
                if points:
                    stroke = max(1, round(weight * 6 * unit))
                    draw.line(points, fill=255, width=stroke, joint="curve")
    small = picture.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255
