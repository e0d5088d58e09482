"""Print the time of every kernel, by torch.profiler, of workload W3 and of training steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.render.kernels import Kernels
from benchmarks.render.timing import Laps
from benchmarks.render.training_step import START, scene_for
from benchmarks.render.workloads import Workload, make_workload
from tools.gpu.target import SCENE, Target
from tools.gpu.training import start_run

ROWS = 32  # kernels that are printed
TRACED = 5  # calls under the profiler
# Iterations with full images. No sweep of wfr is among them; adc acts in the first half only.
STARTS = {"wfr": START + 60, "mcmc": START + 1, "adc": 3001}


def print_table(target: Target, name: str, body: Callable[[], object], repeats: int) -> None:
    """Print and record the time of each kernel that a function launches.

    Args:
        target: Device, and where to record.
        name: Title of the table.
        body: Function.
        repeats: Number of calls for the elapsed time.
    """
    for _ in range(3):
        body()
    target.wait()
    start = time.perf_counter()
    for _ in range(repeats):
        body()
    target.wait()
    ms = 1e3 * (time.perf_counter() - start) / repeats
    spent = trace(target, body)
    busy_ms, launches = sum(us for us, _ in spent.values()) / 1e3, sum(n for _, n in spent.values())
    times = f"{ms:.3f} ms elapsed, {busy_ms:.3f} ms of kernels"
    print(f"\n{name}: {times}, {launches:.0f} launches")
    kernels = [(key[:100], us, calls) for key, (us, calls) in spent.items()][:ROWS]
    for key, us, calls in kernels:
        print(f"  {us:9.1f} us {calls:6.1f}x  {key}", flush=True)
    figures = {"ms": ms, "busy_ms": busy_ms, "launches": launches}
    target.record("profile", name=name, **figures, kernels=kernels)


def trace(target: Target, body: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Return microseconds and launches per call of each kernel, the slowest first."""
    on_gpu = target.device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as traced:
        for _ in range(TRACED):
            body()
        target.wait()
    spent = {}
    for event in traced.key_averages():
        us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if us > 0:
            spent[event.key] = (us / TRACED, event.count / TRACED)
    return dict(sorted(spent.items(), key=lambda item: -item[1][0]))


def with_screen_sized_splat(workload: Workload) -> Workload:
    """Return the workload with its first splat as large as the image, half transparent."""
    scales, means = workload.scales.clone(), workload.means.clone()
    scales[0], means[0] = 1.0, 0.0
    opacities = workload.opacities.clone()
    opacities[0] = 0.5
    return replace(workload, scales=scales, means=means, opacities=opacities)


def main() -> None:
    """Profile the operators alone, then a training step of each strategy."""
    target = Target.from_environment()
    workload = make_workload("W3", toy=target.toy)
    for name, w in (("W3", workload), ("W3, a large splat", with_screen_sized_splat(workload))):
        kernels = Kernels(w.to(torch.device(target.device)))
        passes = 2 if target.toy else 20
        print_table(target, f"{name}: operators alone", partial(kernels.run, Laps()), passes)
        del kernels
    splats = 500 if target.toy else 50_000
    scene = scene_for(SCENE, splats, target.toy)
    for strategy, iteration in STARTS.items():
        run = start_run(target, scene, splats, strategy, iteration)
        name = f"a training step of {strategy}, {splats:,} splats"
        print_table(target, name, run.step, 2 if target.toy else 40)


if __name__ == "__main__":
    main()
