"""The executors that every test body runs on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import splatrender

BACKENDS = ("reference", "cpu")
KERNELS = BACKENDS[1:]
STAGES = {"project": "project", "shade": "shade", "bin": "bin_splats", "blend": "blend"}


@dataclass(frozen=True)
class Backend:
    """The four stages of one executor, and the device that its tensors live on."""

    name: str
    device: str
    project: Callable[..., Any]
    shade: Callable[..., Any]
    bin_splats: Callable[..., Any]
    blend: Callable[..., Any]


def load_backend(name: str) -> Backend:
    """The backend called `name`; skips or fails the running test without the extension."""
    if name == "reference":
        package = "splatrender.reference"
    else:
        require_extension()
        package = "splatrender.operators"
    stages = {
        function: getattr(importlib.import_module(f"{package}.{module}"), function)
        for module, function in STAGES.items()
    }
    return Backend(name, "cuda" if name == "cuda" else "cpu", **stages)


def require_extension() -> None:
    """Fails the running test without the extension, or skips it where that is allowed."""
    folder = Path(splatrender.__path__[0])
    if any(folder.glob("_C*.so")) or any(folder.glob("_C*.pyd")):
        return
    message = f"the compiled extension is not built: no _C*.so in {folder}"
    if os.environ.get("SPLATRENDER_ALLOW_MISSING_EXTENSION") == "1":
        pytest.skip(message)
    pytest.fail(message + " (SPLATRENDER_ALLOW_MISSING_EXTENSION=1 skips instead)")
