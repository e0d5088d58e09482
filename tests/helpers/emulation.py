"""Where the emulated CUDA kernels can be built; see tools/emulation/stand_in.py."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "emulation"


def in_place_of_cpu_kernels(backend: str) -> AbstractContextManager[Any]:
    """Within, the operators of splatrender run emulated CUDA kernels for tensors on the CPU.

    Skips the running test where the kernels cannot be built, and says why.

    Args:
        backend: "cuda-emulated-<order of threads>", or "cuda-ptx" for the PTX of nvcc.
    """
    kind, _, order = backend.removeprefix("cuda-").partition("-")
    if not FOLDER.is_dir():
        pytest.skip(f"no folder {FOLDER}: the emulation is not part of this installation")
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the CUDA kernels for the CPU with")
    if kind == "ptx" and shutil.which("nvcc") is None:
        pytest.skip("no nvcc to make PTX of the CUDA kernels with")
    from tools.emulation.stand_in import in_place_of_cpu_kernels as emulated

    return emulated(kind, order or "forward")
