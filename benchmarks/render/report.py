"""Tables of the rasterizer benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.render.peers import smallest_cosine
from benchmarks.render.timing import ROWS
from benchmarks.render.workloads import Workload

OPENSPLAT = {"W0b": (0.74, 1.21), "W1": (1.17, 1.87), "W2": (0.97, 1.46)}
"""CPU seconds of OpenSplat, forward and forward + backward: measured once, quoted here."""
TARGETS = {"W1": 5, "W2": 15}
"""Required factor over OpenSplat, forward + backward on one thread."""
Times = dict[str, dict[str, float]]


def print_cpu(name: str, figures: dict[str, Any], quoted: bool) -> None:
    """Print the table of one workload on the CPU, and what follows from it.

    Args:
        name: Workload.
        figures: Result of `cpu.time_workload`.
        quoted: Compare with peers that are not run here.
    """
    runs, scalar = figures["threads"], figures.get("scalar")
    print(f"\n{name}: {figures['counts']['pairs'] / 1e6:.2f} M pairs of splat and tile")
    if scalar:
        print(f"  the scalar peer agrees: {agreement(figures['agreement'], digits=7)}")
    heads = [f"{t} thr. {kind}" for t in runs for kind in ("wall", "CPU")]
    if scalar:
        heads += ["scalar CPU", "scalar / ours"]
    print(f"  {'ms':<20}" + "".join(f"{head:>14}" for head in heads))
    first = next(iter(runs.values()))
    for part in ROWS:
        cells = [f"{run[part][kind]:14.2f}" for run in runs.values() for kind in ("wall", "cpu")]
        if scalar:
            cells.append(f"{scalar[part]['cpu']:14.2f}")
            cells.append(f"{scalar[part]['cpu'] / max(first[part]['cpu'], 1e-6):14.1f}")
        print(f"  {part.replace('_', ' '):<20}" + "".join(cells))
    print_rates(figures, first)
    if quoted:
        print_quoted(name, first, on_one_thread=next(iter(runs)) == 1)


def agreement(figures: dict[str, float], digits: int) -> str:
    """Format the result of `peers.agreement`."""
    image = f"image to {figures['largest difference']:.1e}"
    part = f"{figures['part that differs by 1e-3']:.0e} of it differ by 1e-3"
    return f"{image} ({part}), gradients to a cosine of {smallest_cosine(figures):.{digits}f}"


def print_rates(figures: dict[str, Any], first: Times) -> None:
    """Print the pairs of splat and pixel per second."""
    evaluations, scalar = figures["counts"]["evaluations"], figures.get("scalar")

    def rate(count: int, run: Times, part: str) -> str:
        return f"{count / max(run[part]['cpu'], 1e-6) / 1e6:.2f} G/s"

    both = ("blend", "blend_backward")
    ours = " forward, ".join(rate(evaluations, first, part) for part in both)
    print(f"  splat-pixel evaluations: {evaluations / 1e6:.1f} M at {ours} backward")
    if scalar is None:
        return
    counts = figures["scalar_counts"]
    theirs = " forward, ".join(rate(counts["evaluations"], scalar, part) for part in both)
    print(f"  of the scalar peer:      {counts['evaluations'] / 1e6:.1f} M at {theirs} backward")
    useful = counts["contributions"]
    rates = f"{rate(useful, first, 'blend')} (ours) and {rate(useful, scalar, 'blend')} (scalar)"
    print(f"  of them contribute:      {useful / 1e6:.1f} M, forward at {rates}")


def print_quoted(name: str, first: Times, on_one_thread: bool) -> None:
    """Print the ratio to the quoted figures of a peer that is not run here."""
    forward, both = OPENSPLAT[name]
    times = (first["forward"]["cpu"], first["forward + backward"]["cpu"])
    ratios = [1e3 * theirs / ours for theirs, ours in zip((forward, both), times, strict=True)]
    print(f"  OpenSplat (its depth order repaired), {forward:.2f} / {both:.2f} CPU s forward /")
    print("  forward + backward, measured earlier on this kind of machine and quoted:")
    print(f"  {ratios[0]:.1f} / {ratios[1]:.1f} times ours in the first CPU column")
    if name in TARGETS and on_one_thread:
        verdict = "met" if ratios[1] >= TARGETS[name] else "missed"
        print(f"  target: {TARGETS[name]} times, forward + backward, one thread: {verdict}")


def print_gpu(workload: Workload, figures: dict[str, Any]) -> None:
    """Print the tables of one workload on a GPU.

    Args:
        workload: Splats and camera that were timed.
        figures: Result of `gpu.time_workload`.
    """
    size = f"{len(workload):,} splats, {workload.width}x{workload.height}"
    pairs = f"{figures['counts']['pairs'] / 1e6:.2f} M pairs of splat and tile"
    print(f"\n{workload.name}: {size}, {pairs}")
    print(f"  {'kernels, on the GPU clock':<28}{'ms':>10}")
    for part in ROWS:
        print(f"  {part.replace('_', ' '):<28}{figures['stages'][part]:10.3f}")
    theirs = figures.get("gsplat")
    heads = f"{'ours':>10}" + (f"{'gsplat':>10}{'ratio':>10}" if theirs else "")
    print(f"  {'whole calls, with autograd':<28}{heads}")
    for part, ms in figures["calls"].items():
        row = f"{ms:10.2f}"
        if theirs:
            ratio = f"{theirs[part] / ms:.2f}" if figures["agrees"] else "-"
            row += f"{theirs[part]:10.2f}{ratio:>10}"
        label = "peak memory, MiB" if part == "peak_memory_mb" else f"{part}, ms"
        print(f"  {label:<28}{row}")
    if theirs:
        verdict = "equal work" if figures["agrees"] else "NOT equal work, so no ratios"
        print(f"  {verdict}: {agreement(figures['agreement'], digits=6)}")


def print_step(step: dict[str, Any], where: str, unit: str) -> None:
    """Print the table of a training step.

    Args:
        step: Result of `training_step.time_training_step`.
        where: Conditions of the measurement.
        unit: Head of the column of times.
    """
    size = f"{step['width']}x{step['height']}, {step['splats']:,} splats"
    print(f"\nA training step: {step['scene']}, {size}, {where}")
    print(f"  {'':<32}{unit:>10}{'share':>9}")
    for part, ms in step["parts"].items():
        print(f"  {part.replace('_', ' '):<32}{ms:10.2f}{ms / step['total']:9.1%}")
    print(f"  {'whole step':<32}{step['total']:10.2f}")
