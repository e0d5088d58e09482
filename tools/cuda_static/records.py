"""Records of the report: a row per kernel, loops per rasterizer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tools.cuda_static.cuda_build import Resources
from tools.cuda_static.kernel_loops import Count
from tools.cuda_static.occupancy import Occupancy
from tools.cuda_static.sass import CLASSES


@dataclass(frozen=True)
class Row:
    """Resources, block size and occupancy of one kernel on one architecture."""

    arch: str
    resources: Resources
    threads: int
    dynamic_shared: int
    occupancy: Occupancy


@dataclass(frozen=True)
class Loops:
    """The loops of one rasterizer in one direction on one architecture."""

    rasterizer: str
    direction: str
    arch: str
    counts: tuple[Count, ...]

    def per_pixel(self) -> dict[str, float]:
        """Return the thread instructions per pair of splat and pixel, by class."""
        return self._sum("pixel")

    def per_entry(self) -> dict[str, float]:
        """Return the thread instructions per pair of splat and tile beside its pixels."""
        return self._sum("entry")

    def flops(self, unit: str) -> float:
        """Return the floating-point operations per pair of splat and pixel, or per 'entry'."""
        return sum(c.flops for c in self.counts if c.unit == unit)

    def missed(self) -> float:
        """Return the thread instructions per pair of a warp none of whose pixels is changed."""
        return sum(c.missed for c in self.counts if c.unit == "pixel")

    def bytes(self) -> float:
        """Return the bytes of global memory that a pair of splat and tile moves."""
        return sum(c.bytes for c in self.counts)

    def _sum(self, unit: str) -> dict[str, float]:
        total: Counter[str] = Counter()
        for c in self.counts:
            if c.unit == unit:
                total.update(c.classes)
        return {name: total[name] for name in CLASSES if total[name]}
