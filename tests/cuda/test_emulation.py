"""Each primitive of the emulated CUDA: as C++ and by way of PTX, in every order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers.toys import MODULES, ORDERS, Array, Extent, Toys, empty, load_toys
from numpy.typing import DTypeLike

from tools.emulation.ptx_to_cpp import translate

RNG_SEED = 3
BLOCKS, THREADS = 3, 64


@pytest.fixture(params=[(m, o) for m in MODULES for o in ORDERS], ids=lambda p: "-".join(p))
def toys(request: pytest.FixtureRequest) -> Iterator[Toys]:
    kind, order = request.param
    loaded = load_toys(kind)
    with loaded.order(order):
        yield loaded


@pytest.fixture
def plain() -> Toys:
    return load_toys("toys")


def numbers(count: int, dtype: DTypeLike, low: int = -1000, high: int = 1000) -> Array:
    return np.random.default_rng(RNG_SEED).integers(low, high, count).astype(dtype)


def by_warp(values: Array) -> Array:
    return values.reshape(-1, 32)


def test_indices(toys: Toys) -> None:
    out = toys.run(
        "indices", empty(1, np.int32), empty(2 * 3 * 2 * 24, np.int32), (2, 3, 2), (4, 3, 2)
    )
    bz, by, bx, z, y, x = np.indices((2, 3, 2, 2, 3, 4))
    want = x + 10 * y + 100 * z + 1000 * bx + 10000 * by + 100000 * bz
    assert (out == want.ravel()).all()


@pytest.mark.parametrize(("name", "dtype"), [("reverse_block", "f"), ("reverse_block_double", "d")])
def test_barrier_orders_shared_memory(toys: Toys, name: str, dtype: str) -> None:
    values = numbers(BLOCKS * THREADS, np.dtype(dtype).type)
    out = toys.run(name, values, empty(values.size, values.dtype.type), BLOCKS, THREADS)
    assert (out.reshape(BLOCKS, -1) == values.reshape(BLOCKS, -1)[:, ::-1]).all()


@pytest.mark.parametrize("threads", [64, 50, 7])
def test_barrier_votes(toys: Toys, threads: int) -> None:
    values = numbers(BLOCKS * threads, np.int32).reshape(BLOCKS, threads)
    values[0], values[1] = abs(values[0]) + 1, -abs(values[1])
    rows = toys.run(
        "barrier_votes", values.ravel(), empty(3 * values.size, np.int32), BLOCKS, threads
    )
    rows = rows.reshape(BLOCKS, threads, 3)
    positive = values > 0
    for column, want in enumerate((positive.sum(1), positive.all(1), positive.any(1))):
        assert (rows[:, :, column] == want[:, None]).all()


@pytest.mark.parametrize(("name", "dtype"), [("shuffles", "i"), ("shuffles_double", "d")])
def test_shuffles(toys: Toys, name: str, dtype: str) -> None:
    values = numbers(BLOCKS * THREADS, np.dtype(dtype).type)
    if dtype == "d":
        values += 1 / 3  # all 8 bytes matter
    out = toys.run(name, values, empty(8 * values.size, values.dtype.type), BLOCKS, THREADS)
    lane = np.arange(32)
    within = lane % 8
    sources = (
        np.full(32, 5),
        (lane + 1) % 32,
        lane ^ 6,
        np.where(lane >= 3, lane - 3, lane),
        np.where(lane < 29, lane + 3, lane),
        lane - within + 9 % 8,
        np.where(within >= 3, lane - 3, lane),
        np.where(within < 5, lane + 3, lane),
    )
    for column, source in enumerate(sources):
        assert (out.reshape(-1, 32, 8)[:, :, column] == by_warp(values)[:, source]).all(), column


def test_warp_votes_and_reductions(toys: Toys) -> None:
    values = numbers(BLOCKS * THREADS, np.int32, -4, 5)
    out = toys.run("warp_votes", values, empty(9 * values.size, np.uint32), BLOCKS, THREADS)
    out = out.reshape(-1, 32, 9)
    warps = by_warp(values)
    unsigned = warps.astype(np.uint32)
    bit = np.uint32(1) << np.arange(32, dtype=np.uint32)

    def mask(holds: Array) -> Array:
        masks: Array = np.where(holds, bit, np.uint32(0)).sum(-1, dtype=np.uint32)
        return masks

    wants = (
        mask(warps > 0)[:, None],
        (warps > 3).any(1, keepdims=True),
        (warps > -100).all(1, keepdims=True),
        mask(warps[:, :, None] == warps[:, None, :]),
        warps.sum(1).astype(np.uint32)[:, None],
        warps.min(1).astype(np.uint32)[:, None],
        unsigned.max(1)[:, None],
        np.bitwise_or.reduce(unsigned, 1)[:, None],
        np.bitwise_xor.reduce(unsigned, 1)[:, None],
    )
    for column, want in enumerate(wants):
        assert (out[:, :, column] == want).all(), column


def test_groups_of_lanes_go_their_own_ways(toys: Toys) -> None:
    values = numbers(32, np.int32)
    out = toys.run("partial_masks", values, empty(32, np.int32), 1, 32)
    want = values.copy()
    third = np.arange(32) % 3 == 0
    want[third] += want[3]
    want[third] += want[30]
    for source in (1, 4, 7):
        want[~third] += want[source]
    assert (out == want + (want & 1).sum()).all()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("atomics", "i"), ("atomics_long", "Q"), ("atomics_float", "f"), ("atomics_double", "d")],
)
def test_atomics(toys: Toys, name: str, dtype: str) -> None:
    values = numbers(BLOCKS * THREADS, np.dtype(dtype).type, 1, 1 << 14)
    start = np.array([0, 0, 1 << 30, 0, -1 if dtype == "i" else 0xFFFF, 0, 0, 0])
    out = toys.run(name, values, start.astype(values.dtype), BLOCKS, THREADS)
    assert out[0] == values.sum()
    if dtype in "iQ":
        reductions = (np.bitwise_or, np.bitwise_and, np.bitwise_xor)
        assert out[1] == values.max()
        assert out[2] == values.min()
        assert [out[3], out[4], out[5]] == [
            f.reduce(np.array([start.astype(values.dtype)[k], *values]))
            for k, f in zip((3, 4, 5), reductions, strict=True)
        ]
        assert out[6] == values[7]
        assert out[7] == values[9]


def test_bits(toys: Toys) -> None:
    values = np.random.default_rng(RNG_SEED).integers(0, 1 << 32, THREADS, dtype=np.uint32)
    values[:3] = 0, 1, 0xFFFFFFFF
    out = toys.run("bits", values, empty(8 * THREADS, np.uint32), 1, THREADS).reshape(-1, 8)
    for x, row in zip(values.tolist(), out.tolist(), strict=True):
        wide = x << 32 | x >> 3
        want = (
            x.bit_count(),
            wide.bit_count(),
            (x & -x).bit_length(),
            32 - x.bit_length(),
            64 - (wide >> 5).bit_length(),
            int(f"{x:032b}"[::-1], 2),
            x ^ 1,
            (x >> 7 & 0x1F) | (x << 13 & 0xFFFFFFFF) | ((x & 0xFF00FF) * 3 & 0xFFFFFFFF),
        )
        assert tuple(row) == want


@pytest.mark.parametrize(
    ("name", "dtype"), [("integers", np.int32), ("integers_long", np.longlong)]
)
def test_integers(toys: Toys, name: str, dtype: type) -> None:
    values = numbers(2 * THREADS, dtype)
    values[1::2][values[1::2] == 0] = 7
    out = toys.run(name, values, empty(10 * THREADS, dtype), 1, THREADS).reshape(-1, 10)
    pairs = values.reshape(-1, 2).tolist()
    for i, ((a, b), row) in enumerate(zip(pairs, out.tolist(), strict=True)):
        quotient = int(math.copysign(abs(a) // abs(b), a * b))
        bitwise = a << i % 31, a >> i % 31, a & b, (a | b) ^ (a << 1)
        want = [quotient, a - quotient * b, *bitwise, min(a, b), max(a, b), abs(a - b), a * b >> 16]
        assert row == np.array(want).astype(dtype).tolist(), (a, b)


@pytest.mark.parametrize(
    ("name", "dtype"), [("functions", np.float32), ("functions_double", np.float64)]
)
def test_functions(toys: Toys, name: str, dtype: Any) -> None:
    values: Array = np.random.default_rng(RNG_SEED).uniform(-6, 6, THREADS).astype(dtype)
    out = toys.run(name, values, empty(14 * THREADS, dtype), 1, THREADS).reshape(-1, 14)
    x = values.astype(np.longdouble)
    y = x.reshape(-1, 2)[:, ::-1].ravel()
    size = abs(x)
    wants = (
        *(x + y, x * y, x / y, np.sqrt(size), 1 / np.sqrt(size + 1), np.exp2(x)),
        *(np.log2(size + 1), x * y + 0.25, -np.expm1(-size), np.minimum(x, y), np.maximum(x, 0)),
        *(
            np.exp(x),
            np.power(size + 1, y / 4),
            np.sin((values * dtype(40000)).astype(np.longdouble)),
        ),
    )
    slack = 4 * np.finfo(dtype).eps
    for column, want in enumerate(wants):
        assert np.allclose(out[:, column], want.astype(np.float64), rtol=slack, atol=slack), column


def test_conversions(toys: Toys) -> None:
    values = np.random.default_rng(RNG_SEED).uniform(-200, 200, THREADS).astype(np.float32)
    values[:4] = 0.5, 1.5, -2.5, -0.25
    out = toys.run("conversions", values, empty(8 * THREADS, np.float32), 1, THREADS).reshape(-1, 8)
    thousand = (values * np.float32(1000)).astype(np.int64)
    wants = (
        *(np.trunc(values), np.floor(values), np.ceil(values), np.rint(values)),
        (values.astype(np.float64) / 3).astype(np.float32),
        *(thousand.astype(np.float32), np.trunc(abs(values)), np.trunc(values)),
    )
    for column, want in enumerate(wants):
        assert (out[:, column] == want).all(), column


def test_vectors_tables_and_structs_by_value(toys: Toys) -> None:
    values = numbers(4 * THREADS, np.float32, -9, 9)
    out = toys.run("layouts", values, empty(4 * THREADS, np.float32), 1, THREADS).reshape(-1, 4)
    factor, table = (0.5, -1.0, 2.0), (0.5, 1.5, -2.0, 4.0, 8.0)
    for i, row in enumerate(values.reshape(-1, 4)):
        ring = row.tolist()
        for k in range(7):
            ring[(i + k) % 4] += factor[k % 3] * ring[(i + k + 1) % 4]
        want = [ring[0] * table[i % 5], ring[1], ring[2] + row[2], ring[3] - row[3]]
        assert np.allclose(out[i], want, rtol=1e-5, atol=1e-4), i


def test_instructions_of_ptx() -> None:
    values = np.random.default_rng(RNG_SEED).integers(0, 1 << 32, (THREADS, 3), dtype=np.uint32)
    toys = load_toys("toys-ptx")
    rows = toys.run("instructions", values.ravel(), empty(20 * THREADS, np.uint32), 1, THREADS)
    for (a, b, c), row in zip(values.tolist(), rows.reshape(-1, 20).tolist(), strict=True):
        assert row[:18] == list(instructions_in_python(a, b, c))
        bounds = np.array(row[18:], np.uint32).view(np.float32).astype(np.longdouble)
        exact = np.longdouble(a & 0xFFFF) / np.longdouble(b & 0xFFFF | 3)
        assert bounds[0] <= exact <= bounds[1]
        assert bounds[1] - bounds[0] <= 1.3e-7 * exact


def instructions_in_python(a: int, b: int, c: int) -> Iterator[int]:
    """Compute the kernel `instructions` by the definitions in the PTX manual."""
    full = 0xFFFFFFFF

    def signed(x: int) -> int:
        return x - (x >> 31 << 32)

    at, count = b & 31, c & 31
    field = (a >> at) & ((1 << count) - 1)
    yield field
    sign = a >> min(at + count - 1, 31) & 1 if count else 0
    width = min(count, 32 - at)
    yield (field | (full << width if sign else 0)) & full
    at, count = c & 31, c >> 5 & 31
    mask = ((1 << count) - 1) << at & full
    yield (b & ~mask) | (a << at & mask)
    both = (b << 32 | a).to_bytes(8, "little")
    picked = [(both[c >> 4 * k & 7], c >> 4 * k & 8) for k in range(4)]
    extended = [(0xFF if byte & 0x80 else 0) if replicate else byte for byte, replicate in picked]
    yield int.from_bytes(bytes(extended), "little")
    wide, shift = b << 32 | a, c & 63
    yield (wide << (shift & 31)) >> 32 & full
    yield wide >> min(shift, 32) & full
    yield (a & b) | (~a & c & full)
    yield (a + b) & full
    yield (b + c + (a + b > full)) & full
    yield (a - b) & full
    yield (b - c - (a < b)) & full
    yield a * b >> 32
    yield signed(a) * signed(b) >> 32 & full
    yield a.bit_length() - 1
    yield 32 - (a ^ (full if signed(a) < 0 else 0)).bit_length()
    product = a * b
    yield (product + c) & full
    yield ((product >> 32) + c + ((product & full) + c > full)) & full
    yield 7 if a < b else 109


def test_orders_are_what_they_say(plain: Toys) -> None:
    def turns(order: str) -> list[int]:
        with plain.order(order):
            start = np.zeros(1 + BLOCKS * THREADS, np.int32)
            order_of_turns: list[int] = plain.run(
                "turns", empty(1, np.int32), start, BLOCKS, THREADS
            )[1:].tolist()
            return order_of_turns

    ascending = list(range(BLOCKS * THREADS))
    assert turns("forward") == ascending
    assert turns("reverse") == ascending[::-1]
    assert turns("random:1") == turns("random:1")
    assert turns("random:1") != turns("random:2")
    assert sorted(turns("random:1")) == ascending


def test_blocks_on_several_threads(plain: Toys) -> None:
    values = numbers(200 * THREADS, np.float32)
    plain.module.set_threads(3)
    try:
        out = plain.run("reverse_block", values, empty(values.size, np.float32), 200, THREADS)
    finally:
        plain.module.set_threads(1)
    assert (out.reshape(200, -1) == values.reshape(200, -1)[:, ::-1]).all()


@pytest.mark.parametrize(
    ("grid", "block", "words"),
    [
        ((0, 1, 1), (32, 1, 1), "empty grid (0, 1, 1)"),
        ((1, 70000, 1), (32, 1, 1), "too many blocks (1, 70000, 1)"),
        ((1, 1, 1), (0, 1, 1), "empty block (0, 1, 1)"),
        ((1, 1, 1), (512, 3, 1), "too many threads in a block (512, 3, 1)"),
    ],
)
def test_refused_launches(plain: Toys, grid: Extent, block: Extent, words: str) -> None:
    before = plain.module.launches()
    with pytest.raises(RuntimeError) as caught:
        plain.run("indices", empty(1, np.int32), empty(1, np.int32), grid, block)
    assert words in str(caught.value)
    assert plain.module.launches() == before


def test_launches_are_counted(plain: Toys) -> None:
    before = plain.module.launches()
    plain.run("indices", empty(1, np.int32), empty(64, np.int32), 2, 32)
    assert plain.module.launches() == before + 1


@pytest.mark.parametrize("order", ["sideways", "random", "random:x", ""])
def test_unknown_order_is_refused(plain: Toys, order: str) -> None:
    with pytest.raises(ValueError, match=r"expected forward, reverse or random:SEED, got"):
        plain.module.set_order(order)


def test_too_many_threads_are_refused(plain: Toys) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64, got '65'"):
        plain.module.set_threads(65)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frobnicate.b32 %r1, %r2;", "instruction frobnicate is not supported"),
        ("add.odd.f32 %f1, %f2, %f3;", "modifier .odd is not supported"),
        ("mov.f16 %h1, %h2;", "type .f16 is not supported"),
        ("add.s32 %r1, %r2, banana;", "operand 'banana' is not understood"),
        ("ld.global.u32 %r1, [%rd1*4];", "operand '%rd1*4' is not understood"),
        ("bar.sync 0, 64;", "this form of barrier is not supported"),
        ("activemask.b32 %r1;", "instruction activemask is not supported"),
    ],
)
def test_unknown_ptx_is_an_error(line: str, words: str) -> None:
    ptx = f".visible .entry _Z1kv()\n{{\n.reg .b32 %r<4>;\n\n{line}\nret;\n}}\n"
    with pytest.raises(ValueError) as caught:
        translate(ptx, "k.ptx")
    assert str(caught.value) == f"k.ptx:5: {line[:-1]}: {words}"


def test_inline_ptx_needs_the_translation(plain: Toys) -> None:
    with pytest.raises(RuntimeError, match="inline PTX"):
        plain.run("instructions", empty(3, np.uint32), empty(20, np.uint32), 1, 1)
