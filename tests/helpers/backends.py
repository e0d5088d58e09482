"""Executors on which every test body runs.

A body makes its tensors on the CPU and passes them to the stages of a `Backend`. This module
provides what the backend needs: another device, or other kernels behind the same operators.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import helpers.emulation
import splatrender
from helpers import flat

EMULATED = "cuda-emulated-forward"
ANY_ORDER = (EMULATED, "cuda-emulated-reverse", "cuda-emulated-random")
"""CUDA kernels on a CPU, with the threads of a block run in that order."""

PTX = "cuda-ptx"
"""CUDA kernels on a CPU, from the PTX that nvcc makes of them."""

CUDA = pytest.param("cuda", marks=pytest.mark.cuda)
KERNELS = ("cpu", EMULATED, PTX, CUDA)
KERNELS_IN_ANY_ORDER = ("cpu", *ANY_ORDER, PTX, CUDA)
BACKENDS = ("reference", *KERNELS)
STAGES = {
    "project": "project",
    "shade": "shade",
    "bin": "bin",
    "blend": "blend",
    "photometric_loss": "loss",
    "adam_step": "adam",
    "rasterize": "render",
}


@dataclass(frozen=True)
class Backend:
    """Stages of one executor, and functions that are built on them.

    `project`, `bin` and `blend` take the flat arguments of their op schemas, see `helpers.flat`.

    Attributes:
        name: Entry of `BACKENDS`.
        device: Device of the operators' own tensors. The stages take tensors from anywhere, and
            return theirs on the device of the first argument.
    """

    name: str
    device: str
    project: Callable[..., Any]
    shade: Callable[..., Any]
    bin: Callable[..., Any]
    blend: Callable[..., Any]
    photometric_loss: Callable[..., Any]
    adam_step: Callable[..., Any]
    rasterize: Callable[..., Any]


@contextmanager
def opened_backend(name: str) -> Iterator[Backend]:
    """Open the backend called `name`; skip or fail the running test where it cannot run."""
    if name == "reference":
        yield _stages(name, "splatrender.reference")
        return
    require_extension()
    backend = _stages(name, "splatrender.operators")
    if name == "cpu":
        yield backend
    elif name == "cuda":
        yield _on_cuda(backend)
    else:
        with helpers.emulation.in_place_of_cpu_kernels(name):
            yield backend


def _stages(name: str, package: str) -> Backend:
    stages = {
        function: getattr(importlib.import_module(f"{package}.{module}"), function)
        for function, module in STAGES.items()
    }
    adapters: dict[str, Callable[..., Any]] = {
        "project": flat.project,
        "bin": flat.bin,
        "blend": flat.blend,
    }
    flattened = {stage: flat.flattened(adapt, stages[stage]) for stage, adapt in adapters.items()}
    return Backend(name, "cpu", **{**stages, **flattened})


def _on_cuda(backend: Backend) -> Backend:
    stages: dict[str, Any] = {name: _sent_to_cuda(getattr(backend, name)) for name in STAGES}
    stages["adam_step"] = _with_copies_back(backend.adam_step)
    return replace(backend, device="cuda", **stages)


def there(value: Any, device: str | torch.device) -> Any:
    """Move a tensor to a device, with its strides and its graph; return anything else unchanged."""
    if not isinstance(value, Tensor) or value.is_meta:
        return value
    moved = value.to(device)
    if moved.stride() == value.stride() or value.requires_grad or 0 in value.stride():
        return moved
    return torch.empty_strided(
        value.size(), value.stride(), dtype=value.dtype, device=device
    ).copy_(value)


def _back(result: Any, device: torch.device) -> Any:
    """Move tensors, and tuples and dataclasses of them, to another device."""
    if isinstance(result, Tensor):
        return result.to(device)
    if isinstance(result, tuple):
        return tuple(_back(part, device) for part in result)
    if is_dataclass(result) and not isinstance(result, type):
        parts = {field.name: _back(getattr(result, field.name), device) for field in fields(result)}
        return replace(result, **parts)
    return result


def _sent_to_cuda(stage: Callable[..., Any]) -> Callable[..., Any]:
    """Make a stage that moves its tensors to the GPU and its results back."""

    @wraps(stage)
    def call(*args: Any, **options: Any) -> Any:
        first = next(value for value in args if isinstance(value, Tensor))
        options = {name: there(value, "cuda") for name, value in options.items()}
        return _back(stage(*(there(value, "cuda") for value in args), **options), first.device)

    return call


def _with_copies_back(step: Callable[..., None]) -> Callable[..., None]:
    """Copy back what Adam changes in place on the GPU."""

    @wraps(step)
    def call(*args: Any, **options: Any) -> None:
        sent = [
            there(value.detach(), "cuda") if isinstance(value, Tensor) else value for value in args
        ]
        step(*sent, **options)
        with torch.no_grad():
            for position in (0, 2, 3, 4):
                args[position].copy_(sent[position])

    return call


def is_built() -> bool:
    """Return True if the extension is built."""
    folder = Path(splatrender.__path__[0])
    return any(folder.glob("_C*.so")) or any(folder.glob("_C*.pyd"))


def require_extension() -> None:
    """Fail the running test without the extension, or skip it where that is allowed."""
    if is_built():
        return
    message = f"the compiled extension is not built: no _C*.so in {splatrender.__path__[0]}"
    if os.environ.get("SPLATRENDER_ALLOW_MISSING_EXTENSION") == "1":
        pytest.skip(message)
    pytest.fail(message + " (SPLATRENDER_ALLOW_MISSING_EXTENSION=1 skips instead)")


def missing_for_cuda() -> list[str]:
    """Return the reasons why the CUDA kernels cannot run; needs the extension."""
    devices = importlib.import_module("splatrender.runtime.devices")
    missing: list[str] = devices.missing_for_cuda()
    return missing
