"""Small kernels of tools/emulation/toys.cu, as a Python module and under the sanitizers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from tools.emulation import build

ORDERS = ("forward", "reverse", "random:5")
MODULES = ("toys", "toys-ptx", "toys-ucontext")
Array = NDArray[Any]
Extent = tuple[int, int, int]
RACE, OVERRUN = "data race", "heap-buffer-overflow"


@dataclass(frozen=True)
class Toys:
    """Build of the module."""

    kind: str
    module: ModuleType

    def run(
        self, name: str, values: Array, out: Array, grid: Extent | int, block: Extent | int
    ) -> Array:
        """Launch the kernel called `name` and return `out`, to which it wrote."""
        sizes = [(x, 1, 1) if isinstance(x, int) else x for x in (grid, block)]
        self.module.run(name, values, out, *sizes)
        return out

    @contextmanager
    def order(self, order: str) -> Iterator[None]:
        """Run threads and blocks in that order."""
        self.module.set_order(order)
        try:
            yield
        finally:
            self.module.set_order("forward")


@cache
def load_toys(kind: str) -> Toys:
    """Load one of `MODULES`, built if it is not up to date; skip without the tools for it."""
    require_tools(kind)
    pytest.importorskip("pybind11", reason="no pybind11 to bind the kernels with")
    path: Path = build.build(kind)
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Toys(kind, module)


def require_tools(kind: str) -> None:
    """Skip the running test where `kind` cannot be compiled."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no g++ to compile the CUDA kernels for the CPU with")
    if kind.endswith("ptx") and not build.has_nvcc():
        pytest.skip("no nvcc to make PTX of the CUDA kernels with")


def run_program(kind: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Build a program of `tools/emulation/build.py` and run it to its end or first report."""
    require_tools(kind)
    program: Path = build.build(kind)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("SIMT_")},
        "TSAN_OPTIONS": "halt_on_error=1 report_signal_unsafe=0",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=0",
    }
    return subprocess.run(
        [str(program), *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def empty(count: int, dtype: DTypeLike) -> Array:
    """Return an array full of a number that no kernel here writes."""
    return np.full(count, 77, dtype)
