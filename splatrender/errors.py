"""Exceptions whose message is for the user: one sentence, without a traceback."""

from __future__ import annotations

import os


class InputError(ValueError):
    """Bad input: one sentence with the file, field or argument, the expected and the actual value.

    The command line prints the message alone and exits with code 2.
    """


class InputWarning(UserWarning):
    """Input that is valid but probably a mistake: the argument, and the likely mistake."""


class WriteError(OSError):
    """A file could not be written: the disk is full, a quota is used up, a network disk is gone.

    The file that was there before is intact. The command line prints the message alone and exits
    with code 74 (EX_IOERR of sysexits.h).

    Args:
        path: the file.
        reason: message of the system, for instance "No space left on device".
        hint: remaining files and the remedy, appended to the message.

    Example:
        >>> print(WriteError("out/a.png", "No space left on device"))
        out/a.png: expected to write this file, got: No space left on device
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, hint: str = "") -> None:
        self.path, self.reason, self.hint = os.fspath(path), reason, hint
        super().__init__(f"{self.path}: expected to write this file, got: {reason}{hint}")
