"""Limits on the size of files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from helpers import REPOSITORY

FILE, FUNCTION = 500, 60  # lines
FOLDERS = ("splatrender", "csrc", "tests", "benchmarks", "tools")
SUFFIXES = (".py", ".cpp", ".h", ".cu", ".cuh")
LONGER = {
    "splatrender/operators/render.py:rasterize": "signature of 3DGS rasterizers, and its docstring",
    "splatrender/operators/flow_statistics.py:flow_statistics": "mostly docstring",
}
"""Files and functions that may be longer, each with the reason."""


def sources() -> Iterator[Path]:
    """Yield the Python and C++ files of the repository."""
    yield from REPOSITORY.glob("*.py")
    for folder in FOLDERS:
        paths = (REPOSITORY / folder).rglob("*")
        yield from (path for path in paths if path.suffix in SUFFIXES)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of lines of each function of a Python file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_and_functions_are_short() -> None:
    long = {}
    for path in sources():
        name = path.relative_to(REPOSITORY).as_posix()
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE:
            long[name] = lines
        if path.suffix == ".py":
            long |= {f"{name}:{f}": length for f, length in functions(path) if length > FUNCTION}
    assert {name: n for name, n in long.items() if name not in LONGER} == {}
    assert LONGER.keys() <= long.keys()  # an entry goes when it is no longer needed
