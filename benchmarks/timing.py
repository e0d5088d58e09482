"""A stopwatch with two hands: time on the wall, and CPU time of all threads."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

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

    Example:
        >>> laps = Laps()
        >>> laps.measure("sum", sum, [1, 2, 3])
        6
        >>> list(laps.medians())
        ['sum']
    """

    def __init__(self) -> None:
        self._spent: dict[str, list[Spent]] = defaultdict(list)

    def measure(self, part: str, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function and note how long it took as one more lap of `part`."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*args)
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
