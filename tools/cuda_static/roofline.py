"""Lower bounds on the time of a step on an A100 and an H100, from counted work of each stage.

Pairs are counted on the CPU backend, which makes the same lists; instructions come from the machine
code (`cuda_static.py`), bytes from the arrays that a stage has to read and write. No GPU is
involved: these are bounds on time, not measurements.

    python -m tools.cuda_static.roofline  # 1M splats at 1920x1080: minutes
    python -m tools.cuda_static.roofline --markdown docs/results/cuda_roofline.md
    python -m tools.cuda_static.roofline --splats 10000 --size 320 180  # a quick run
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from benchmarks.render.workloads import SIZES, scatter
from tools.cuda_static.cuda_build import disassemble, nvcc_release
from tools.cuda_static.cuda_static import loops_of, our_kernels
from tools.cuda_static.kernel_loops import OURS
from tools.cuda_static.list_counts import ListCounts, count_lists
from tools.cuda_static.sass import (
    CLASSES,
    Function,
    Instruction,
    alu,
    count_by_class,
    count_opcode,
    flops,
    longest_without,
    parse,
    wavefronts,
)

SPLATS, LOG_SCALE, SIZE = SIZES["W3"]
Costs: TypeAlias = dict[str, dict[str, Counter[str]]]
"""Thread instructions by kernel or loop, architecture and class."""


@dataclass(frozen=True)
class Gpu:
    """A GPU's rates, by NVIDIA's data sheets.

    Attributes:
        multiprocessors, clock: number of multiprocessors, and boost clock [1/s].
        bandwidth: bandwidth of its memory [bytes/s].
    """

    name: str
    arch: str
    multiprocessors: int
    clock: float
    bandwidth: float


GPUS = (
    Gpu("A100 SXM 80 GB", "sm_80", 108, 1.41e9, 2039e9),
    Gpu("H100 SXM 80 GB", "sm_90", 132, 1.98e9, 3350e9),
)
STRAIGHT = ("project_kernel<float>", "project_backward_kernel<float>")  # no loop per splat
FLOPS, ALU, WAVEFRONTS = "flops", "alu", "wavefronts"  # counted beside the classes of instructions
ISSUED = 128  # thread instructions per clock and multiprocessor, of any kind: four warps
# CUDA C++ Programming Guide, "Arithmetic Instructions", results per clock and multiprocessor
SHARED = 32  # loads and stores of shared memory, 4 bytes each, shuffles and votes
SPECIAL = 16  # powers of two, reciprocals, conversions, searches for bits
INTEGERS = 64  # integers, comparisons, selections, minima
# loss_cuda.cu: the rows of an iteration, and the columns of a thread; how plan_of cuts the image
LOSS = "loss_kernel<float>"
LOSS_ROWS, LOSS_COLUMNS, LOSS_THREADS, LOSS_BLOCKS = 11, 2, 192, 2
LOSS_STRIP, LOSS_SUM_ROWS, LOSS_EXTRA_ROWS, LOSS_FETCHED_ROWS = 108, 8, 21, 11
LOSS_PASSES = {"LDS.128": 4, "LDS.64": 2, "STS.128": 4, "STS.64": 2}  # all lanes at other places


@dataclass(frozen=True)
class Stage:
    """Work of one stage for an image.

    Attributes:
        bytes: bytes read and written, if every array passes once.
        formula: formula of the bytes, in words.
        instructions: thread instructions, by architecture and class, and FLOPS, ALU and
            WAVEFRONTS; empty where not counted.
    """

    name: str
    formula: str
    bytes: float
    instructions: dict[str, Counter[str]]

    def limits(self, gpu: Gpu) -> dict[str, float]:
        """Return the seconds that each resource of a GPU is busy at least."""
        found = {"memory": self.bytes / gpu.bandwidth}
        if not self.instructions:
            return found
        n, rate = self.instructions[gpu.arch], gpu.multiprocessors * gpu.clock
        found["issue"] = issued(n) / (ISSUED * rate)
        found["special"] = n["MUFU"] / (SPECIAL * rate)
        found["integers"] = n[ALU] / (INTEGERS * rate)
        found["shared"] = n[WAVEFRONTS] / (SHARED * rate)
        return found


def stages(c: ListCounts, costs: Costs) -> list[Stage]:
    """List the stages of a training step with harmonics of degree 3, from the counts of one image.

    Args:
        c: counts of the image.
        costs: result of `kernel_costs`.

    Returns:
        In the order in which they run.
    """
    n, seen, pairs, pixels = c.splats, c.visible, c.pairs, c.pixels
    blend, blend_backward = _blend_stages(c, costs)
    return [
        Stage(
            "project", "44 + 36 a splat", 80 * n, _sum_costs(costs, ("project_kernel<float>", n))
        ),
        Stage("shade", "212 a visible splat, 20 a splat", 212 * seen + 20 * n, {}),
        Stage(
            "bin",
            f"48 + 4·16 + 44 + 56 a splat (4 passes by depth); 12 + 24·{c.tile_passes} + 20 a pair",
            (48 + 4 * 16 + 44 + 56) * n + (12 + 24 * c.tile_passes + 20) * pairs,
            {},
        ),
        blend,
        Stage(
            "loss",
            "12 + 3 + 12 a pixel",
            27 * pixels,
            {g.arch: _times(costs[LOSS][g.arch], loss_numbers(c.size, g)) for g in GPUS},
        ),
        blend_backward,
        Stage(
            "shade backward",
            "236 + 204 a visible splat, 8 + 204 a splat not seen",
            440 * seen + 212 * (n - seen),
            {},
        ),
        Stage(
            "project backward",
            "80 + 44 a splat",
            124 * n,
            _sum_costs(costs, ("project_backward_kernel<float>", n)),
        ),
        Stage("Adam", "59 numbers, 28 each, a visible splat", 59 * 28 * seen, {}),
    ]


def _blend_stages(c: ListCounts, costs: Costs) -> tuple[Stage, Stage]:
    """Return blending and its backward pass."""
    forward = _sum_costs(
        costs,
        ("forward blend", c.forward_pixels),
        ("forward vote", c.forward_entries),
        ("forward fetch", c.forward_entries),
    )
    backward = _sum_costs(
        costs,
        ("backward pixels", c.backward_pixels),
        ("backward sums", c.chunk_pixels),
        ("backward fetch and write", c.backward_entries),
        ("backward gather", c.pairs_hit),
    )
    n, pairs, pixels = c.splats, c.pairs, c.pixels
    return (
        Stage(
            "blend",
            "56 a splat; 48 an entry looked at, 2 a pair; 20 a pixel",
            56 * n + 48 * c.forward_entries + 2 * pairs + 20 * pixels,
            forward,
        ),
        Stage(
            "blend backward",
            "56 + 56 a splat; 55 an entry looked at, 49 + 49 a pair hit, 2 a pair; 24 a pixel",
            112 * n + 55 * c.backward_entries + 98 * c.pairs_hit + 2 * pairs + 24 * pixels,
            backward,
        ),
    )


def _sum_costs(costs: Costs, *parts: tuple[str, float]) -> dict[str, Counter[str]]:
    """Add the costs of kernels or loops, each run a number of times, by architecture."""
    return {
        arch: sum((_times(costs[name][arch], count) for name, count in parts), start=Counter[str]())
        for arch in costs[parts[0][0]]
    }


def kernel_costs(archs: tuple[str, ...]) -> Costs:
    """Count the thread instructions of kernels and loops.

    Those of the blend loops are per pair, those of the loss per number that a block reads, and
    those of `STRAIGHT` kernels all of their code.

    Args:
        archs: architectures.

    Returns:
        By kernel or loop, then architecture.
    """
    compiled = our_kernels(archs)
    found: Costs = {}
    for loops in loops_of("ours", OURS, compiled):
        for one in loops.counts:
            extra = {FLOPS: one.flops, ALU: one.alu, WAVEFRONTS: one.wavefronts}
            costs = Counter({**one.classes, **extra})
            found.setdefault(f"{loops.direction} {one.phase.name}", {})[loops.arch] = costs
    for file in compiled:
        wanted = {m: r.kernel for m, r in file.kernels.items() if r.kernel in (*STRAIGHT, LOSS)}
        code = parse(disassemble(file.cubin, "-sass")) if wanted else {}
        for mangled, kernel in wanted.items():
            function = code[mangled]
            if kernel == LOSS:
                costs = _times(
                    _costs(_loss_rows(function), LOSS_PASSES), 1 / (LOSS_ROWS * LOSS_COLUMNS)
                )
            else:
                costs = _costs(function.instructions, {})
            found.setdefault(kernel, {})[file.arch] = costs
    return found


def loss_numbers(size: tuple[int, int], gpu: Gpu) -> int:
    """Count the numbers of an image that the blocks of the loss read, for their neighbours too.

    Args:
        size: width and height of the image.
        gpu: the number of blocks it runs at a time determines how the image is cut (`plan_of`).

    Returns:
        Numbers of all threads, for rows of which more is done than to fetch them.
    """
    strips, places = math.ceil(size[0] / LOSS_STRIP), gpu.multiprocessors * LOSS_BLOCKS
    cuts = []
    for waves in range(1, 5):
        bands = max(waves * places // strips, 1)
        rows = LOSS_SUM_ROWS * math.ceil(size[1] / bands / LOSS_SUM_ROWS)
        needed = math.ceil(size[1] / rows)
        times = math.ceil(needed * strips / places)
        cuts.append((times * (rows + LOSS_EXTRA_ROWS), rows, needed))
    _, rows, bands = min(cuts, key=lambda cut: cut[0])
    worked = rows + LOSS_EXTRA_ROWS - LOSS_FETCHED_ROWS
    return strips * bands * worked * LOSS_THREADS * LOSS_COLUMNS


def _loss_rows(function: Function) -> tuple[Instruction, ...]:
    """Return a thread's code of the loss for the rows of an iteration, without sums every 8 rows.

    A photo of bytes or of floats, a mask or none: the longest way.
    """
    loop = max(function.loops, key=lambda x: len(x.own))
    way = longest_without(function, loop, "F2F")
    if way is None or count_opcode(way, "BAR") != LOSS_ROWS:
        raise ValueError(f"{LOSS}: expected a loop over {LOSS_ROWS} rows with a barrier each")
    return way


def _costs(instructions: tuple[Instruction, ...], passes: dict[str, int]) -> Counter[str]:
    extra = {FLOPS: flops(instructions), ALU: alu(instructions)}
    extra[WAVEFRONTS] = wavefronts(instructions, passes)
    return Counter({**count_by_class(instructions), **extra})


def issued(counts: Counter[str]) -> float:
    """Count the instructions of all classes."""
    return sum(counts[name] for name in CLASSES)


def _times(counts: Counter[str], factor: float) -> Counter[str]:
    return Counter({kind: n * factor for kind, n in counts.items()})


def report(c: ListCounts, found: list[Stage]) -> str:
    """Write two tables in Markdown."""
    text = _HEAD.format(
        nvcc=nvcc_release(), log_scale=LOG_SCALE, **vars(c), width=c.size[0], height=c.size[1]
    )
    for key, words in _COUNTS.items():
        text += f"| {words} | {getattr(c, key):,} |\n"
    text += _STAGES
    head = ["", "bytes", "MB", "GFLOP", "G instructions"]
    head += [f"{gpu.name}: {part}" for gpu in GPUS for part in ("memory", "compute")]
    text += _line(head) + _line(["---"] * len(head))
    sums = [0.0] * len(GPUS)
    for stage in found:
        cells = [stage.name, stage.formula, f"{stage.bytes / 1e6:.0f}"]
        n = stage.instructions.get(GPUS[-1].arch)
        cells += [f"{n[FLOPS] / 1e9:.1f}", f"{issued(n) / 1e9:.1f}"] if n else ["", ""]
        for k, gpu in enumerate(GPUS):
            limits = stage.limits(gpu)
            sums[k] += max(limits.values())
            memory = limits.pop("memory")
            name = max(limits, key=limits.__getitem__, default="")
            cells += [f"{1e6 * memory:.0f}", f"{1e6 * limits[name]:.0f} {name}" if name else ""]
        text += _line(cells)
    ends = ", ".join(f"{1e3 * s:.2f} ms on the {g.name}" for s, g in zip(sums, GPUS, strict=True))
    return text + f"\nThe larger of the two, summed over the stages: {ends}.\n"


_COUNTS = {
    "splats": "splats",
    "visible": "of them visible",
    "pixels": "pixels",
    "pairs": "pairs of splat and tile",
    "forward_entries": "of them looked at forward, before the tile was opaque",
    "backward_entries": "and backward",
    "pairs_hit": "that changed a pixel",
    "forward_pixels": "pairs of splat and pixel forward (8x8 quadrants the ellipse meets)",
    "backward_pixels": "and backward (quadrants that were changed)",
    "chunk_pixels": "and with the idle lanes of sums over less than 8 splats",
    "block_pixels": "of those changed, in 4x4 blocks that were changed",
}
_HEAD = """# Bounds on the time of a step

