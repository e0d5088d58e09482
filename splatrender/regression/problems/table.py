"""Tables of numbers with named columns, read from .csv files."""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splatrender.errors import InputError

DELIMITERS = ",;\t"
INDEX = "(index)"  # a first column without a name
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
FEWEST_ROWS = 8  # to fit and to measure errors


@dataclass(frozen=True, eq=False)
class Table:
    """Columns that are inputs, and columns to predict.

    Attributes:
        inputs: names of the columns of `x`.
        outputs: names of the columns of `y`.
        x: [n, d] float64.
        y: [n, p] float64.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def read_table(
    path: str | os.PathLike[str], inputs: Sequence[str], outputs: Sequence[str]
) -> Table:
    """Read the named columns of a .csv file with a header line.

    The separator is the one of comma, semicolon and tab that occurs most often in the header. A
    byte-order mark and a first column without a name, where pandas writes its index, are ignored.

    Args:
        path: file in UTF-8.
        inputs: names of the inputs.
        outputs: names of the outputs.

    Returns:
        The columns.

    Raises:
        InputError: the file or a column is missing, a value is not a finite number, a column is
            constant, or there are too few rows; the message names the place.
    """
    names, rows = _read(path)
    wanted = [*inputs, *outputs]
    if not inputs or not outputs:
        raise InputError(
            f"{path}: expected names for --inputs and --outputs out of {', '.join(names)}"
        )
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise InputError(f"{path}: expected every column once, got {twice[0]!r} twice")
    for name in wanted:
        _column(path, names, name)
    if len(rows) < FEWEST_ROWS:
        raise InputError(f"{path}: expected at least {FEWEST_ROWS} rows, got {len(rows)}")
    values = _values(path, names, rows, wanted)
    for name, column in zip(wanted, values.T, strict=True):
        if np.ptp(column) == 0:
            raise InputError(
                f"{path}: column {name!r}: expected values that differ, got {column[0]:g} "
                f"in every row"
            )
    count = len(inputs)
    return Table(tuple(inputs), tuple(outputs), values[:, :count], values[:, count:])


def read_columns(path: str | os.PathLike[str], wanted: Sequence[str]) -> NDArray[np.float64]:
    """Read columns of a .csv file by name, in any order and number of rows.

    Args:
        path: file, as for `read_table`.
        wanted: names of the columns.

    Returns:
        [n, d] values, n >= 1.

    Raises:
        InputError: the file or a column is missing, a value is not a finite number, or there are
            no rows.
    """
    names, rows = _read(path)
    if not rows:
        raise InputError(f"{path}: expected at least 1 row, got none")
    return _values(path, names, rows, wanted)


def _values(
    path: str | os.PathLike[str],
    names: list[str],
    rows: list[tuple[int, list[str]]],
    wanted: Sequence[str],
) -> NDArray[np.float64]:
    columns = [(name, _column(path, names, name)) for name in wanted]
    return np.array(
        [[_number(path, line, name, row[at]) for name, at in columns] for line, row in rows]
    )


def _read(path: str | os.PathLike[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the number and fields of each line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(DELIMITERS, key=header.count)
            names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(i, row) for i, row in enumerate(reader, 2) if any(f.strip() for f in row)]
    except FileNotFoundError:
        raise InputError(f"{path}: expected a .csv file, got none") from None
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a text file of numbers, got: {error}") from error
    if names and not names[0] and any(names):
        names[0] = INDEX
    if not names or not all(names):
        raise InputError(f"{path}: expected a first line with names of columns, got {header!r}")
    if len(names) == 1 and len(names[0].split()) > 1:
        raise InputError(
            f"{path}: expected fields separated by commas, semicolons or tabs, got spaces in the "
            f"first line: {header.strip()[:80]}"
        )
    if all(_is_number(name) for name in names):
        raise InputError(
            f"{path}: expected names of columns in the first line, got numbers: {header.strip()}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: expected different names of columns, got {twice[0]!r} twice")
    for line, row in rows:
        if len(row) != len(names):
            raise InputError(f"{path}: line {line}: expected {len(names)} fields, got {len(row)}")
    return names, rows


def _column(path: str | os.PathLike[str], names: list[str], name: str) -> int:
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise InputError(f"{path}: expected a column {name!r}, got {', '.join(names)}{hint}")


def _number(path: str | os.PathLike[str], line: int, name: str, text: str) -> float:
    value = float(text) if _is_number(text) else math.nan
    if not math.isfinite(value):
        content = repr(text.strip()) if text.strip() else "nothing"
        if DECIMAL_COMMA.fullmatch(text.strip()):
            content += " (a decimal comma: write numbers with a point, as in 1.5)"
        raise InputError(
            f"{path}: line {line}, column {name!r}: expected a finite number, got {content}"
        )
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
