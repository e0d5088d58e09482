"""CUDA kernels that run on the CPU, in place of the CPU's own.

`build.py` compiles them for the CPU, with the host code that calls them on a GPU, into a library
that registers the operators in a namespace of its own. Within `in_place_of_cpu_kernels` the CPU
implementation of every operator of splatrender calls the one of that namespace: schema, autograd,
fake kernels and all Python stay what they are.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

from tools.emulation.build import build

NAMESPACES = {"emulated": "splatrender_emulated", "ptx": "splatrender_ptx"}
MULTIPROCESSORS = 132
ORDERS = {"forward": b"forward", "reverse": b"reverse", "random": b"random:7"}
OPERATORS = (
    "project",
    "project_backward",
    "shade",
    "shade_backward",
    "bin",
    "blend",
    "blend_backward",
    "flow_statistics",
    "photometric_loss",
    "adam_step",
)


@dataclass(frozen=True)
class Emulation:
    """A loaded library.

    Attributes:
        namespace: of its operators.
        library: to set it up, and to count its launches.
    """

    namespace: str
    library: ctypes.CDLL

    def set_order(self, order: str) -> None:
        """Set the order in which the threads of a block run: a key of `ORDERS`."""
        wrong = self.library.simt_set_order(ORDERS[order])
        if wrong is not None:
            raise ValueError(wrong.decode())

    def set_multiprocessors(self, count: int) -> None:
        """Set the number of multiprocessors: some kernels cut their work by it."""
        wrong = self.library.simt_set_multiprocessors(count)
        if wrong is not None:
            raise ValueError(wrong.decode())

    def launches(self) -> int:
        """Return the number of kernels launched so far."""
        return int(self.library.simt_launches())


@cache
def load(kind: str) -> Emulation:
    """Load the library of a kind, "emulated" or "ptx"; build it if it is not up to date."""
    path = str(build(kind))
    torch.ops.load_library(path)
    library = ctypes.CDLL(path)
    library.simt_set_order.restype = ctypes.c_char_p
    library.simt_set_multiprocessors.restype = ctypes.c_char_p
    library.simt_launches.restype = ctypes.c_long
    return Emulation(NAMESPACES[kind], library)


@contextmanager
def in_place_of_cpu_kernels(kind: str, order: str = "forward") -> Iterator[Emulation]:
    """Run emulated CUDA kernels for tensors on the CPU, within the context.

    Args:
        kind: "emulated", the kernels' sources; or "ptx", what nvcc makes of them.
        order: in which the threads of a block run, a key of `ORDERS`.
    """
    emulation = load(kind)
    emulation.set_order(order)
    theirs = getattr(torch.ops, emulation.namespace)
    overrides = torch.library.Library("splatrender", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered")
            for name in OPERATORS:
                overrides.impl(name, getattr(theirs, name).default, "CPU", allow_override=True)
        yield emulation
    finally:
        overrides._destroy()
        emulation.set_order("forward")
        emulation.set_multiprocessors(MULTIPROCESSORS)
