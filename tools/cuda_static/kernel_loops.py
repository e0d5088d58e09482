"""Work that an iteration of each loop of the blend kernels covers, which machine code lacks.

Everything else in the tables of `cuda_static.py` is counted in the machine code. A changed kernel
must not be counted by an old design: each phase names an opcode and how often one iteration
has it; a body with so many of them is one iteration, with twice as many an unrolled pair, and with
any other number the count ends with an error, as it does when a loop is found that the table lacks.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from tools.cuda_static.sass import (
    CLASSES,
    Function,
    Instruction,
    Loop,
    alu,
    count_opcode,
    flops,
    longest_without,
    wavefronts,
)

MEMORY = ("LDG/STG", "RED/ATOM")


@dataclass(frozen=True)
class Phase:
    """A loop, found as the innermost that has `marker`, or as the one around another phase.

    Attributes:
        name: its work.
        marker: an opcode of the loop's own code; '' for a loop that is found as the one around.
        markers: how many of them one iteration has.
        around: the phase whose loop is directly within this one; '' where the marker is enough.
        pairs: pairs of splat and pixel that one lane handles in an iteration; 0 for bookkeeping.
        entries: entries of a tile's list that one iteration of the whole block handles, for
            bookkeeping.
        threads: threads of a block that execute it.
        uses: how often one of its loads, stores or atomics is run for an entry, by opcode; once if
            absent. All lanes of a warp that name one address count as one.
        passes: passes of a warp through shared memory per load or store, by opcode; 1 if absent.
        contributes: an opcode that an iteration only meets where some pixel of the warp is changed,
            in loops that branch around it.
        why: how the numbers follow from the kernel.
    """

    name: str
    why: str
    marker: str = ""
    markers: int = 1
    around: str = ""
    pairs: int = 0
    entries: int = 0
    threads: int = 0
    uses: dict[str, int] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    contributes: str = ""


@dataclass(frozen=True)
class Design:
    """A kernel of one direction: a pattern of its short name, its phases, dynamic shared memory."""

    pattern: str
    phases: tuple[Phase, ...]
    dynamic_shared: int = 0


@dataclass(frozen=True)
class Count:
    """Thread instructions by class and bytes, of one phase.

    Attributes:
        phase: the phase.
        unit: unit of the counts: 'pixel' for a pair of splat and pixel, 'entry' for a pair of
            splat and tile.
        classes: instructions per unit.
        bytes: bytes of global memory that loads, stores and atomics move, per pair of splat and
            tile.
        flops, alu, wavefronts: floating-point operations, instructions for the unit of integers,
            and passes through shared memory, per unit.
        missed: instructions per pair of a warp none of whose pixels is changed.
    """

    phase: Phase
    unit: str
    classes: dict[str, float]
    bytes: float
    flops: float
    alu: float
    wavefronts: float
    missed: float

    @property
    def total(self) -> float:
        """Number of instructions of all classes."""
        return sum(self.classes.values())


OURS = {
    "forward": (
        Design(
            r"blend_kernel<3, \(Response\)0, false, float>",
            (
                Phase(
                    "blend",
                    "a warp owns 8x8 pixels, a lane two: 2 pairs and 2 powers of two a splat",
                    marker="MUFU.EX2",
                    markers=2,
                    pairs=2,
                ),
                Phase(
                    "vote",
                    "each of 4 warps looks at 32 entries at a time and sums up the blocks they hit",
                    around="blend",
                    entries=32,
                    threads=128,
                ),
                Phase(
                    "fetch",
                    "128 threads fetch 128 entries, one each, and test them against 4 quadrants",
                    around="vote",
                    entries=128,
                    threads=128,
                ),
            ),
        ),
    ),
    "backward": (
        Design(
            r"blend_backward_kernel<3, \(Response\)0, false, float>",
            (
                Phase(
                    "pixels",
                    "as forward: a lane finds (dE, w) of one splat at its two pixels",
                    marker="MUFU.EX2",
                    markers=2,
                    pairs=2,
                ),
                Phase(
                    "sums",
                    "a warp sums 8 splats over 64 pixels, 4 lanes a splat: 16 pairs a lane, then 2 "
                    "shuffles for each of 9 sums",
                    marker="SHFL.BFLY",
                    markers=18,
                    around="pixels",
                    pairs=16,
                    passes={"LDS.64": 2},  # (dE, w) of 32 pairs; a pixel's gradient is read by 8
                ),
                Phase(
                    "fetch and write",
                    "128 threads fetch 32 entries, a quarter of an entry each; then 3 threads an "
                    "entry add the quadrants' sums and write 16 bytes each",
                    around="sums",
                    entries=32,
                    threads=128,
                    uses={"STG.E.128": 3},
                ),
            ),
        ),
        Design(
            r"gather_kernel<3, false, float>",
            (
                Phase(
                    "gather",
                    "one thread a splat goes through its pairs, a flag and nine sums each",
                    marker="LDG.E.U8",
                    entries=1,
                    threads=1,
                ),
            ),
        ),
    ),
}


def count(function: Function, design: Design) -> list[Count]:
    """Count the loops of a kernel, each divided by what an iteration covers.

    Args:
        function: its machine code.
        design: its phases.

    Returns:
        A count per phase, in order.

    Raises:
        ValueError: machine code and design do not fit.
    """
    loops = _match(function, design)
    known = {id(loop) for loop in loops.values()}
    for phase in design.phases:
        strange = [child for child in loops[phase.name].children if id(child) not in known]
        if strange:
            places = ", ".join(f"{child.head:#x}" for child in strange)
            raise ValueError(
                f"{design.pattern}: phase {phase.name}: expected no loops within "
                f"but those of the table, got some at {places}"
            )
    return [_count(function, loops[p.name], p, design) for p in design.phases]


def _match(function: Function, design: Design) -> dict[str, Loop]:
    """Find the loop of each phase."""
    every = function.all_loops()
    loops: dict[str, Loop] = {}
    for phase in design.phases:
        if phase.around:
            found = [x for x in every if loops[phase.around] in x.children]
        else:
            found = [x for x in every if count_opcode(x.own, phase.marker)]
            # of a loop and the one for what is left after unrolling, the unrolled one
            found.sort(key=lambda x: -count_opcode(x.own, phase.marker))
        if not found:
            what = f"around {phase.around}" if phase.around else f"with {phase.marker}"
            raise ValueError(
                f"{design.pattern}: phase {phase.name}: expected a loop {what}, got none"
            )
        loops[phase.name] = found[0]
    return loops


def _count(function: Function, loop: Loop, phase: Phase, design: Design) -> Count:
    """Count one phase's instructions, divided by what the body covers."""
    times = 1.0
    if phase.marker:
        found = count_opcode(loop.own, phase.marker)
        if found % phase.markers:
            raise ValueError(
                f"{design.pattern}: phase {phase.name}: expected a multiple of {phase.markers} "
                f"{phase.marker}, got {found}"
            )
        times = found / phase.markers
    per_pixel = phase.pairs > 0
    share = 1 / (phase.pairs * times) if per_pixel else phase.threads / (phase.entries * times)
    kinds = Counter(i.kind for i in loop.own)
    classes = {kind: kinds[kind] * share for kind in CLASSES if kinds[kind]}
    bytes_moved = sum(_bytes(i, phase.uses) for i in loop.own) / times
    work, missed = flops(loop.own) * share, len(loop.own) * share
    half, shared = alu(loop.own) * share, wavefronts(loop.own, phase.passes) * share
    if phase.contributes:
        way = longest_without(function, loop, phase.contributes)
        if way is None:
            raise ValueError(
                f"{design.pattern}: phase {phase.name}: expected a way around {phase.contributes}"
            )
        missed = len(way) * share
    unit = "pixel" if per_pixel else "entry"
    return Count(phase, unit, classes, bytes_moved, work, half, shared, missed)


def _bytes(instruction: Instruction, uses: dict[str, int]) -> int:
    """Return the bytes of global memory that an instruction moves for an entry."""
    if instruction.kind not in MEMORY:
        return 0
    times = [n for word, n in uses.items() if count_opcode((instruction,), word)]
    return instruction.width * (times[0] if times else 1)


def find_kernel(names: dict[str, str], pattern: str) -> str:
    """Return the mangled name of the one kernel whose short name fits.

    Args:
        names: short names by mangled name.
        pattern: a regular expression of the whole short name.

    Returns:
        The mangled name.
    """
    found = [mangled for mangled, short in names.items() if re.fullmatch(pattern, short)]
    if len(found) != 1:
        raise ValueError(
            f"expected one kernel {pattern}, got {len(found)} of {sorted(names.values())}"
        )
    return found[0]
