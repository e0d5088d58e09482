"""Exceptions whose message is for the user: one sentence, without a traceback."""

from __future__ import annotations

import os


class InputError(ValueError):
    """Bad input, told in one sentence: which file, field or argument, what was expected and found.

    The command line prints the message alone and exits with code 2.
    """


class InputWarning(UserWarning):
    """Input that is possible but hardly meant: which argument, and the likely mistake."""


class WriteError(OSError):
    """A file could not be written: the disk is full, a quota is used up, a network disk is gone.

    The file that was there before is intact. The command line prints the message alone and exits
    with code 74 (EX_IOERR of sysexits.h).

    Args:
        path: the file.
        reason: what the system reports, for instance "No space left on device".
        hint: what is kept and what to do, appended to the message.

    Example:
        >>> print(WriteError("out/a.png", "No space left on device"))
        out/a.png: expected to write this file, got: No space left on device
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, hint: str = "") -> None:
        self.path, self.reason, self.hint = os.fspath(path), reason, hint
        super().__init__(f"{self.path}: expected to write this file, got: {reason}{hint}")
