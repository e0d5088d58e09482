"""Blocks of a kernel that fit a multiprocessor, by NVIDIA's calculator in CUDA's headers."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.cuda_static.cuda_build import CACHE, find_tool

SOURCE = Path(__file__).resolve().with_name("occupancy.cpp")
_LIMITS = {1: "warps", 2: "registers", 4: "shared memory", 8: "blocks"}


@dataclass(frozen=True)
class Request:
    """Resources of a block: threads, registers per thread, bytes of shared memory."""

    arch: str
    threads: int
    registers: int
    shared: int


@dataclass(frozen=True)
class Occupancy:
    """Blocks on one multiprocessor, the share of its threads that they fill, and their limit."""

    blocks: int
    share: float
    limited_by: str


def occupancies(requests: list[Request]) -> list[Occupancy]:
    """Compute the occupancy of kernels with the calculator.

    Args:
        requests: kernels on architectures.

    Returns:
        One answer each.
    """
    lines = [f"{r.arch.removeprefix('sm_')} {r.threads} {r.registers} {r.shared}" for r in requests]
    done = subprocess.run([_build()], input="\n".join(lines), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"occupancy: {done.stderr.strip()}")
    answers = []
    for request, line in zip(requests, done.stdout.splitlines(), strict=True):
        blocks, most, limits = map(int, line.split())
        names = ", ".join(name for bit, name in _LIMITS.items() if limits & bit)
        answers.append(Occupancy(blocks, blocks * request.threads / most, names))
    return answers


def _build() -> str:
    """Compile the calculator, once per version of its source."""
    nvcc = find_tool("nvcc")
    if nvcc is None:
        raise SystemExit("occupancy: expected nvcc on the PATH or in CUDA_HOME, got none")
    # nvcc itself finds the headers beside it, whatever wrapper is on the PATH
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = CACHE / f"occupancy_{key}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}.tmp")
        command = [nvcc, "-std=c++17", "-O1", "-x", "c++", str(SOURCE), "-o", str(unfinished)]
        subprocess.run(command, check=True)
        os.replace(unfinished, program)
    return str(program)
