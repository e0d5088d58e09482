"""Prints the time of every kernel, by torch.profiler, of workload W3 and of training steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.render.kernels import Kernels
from benchmarks.render.timing import Laps
from benchmarks.render.training_step import ITERATIONS, START, scene_for
from benchmarks.render.workloads import Workload, make_workload
from splatrender.training import TrainOptions
from splatrender.training.run import Run
from tools.gpu.common import DEVICE, OUT, SCENE, TOY, record, wait

ROWS = 32  # kernels that are printed
# Iterations with full pictures. No sweep of wfr is among them; adc acts in the first half only.
STARTS = {"wfr": START + 60, "mcmc": START + 1, "adc": 3001}


def table(name: str, body: Callable[[], object], repeats: int) -> None:
    """Print and record what the kernels of a function take.

    Args:
        name: of the table.
        body: the function.
        repeats: calls for the time on the clock.
    """
    for _ in range(3):
        body()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        body()
    wait()
    wall = (time.perf_counter() - start) / repeats
    traced = 5
    on_gpu = DEVICE == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as trace:
        for _ in range(traced):
            body()
        wait()
    microseconds: dict[str, float] = {}
    calls: dict[str, float] = {}
    for event in trace.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent > 0:
            microseconds[event.key] = spent / traced
            calls[event.key] = event.count / traced
    busy, launches = sum(microseconds.values()), sum(calls.values())
    print(f"\n{name}: {1e3 * wall:.3f} ms on the clock, {busy / 1e3:.3f} ms of kernels, "
          f"{launches:.0f} launches")  # fmt: skip
    ranked = sorted(microseconds, key=microseconds.__getitem__, reverse=True)[:ROWS]
    for key in ranked:
        print(f"  {microseconds[key]:9.1f} us {calls[key]:6.1f}x  {key[:100]}", flush=True)
    kernels = [[key[:100], microseconds[key], calls[key]] for key in ranked]
    record("profile", name=name, ms=1e3 * wall, busy_ms=busy / 1e3, launches=launches,
           kernels=kernels)  # fmt: skip


def with_screen_sized_splat(workload: Workload) -> Workload:
    """The workload with its first splat as large as the picture, half transparent."""
    scales, means = workload.scales.clone(), workload.means.clone()
    scales[0], means[0] = 1.0, 0.0
    opacities = workload.opacities.clone()
    opacities[0] = 0.5
    return replace(workload, scales=scales, means=means, opacities=opacities)


def main() -> None:
    workload = make_workload("W3", toy=TOY)
    for name, w in (("W3", workload), ("W3, a large splat", with_screen_sized_splat(workload))):
        kernels = Kernels(w.to(torch.device(DEVICE)))
        table(f"{name}: operators alone", lambda k=kernels: k.run(Laps()), 2 if TOY else 20)
        del kernels
    splats = 500 if TOY else 50_000
    scene = scene_for(SCENE, splats, TOY)
    for strategy, iteration in STARTS.items():
        options = TrainOptions(
            scene.path, Path(OUT) / "never", iterations=ITERATIONS, max_splats=splats,
            quiet=True, strategy=strategy,
        )  # fmt: skip
        run = Run(options, scene, torch.device(DEVICE))
        run.state.iteration = iteration
        table(f"a training step of {strategy}, {splats:,} splats", run.step, 2 if TOY else 40)


if __name__ == "__main__":
    main()
