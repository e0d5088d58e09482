"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import REPOSITORY
from helpers.backends import (
    BACKENDS,
    KERNELS,
    KERNELS_IN_ANY_ORDER,
    Backend,
    is_built,
    missing_for_cuda,
    opened_backend,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("cuda")]
    missing = missing_for_cuda() if on_gpu and is_built() else []
    for item in on_gpu:
        if missing:
            item.add_marker(pytest.mark.skip(reason=" and ".join(missing)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report all skips for lack of a GPU in one line of the summary."""
    report = yield
    if report.skipped and item.get_closest_marker("cuda") and isinstance(report.longrepr, tuple):
        report.longrepr = (__file__, 0, report.longrepr[2])
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a test whose fixtures need a package that is not installed."""
    with _skips_without_packages():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a test that needs a package that is not installed."""
    with _skips_without_packages():
        return (yield)


@contextmanager
def _skips_without_packages() -> Iterator[None]:
    """Turn the package's error on a missing dependency into a skip with its message."""
    try:
        yield
    except ValueError as error:  # an InputError; the package is not imported here
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and _is_missing(cause.name):
            pytest.skip(str(error))
        raise


def _is_missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except (ImportError, ValueError):
        return True


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Yield each executor of the stages, the reference included."""
    with opened_backend(request.param) as opened:
        yield opened


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Yield each compiled executor, to be compared with the reference."""
    with opened_backend(request.param) as opened:
        yield opened


@pytest.fixture(params=KERNELS_IN_ANY_ORDER)
def kernel_in_any_order(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Yield as `kernel` does, the emulated one with several orders of its threads."""
    with opened_backend(request.param) as opened:
        yield opened


@pytest.fixture
def cpu_kernel() -> Iterator[Backend]:
    """Yield the CPU's kernels, which alone have a number of threads."""
    with opened_backend("cpu") as opened:
        yield opened


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real scenes and checkpoints, or skip the test without it."""
    folder = Path(os.environ.get("SPLATRENDER_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder} (set SPLATRENDER_SHARED to its path)")
    return folder


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Seed torch before every test."""
    torch.manual_seed(0)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Restore the number of threads that a test changes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
