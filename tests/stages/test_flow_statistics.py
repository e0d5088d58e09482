"""Flow statistics: predicted against re-rendered changes, reference, colours, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import (
    ALPHA_MAX,
    GAUSSIAN,
    RESPONSES,
    T_MIN,
    Prints,
    cast,
    flat,
    random_prints,
    rounded,
    truths,
)
from helpers.backends import Backend
from helpers.compare import (
    assert_double,
    assert_opcheck,
    assert_refuses,
    assert_single,
    assert_takes_any_strides,
    outputs_of,
)
from torch import Tensor

from splatrender.operators.blend import blend as typed_blend
from splatrender.operators.flow_statistics import levels_of
from splatrender.operators.inputs import input_errors

blend = flat.blend(typed_blend)
LEVELS = torch.tensor([0.15, 0.6, 1.0], dtype=torch.float64)
NAMES = ("error", "removal", "insertion")
DOUBLE = 1e-10  # of predictions, in float64
SINGLE = 2e-5  # in float32, of the largest


def statistics(*args: Any) -> tuple[Tensor, ...]:
    results: tuple[Tensor, ...] = torch.ops.splatrender.flow_statistics(*args)
    return results[:3]


Flow = Callable[..., tuple[Tensor, ...]]


@pytest.fixture
def flow(backend: Backend) -> Flow:
    """Return the pass on each executor in turn, the reference included."""
    return flow_on(backend)


@pytest.fixture
def compiled(kernel: Backend) -> Flow:
    """Return the pass on each compiled executor in turn."""
    return flow_on(kernel)


@pytest.fixture
def compiled_in_any_order(kernel_in_any_order: Backend) -> Flow:
    """As `compiled`, the emulated one with its threads in several orders."""
    return flow_on(kernel_in_any_order)


def flow_on(backend: Backend) -> Flow:
    """Return the pass on an executor; its results are on the CPU."""
    if backend.name == "reference":
        return truths.flow_statistics

    def on_device(*args: Any) -> tuple[Tensor, ...]:
        there = [a.to(backend.device) if isinstance(a, Tensor) else a for a in args]
        return tuple(value.cpu() for value in statistics(*there))

    return on_device


def photos_like(prints: Prints, seed: int = 3) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    shape = (len(prints.depths), prints.height, prints.width, 3)
    return torch.rand(shape, generator=make, dtype=torch.float64)


def flow_args(
    prints: Prints, response: int, probes: int = 20, masks: Tensor | None = None
) -> list[Any]:
    shape = (prints.means2d, prints.conics, prints.peaks, prints.emission, prints.backgrounds)
    bins = truths.bin(*prints.bin_args())
    size = (prints.width, prints.height)
    return [*shape, *bins, photos_like(prints), masks, LEVELS, probes, *size, response]


def without(prints: Prints, rows: Tensor) -> Prints:
    """Return the same prints with some rows culled."""
    extents = prints.extents.clone()
    extents[:, rows] = 0
    return replace(prints, extents=extents)


def rendered_error(prints: Prints, photos: Tensor, response: int, masks: Tensor | None) -> Tensor:
    """Return F [C] of an image that is blended anew."""
    radiance, transmittance, *_ = blend(
        *prints.blend_args(truths.bin(*prints.bin_args()), response)
    )
    squares = (radiance - photos).square()
    if masks is not None:
        squares = squares * masks[..., None]
    assert float(transmittance.min()) > T_MIN, "a full pixel: predictions are not exact there"
    error: Tensor = 0.5 * squares.sum(dim=(1, 2, 3))
    return error


def calm(response: int, seed: int = 1) -> Prints:
    """Footprints of which no pixel is full."""
    prints = random_prints(48, seed=seed, response=response)
    peaks = 0.02 + 0.6 * prints.peaks / prints.peaks.max() * (prints.peaks > 0)
    return replace(prints, peaks=peaks)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("response", RESPONSES)
def test_removals_change_what_was_predicted(flow: Any, response: int, masked: bool) -> None:
    prints, probes = calm(response), 16
    masks = (photos_like(prints, 9)[..., 0] > 0.3).to(torch.uint8) if masked else None
    args = flow_args(prints, response, probes, masks)
    error, removal, _ = flow(*args)
    splats = without(prints, torch.arange(48 - probes, 48))
    before = rendered_error(splats, args[9], response, masks)
    torch.testing.assert_close(error, before, rtol=DOUBLE, atol=0)
    for n in range(48 - probes):
        rows = torch.tensor([n, *range(48 - probes, 48)])
        change = rendered_error(without(prints, rows), args[9], response, masks) - before
        torch.testing.assert_close(removal[:, n], change, rtol=DOUBLE, atol=DOUBLE * 100)
    assert float(removal.abs().max()) > 0.1


@pytest.mark.parametrize("response", RESPONSES)
def test_insertions_change_what_was_predicted(flow: Any, response: int) -> None:
    prints, probes = calm(response), 16
    args = flow_args(prints, response, probes)
    insertion = flow(*args)[2]
    first = 48 - probes
    before = rendered_error(without(prints, torch.arange(first, 48)), args[9], response, None)
    for n in range(probes):
        others = torch.tensor([i for i in range(first, 48) if i != first + n])
        for k, level in enumerate(LEVELS.tolist()):
            peaks = prints.peaks.clone()
            peaks[:, first + n] *= level
            born = replace(without(prints, others), peaks=peaks)
            change = rendered_error(born, args[9], response, None) - before
            found = insertion[:, n, k, 0]
            torch.testing.assert_close(found, change, rtol=DOUBLE, atol=DOUBLE * 100)
    assert float(insertion[..., 0].abs().max()) > 0.1


@pytest.mark.parametrize("response", RESPONSES)
def test_the_change_is_a_quadratic_in_the_colour(flow: Any, response: int) -> None:
    args = flow_args(calm(response), response)
    base = flow(*args)[2]
    shift = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    args[3] = args[3].clone()
    args[3][:, -20:] += shift
    expected = base[..., 0] + base[..., 1:4] @ shift + 0.5 * base[..., 4] * (shift @ shift)
    torch.testing.assert_close(flow(*args)[2][..., 0], expected, rtol=1e-9, atol=1e-9)


def test_predictions_hold_in_single_precision(compiled: Any) -> None:
    for response in RESPONSES:
        args = rounded(flow_args(calm(response), response))
        exact = compiled(*args)
        for name, found, truth in zip(
            NAMES, compiled(*cast(args, torch.float32)), exact, strict=True
        ):
            # the largest number of a row's kind is the scale of the terms that were summed
            error = (found.double() - truth).abs().max() / truth.abs().max()
            assert float(error) < SINGLE, (name, float(error))


@pytest.mark.parametrize("response", RESPONSES)
def test_behind_opaque_splats_the_error_is_that_of_full_pixels(response: int) -> None:
    """Check full pixels: these end at T <= 1e-4, and a new image may differ by that much light."""
    prints = random_prints(150, cameras=1, seed=4, sigma=6.0, response=response)
    prints = replace(prints, peaks=prints.peaks * (3.0 if response else 1.0))
    args = flow_args(prints, response, probes=30)
    _, removal, _ = statistics(*args)
    hidden = torch.arange(120, 150)

    def error(rows: Tensor) -> Tensor:
        bins = truths.bin(*without(prints, rows).bin_args())
        radiance = blend(*without(prints, rows).blend_args(bins, response))[0]
        half: Tensor = 0.5 * (radiance - args[9]).square().sum()
        return half

    before = error(hidden)
    changes = torch.stack([error(torch.cat((hidden, torch.tensor([n])))) for n in range(120)])
    off = (removal[0] - (changes - before)).abs()
    pixels = prints.width * prints.height
    # two images, each within T_MIN · 2 of the endless sum in each of three colours; |r| <= 1
    assert float(off.max()) < 2 * 2 * T_MIN * 3 * pixels
    assert float(off.max()) < 0.01 * float(changes.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("count", [0, 1, 200])
def test_equals_the_reference(
    compiled_in_any_order: Any, count: int, response: int, dtype: torch.dtype
) -> None:
    prints = random_prints(count, sigma=4.0, response=response)
    probes = count // 2
    masks = (photos_like(prints, 5)[..., 1] > 0.2).to(torch.uint8)
    args = rounded(flow_args(prints, response, probes, masks))
    truth = truths.flow_statistics(*args)
    found = outputs_of(compiled_in_any_order, cast(args, dtype))
    single = truths.flow_statistics(*cast(args, dtype))
    for name, value, own, exact in zip(NAMES, found, single, truth, strict=True):
        if name in ("error", "removal"):
            value, own, exact = value[..., None], own[..., None], exact[..., None]
        if dtype == torch.float64:
            assert_double(value, exact, name)
        else:
            assert_single(value, own, exact, name, floor=1e-4)  # a pixel near a threshold


def test_bytes_are_photos_divided_by_255(compiled: Any) -> None:
    args = flow_args(calm(GAUSSIAN), GAUSSIAN)
    bytes_ = (args[9] * 255).round().to(torch.uint8)
    args[9] = bytes_.double() / 255
    expected = compiled(*args)
    args[9] = bytes_
    for name, found, truth in zip(NAMES, compiled(*args), expected, strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12, msg=name)


def test_probes_change_nothing_for_splats(compiled: Any) -> None:
    prints = random_prints(100, sigma=5.0)
    alone = cast(flow_args(without(prints, torch.arange(60, 100)), GAUSSIAN, 40), torch.float32)
    both = cast(flow_args(prints, GAUSSIAN, 40), torch.float32)
    for one, two in zip(compiled(*alone)[:2], compiled(*both)[:2], strict=True):
        assert torch.equal(one, two)


def test_same_bits_for_any_threads() -> None:
    args = cast(flow_args(random_prints(300, width=90), GAUSSIAN, 150), torch.float32)
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs.append(statistics(*args))
    for name, one, two in zip(NAMES, *runs, strict=True):
        assert torch.equal(one, two), name


def test_composes_with_torch() -> None:
    args = cast(flow_args(calm(GAUSSIAN), GAUSSIAN), torch.float32)
    assert_opcheck("flow_statistics", args, "cpu")
    assert_takes_any_strides(statistics, args)


def test_levels() -> None:
    assert levels_of((0.5, 2.0), "beer_lambert") == [0.25, 1.0]
    (half, one), opacity = levels_of((0.5, 2.0), "gaussian"), 1 - torch.tensor([-0.5, -2.0]).exp()
    assert half == pytest.approx(float(opacity[0] / opacity[1])) and one == 1
    assert float(opacity[1]) < ALPHA_MAX


@pytest.mark.parametrize(
    "position, value, name, words",
    [
        (3, torch.ones(2, 48, 4), "emission", ["3 channels", "4"]),
        (9, torch.ones(2, 37, 42, 3), "photos", ["[2, 37, 42, 3]"]),
        (9, torch.ones(2, 37, 43, 3, dtype=torch.int32), "photos", ["float32", "int32"]),
        (10, torch.ones(2, 37, 43), "masks", ["uint8", "float32"]),
        (11, torch.ones(0), "levels", ["1 to 8", "0"]),
        (12, 49, "probes", ["0 to 48", "49"]),
        (15, 2, "response", ["gaussian", "2"]),
    ],
)
def test_refuses(position: int, value: Any, name: str, words: list[str]) -> None:
    args = cast(flow_args(calm(GAUSSIAN), GAUSSIAN), torch.float32)
    changes = {position: value}
    if position == 3:
        changes[4] = torch.ones(2, 4)
    assert_refuses(input_errors(statistics), args, changes, name, *words)
