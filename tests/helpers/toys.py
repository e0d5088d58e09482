"""The small kernels of tools/emulation/toys.cu, as a Python module and under the sanitizers."""

from __future__ import annotations

import importlib
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

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.emulation import FOLDER

ORDERS = ("forward", "reverse", "random:5")
MODULES = ("toys", "toys-ptx", "toys-ucontext")
Extent = tuple[int, int, int]
RACE, OVERRUN = "data race", "heap-buffer-overflow"


@dataclass(frozen=True)
class Toys:
    """One build of the module."""

    kind: str
    module: ModuleType

    def run(
        self, name: str, values: NDArray, out: NDArray, grid: Extent | int, block: Extent | int
    ) -> NDArray:
        """Launches the kernel called `name` and returns `out`, which it wrote to."""
        sizes = [(x, 1, 1) if isinstance(x, int) else x for x in (grid, block)]
        self.module.run(name, values, out, *sizes)
        return out

    @contextmanager
    def order(self, order: str) -> Iterator[None]:
        """Within, threads and blocks get their turn in that order."""
        self.module.set_order(order)
        try:
            yield
        finally:
            self.module.set_order("forward")


@cache
def load_toys(kind: str) -> Toys:
    """One of `MODULES`, built if it is not up to date; skips without the tools for it."""
    require_tools(kind)
    pytest.importorskip("pybind11", reason="no pybind11 to bind the kernels with")
    path: Path = build_module().build(kind)
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Toys(kind, module)


@cache
def build_module() -> ModuleType:
    """tools/emulation/build.py."""
    if not FOLDER.is_dir():
        pytest.skip(f"no folder {FOLDER}: the emulation is not part of this installation")
    return importlib.import_module("tools.emulation.build")


def require_tools(kind: str) -> None:
    """Skips the running test where `kind` cannot be compiled."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no g++ to compile the CUDA kernels for the CPU with")
    if kind.endswith("ptx") and not build_module().has_nvcc():
        pytest.skip("no nvcc to make PTX of the CUDA kernels with")


def run_program(kind: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Builds a program of `tools/emulation/build.py` and runs it to its end or its first report."""
    require_tools(kind)
    program: Path = build_module().build(kind)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("SIMT_")},
        "TSAN_OPTIONS": "halt_on_error=1 report_signal_unsafe=0",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=0",
    }
    return subprocess.run(
        [str(program), *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def empty(count: int, dtype: type) -> NDArray:
    """An array that is full of numbers which no kernel here writes."""
    return np.full(count, 77, dtype)
