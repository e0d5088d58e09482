"""Handling of Ctrl-C while a command loads its packages, which takes seconds.

A KeyboardInterrupt during an import ends in a traceback, leaves a package half loaded, or is
swallowed. As long as the work has not begun, the process may end at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT


@contextmanager
def stop_at_once() -> Iterator[None]:
    """End the process at the first Ctrl-C, until `loaded` is called or the block ends.

    No effect where Ctrl-C is ignored or has another handler, and outside of the main thread.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(
        signal.SIGINT
    ) in (signal.default_int_handler, signal.SIG_DFL)
    if ours:
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        if ours:
            loaded()


def loaded() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again: from here on there are files to clean up."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the process without an exception, which an import might swallow."""
    with suppress(OSError):  # the terminal may be gone
        os.write(2, b"\nstopped\n")
    os._exit(INTERRUPTED)
