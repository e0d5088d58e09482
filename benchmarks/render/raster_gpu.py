"""Times the CUDA kernels on a GPU, and gsplat beside them: `raster.py --device cuda`.

With `--device emulated` the same program runs over the CUDA kernels on the CPU at toy size, so that
it is known to work before a GPU sees it; its times mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.render.kernels import DEGREE, Kernels
from benchmarks.render.raster import (
    BACKWARD,
    MAX_DIFFERENT,
    STAGES,
    agreement,
    print_step,
    repeated,
)
from benchmarks.render.scalar import EPS2D, NEAR
from benchmarks.render.timing import EventLaps, Laps
from benchmarks.render.training_step import scene_for, step_breakdown
from benchmarks.render.workloads import Workload, make_workload
from splatrender.errors import InputError
from splatrender.operators.render import RenderOptions, rasterize
from splatrender.runtime.devices import choose_device, device_name, synchronize

LEAVES = ("means", "quats", "scales", "opacities", "sh")
WARM_UP = 3
SMALLEST_COSINE = 0.999  # of gradients: the two stop blending a full pixel one splat apart


def time_gpu(options: argparse.Namespace) -> None:
    """All tables, and the JSON file."""
    with opened_device(options.device) as device:
        toy = options.toy or options.device == "emulated"
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
        where = "the emulator, whose times mean nothing" if options.device == "emulated" else (
            f"{results['name']}, CUDA {torch.version.cuda}"
        )  # fmt: skip
        beside = f"gsplat {results['gsplat']}" if peer else "gsplat is not installed: no ratios"
        print(f"{where}, torch {torch.__version__}; {beside}; medians of {options.repeats}")
        for name in options.workloads:
            workload = make_workload(name, toy=toy).to(device)
            figures = time_workload(workload, options.repeats, peer)
            results["workloads"][name] = figures
            print_workload(workload, figures)
        if options.steps:
            results["training_step"] = time_step(options, device, toy)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@contextmanager
def opened_device(name: str) -> Iterator[torch.device]:
    """The GPU; or the CPU with the emulated CUDA kernels in place of its own."""
    if name == "emulated":
        from tools.emulation.stand_in import in_place_of_cpu_kernels

        with in_place_of_cpu_kernels("emulated"):
            yield torch.device("cpu")
        return
    try:
        device = choose_device("cuda")
    except InputError as error:
        raise SystemExit(f"raster.py: {error} (see --device emulated)") from None
    yield device


def has_gsplat() -> bool:
    return importlib.util.find_spec("gsplat") is not None


class Ours:
    """splatrender's `rasterize` on a workload, as a user calls it.

    Attributes:
        radiance: [H,W,3] of the last pass, without a graph.
        gradients: of the last pass, by the names in `LEAVES`.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        leaves = {name: getattr(workload, name).clone().requires_grad_() for name in LEAVES}
        self.leaves: dict[str, Tensor] = leaves
        self.radiance = torch.empty(0)
        self.gradients: dict[str, Tensor] = {}

    def picture(self) -> Tensor:
        """Radiance [1,H,W,3]."""
        w, options = self.workload, RenderOptions(near=NEAR, eps2d=EPS2D)
        size = (w.width, w.height)
        lens = (w.viewmats, w.intrinsics)
        leaves = self.leaves.values()
        return rasterize(*leaves, *lens, *size, sh_degree=DEGREE, options=options).radiance

    def run(self, laps: Laps) -> None:
        """A forward pass, then a forward and a backward one."""
        with torch.no_grad():
            laps.measure("forward", self.picture)
        for leaf in self.leaves.values():
            leaf.grad = None
        laps.measure("forward + backward", self._both)
        self.gradients = {
            name: leaf.grad for name, leaf in self.leaves.items() if leaf.grad is not None
        }

    def _both(self) -> None:
        radiance = self.picture()
        radiance.backward(self.workload.grad_radiance)
        self.radiance = radiance.detach()[0]


