"""The progress of long work on stderr: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from tqdm import tqdm

LINES = 20  # of a log: one every 5 %
FIGURES_INTERVAL = 10  # steps between updates of the figures behind the bar


class Progress(AbstractContextManager["Progress"]):
    """A bar where stderr is a terminal; otherwise a line every 5 %; nothing if `quiet`.

    A terminal that was closed, or a pipe that nobody reads, does not disturb the work.

    Args:
        total: number of steps.
        done: steps that were done before.
        unit: of a step.
        title: of the work.
        quiet: show nothing.

    Example:
        >>> with Progress(100, quiet=True) as progress:
        ...     progress.update(lambda: "loss 0.1")
    """

    def __init__(
        self, total: int, done: int = 0, unit: str = "it", title: str = "", quiet: bool = False
    ) -> None:
        self.total, self.done = total, done
        self._unit, self._title, self._quiet = unit, title, quiet
        self._first, self._start = done, time.monotonic()
        self._bar: Any = None
        if not quiet and _is_terminal():
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=title or None,
                unit=unit,
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()

    def update(self, figures: Callable[[], str]) -> None:
        """Count a step.

        Args:
            figures: words to show behind the count; called when they are shown.
        """
        if self.done >= self.total:
            return
        self.done += 1
        if self._quiet:
            return
        with suppress(OSError):
            if self._bar is not None:
                if self.total < 100 or self.done % FIGURES_INTERVAL == 0:
                    self._bar.set_postfix_str(figures(), refresh=False)
                self._bar.update()
            elif LINES * self.done // self.total > LINES * (self.done - 1) // self.total:
                print(self._line(figures()), file=sys.stderr, flush=True)

    def write(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._quiet:
            return
        with suppress(OSError):
            if self._bar is not None:
                self._bar.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr, flush=True)

    def _line(self, figures: str) -> str:
        passed = time.monotonic() - self._start
        left = passed / (self.done - self._first) * (self.total - self.done)
        clock = tqdm.format_interval
        title = f"{self._title}: " if self._title else ""
        share = f"{100 * self.done // self.total} %"
        return (
            f"{title}{self.done}/{self.total} {self._unit} ({share}), {figures}; "
            f"{clock(passed)} passed, {clock(left)} left"
        )


def _is_terminal() -> bool:
    """Return true if stderr is a terminal; false if there is none, or it is closed."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
