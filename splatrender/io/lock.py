"""A folder for one process at a time."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from splatrender.errors import InputError
from splatrender.io.atomic import place_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "run.lock"
TAKEN = {errno.EAGAIN, errno.EACCES}  # what flock reports of a file that another process has


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, until the block ends.

    The file run.lock in it names process and host. The system frees the lock of a process that
    died, and the next one takes it over; where a lock is of another host, the system of this
    one cannot know, and the user has to remove the file. A folder that was made and is still empty
    at the end is removed.

    Args:
        folder: the folder.

    Raises:
        InputError: another process holds it, or nothing can be written there.
        WriteError: the disk does not take the file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to write to, got a file")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open(path)
    except OSError as error:
        raise place_error(folder, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()


def _open(path: Path) -> int:
    """Return a handle of the lock file, which holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            alone = _lock(handle)
            holder = _holder(handle)
            if not _is_free(alone, holder):
                raise InputError(_refusal(path, holder))
            if not _is_there(path, handle):  # its holder removed it in between
                os.close(handle)
                continue
            os.ftruncate(handle, 0)
            text = json.dumps({"pid": os.getpid(), "host": platform.node()})
            os.pwrite(handle, text.encode(), 0)
            return handle
        except BaseException:
            os.close(handle)
            raise


def _lock(handle: int) -> bool | None:
    """Try to lock; return true on success, None where the file system knows no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in TAKEN else None
    return True


def _holder(handle: int) -> dict[str, Any]:
    """Return process and host as the lock file names them; empty if it names none."""
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_free(alone: bool | None, holder: dict[str, Any]) -> bool:
    """Return true if nobody else is at work."""
    if alone is False:
        return False
    if not holder:
        return True
    if holder.get("host") != platform.node():
        return False
    return alone is True or not _is_alive(holder.get("pid"))


def _is_alive(pid: Any) -> bool:
    """Return true if a process of this host runs, or if that is unknown."""
    if os.name != "posix" or not isinstance(pid, int) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _is_there(path: Path, handle: int) -> bool:
    """Return true if the handle's file is still that of the name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _refusal(path: Path, holder: dict[str, Any]) -> str:
    """Return the message on a folder that is taken."""
    who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
    here = f"{path.parent}: expected no other run in this folder, got {who} at work there"
    if holder.get("host") == platform.node():
        return f"{here}; wait for its end, or choose another folder"
    return f"{here}; if it has ended, remove {path}"
