"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from splatrender.errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends without error.

    The temporary file lies in the same folder (which is made if need be) and ends in the same
    suffix. It reaches the disk before it takes its name, so that a reader, or a crash, sees the
    old file or the new one and never a part. After an error the old file stays.

    Args:
        path: file to write or to replace.

    Yields:
        The path to write to; an empty file is there already.

    Raises:
        InputError: the folder or the file cannot be made.

    Example:
        >>> with atomic_write("out/results.json") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # not tempfile: its files are readable by their owner alone
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise InputError(
            f"{path}: expected a place for a file, found: {error.strerror or error}"
        ) from error
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    _sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: file to write.
        text: its content.

    Raises:
        InputError: the file cannot be made.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON atomically; paths become strings.

    Args:
        path: file to write.
        value: dicts, lists, strings, numbers, booleans, None and paths.

    Raises:
        InputError: the file cannot be made.
    """
    write_text(path, json.dumps(value, indent=2, default=_as_json) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file, in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without.

    Args:
        path: file to read.

    Returns:
        Its value.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())  # bytes: json finds the encoding out
    except FileNotFoundError:
        raise InputError(f"{path}: expected a JSON file, found none") from None
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, found: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, found: {error}") from error


def _as_json(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system lets a folder be opened (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