Written by `python -m tools.cuda_static.roofline --splats {splats} --size {width} {height}`, with
nvcc {nvcc}. The scene is made as the workload W3 of `benchmarks/render/workloads.py`: random splats
in a unit cube before the camera, mean logarithm of the scales {log_scale}. Pairs are counted on the
CPU backend. Nothing here was measured on a GPU.

| count | |
| --- | --- |
"""
_STAGES = """
Bytes are those of the arrays, each passed once, with nothing kept in the L2 cache. Instructions are
those of threads: for blending per pair, from the loops; for the loss per number that a block goes
through, those for its neighbours too; for projection the length of its code. Times in microseconds;
*compute* is the busiest of issue slots, the units for special functions and for integers, and
shared memory with shuffles. Where instructions are not counted, memory is taken to bind.

"""


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Bounds on the time of a step on two GPUs.")
    parser.add_argument("--splats", type=int, default=SPLATS)
    parser.add_argument(
        "--size", type=int, nargs=2, default=SIZE, help="width and height of the image"
    )
    parser.add_argument("--markdown", type=Path, help="file to which the tables are also written")
    options = parser.parse_args()
    torch.manual_seed(0)
    workload = scatter("roofline", options.splats, LOG_SCALE, tuple(options.size))
    counts = count_lists(workload)
    text = report(counts, stages(counts, kernel_costs(tuple(gpu.arch for gpu in GPUS))))
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
