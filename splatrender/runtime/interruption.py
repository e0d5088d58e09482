"""Ctrl-C, SIGTERM and SIGHUP: finish the step, save, and report how to resume."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

# 128 + the signal's number. SIGHUP: the terminal was closed, or the connection lost.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
EXIT_CODES = {getattr(signal, n): 128 + getattr(signal, n) for n in SIGNALS if hasattr(signal, n)}


class Interrupted(SystemExit):
    """A run ended early on request, its state saved; `code` is the exit code of the process."""

    def __init__(self, received: signal.Signals, message: str) -> None:
        super().__init__(EXIT_CODES.get(received, 1))
        self.message = message

    def __str__(self) -> str:
        return self.message


class InterruptionGuard(AbstractContextManager["InterruptionGuard"]):
    """Remember the first SIGINT, SIGTERM or SIGHUP instead of dying of it; a second one kills.

    SIGHUP stays ignored where it is ignored: `nohup` asks for that. Within another thread than
    the main one signals cannot be caught, and the guard does nothing.

    Example:
        >>> with InterruptionGuard() as guard:
        ...     guard.received is None
        True
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptionGuard:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
