"""Materials as Mitsuba dictionaries, and the part list of which the scene is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.still_life.meshes import Mesh

BRASS = (0.80, 0.58, 0.26)
COPPER = (0.86, 0.52, 0.38)
STEEL = (0.58, 0.57, 0.55)

Paint = NDArray[np.float64] | Sequence[float]


@dataclass(frozen=True)
class Part:
    """A named mesh with its material (a Mitsuba dictionary, see `Picture` for its textures)."""

    name: str
    mesh: Mesh
    material: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A texture [H, W, 3] (sRGB, 0..1), or [H, W, 1] (linear) for heights."""

    pixels: NDArray[np.float64]
    repeat: tuple[float, float] = (1.0, 1.0)


def _paint(paint: Paint | Picture) -> Any:
    if isinstance(paint, Picture):
        return paint
    array = np.asarray(paint, float)
    return Picture(array) if array.ndim == 3 else Picture(np.tile(array, (1, 1, 1)))


def matte(paint: Paint | Picture) -> dict[str, Any]:
    """Lambertian on both sides."""
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": _paint(paint)}}


def glossy(paint: Paint | Picture, roughness: float) -> dict[str, Any]:
    """Varnish over paint, on both sides; `roughness` is the GGX alpha of the varnish."""
    return {
        "type": "twosided",
        "bsdf": {
            "type": "roughplastic",
            "distribution": "ggx",
            "alpha": roughness,
            "diffuse_reflectance": _paint(paint),
        },
    }


def metal(color: Sequence[float], roughness: float) -> dict[str, Any]:
    """Rough conductor of the given linear reflectance."""
    return {
        "type": "twosided",
        "bsdf": {
            "type": "roughconductor",
            "material": "none",
            "distribution": "ggx",
            "alpha": roughness,
            "specular_reflectance": {"type": "rgb", "value": [float(c) for c in color]},
        },
    }


def bumpy(material: dict[str, Any], heights: NDArray[np.float64], scale: float) -> dict[str, Any]:
    """Return the material with the relief `heights` [H, W], `scale` in texture units."""
    bump = {"type": "bumpmap", "arbitrary": Picture(heights[..., None]), "scale": scale}
    return {"type": "twosided", "bsdf": bump | {"bsdf": material["bsdf"]}}
