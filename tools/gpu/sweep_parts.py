"""Print the cost of an exchange of strategy `wfr`, by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from benchmarks.render.training_step import ITERATIONS, scene_for
from splatrender.flow import ExchangeStrategy
from tools.gpu.target import SCENE, Target
from tools.gpu.training import start_run

Result = TypeVar("Result")
VIEWS, ROUNDS = 24, 2
SPLATS = 50_000


def time_part(target: Target, name: str, function: Callable[[], Result]) -> Result:
    """Call a function, then print and record the elapsed milliseconds."""
    target.wait()
    start = time.perf_counter()
    result = function()
    target.wait()
    ms = 1e3 * (time.perf_counter() - start)
    print(f"  {name:10} {ms:8.1f} ms", flush=True)
    target.record("sweep", part=name, ms=ms)
    return result


def main() -> None:
    """Time proposals, sweep and the whole exchange, which contains both."""
    target = Target.from_environment()
    splats = 500 if target.toy else SPLATS
    budget = splats + splats // 5
    run = start_run(target, scene_for(SCENE, splats, target.toy), budget, "none", 0)
    for _ in range(3 if target.toy else 200):
        run.step()
    state, strategy = run.state, ExchangeStrategy(ITERATIONS, budget)
    with torch.no_grad():
        for _ in range(ROUNDS):
            probes = time_part(target, "propose", partial(strategy.propose, state))
            views = list(state.samples)[:VIEWS]
            objective = strategy.objective(state, views)
            insertions = partial(objective.insertions, state.splats, probes.splats)
            time_part(target, "sweep", insertions)
            state.iteration = strategy.interval
            time_part(target, "exchange", partial(strategy.step, state))


if __name__ == "__main__":
    main()
