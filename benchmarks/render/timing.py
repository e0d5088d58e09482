"""A stopwatch with two hands: time on the wall, and CPU time of all threads."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spent:
    """Milliseconds on the wall and of CPU time."""

    wall: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)


class Laps:
    """Times of named parts, each measured any number of times.

    Args:
        synchronize: called before the clocks are read: waits for a GPU.

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
        """Call a function and note how long it took as one more lap of `part`."""
        self._synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*args)
        self._synchronize()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self._spent[part].append(Spent(1e3 * wall, 1e3 * cpu))
        return result

    def medians(self) -> dict[str, Spent]:
        """The median lap of every part."""
        return {
            part: Spent(median(s.wall for s in laps), median(s.cpu for s in laps))
            for part, laps in self._spent.items()
        }

    def total(self, part: str) -> Spent:
        """The sum of all laps of a part."""
        return sum(self._spent[part], Spent(0.0, 0.0))


class EventLaps(Laps):
    """Laps of work that a GPU is told to do, by the GPU's own clock and without waiting for it.

    What the GPU idles between two kernels counts. Both hands of the watch show the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def measure(self, part: str, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function, and have the GPU note when it begins and ends with it."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = function(*args)
        end.record()
        self._running.append((part, begin, end))
        return result

    def medians(self) -> dict[str, Spent]:
        """The median lap of every part."""
        torch.cuda.synchronize()
        for part, begin, end in self._running:
            ms = begin.elapsed_time(end)
            self._spent[part].append(Spent(ms, ms))
        self._running.clear()
        return super().medians()
