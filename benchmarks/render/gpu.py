"""Timing of the CUDA kernels on a GPU, and of gsplat where it is installed.

With `--device emulated` the same program runs the CUDA kernels on the CPU at toy size. This tests
the program where there is no GPU; its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.render import report
from benchmarks.render.kernels import Kernels
from benchmarks.render.options import Options
from benchmarks.render.peers import Gsplat, Ours, agreement, agrees_with_gsplat, has_gsplat
from benchmarks.render.timing import EventLaps, Laps, time_stages
from benchmarks.render.training_step import time_training_step
from benchmarks.render.workloads import Workload, make_workload
from splatrender.errors import InputError
from splatrender.runtime.devices import choose_device, device_name, synchronize
from tools.emulation.stand_in import in_place_of_cpu_kernels

WARM_UP = 3


def time_gpu(options: Options) -> dict[str, Any]:
    """Time the workloads and a training step, and print their tables."""
    emulated = options.device == "emulated"
    toy = options.toy or emulated
    with opened_device(options.device) as device:
        peer = has_gsplat() and device.type == "cuda"
        results: dict[str, Any] = {
            "device": options.device,
            "name": device_name(device),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "gsplat": version("gsplat") if peer else None,
            "repeats": options.repeats,
            "toy": toy,
            "workloads": {},
        }
        where = f"{results['name']}, CUDA {torch.version.cuda}"
        where = "the emulator, whose times mean nothing" if emulated else where
        beside = f"gsplat {results['gsplat']}" if peer else "gsplat is not installed: no ratios"
        print(f"{where}, torch {torch.__version__}; {beside}; medians of {options.repeats}")
        for name in options.workloads:
            workload = make_workload(name, toy=toy).to(device)
            results["workloads"][name] = time_workload(workload, options.repeats, peer)
            report.print_gpu(workload, results["workloads"][name])
        if options.steps:
            splats = min(options.splats, 500) if toy else options.splats
            step = time_training_step(options.scene, splats, options.steps, device, toy=toy)
            mean = f"each part waits for the GPU, mean of {options.steps} steps"
            report.print_step(step, mean, "ms")
            results["training_step"] = step
    return results


@contextmanager
def opened_device(name: str) -> Iterator[torch.device]:
    """Yield the GPU, or the CPU with the emulated CUDA kernels in place of its own."""
    if name == "emulated":
        with in_place_of_cpu_kernels("emulated"):
            yield torch.device("cpu")
        return
    try:
        device = choose_device("cuda")
    except InputError as error:
        raise SystemExit(f"raster.py: {error} (see --device emulated)") from None
    yield device


def time_workload(workload: Workload, repeats: int, peer: bool) -> dict[str, Any]:
    """Return all figures of one workload.

    Args:
        workload: Splats and camera on the device.
        repeats: Number of passes of which medians are taken.
        peer: Time gsplat, too.
    """
    device = workload.means.device
    kernels = Kernels(workload)
    for _ in range(WARM_UP):
        kernels.run(Laps())
    laps = EventLaps() if device.type == "cuda" else Laps()
    stages = time_stages(kernels, repeats, laps)
    figures: dict[str, Any] = {
        "counts": kernels.counts(),
        "stages": {part: spent["wall"] for part, spent in stages.items()},
        "calls": time_calls(Ours(workload), repeats),
    }
    if peer:
        ours, theirs = Ours(workload), Gsplat(workload)
        for rasterizer in (ours, theirs):
            rasterizer.run(Laps())
        figures["agreement"] = agreement(ours, theirs)
        figures["agrees"] = agrees_with_gsplat(figures["agreement"])
        figures["gsplat"] = time_calls(theirs, repeats)
    return figures


def time_calls(rasterizer: Ours, repeats: int) -> dict[str, float]:
    """Return median milliseconds of whole calls, and on a GPU their peak memory [MiB]."""
    device = rasterizer.workload.means.device
    for _ in range(WARM_UP):
        rasterizer.run(Laps())
    before = 0
    if device.type == "cuda":
        rasterizer.forget_gradients()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    laps = Laps(partial(synchronize, device))
    for _ in range(repeats):
        rasterizer.run(laps)
    figures = {part: spent.wall for part, spent in laps.medians().items()}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) - before
        figures["peak_memory_mb"] = peak / 2**20
    return figures
