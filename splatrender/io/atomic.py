"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splatrender.errors import InputError, WriteError

# Errors of a wrong place, to be fixed by naming another. All others are of the disk.
WRONG_PLACE = {
    errno.EACCES,
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
# Names of temporary files: stem and suffix of the file that they become.
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.[^.]*|)", re.DOTALL)
PROBE = bytes(1 << 20)  # more than what is left of a disk on which a write just failed


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends without error.

    The temporary file is in the same folder (which is made if need be) and ends in the same
    suffix. It reaches the disk before it takes its name: a reader, or a crash, sees the old
    file or the new one and never a part. After an error the old file stays.

    Args:
        path: file to write or to replace.

    Yields:
        The path to write to; an empty file is there already.

    Raises:
        InputError: the place is no place for a file: a folder, no right to write there.
        WriteError: the disk is full, or does not take the file for another reason; also for
            every OSError that the block raises.

    Example:
        >>> with atomic_write("out/results.json") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # not tempfile: its files are readable by their owner alone
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise place_error(path, error) from error
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(path, _reason(error, temporary)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def place_error(path: Path, error: OSError) -> InputError | WriteError:
    """Return the error for a file or folder that cannot be made.

    Args:
        path: the file or folder.
        error: what the system reported.

    Returns:
        An InputError if another place helps, a WriteError if the disk is at fault.
    """
    reason = error.strerror or str(error)
    if error.errno in WRONG_PLACE:
        return InputError(f"{path}: expected a place for a file, got: {reason}")
    return WriteError(path, reason)


def _reason(error: OSError, temporary: Path) -> str:
    """Return the system's words for a write that failed.

    Some writers (numpy's, ffmpeg's) report no reason: another write shows it.
    """
    if error.errno not in (None, errno.EPIPE) and error.strerror:
        return error.strerror
    try:
        with open(temporary, "ab") as file:
            file.write(PROBE)
            os.fsync(file.fileno())
    except OSError as found:
        return found.strerror or str(found)
    return str(error).splitlines()[0] if str(error) else "the write failed"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: file to write.
        text: its content.

    Raises:
        InputError: the file cannot be made.
        WriteError: the disk does not take it.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system lets a folder be opened (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
