"""A small scene with photos of known splats, and training runs on it."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import torch

from splatrender.flow import TrainState
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.render import render
from splatrender.scenes.scene import Scene
from splatrender.scenes.similarity import Similarity
from splatrender.training import TrainOptions

WIDTH, HEIGHT = 72, 48


def truth() -> Splats:
    """Return the splats that the photos show."""
    splats = Splats.random(40, extent=0.6, seed=3, degree=0)
    splats.log_scales.clamp_(min=math.log(0.05), max=math.log(0.2))
    splats.opacity_logits.fill_(1.5)
    return splats


def ring(count: int) -> list[Camera]:
    """Place cameras around the origin."""
    cameras = []
    for index in range(count):
        angle = 2 * math.pi * index / count
        eye = (2 * math.cos(angle), -0.4, 2 * math.sin(angle))
        cameras.append(
            Camera.look_at(
                eye, (0, 0, 0), fov_x=50, width=WIDTH, height=HEIGHT, name=f"{index:02d}.jpg"
            )
        )
    return cameras


def ring_scene() -> Scene:
    """Make a scene of 9 views, 2 of them held out, with seed points near the true ones."""
    splats = truth()
    views = []
    with torch.no_grad():
        for camera in ring(9):
            photo = (render(splats, camera).radiance[0].clamp(0, 1) * 255).round()
            views.append(View(camera, photo.to(torch.uint8), None, camera.name))
    generator = torch.Generator().manual_seed(0)
    points = splats.means + 0.05 * torch.randn(40, 3, generator=generator)
    colors = torch.full((40, 3), 128, dtype=torch.uint8)
    similarity = Similarity(0.5, torch.tensor([1.0, 2.0, 3.0]))
    return Scene(Path("ring"), views[2:], views[:2], points, colors, similarity)


def options(folder: Path, **changes: Any) -> TrainOptions:
    """Return options of a short run that writes to `folder`."""
    defaults: dict[str, Any] = {
        "iterations": 40,
        "max_splats": 60,
        "quiet": True,
        "checkpoint_interval": 0,
        "sh_degree": 1,
        "threads": 1,
    }
    return TrainOptions("ring", folder, **{**defaults, **changes})


def stop_at(iteration: int, number: signal.Signals = signal.SIGINT) -> Any:
    """Make a callback that interrupts as Ctrl-C does."""

    def on_step(state: TrainState) -> None:
        if state.iteration == iteration:
            signal.raise_signal(number)

    return on_step


def assert_same(one: Any, two: Any) -> None:
    """Check that nested containers hold the same bits."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two
