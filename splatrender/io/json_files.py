"""JSON that every reader accepts: numbers that JSON lacks become null and a word.

An infinite PSNR is written as `"psnr": null, "psnr_is": "infinite"`. Other words are
"minus infinite" and "not a number".
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from splatrender.errors import InputError
from splatrender.io.atomic import write_text


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON in ASCII; infinite numbers and NaN become null and a word.

    Args:
        value: dicts, lists, strings, numbers, booleans, None, and paths as strings.
        indent: spaces of a level; None for one line.

    Returns:
        The text, without a newline at its end.

    Example:
        >>> json_text({"psnr": float("inf"), "views": [1.5, float("nan")]})
        '{"psnr": null, "psnr_is": "infinite", "views": [1.5, null]}'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON atomically, see `json_text`.

    Args:
        path: file to write.
        value: dicts, lists, strings, numbers, booleans, None, and paths as strings.

    Raises:
        InputError: the file cannot be made.
        WriteError: the disk does not take it.
    """
    write_text(path, json_text(value, indent=2) + "\n")


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
        raise InputError(f"{path}: expected a JSON file, got none") from None
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, got: {error}") from error


def _plain(value: Any) -> Any:
    """Return the value in the types of JSON."""
    if isinstance(value, dict):
        plain: dict[Any, Any] = {}
        for key, item in value.items():
            plain[key] = _plain(item)
            if isinstance(item, float) and not math.isfinite(item):
                plain[f"{key}_is"] = _word(item)
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _word(number: float) -> str:
    if math.isnan(number):
        return "not a number"
    return "infinite" if number > 0 else "minus infinite"
