"""Every build of the CPU kernels that this machine can run gives the same images."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from helpers import REPOSITORY
from helpers.backends import require_extension

SCRIPT = REPOSITORY / "tests" / "helpers" / "isa.py"
BEST_SETS = {  # what torch may call the best set of a machine that runs the build
    "portable": None,
    "avx2": ("AVX2", "AVX512"),
    "avx512": ("AVX512",),
}


def run_with(isa: str) -> subprocess.CompletedProcess[str]:
    """`helpers/isa.py` in a process of its own."""
    folders = [str(SCRIPT.parents[2]), str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "SPLATRENDER_ISA": isa,
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("isa", BEST_SETS)
def test_agrees_with_the_reference(isa: str) -> None:
    require_extension()
    best, enough = torch.backends.cpu.get_cpu_capability(), BEST_SETS[isa]
    if enough is not None and best not in enough:
        pytest.skip(f"this machine has {best}, not {isa}")
    done = run_with(isa)
    assert done.returncode == 0 and "agrees" in done.stdout, done.stderr[-2000:]


def test_unknown_set_is_refused() -> None:
    require_extension()
    done = run_with("mmx")
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    for word in ("SPLATRENDER_ISA", "portable", "avx2", "avx512", "mmx"):
        assert word in message
