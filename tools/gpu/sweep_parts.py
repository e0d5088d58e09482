"""Prints what an exchange of strategy `wfr` costs, by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.render.training_step import scene_for
from splatrender.flow import WFR
from splatrender.training import TrainOptions
from splatrender.training.run import Run
from tools.gpu.common import DEVICE, OUT, SCENE, TOY, record, wait

Result = TypeVar("Result")
VIEWS, ROUNDS = 24, 2
SPLATS, ITERATIONS = 50_000, 7000


def lap(name: str, function: Callable[[], Result]) -> Result:
    """Call a function, then print and record the milliseconds that it took on the clock."""
    wait()
    start = time.perf_counter()
    result = function()
    wait()
    ms = 1e3 * (time.perf_counter() - start)
    print(f"  {name:10} {ms:8.1f} ms", flush=True)
    record("sweep", part=name, ms=ms)
    return result


def main() -> None:
    splats = 500 if TOY else SPLATS
    scene = scene_for(SCENE, splats, TOY)
    options = TrainOptions(
        scene.path, Path(OUT) / "never", iterations=ITERATIONS, max_splats=splats + splats // 5,
        quiet=True, strategy="none",
    )  # fmt: skip
    run = Run(options, scene, torch.device(DEVICE))
    for _ in range(3 if TOY else 200):
        run.step()
    state, strategy = run.state, WFR(ITERATIONS, splats + splats // 5)
    with torch.no_grad():
        for _ in range(ROUNDS):
            probes = lap("propose", lambda: strategy.propose(state))
            views = list(state.samples)[:VIEWS]
            lap("sweep", lambda p=probes, v=views: strategy.judge(state, p, v))
            state.iteration = strategy.interval
            lap("exchange", lambda: strategy.step(state))  # all of it: propose and sweep as well


if __name__ == "__main__":
    main()
