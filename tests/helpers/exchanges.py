"""Photos of random splats, and runs of the exchange strategy on them."""

from __future__ import annotations

import math

import torch

from splatrender.flow import ExchangeReport, ExchangeStrategy, TrainState
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.options import RenderOptions
from splatrender.operators.render import render

RESPONSES = ("gaussian", "beer_lambert")


def cameras(count: int, size: int = 48) -> list[Camera]:
    """Place cameras on a circle around the origin."""
    turns = [2 * math.pi * i / count for i in range(count)]
    eyes = [(3 * math.sin(t), -0.4, -3 * math.cos(t)) for t in turns]
    return [Camera.look_at(eye, (0, 0, 0), width=size, height=size - 8) for eye in eyes]


def views_of(truth: Splats, count: int = 6, options: RenderOptions | None = None) -> list[View]:
    """Return photos of splats."""
    views: list[View] = []
    for camera in cameras(count):
        radiance = render(truth, camera, options=options or RenderOptions()).radiance[0]
        photo = (255 * radiance.clamp(0, 1)).round().to(torch.uint8)
        views.append(View(camera, photo, None, f"view {len(views)}"))
    return views


def cloud(count: int, seed: int, scale: float = 0.12, degree: int = 1) -> Splats:
    """Return random splats of random shapes and opacities."""
    splats = Splats.random(count, extent=0.8, seed=seed, degree=degree)
    splats.log_scales.fill_(math.log(scale))
    splats.log_scales.add_(0.3 * torch.randn(count, 3, generator=seeded(seed)))
    splats.quats.copy_(torch.randn(count, 4, generator=seeded(seed + 1)))
    splats.opacity_logits.copy_(torch.randn(count, generator=seeded(seed + 2)))
    return splats


def seeded(seed: int) -> torch.Generator:
    """Return a source of randomness."""
    return torch.Generator().manual_seed(seed)


def make_state(count: int = 150, seed: int = 0) -> TrainState:
    """Return a run that has begun, with splats that are not those of the photos."""
    state = TrainState.start(cloud(count, seed), 1000, seeded(seed))
    state.samples = state.views = views_of(cloud(80, seed + 7, scale=0.2))
    return state


def step_at_a_sweep(state: TrainState, strategy: ExchangeStrategy) -> ExchangeReport:
    """Take the step of an iteration at which a sweep is due."""
    state.iteration = strategy.interval * 3
    report = strategy.step(state)
    assert report is not None
    return report
