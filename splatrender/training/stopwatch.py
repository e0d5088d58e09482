"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections import defaultdict


class Stopwatch:
    """CPU time (all threads) by part of a step.

    Args:
        enabled: a stopwatch that is not does nothing, at no cost to speak of.

    Example:
        >>> watch = Stopwatch(enabled=True)
        >>> watch.start()
        >>> watch.lap("render")
        >>> list(watch.table(steps=1))
        ['render']
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._spent: dict[str, float] = defaultdict(float)
        self._last = 0.0

    def start(self) -> None:
        """Begin the first part of a step."""
        if self.enabled:
            self._last = time.process_time()

    def lap(self, part: str) -> None:
        """End a part, and begin the next."""
        if self.enabled:
            now = time.process_time()
            self._spent[part] += now - self._last
            self._last = now

    def table(self, steps: int) -> dict[str, float]:
        """Milliseconds per step, by part."""
        return {part: 1e3 * spent / max(1, steps) for part, spent in self._spent.items()}
