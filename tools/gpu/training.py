"""Training runs of a chosen size at a chosen iteration, for the programs of this folder."""

from __future__ import annotations

import torch

from benchmarks.render.training_step import ITERATIONS
from splatrender.scenes.scene import Scene
from splatrender.training import TrainOptions
from splatrender.training.run import Run
from tools.gpu.target import Target


def start_run(target: Target, scene: Scene, max_splats: int, strategy: str, iteration: int) -> Run:
    """Return a run whose next step is that of `iteration`; it writes no files.

    Args:
        target: Device.
        scene: Training scene.
        max_splats: Budget.
        strategy: Name of the strategy of births and deaths.
        iteration: Iteration from which to train.
    """
    options = TrainOptions(
        scene.path,
        target.out / "never",
        iterations=ITERATIONS,
        max_splats=max_splats,
        quiet=True,
        strategy=strategy,
    )
    run = Run(options, scene, torch.device(target.device))
    run.state.iteration = iteration
    return run
