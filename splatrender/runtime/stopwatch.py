"""Time of a step, by part and by kernel."""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from splatrender.runtime.devices import synchronize

KERNEL_STEPS = 20  # iterations in which kernels are timed; the profiler itself costs time


class Stopwatch:
    """Time by part of a step, and by kernel in the last steps of a run.

    On a CPU it is CPU time (all threads). On a GPU it is time on the clock; there every part waits
    until the GPU is done, so that steps take longer than without a stopwatch.

    Args:
        enabled: a stopwatch that is not does nothing, at no cost to speak of.
        last: the last iteration of the run.
        device: where the steps run.

    Example:
        >>> watch = Stopwatch(enabled=True, last=1000)
        >>> watch.start(1)
        >>> watch.lap("render")
        >>> list(watch.parts())
        ['render']
    """

    def __init__(self, enabled: bool, last: int, device: torch.device | None = None) -> None:
        self.enabled = enabled
        self._device = device or torch.device("cpu")
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
            activities = [ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profiler = profile(activities=activities)
            self._profiler.start()
        self._profiled += self._profiler is not None
        self._steps += 1
        self._since = self._now()

    def lap(self, part: str) -> None:
        """End a part, and begin the next."""
        if self.enabled:
            now = self._now()
            self._spent[part] += now - self._since
            self._since = now

    def parts(self) -> dict[str, float]:
        """Return milliseconds per step, by part."""
        return {part: 1e3 * spent / max(1, self._steps) for part, spent in self._spent.items()}

    def kernels(self) -> dict[str, float]:
        """Return milliseconds per step, by kernel, in the last steps; end the measurement."""
        if self._profiler is None:
            return {}
        self._profiler.stop()
        on_gpu = self._device.type == "cuda"
        prefix = "splatrender::"
        spent = {
            event.key.removeprefix(prefix): event.device_time_total
            if on_gpu
            else event.cpu_time_total
            for event in self._profiler.key_averages()
            if event.key.startswith(prefix)
        }
        self._profiler = None
        in_order = sorted(spent.items(), key=lambda item: -item[1])
        return {name: total / 1e3 / self._profiled for name, total in in_order}

    def report(self) -> str:
        """Return both tables as text."""
        lines = ["Time per step" if self._device.type == "cuda" else "CPU time per step"]
        lines += [f"{name:>24} {spent:8.2f} ms" for name, spent in self.parts().items()]
        lines.append(f"Time of kernels per step, in the last {self._profiled} steps")
        lines += [f"{name:>24} {spent:8.2f} ms" for name, spent in self.kernels().items()]
        return "\n".join(lines)

    def _now(self) -> float:
        """Return the seconds on the clock."""
        if self._device.type == "cpu":
            return time.process_time()
        synchronize(self._device)
        return time.perf_counter()
