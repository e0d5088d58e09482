"""Time of a training step by parts, measured in the trainer itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.render.timing import BACKWARD, STAGES, Laps
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.render import render
from splatrender.runtime.devices import synchronize
from splatrender.runtime.stopwatch import Stopwatch
from splatrender.scenes.scene import Scene, load_scene
from splatrender.scenes.similarity import Similarity
from splatrender.training import TrainOptions
from splatrender.training.run import Run

ITERATIONS = 7000
START = 5000  # full images and all harmonics, after most of the growth
WARM_UP = 3
VIEWS = 6


def synthetic_scene(splats: int, width: int, height: int) -> Scene:
    """Make a scene of photos of random splats, with the splats' centres as seed points.

    Args:
        splats: Number of splats.
        width, height: Image size [px].
    """
    truth = Splats.random(splats, seed=0)
    views = []
    for index in range(VIEWS):
        angle = torch.tensor(2 * torch.pi * index / VIEWS)
        eye = (3 * float(angle.sin()), -0.5, -3 * float(angle.cos()))
        camera = Camera.look_at(eye, (0, 0, 0), width=width, height=height, name=f"view {index}")
        with torch.no_grad():
            radiance = render(truth, camera).radiance[0]
        photo = (255 * radiance.clamp(0, 1)).round().to(torch.uint8)
        views.append(View(camera, photo, None, camera.name))
    colors = (255 * (0.5 + 0.28209479177387814 * truth.sh[:, 0]).clamp(0, 1)).to(torch.uint8)
    still = Similarity(1.0, torch.zeros(3))
    return Scene(Path("synthetic"), views, [], truth.means, colors, still)


def crowded(scene: Scene, count: int) -> Scene:
    """Return the scene with `count` seed points, as many as a trained model has splats.

    Points are drawn from those of the scene and moved by about a hundredth of their spread.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(scene.points), (count,), generator=generator)
    nudge = 0.01 * scene.points.std(0) * torch.randn(count, 3, generator=generator)
    return replace(scene, points=scene.points[ids] + nudge, colors=scene.colors[ids])


@contextmanager
def timed_operators(laps: Laps) -> Iterator[None]:
    """Record every call of a splatrender operator as a lap of the operator's name."""
    namespace = torch.ops.splatrender
    originals = {name: getattr(namespace, name) for name in (*STAGES, *BACKWARD)}
    for name, operator in originals.items():
        setattr(namespace, name, partial(laps.measure, name, operator))
    try:
        yield
    finally:
        for name, operator in originals.items():
            setattr(namespace, name, operator)


def step_breakdown(
    scene: Scene, splats: int, steps: int, device: torch.device | None = None
) -> dict[str, float]:
    """Return the milliseconds of each part of a training step, in order of execution.

    On a CPU they are CPU time. On a GPU every part waits until the GPU has finished it.

    The trainer's own step is timed after five sevenths of 7,000 iterations, when images have their
    full size and harmonics their full degree.

    Args:
        scene: Training scene.
        splats: Budget, and initial number of splats.
        steps: Number of steps to average over.
        device: Training device; None for the CPU.

    Returns:
        Milliseconds by part; they sum to the whole step.
    """
    device = device or torch.device("cpu")
    with TemporaryDirectory() as folder:  # named in the options, never written to
        options = TrainOptions(
            scene.path,
            Path(folder) / "run",
            iterations=ITERATIONS,
            max_splats=splats,
            profile=True,
            quiet=True,
        )
        run = Run(options, scene, device)
    run.state.iteration = START
    for _ in range(WARM_UP):
        run.step()
    run.watch = Stopwatch(enabled=True, last=ITERATIONS, device=device)
    laps = Laps(partial(synchronize, device))
    hand = "cpu" if device.type == "cpu" else "wall"
    with timed_operators(laps):
        for _ in range(steps):
            run.step()
    parts = run.watch.parts()
    forward = {name: getattr(laps.total(name), hand) / steps for name in STAGES}
    backward = {name: getattr(laps.total(name), hand) / steps for name in BACKWARD}
    return {
        "data": parts.pop("data"),
        **forward,
        "activations and glue, forward": parts.pop("render") - sum(forward.values()),
        "loss and its gradient": parts.pop("loss"),
        **backward,
        "activations and glue, backward": parts.pop("backward") - sum(backward.values()),
        **parts,
    }


def scene_for(path: Path, splats: int, toy: bool) -> Scene:
    """Load the scene at `path`, or make a synthetic one if it is missing."""
    if toy:
        return crowded(synthetic_scene(splats, 160, 120), splats)
    if (path / "sparse").is_dir():
        return crowded(load_scene(path), splats)
    return synthetic_scene(splats, 800, 600)


def time_training_step(
    path: Path, splats: int, steps: int, device: torch.device | None = None, *, toy: bool = False
) -> dict[str, Any]:
    """Time one training step by parts.

    Args:
        path: Scene; a synthetic one is used if it is missing, or for a toy.
        splats: Number of splats.
        steps: Number of steps to average over.
        device: Training device; None for the CPU.
        toy: Use a tiny scene.

    Returns:
        Figures for the JSON file and `report.print_step`.
    """
    scene = scene_for(path, splats, toy)
    parts = step_breakdown(scene, splats, steps, device)
    camera = scene.train[0].camera
    return {
        "splats": splats,
        "scene": scene.path.name,
        "width": camera.width,
        "height": camera.height,
        "parts": parts,
        "total": sum(parts.values()),
    }
