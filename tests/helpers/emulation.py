"""Emulated CUDA kernels where they can be built; see tools/emulation/stand_in.py."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tools.emulation import stand_in


def in_place_of_cpu_kernels(backend: str) -> AbstractContextManager[Any]:
    """Run emulated CUDA kernels for tensors on the CPU inside the block.

    Where the kernels cannot be built, the running test is skipped with the reason.

    Args:
        backend: "cuda-emulated-<order of threads>", or "cuda-ptx" for the PTX of nvcc.
    """
    kind, _, order = backend.removeprefix("cuda-").partition("-")
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the CUDA kernels for the CPU with")
    if kind == "ptx" and shutil.which("nvcc") is None:
        pytest.skip("no nvcc to make PTX of the CUDA kernels with")
    return stand_in.in_place_of_cpu_kernels(kind, order or "forward")
