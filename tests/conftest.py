"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers_backends import BACKENDS, KERNELS, Backend, load_backend

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each executor of the stages in turn, the reference included."""
    return load_backend(request.param)


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Backend:
    """Each compiled executor in turn: what is compared with the reference."""
    return load_backend(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real scenes and checkpoints; tests that need it are skipped without it."""
    folder = Path(os.environ.get("SPLATRENDER_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder} (set SPLATRENDER_SHARED to its path)")
    return folder


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from one state of torch's random numbers."""
    torch.manual_seed(0)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Puts the number of threads back that a test changes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