class Gsplat(Ours):
    """gsplat's `rasterization` of the same splats, with the same tiles, harmonics and cut-offs."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        fx, fy, cx, cy = workload.intrinsics[0].tolist()
        rows = [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
        self._intrinsics = torch.tensor([rows], device=workload.means.device)
        self._function: Callable[..., Any] = importlib.import_module("gsplat").rasterization

    def picture(self) -> Tensor:
        """Radiance [1,H,W,3]."""
        w = self.workload
        return self._function(
            *self.leaves.values(), w.viewmats, self._intrinsics, w.width, w.height,
            near_plane=NEAR, eps2d=EPS2D, sh_degree=DEGREE, packed=False, tile_size=16,
        )[0]  # fmt: skip


def time_workload(workload: Workload, repeats: int, peer: bool) -> dict[str, Any]:
    """All figures of one workload."""
    device = workload.means.device
    kernels = Kernels(workload)
    for _ in range(WARM_UP):
        kernels.run(Laps())
    laps = EventLaps() if device.type == "cuda" else Laps()
    stages = repeated(kernels, repeats, laps)
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
        figures["agrees"] = agrees(figures["agreement"])
        figures["gsplat"] = time_calls(theirs, repeats)
    return figures


def time_calls(rasterizer: Ours, repeats: int) -> dict[str, float]:
    """Median milliseconds on the clock of whole calls, and the most memory they take."""
    device = rasterizer.workload.means.device
    for _ in range(WARM_UP):
        rasterizer.run(Laps())
    before = 0
    if device.type == "cuda":
        rasterizer.gradients = {}
        for leaf in rasterizer.leaves.values():
            leaf.grad = None
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


def agrees(figures: dict[str, float]) -> bool:
    """Whether two rasterizers do equal work: only then are their times compared."""
    cosine = min(value for part, value in figures.items() if part.startswith("cosine"))
    same = figures["part that differs by 1e-3"] <= 10 * MAX_DIFFERENT
    return same and figures["largest difference"] < 4 / 255 and cosine > SMALLEST_COSINE


def print_workload(workload: Workload, figures: dict[str, Any]) -> None:
    """The tables of one workload."""
    counts, stages = figures["counts"], figures["stages"]
    print(f"\n{workload.name}: {len(workload):,} splats, {workload.width}x{workload.height}, "
          f"{counts['pairs'] / 1e6:.2f} M pairs of splat and tile")  # fmt: skip
    print(f"  {'kernels, on the GPU clock':<28}{'ms':>10}")
    for part in (*STAGES, "forward", *BACKWARD, "backward", "forward + backward"):
        print(f"  {part.replace('_', ' '):<28}{stages[part]:10.3f}")
    calls, theirs = figures["calls"], figures.get("gsplat")
    heads = f"{'ours':>10}" + (f"{'gsplat':>10}{'ratio':>10}" if theirs else "")
    print(f"  {'whole calls, with autograd':<28}{heads}")
    for part, ms in calls.items():
        row = f"{ms:10.2f}"
        if theirs:
            ratio = f"{theirs[part] / ms:.2f}" if figures["agrees"] else "-"
            row += f"{theirs[part]:10.2f}{ratio:>10}"
        label = "peak memory, MiB" if part == "peak_memory_mb" else f"{part}, ms"
        print(f"  {label:<28}{row}")
    if theirs:
        a = figures["agreement"]
        cosine = min(value for part, value in a.items() if part.startswith("cosine"))
        verdict = "equal work" if figures["agrees"] else "NOT equal work, so no ratios"
        print(f"  {verdict}: pictures to {a['largest difference']:.1e} "
              f"({a['part that differs by 1e-3']:.0e} of them differ by 1e-3), "
              f"gradients to a cosine of {cosine:.6f}")  # fmt: skip


def time_step(options: argparse.Namespace, device: torch.device, toy: bool) -> dict[str, Any]:
    """Time one training step by parts, and print them."""
    splats = min(options.splats, 500) if toy else options.splats
    scene = scene_for(options.scene, splats, toy)
    rows = step_breakdown(scene, splats, options.steps, device)
    where = f"each part waits for the GPU, mean of {options.steps} steps"
    print_step(rows, scene, splats, where, "ms")
    return {"splats": splats, "scene": scene.path.name, "parts": rows, "total": sum(rows.values())}
