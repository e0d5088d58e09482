"""The tables of `cuda_static.py` in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from tools.cuda_static.records import Loops, Row
from tools.cuda_static.sass import CLASSES

TILE_PIXELS, QUADRANT_PIXELS = 256, 64
ATOMICS = "RED/ATOM"
_HEAD = """# What the compiler shows of the CUDA kernels

Written by `python -m tools.cuda_static.cuda_static`, with nvcc {nvcc}; no GPU was involved, and
no time measured. float, three channels, Gaussian response. Other rasterizers are compiled by the
same nvcc with the same flags, from sources that the user names.

"""
_PIXELS = """## Instructions per pair of splat and pixel

What the machine code of the innermost loops has, divided by the pairs that an iteration covers
(`tools/cuda_static/kernel_loops.py` says how many, and why): 32 times the instructions a warp
issues, per pair it handles. All code of a loop counts, whether or not a branch goes around it.

"""
_ENTRIES = """
## Per pair of splat and tile

What a pair costs beside its pixels: to fetch it, to find the pixels it meets, to write or add up
its sums. Bytes are those that loads, stores and atomics ask of global memory; lanes of a warp that
name one address count once. The last two columns add the pixels of the tile: with all {tile} hit,
and with those of one quadrant of 8x8 pixels only. splatrender leaves the other quadrants out.
gsplat's warps of 16x2 pixels all look at the splat, and the half of them that it does not reach
takes the longest way around what a hit costs (*missed*, per pair of splat and pixel).

"""
_KERNELS = """
## Registers, memory, occupancy

Registers per thread; shared memory, static and dynamic together, and spills in bytes; occupancy is
the share of a multiprocessor's threads that fit at once, by `cuda_occupancy.h`. Kernels for double,
which tests use, are left out.

"""


def markdown(loops: list[Loops], rows: list[Row], peers: list[Row], nvcc: str) -> str:
    """Write all tables.

    Args:
        loops: loops of all rasterizers.
        rows, peers: our kernels, and those of others.
        nvcc: release of nvcc.

    Returns:
        The text.
    """
    text = _HEAD.format(nvcc=nvcc) + _PIXELS + _table(*_pixel_table(loops))
    text += _ENTRIES.format(tile=TILE_PIXELS, quadrant=QUADRANT_PIXELS)
    text += _table(*_entry_table(loops)) + _KERNELS + _table(*_kernel_table(rows))
    if peers:
        text += "\n" + _table(*_kernel_table(peers))
    return text


def _pixel_table(loops: list[Loops]) -> tuple[list[str], Iterable[list[str]]]:
    seen = [name for name in CLASSES if any(name in x.per_pixel() for x in loops)]
    rows = []
    for x in _ordered(loops):
        for c in x.counts:
            if c.unit == "pixel" and sum(y.unit == "pixel" for y in x.counts) > 1:
                cells = [_number(c.classes.get(name, 0)) for name in seen]
                rows.append(
                    [
                        x.direction,
                        x.arch,
                        f"{x.rasterizer}: {c.phase.name}",
                        *cells,
                        _number(c.total),
                    ]
                )
        total = x.per_pixel()
        cells = [_number(total.get(name, 0)) for name in seen]
        rows.append(
            [
                x.direction,
                x.arch,
                f"**{x.rasterizer}**",
                *cells,
                f"**{_number(sum(total.values()))}**",
            ]
        )
    return ["", "", "", *seen, "all"], rows


def _entry_table(loops: list[Loops]) -> tuple[list[str], Iterable[list[str]]]:
    rows = []
    for x in _ordered(loops):
        beside, pixel = sum(x.per_entry().values()), sum(x.per_pixel().values())
        parts = "; ".join(f"{c.phase.name} {c.total:.0f}" for c in x.counts if c.unit == "entry")
        # a lane of each warp adds one number: instructions per pair are atomics per 32 pairs
        atomics = x.per_pixel().get(ATOMICS, 0) * TILE_PIXELS / 32
        # One quadrant: ours have no other pixels; warps of two rows have 8 of 16 rows that miss.
        whole = x.rasterizer == "splatrender"
        near = QUADRANT_PIXELS * pixel if whole else TILE_PIXELS / 2 * (pixel + x.missed())
        rows.append(
            [
                x.direction, x.arch, x.rasterizer, f"{beside:.0f} ({parts})", f"{x.bytes():.0f}",
                f"{atomics:.0f}", "" if whole else f"{x.missed():.0f}",
                f"{beside + TILE_PIXELS * pixel:.0f}", f"{beside + near:.0f}",
            ]
        )  # fmt: skip
    head = [
        "",
        "",
        "",
        "instructions beside",
        "bytes",
        "atomics",
        "missed",
        "all pixels",
        "one quadrant",
    ]
    return head, rows


def _kernel_table(rows: list[Row]) -> tuple[list[str], Iterable[list[str]]]:
    archs = list(dict.fromkeys(row.arch for row in rows))
    names = (row.resources.kernel for row in rows)
    kernels = dict.fromkeys(name for name in names if "double" not in name)
    found = {(row.resources.kernel, row.arch): row for row in rows}
    lines = []
    for kernel in kernels:
        here = [found[kernel, arch] for arch in archs]
        r = here[0]
        cells = [f"`{kernel}`", str(r.threads)]
        cells.append(_same(str(x.resources.shared + x.dynamic_shared) for x in here))
        cells.append(_same(str(x.resources.spills) for x in here))
        for x in here:
            cells += [
                str(x.resources.registers),
                f"{x.occupancy.share:.0%} ({x.occupancy.limited_by})",
            ]
        lines.append(cells)
    head = ["kernel", "threads", "shared", "spills"]
    for arch in archs:
        head += [f"registers {arch}", f"occupancy {arch}"]
    return head, lines


def _ordered(loops: list[Loops]) -> list[Loops]:
    return sorted(loops, key=lambda x: (x.direction != "forward", x.arch))


def _same(cells: Iterable[str]) -> str:
    """Return one cell for several architectures: a number, or all of them where they differ."""
    return " / ".join(dict.fromkeys(cells))


def _number(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0") if x else ""


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
