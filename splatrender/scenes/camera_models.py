"""COLMAP's camera models: their names, and the meaning of their parameters.

Source: COLMAP, camera models (https://colmap.github.io/cameras.html).
"""

from __future__ import annotations

_FOCAL, _FOCALS = ("f", "cx", "cy"), ("fx", "fy", "cx", "cy")

# By COLMAP's model id: name, and the field of `Lens` for each number of PARAMS[] ("f" is both fx
# and fy).
CAMERA_MODELS: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("SIMPLE_PINHOLE", _FOCAL),
    1: ("PINHOLE", _FOCALS),
    2: ("SIMPLE_RADIAL", (*_FOCAL, "k1")),
    3: ("RADIAL", (*_FOCAL, "k1", "k2")),
    4: ("OPENCV", (*_FOCALS, "k1", "k2", "p1", "p2")),
    5: ("OPENCV_FISHEYE", (*_FOCALS, "k1", "k2", "k3", "k4")),
    6: ("FULL_OPENCV", (*_FOCALS, "k1", "k2", "p1", "p2", "k3", "d1", "d2", "d3")),
    7: ("FOV", (*_FOCALS, "omega")),
    8: ("SIMPLE_RADIAL_FISHEYE", (*_FOCAL, "k1")),
    9: ("RADIAL_FISHEYE", (*_FOCAL, "k1", "k2")),
    10: ("THIN_PRISM_FISHEYE", (*_FOCALS, "k1", "k2", "p1", "p2", "k3", "k4", "sx", "sy")),
    11: (
        "RAD_TAN_THIN_PRISM_FISHEYE",
        (*_FOCALS, "k1", "k2", "k3", "k4", "k5", "k6", "p2", "p1", "sx", "sx2", "sy", "sy2"),
    ),
    12: ("SIMPLE_DIVISION", (*_FOCAL, "division")),
    13: ("DIVISION", (*_FOCALS, "division")),
    14: ("SIMPLE_FISHEYE", _FOCAL),
    15: ("FISHEYE", _FOCALS),
    16: ("EUCM", (*_FOCALS, "alpha", "beta")),
    17: ("EQUIRECTANGULAR", ("w", "h")),
}

PANORAMA = "EQUIRECTANGULAR"  # the one model without a pinhole to undistort it to


def unknown_model(model: str) -> str:
    """Return the message about a camera model that is none of COLMAP's."""
    known = ", ".join(name for name, _ in CAMERA_MODELS.values())
    return f"expected a camera model of {known}, got {model}"
