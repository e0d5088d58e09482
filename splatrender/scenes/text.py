"""Text files as people save them: any line ends, with a byte-order mark or without."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from splatrender.errors import InputError

_LINE_END = re.compile(r"\r\n|\n|\r")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> list[str]:
    """Return the stripped lines of a text file, with blank ones and comments.

    UTF-8, where bytes that are none survive as surrogates (names of files may have such), or
    UTF-16 after its byte-order mark, as Windows PowerShell writes it.

    Raises:
        InputError: the file cannot be read, or is no UTF-16 in spite of its mark.
    """
    data = read_bytes(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: expected text, got broken UTF-16: {error}") from error
    else:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")
    return [line.strip() for line in _LINE_END.split(text)]


def file_name(text: str) -> str:
    """Return a name from `read_lines` as the file system spells it, also if it is no UTF-8."""
    return os.fsdecode(text.encode("utf-8", errors="surrogateescape"))
