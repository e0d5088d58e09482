"""Splat models, trained by theory: differentiable Gaussian splatting that is fast on a CPU.

    import splatrender
    scene = splatrender.load_scene("my_scene")
    splats = scene.load_splats("out/point_cloud/iteration_7000/point_cloud.ply")
    image = splatrender.render(splats, scene.test[0].camera).radiance

Names are loaded when they are first used, which keeps `import splatrender` fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from splatrender import _extension, _moved

if TYPE_CHECKING:  # the same names for type checkers, which do not run `__getattr__`
    from splatrender.errors import InputError, InputWarning
    from splatrender.model.camera import Camera
    from splatrender.model.splats import Splats
    from splatrender.operators.options import RenderOptions
    from splatrender.operators.plausible import debug
    from splatrender.operators.render import Rendering, rasterize, render
    from splatrender.scenes.scene import load_scene
    from splatrender.training import TrainOptions, train

__version__ = "0.1.0"
__all__ = [
    "Camera",
    "InputError",
    "InputWarning",
    "RenderOptions",
    "Rendering",
    "Splats",
    "TrainOptions",
    "debug",
    "load_scene",
    "rasterize",
    "render",
    "train",
]

_extension.require_built()
_moved.install()

_HOMES = {
    "Camera": "splatrender.model.camera",
    "InputError": "splatrender.errors",
    "InputWarning": "splatrender.errors",
    "RenderOptions": "splatrender.operators.options",
    "Rendering": "splatrender.operators.render",
    "Splats": "splatrender.model.splats",
    "TrainOptions": "splatrender.training",
    "debug": "splatrender.operators.plausible",
    "load_scene": "splatrender.scenes.scene",
    "rasterize": "splatrender.operators.render",
    "render": "splatrender.operators.render",
    "train": "splatrender.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'splatrender' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
