"""Stage `bin`: which tile looks at which splat, in which order."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import CUTOFF, Prints, cast, flat, prints_from, random_prints, truths
from helpers.backends import Backend, there
from helpers.compare import (
    assert_opcheck,
    assert_refuses,
    assert_takes_any_strides,
)
from torch import Tensor

from splatrender.reference.bin import nearest_form, tile_boxes

SIZES = [(43, 37), (64, 32), (1, 1), (16, 17), (130, 5)]


def few_prints(
    centers: list[tuple[float, float]],
    covariances: list[tuple[float, float, float]],
    depths: list[float] | None = None,
    peak: float = 0.5,
    width: int = 48,
    height: int = 32,
) -> Prints:
    """Return one camera and the given footprints, float64."""
    double, count = torch.float64, len(centers)
    return prints_from(
        torch.tensor([centers], dtype=double),
        torch.tensor([covariances], dtype=double),
        torch.tensor([depths or [1.0] * count], dtype=double),
        torch.full((1, count), peak, dtype=double),
        torch.ones(1, count, 1, dtype=double),
        backgrounds=torch.zeros(1, 1, dtype=double),
        width=width,
        height=height,
    )


def listed(bins: tuple[Tensor, ...]) -> list[list[int]]:
    """Return the ids of every tile."""
    offsets, ids = bins[0].tolist(), bins[1].tolist()
    return [ids[a:b] for a, b in itertools.pairwise(offsets)]


def pairs_within(prints: Prints, slack: float, whole_tiles: bool = False) -> set[tuple[int, int]]:
    """(tile, id) of the pairs whose smallest form is at most level + slack.

    Args:
        whole_tiles: whether tiles at the border reach 16 px past it, as the others do.
    """
    cameras, count = prints.depths.shape
    boxes = tile_boxes(prints.width, prints.height)
    if whole_tiles:
        boxes = [((x, y), (x + 15, y + 15)) for (x, y), _ in boxes]
    levels = 2 * torch.log(prints.peaks / CUTOFF)
    found = set()
    for c in range(cameras):
        for tile, box in enumerate(boxes):
            forms = nearest_form(prints.means2d[c], prints.conics[c], *box)
            near = (forms <= levels[c] + slack) & (prints.extents[c, :, 0] > 0)
            found |= {(c * len(boxes) + tile, c * count + n) for n in near.nonzero()[:, 0].tolist()}
    return found


def assert_well_formed(bins: tuple[Tensor, ...], prints: Prints) -> None:
    """Shapes, types, order and the two ways to number the pairs."""
    tile_offsets, splat_ids, slots, splat_offsets = bins
    cameras, count = prints.depths.shape
    tiles = -(-prints.width // 16) * -(-prints.height // 16)
    assert all(values.dtype == torch.int32 for values in bins)
    assert tile_offsets.shape == (cameras * tiles + 1,) and int(tile_offsets[0]) == 0
    assert splat_offsets.shape == (cameras * count + 1,) and int(splat_offsets[0]) == 0
    pairs = len(splat_ids)
    assert int(tile_offsets[-1]) == int(splat_offsets[-1]) == pairs == len(slots)
    assert bool((tile_offsets.diff() >= 0).all() and (splat_offsets.diff() >= 0).all())
    assert sorted(slots.tolist()) == list(range(pairs))
    ids = splat_ids.long()
    assert bool((splat_offsets[ids] <= slots).all() and (slots < splat_offsets[ids + 1]).all())
    depths = prints.depths.flatten().tolist()
    for tile, members in enumerate(listed(bins)):
        assert all(n // max(count, 1) == tile // tiles for n in members), "another camera's splat"
        keys = [(depths[n], n) for n in members]
        assert keys == sorted(keys) and len(set(members)) == len(members)


# --- closed forms -------------------------------------------------------------------------------


def test_small_circle_is_in_one_tile(backend: Backend) -> None:
    prints = few_prints([(24.0, 8.0)], [(1.0, 0.0, 1.0)])
    bins = backend.bin(*prints.bin_args())
    assert listed(bins) == [[], [0], [], [], [], []]
    assert [values.tolist() for values in bins[1:]] == [[0], [0], [0, 1]]


def test_circle_on_a_corner_is_in_four_tiles(backend: Backend) -> None:
    prints = few_prints([(16.0, 16.0)], [(1.0, 0.0, 1.0)])
    assert listed(backend.bin(*prints.bin_args())) == [[0], [0], [], [0], [0], []]


def test_needle_along_the_diagonal_misses_the_other_corners(backend: Backend) -> None:
    # The box of this ellipse covers the tiles (1, 0) and (0, 1) as well; the ellipse does not.
    prints = few_prints([(16.0, 16.0)], [(20.01, 19.99, 20.01)], width=32)
    assert listed(backend.bin(*prints.bin_args())) == [[0], [], [], [0]]


def test_reach_ends_at_pixel_centres(backend: Backend) -> None:
    # peak 1/255 e^½: reach exactly sigma. From x = 15.2, the next tile's first centre is 16.5.
    peak = CUTOFF * 1.6487212707001282
    for reach, expected in ((1.29, [[0], []]), (1.31, [[0], [0]])):
        prints = few_prints([(15.2, 8.5)], [(reach**2, 0, 1.0)], peak=peak, width=32, height=16)
        assert listed(backend.bin(*prints.bin_args())) == expected


def test_lists_run_front_to_back_and_ties_by_index(backend: Backend) -> None:
    same = [(8.0, 8.0)] * 5
    prints = few_prints(same, [(4.0, 0, 4.0)] * 5, [3.0, 1.0, 2.0, 1.0, 1.0], width=16, height=16)
    assert listed(backend.bin(*prints.bin_args())) == [[1, 3, 4, 2, 0]]


def test_splat_reaches_in_from_outside(backend: Backend) -> None:
    prints = few_prints([(-6.0, 8.0), (60.0, 8.0)], [(9.0, 0, 9.0)] * 2)
    assert listed(backend.bin(*prints.bin_args())) == [[0], [], [], [], [], []]


def test_culled_rows_are_in_no_list(backend: Backend) -> None:
    prints = random_prints(cameras=2)
    bins = backend.bin(*prints.bin_args())
    culled = (prints.extents.flatten(0, 1) == 0).all(dim=1)
    assert bool(culled.any()) and not bool(culled[bins[1].long()].any())


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_list(backend: Backend, count: int) -> None:
    prints = random_prints(count)
    nothing = replace(prints, peaks=0 * prints.peaks, extents=0 * prints.extents)
    bins = backend.bin(*nothing.bin_args())
    assert_well_formed(bins, nothing)
    assert len(bins[1]) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("width, height", SIZES)
@pytest.mark.parametrize("cameras", [1, 3])
def test_lists_hold_all_that_is_needed_and_little_more(
    backend: Backend, cameras: int, width: int, height: int, dtype: torch.dtype
) -> None:
    prints = random_prints(80, cameras, width=width, height=height, seed=width)
    exact = prints.to(torch.float32).to(torch.float64)
    bins = backend.bin(*exact.to(dtype).bin_args())
    assert_well_formed(bins, exact)
    found = {(tile, n) for tile, members in enumerate(listed(bins)) for n in members}
    missing = pairs_within(exact, -1e-5) - found
    assert not missing, f"(tile, splat) pairs that reach a pixel but are not listed: {missing}"
    needless = found - pairs_within(exact, 2e-2, whole_tiles=True)
    assert not needless, f"(tile, splat) pairs far from any pixel: {needless}"


# --- against the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("width, height", SIZES)
def test_equals_reference(kernel_in_any_order: Backend, width: int, height: int) -> None:
    prints = random_prints(200, 3, width=width, height=height, seed=height)
    args = cast(prints.bin_args(), torch.float64)
    found = listed(kernel_in_any_order.bin(*args))
    truth = listed(truths.bin(*prints.bin_args()))
    # A kernel may list a little more than needed; without that the lists are the same.
    assert [
        [n for n in some if n in need] for some, need in zip(found, truth, strict=True)
    ] == truth
    assert sum(map(len, found)) <= 1.2 * sum(map(len, truth))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_splats_of_many_tiles(kernel_in_any_order: Backend, dtype: torch.dtype) -> None:
    """Put splats that fill the image, or a row or column of it, among small ones."""
    centers = [(280.0, 328.0), (100.0, 300.0), (200.0, 71.0), (20.0, 40.0), (530.0, 600.0)]
    covariances = [(4e6, 0.0, 4e6), (9.0, 0.0, 1e6), (1e6, 0.0, 9.0), (4.0, 0.0, 4.0)]
    covariances += [(2e4, 1.9e4, 2e4)]
    depths = [2.0, 5.0, 1.0, 4.0, 3.0]
    prints = few_prints(
        centers * 4, covariances * 4, [d + 0.1 * k for k in range(4) for d in depths],
        width=560, height=656,
    )  # fmt: skip
    bins = kernel_in_any_order.bin(*cast(prints.bin_args(), dtype))
    assert_well_formed(bins, prints)
    found, truth = listed(bins), listed(truths.bin(*prints.bin_args()))
    assert [
        [n for n in some if n in need] for some, need in zip(found, truth, strict=True)
    ] == truth
    assert sum(map(len, found)) <= 1.02 * sum(map(len, truth)) and min(map(len, truth)) >= 4
    nth = bins[3][:-1].tolist()  # slots of a splat number its tiles row by row
    slots = iter(bins[2].tolist())
    for members in found:
        for n in members:
            assert next(slots) == nth[n]
            nth[n] += 1


def test_order_of_many_splats(kernel: Backend) -> None:
    make = torch.Generator().manual_seed(3)
    count = 20_000
    depths = torch.rand(1, count, generator=make).mul(1000).round().div(64)  # with many ties
    means2d = torch.rand(1, count, 2, generator=make) * torch.tensor([64, 48])
    prints = Prints(
        means2d=means2d,
        conics=torch.tensor([0.5, 0.0, 0.5]).expand(1, count, 3).contiguous(),
        depths=depths,
        peaks=torch.full((1, count), 0.5),
        extents=torch.full((1, count, 2), 4.4),
        emission=torch.ones(1, count, 1),
        backgrounds=torch.zeros(1, 1),
        width=64,
        height=48,
    )
    args = cast(prints.bin_args(), torch.float32)
    assert_well_formed(kernel.bin(*args), prints)


def test_same_lists_for_any_number_of_threads(cpu_kernel: Backend, restore_threads: None) -> None:
    args = random_prints(500, 3, width=200, height=90).to(torch.float32).bin_args()
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs.append(cpu_kernel.bin(*args))
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


# --- as an operator -----------------------------------------------------------------------------


def test_lists_carry_no_gradient(backend: Backend) -> None:
    args = random_prints(20).bin_args()
    args[:5] = [value.clone().requires_grad_() for value in args[:5]]
    assert not any(values.requires_grad for values in backend.bin(*args))


def test_composes_with_torch(kernel: Backend) -> None:
    args = [there(value, kernel.device) for value in random_prints().to(torch.float32).bin_args()]
    stage: flat.Flat = inspect.unwrap(kernel.bin)
    plain = stage(*args)
    torch.compiler.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(stage, fullgraph=True, backend="aot_eager")
        found = compiled(*args)
    assert all(torch.equal(one, two) for one, two in zip(plain, found, strict=True))


def test_opcheck(kernel: Backend) -> None:
    assert_opcheck("bin", random_prints(9).to(torch.float32).bin_args(), kernel.device)


def test_takes_any_strides(kernel: Backend) -> None:
    args = random_prints().to(torch.float32).bin_args()
    assert_takes_any_strides(kernel.bin, args)


@pytest.mark.parametrize(
    "position, value, name, words",
    [
        (0, torch.zeros(2, 8, 3), "means2d", ["2]", "[2, 8, 3]"]),
        (0, torch.zeros(2, 8, 2, dtype=torch.int32), "means2d", ["float32", "int32"]),
        (1, torch.zeros(2, 8, 2, 2), "conics", ["[C=2, N=8, 3]", "[2, 8, 2, 2]"]),
        (2, torch.zeros(2, 8, 1), "depths", ["[C=2, N=8]", "[2, 8, 1]"]),
        (2, torch.zeros(2, 8, dtype=torch.float64), "depths", ["float32", "float64"]),
        (3, torch.zeros(8), "peaks", ["[C=2, N=8]", "[8]"]),
        (4, torch.zeros(2, 9, 2), "extents", ["[C=2, N=8, 2]", "[2, 9, 2]"]),
        (5, 0, "width", ["0"]),
        (6, 70000, "height", ["70000"]),
    ],
)
def test_refuses(kernel: Backend, position: int, value: Any, name: str, words: list[str]) -> None:
    args = random_prints(8).to(torch.float32).bin_args()
    assert_refuses(kernel.bin, args, {position: value}, name, *words)


def test_refuses_two_devices(kernel: Backend) -> None:
    args = random_prints(8).to(torch.float32).bin_args()
    assert_refuses(kernel.bin, args, {2: args[2].to("meta")}, "depths", "device")
