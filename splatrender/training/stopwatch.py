"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections import defaultdict

from torch.profiler import ProfilerActivity, profile

KERNEL_STEPS = 20  # iterations in which kernels are timed; the profiler itself costs time


class Stopwatch:
    """CPU time (all threads) by part of a step, and by kernel in the last steps of a run.

    Args:
        enabled: a stopwatch that is not does nothing, at no cost to speak of.
        last: the last iteration of the run.

    Example:
        >>> watch = Stopwatch(enabled=True, last=1000)
        >>> watch.start(1)
        >>> watch.lap("render")
        >>> list(watch.parts())
        ['render']
    """

    def __init__(self, enabled: bool, last: int) -> None:
        self.enabled = enabled
        self._last_iteration = last
        self._steps = 0
        self._spent: dict[str, float] = defaultdict(float)
        self._since = 0.0
        self._profiler: profile | None = None
        self._profiled = 0

    def start(self, iteration: int) -> None:
        """Begin the first part of a step."""
        if not self.enabled:
            return
        if self._profiler is None and iteration > self._last_iteration - KERNEL_STEPS:
            self._profiler = profile(activities=[ProfilerActivity.CPU])
            self._profiler.start()
        self._profiled += self._profiler is not None
        self._steps += 1
        self._since = time.process_time()

    def lap(self, part: str) -> None:
        """End a part, and begin the next."""
        if self.enabled:
            now = time.process_time()
            self._spent[part] += now - self._since
            self._since = now

    def parts(self) -> dict[str, float]:
        """CPU milliseconds per step, by part."""
        return {part: 1e3 * spent / max(1, self._steps) for part, spent in self._spent.items()}

    def kernels(self) -> dict[str, float]:
        """Milliseconds per step, by kernel, in the last steps; ends the measurement."""
        if self._profiler is None:
            return {}
        self._profiler.stop()
        events = self._profiler.key_averages()
        self._profiler = None
        prefix = "splatrender::"
        return {
            event.key.removeprefix(prefix): event.cpu_time_total / 1e3 / self._profiled
            for event in sorted(events, key=lambda event: -event.cpu_time_total)
            if event.key.startswith(prefix)
        }

    def report(self) -> str:
        """Both tables as text."""
        lines = ["CPU time per step"]
        lines += [f"{name:>24} {spent:8.2f} ms" for name, spent in self.parts().items()]
        lines.append(f"Time of kernels per step, in the last {self._profiled} steps")
        lines += [f"{name:>24} {spent:8.2f} ms" for name, spent in self.kernels().items()]
        return "\n".join(lines)
