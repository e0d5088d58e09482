"""Each check catches the mistakes that it is for, and passes the kernel without a mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.toys import (
    MODULES,
    ORDERS,
    OVERRUN,
    RACE,
    Array,
    Toys,
    empty,
    load_toys,
    run_program,
)

SANITIZERS = ("asan", "ubsan", "tsan")
TILE, BLOCKS = 64, 3
VALUES = np.random.default_rng(8).integers(-50, 50, 7 * TILE).astype(np.float32)


@pytest.fixture(params=MODULES)
def toys(request: pytest.FixtureRequest) -> Toys:
    return load_toys(request.param)


@pytest.fixture(params=ORDERS)
def any_order(toys: Toys, request: pytest.FixtureRequest) -> Iterator[Toys]:
    with toys.order(request.param):
        yield toys


def true_sum() -> float:
    """Return the sum of `tile_sums` for any blocks: of integers, therefore exact in any order."""
    tiles = VALUES.reshape(-1, TILE)
    weights = np.arange(1, TILE + 1)
    return float((np.roll(tiles, -1, 1) * weights + np.roll(tiles, 1, 1)).sum())


def sums(toys: Toys, name: str) -> list[float]:
    """Return the kernel's sum in each order of threads."""
    found = []
    for order in ORDERS:
        with toys.order(order):
            out = toys.run(name, VALUES, np.zeros(1, np.float32), BLOCKS, TILE)
        found.append(float(out[0]))
    return found


# ---- nothing wrong -------------------------------------------------------------------------------


def test_correct_kernel_gives_the_sum_in_every_order(toys: Toys) -> None:
    assert sums(toys, "tile_sums") == [true_sum()] * len(ORDERS)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("name", ["tile_sums", "neighbours"])
def test_correct_kernel_passes(sanitizer: str, name: str) -> None:
    done = run_program(f"toys-{sanitizer}", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert math.isfinite(float(done.stdout))


# ---- races ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["read_too_early", "write_too_early"])
def test_missing_barrier_changes_the_sum(toys: Toys, name: str) -> None:
    assert any(found != true_sum() for found in sums(toys, name))


def test_memory_read_before_it_is_written_is_nan(toys: Toys) -> None:
    assert any(math.isnan(found) for found in sums(toys, "read_too_early"))


@pytest.mark.parametrize(
    "name",
    [
        "read_too_early",
        "write_too_early",
        "plain_add",
        "plain_add_of_blocks",
        "neighbours_unordered",
        "neighbours_after_shuffle",
    ],
)
def test_races_are_seen_by_the_thread_sanitizer(name: str) -> None:
    done = run_program("toys-tsan", name)
    assert done.returncode != 0
    assert RACE in done.stderr
    assert "toys.cu" in done.stderr


# ---- memory --------------------------------------------------------------------------------------


def test_global_overrun_is_seen_by_the_address_sanitizer() -> None:
    done = run_program("toys-asan", "global_overrun")
    assert done.returncode != 0
    assert OVERRUN in done.stderr
    assert "toys.cu" in done.stderr


def test_shared_overrun_is_seen_by_the_bounds_sanitizer() -> None:
    done = run_program("toys-ubsan", "shared_overrun")
    assert done.returncode != 0
    assert re.search(r"toys\.cu:\d+:\d+: runtime error: index 64 out of bounds", done.stderr)


def test_misaligned_vector_is_seen_by_the_undefined_behaviour_sanitizer() -> None:
    done = run_program("toys-ubsan", "misaligned")
    assert done.returncode != 0
    assert "misaligned address" in done.stderr


def test_ptx_checks_its_shared_memory_and_alignment() -> None:
    toys = load_toys("toys-ptx")
    with pytest.raises(RuntimeError, match="shared memory overrun: 4 bytes at 256 of 256"):
        toys.run("shared_overrun", VALUES, np.zeros(1, np.float32), BLOCKS, TILE)
    with pytest.raises(RuntimeError, match=r"misaligned address 0x[0-9a-f]+ of 16 bytes"):
        toys.run("misaligned", VALUES, np.zeros(1, np.float32), 1, TILE)


def test_unwritten_shared_memory_is_nan_in_every_block(any_order: Toys) -> None:
    for _ in range(2):  # the second finds what the first left
        out = any_order.run("uninitialised_shared", VALUES, empty(TILE, np.float32), 2, TILE)
        assert (out[::2] == VALUES[:TILE:2]).all()
        assert np.isnan(out[1::2]).all()
        doubles = VALUES.astype(np.float64)
        out = any_order.run("uninitialised_in_helper", doubles, empty(32, np.float64), 2, 32)
        assert (out[:4] == doubles[:4]).all()
        assert np.isnan(out[4:]).all()


# ---- barriers and collectives that never come about ----------------------------------------------


def error_of(toys: Toys, name: str, values: Array, block: int) -> str:
    with pytest.raises(RuntimeError) as caught:
        toys.run(name, values, empty(block, values.dtype.type), 1, block)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "block", "words"),
    [
        ("divergent_collective", 32, "divergent collective: lanes 0x"),
        ("different_masks", 32, "divergent collective: "),
        ("missing_lane", 32, "divergent collective: "),
        ("outside_mask", 32, "divergent collective: reads lane 20 outside mask 0x0000ffff"),
        ("divergent_barrier", 64, "deadlock: "),
        ("barrier_and_collective", 64, "deadlock: "),
        ("early_exit", 64, "thread exited before __syncthreads"),
    ],
)
def test_divergence_is_an_exception(any_order: Toys, name: str, block: int, words: str) -> None:
    values = np.where(np.arange(block) % 3 == 0, -1, 1)
    message = error_of(
        any_order, name, values.astype("i" if name == "different_masks" else "f"), block
    )
    assert message.startswith(f"{name}: {words}")
    assert re.search(r"\[block \(0, 0, 0\), thread \(\d+, 0, 0\)\]$", message)
    place = r"\(toys\.ptx:\d+\)" if any_order.kind == "toys-ptx" else r"\(toys\.cu:\d+\)"
    assert re.search(place, message)


def test_masks_and_lanes_of_a_divergence_are_named() -> None:
    values = np.where(np.arange(32) < 16, 1, -1).astype(np.float32)
    message = error_of(load_toys("toys"), "divergent_collective", values, 32)
    assert re.search(r"lanes 0x0000ffff at __shfl_xor_sync \(toys\.cu:\d+\)", message)
    assert re.search(r"lanes 0x00010000 at __syncwarp \(toys\.cu:\d+\)", message)
    assert "mask 0xffffffff" in message


def test_launches_after_an_error_work(toys: Toys) -> None:
    for _ in range(3):
        error_of(toys, "early_exit", -VALUES[:TILE], TILE)
        assert sums(toys, "tile_sums") == [true_sum()] * len(ORDERS)
