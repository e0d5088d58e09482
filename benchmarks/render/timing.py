"""A stopwatch with two hands: elapsed time, and CPU time of all threads."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")
STAGES = ("project", "shade", "bin", "blend")
BACKWARD = ("blend_backward", "shade_backward", "project_backward")
SUMS = {"forward": STAGES, "backward": BACKWARD, "forward + backward": (*STAGES, *BACKWARD)}
ROWS = (*STAGES, "forward", *BACKWARD, "backward", "forward + backward")
"""Stages and their sums, in the order in which tables show them."""


@dataclass(frozen=True)
class Spent:
    """Milliseconds of elapsed time and of CPU time."""

    wall: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)


class Laps:
    """Times of named parts, each measured any number of times.

    Args:
        synchronize: Function called before the clocks are read; waits for a GPU.

    Example:
        >>> laps = Laps()
        >>> laps.measure("sum", sum, [1, 2, 3])
        6
        >>> list(laps.medians())
        ['sum']
    """

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self._synchronize = synchronize
        self._spent: dict[str, list[Spent]] = defaultdict(list)

    def measure(self, part: str, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function and record its time as one more lap of `part`."""
        self._synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*args)
        self._synchronize()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self._spent[part].append(Spent(1e3 * wall, 1e3 * cpu))
        return result

    def medians(self) -> dict[str, Spent]:
        """Return the median lap of every part."""
        return {
            part: Spent(median(s.wall for s in laps), median(s.cpu for s in laps))
            for part, laps in self._spent.items()
        }

    def total(self, part: str) -> Spent:
        """Return the sum of all laps of a part."""
        return sum(self._spent[part], Spent(0.0, 0.0))


class EventLaps(Laps):
    """Laps by the clock of the GPU, recorded without waiting for it.

    Idle time of the GPU between two kernels counts. Both hands of the watch show the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def measure(self, part: str, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function between two events that the GPU records."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = function(*args)
        end.record()
        self._running.append((part, begin, end))
        return result

    def medians(self) -> dict[str, Spent]:
        """Return the median lap of every part."""
        torch.cuda.synchronize()
        for part, begin, end in self._running:
            ms = begin.elapsed_time(end)
            self._spent[part].append(Spent(ms, ms))
        self._running.clear()
        return super().medians()


class Rasterizer(Protocol):
    """A forward and a backward pass that can be timed by stage, and their results.

    Attributes:
        radiance: [H,W,3] of the last forward pass.
        gradients: Gradients of the last backward pass, by the names of the workload's tensors.
    """

    radiance: torch.Tensor
    gradients: dict[str, torch.Tensor]

    def run(self, laps: Laps) -> None:
        """Run both passes and record their laps."""


def time_stages(
    rasterizer: Rasterizer, repeats: int, laps: Laps | None = None
) -> dict[str, dict[str, float]]:
    """Return median milliseconds (`wall`, `cpu`) of each stage, and the sums of each pass."""
    laps = laps or Laps()
    for _ in range(repeats):
        rasterizer.run(laps)
    medians = laps.medians()
    for name, stages in SUMS.items():
        medians[name] = sum((medians[stage] for stage in stages), Spent(0.0, 0.0))
    return {part: asdict(spent) for part, spent in medians.items()}
