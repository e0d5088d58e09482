"""Stage `blend`: closed forms, reference, gradients, refusals."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import (
    ALPHA_MAX,
    BEER_LAMBERT,
    CUTOFF,
    GAUSSIAN,
    RESPONSES,
    T_MIN,
    Prints,
    cast,
    prints_from,
    random_prints,
    tolerances,
    truths,
    wide_prints,
)
from helpers.backends import Backend, there
from helpers.compare import (
    assert_double,
    assert_gradcheck,
    assert_gradient,
    assert_opcheck,
    assert_refuses,
    assert_same_bits_for_any_threads,
    assert_stage_composes,
    assert_stage_equals_reference,
    assert_takes_any_strides,
    gradients,
    stable_pixels,
)

RADIANCE, TRANSMITTANCE, VISIBILITY, HITS = range(4)
INPUTS = {"means2d": 0, "conics": 1, "peaks": 2, "emission": 3, "backgrounds": 4}
DENSE_INPUTS = {"means2d": 0, "conics": 1, "peaks": 3, "emission": 4, "backgrounds": 5}


def blend_args(prints: Prints, response: int = GAUSSIAN, with_visibility: bool = True) -> list[Any]:
    """Arguments of `blend` with the reference's lists: what is tested here is `blend` alone."""
    bins = truths.bin(*prints.bin_args())
    return prints.blend_args(bins, response, with_visibility)


def stack(
    peaks: list[float], emission: list[list[float]], background: list[float], size: int = 1
) -> Prints:
    """Return footprints on the first pixel, front to back, in a size x size image; float64."""
    count, double = len(peaks), torch.float64
    return prints_from(
        torch.full((1, count, 2), 0.5, dtype=double),
        torch.tensor([4.0, 1.0, 2.0], dtype=double).expand(1, count, 3),
        torch.arange(1, count + 1, dtype=double)[None],
        torch.tensor([peaks], dtype=double),
        torch.tensor([emission], dtype=double),
        backgrounds=torch.tensor([background], dtype=double),
        width=size,
        height=size,
    )


# --- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("response", RESPONSES)
def test_one_splat_at_every_pixel(backend: Backend, response: int) -> None:
    prints = stack([0.7], [[0.9, 0.2]], [0.3, 0.6], size=3)
    radiance, transmittance, visibility, _ = backend.blend(*blend_args(prints, response))
    inverse = torch.linalg.inv(torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    alphas = []
    for y in range(3):
        for x in range(3):
            d = torch.tensor([x, y], dtype=torch.float64)
            amount = 0.7 * math.exp(-0.5 * float(d @ inverse @ d))
            alpha = amount if response == GAUSSIAN else 1 - math.exp(-amount)
            expected = [0.9 * alpha + 0.3 * (1 - alpha), 0.2 * alpha + 0.6 * (1 - alpha)]
            assert radiance[0, y, x].tolist() == pytest.approx(expected, rel=1e-12)
            assert float(transmittance[0, y, x]) == pytest.approx(1 - alpha, rel=1e-12)
            alphas.append(alpha)
    assert float(visibility) == pytest.approx(sum(alphas), rel=1e-12)


def test_three_splats_front_to_back(backend: Backend) -> None:
    prints = stack([0.5, 0.25, 0.8], [[1.0], [2.0], [3.0]], [4.0])
    radiance, transmittance, visibility, hits = backend.blend(*blend_args(prints))
    assert float(transmittance) == pytest.approx(0.5 * 0.75 * 0.2)
    weights = [0.5, 0.5 * 0.25, 0.5 * 0.75 * 0.8]
    assert visibility[0].tolist() == pytest.approx(weights)
    light = 1 * weights[0] + 2 * weights[1] + 3 * weights[2] + 4 * 0.075
    assert float(radiance) == pytest.approx(light)
    assert hits.tolist() == [1, 1, 1]


@pytest.mark.parametrize("response", RESPONSES)
def test_below_the_cut_off_nothing_is_drawn(backend: Backend, response: int) -> None:
    for factor, drawn in ((0.999, False), (1.001, True)):
        args = blend_args(stack([0.5], [[1.0]], [0.0]), response)
        args[2] = torch.full_like(args[2], CUTOFF * factor)  # the pair stays listed
        radiance, transmittance, visibility, hits = backend.blend(*args)
        for value in (radiance, 1 - transmittance, visibility, hits):
            assert bool((value != 0).all()) == drawn, factor


def test_opacity_is_capped_and_has_no_gradient_there(backend: Backend) -> None:
    args = blend_args(stack([1.0], [[1.0]], [0.0]))
    assert float(backend.blend(*args)[TRANSMITTANCE]) == pytest.approx(1 - ALPHA_MAX)
    weights = {RADIANCE: torch.ones(1, 1, 1, 1), TRANSMITTANCE: torch.ones(1, 1, 1)}
    means2d, conics, peaks, emission, _ = gradients(
        backend.blend, args, list(INPUTS.values()), weights
    )
    assert not any(bool(g.any()) for g in (means2d, conics, peaks))
    assert float(emission) == pytest.approx(ALPHA_MAX)


def test_beer_lambert_is_not_capped(backend: Backend) -> None:
    args = blend_args(stack([6.0], [[1.0]], [0.0]), BEER_LAMBERT)
    assert float(backend.blend(*args)[TRANSMITTANCE]) == pytest.approx(math.exp(-6.0), rel=1e-9)


def test_a_full_pixel_takes_no_more(backend: Backend) -> None:
    # T: 1, 0.01, 1e-4 (rounded to either side), so stop one earlier: 0.989 leaves 1.21e-4.
    prints = stack([0.989, 0.989, 0.5, 0.5], [[1.0], [1.0], [1.0], [50.0]], [0.0])
    args = blend_args(prints)
    radiance, transmittance, visibility, hits = backend.blend(*args)
    # 0.011² = 1.21e-4 > T_MIN: the third splat still counts, the fourth does not.
    assert float(transmittance) == pytest.approx(0.011**2 * 0.5, rel=1e-9)
    assert float(transmittance) < T_MIN and float(visibility[0, 3]) == 0
    assert float(radiance) == pytest.approx(1 - 0.011**2 * 0.5, rel=1e-9)
    assert hits.tolist() == [1, 1, 1, 0]
    grads = gradients(backend.blend, args, list(INPUTS.values()), {RADIANCE: radiance * 0 + 1})
    assert all(not bool(g[0, 3].any()) and bool(g[0, 2].any()) for g in grads[2:4])


def test_empty_lists_give_the_background(backend: Backend) -> None:
    prints = random_prints(5, cameras=3, channels=4)
    args = blend_args(prints)
    empty = torch.zeros(0, dtype=torch.int32)
    args[5:9] = [torch.zeros_like(args[5]), empty, empty, torch.zeros_like(args[8])]
    radiance, transmittance, visibility, hits = backend.blend(*args)
    expected = prints.backgrounds[:, None, None].expand(3, 37, 43, 4)
    assert torch.equal(radiance, expected) and bool((transmittance == 1).all())
    assert not bool(visibility.any()) and hits.shape == (0,)
    weights = {RADIANCE: torch.ones_like(radiance)}
    grads = gradients(backend.blend, args, list(INPUTS.values()), weights)
    assert not any(bool(g.any()) for g in grads[:4])
    torch.testing.assert_close(grads[4], torch.full_like(grads[4], 37.0 * 43))


def test_visibility_only_when_asked_for(backend: Backend) -> None:
    args = blend_args(random_prints(), with_visibility=False)
    full = backend.blend(*args[:12], True)
    bare = backend.blend(*args)
    assert bare[VISIBILITY].numel() == 0
    for position in (RADIANCE, TRANSMITTANCE, HITS):
        assert torch.equal(bare[position], full[position])


def test_hits_name_the_blocks(backend: Backend) -> None:
    # One small splat in block (1, 0), one in the last block, one everywhere; 4 x 4 px each.
    double = torch.float64
    prints = prints_from(
        torch.tensor([[[6.0, 2.0], [14.0, 14.0], [8.0, 8.0]]], dtype=double),
        torch.tensor([[[0.1, 0, 0.1], [0.1, 0, 0.1], [1e3, 0, 1e3]]], dtype=double),
        torch.tensor([[1.0, 2.0, 3.0]], dtype=double),
        torch.full((1, 3), 0.5, dtype=double),
        torch.ones(1, 3, 1, dtype=double),
        backgrounds=torch.zeros(1, 1, dtype=double),
        width=16,
        height=16,
    )
    assert backend.blend(*blend_args(prints))[HITS].tolist() == [1 << 1, -(1 << 15), -1]


@pytest.mark.parametrize("response", RESPONSES)
def test_visibility_is_the_gradient_of_light_in_emission(backend: Backend, response: int) -> None:
    args = blend_args(random_prints(channels=1, response=response), response)
    radiance, _, visibility, _ = backend.blend(*args)
    weights = {RADIANCE: torch.ones_like(radiance)}
    emission = gradients(backend.blend, args, [INPUTS["emission"]], weights)[0]
    torch.testing.assert_close(visibility, emission[..., 0], rtol=1e-9, atol=1e-12)


def test_channels_do_not_mix(backend: Backend) -> None:
    prints = random_prints(channels=7)
    args = blend_args(prints)
    together = backend.blend(*args)[RADIANCE]
    for channel in range(7):
        args[3] = prints.emission[..., channel : channel + 1].contiguous()
        args[4] = prints.backgrounds[:, channel : channel + 1].contiguous()
        alone = backend.blend(*args)[RADIANCE]
        torch.testing.assert_close(alone[..., 0], together[..., channel], rtol=1e-12, atol=1e-14)


def test_emission_of_culled_splats_is_not_read(backend: Backend) -> None:
    prints = random_prints()
    args = blend_args(prints)
    before = backend.blend(*args)[RADIANCE]
    args[3] = torch.where((prints.peaks == 0)[..., None], torch.nan, args[3])
    assert torch.equal(backend.blend(*args)[RADIANCE], before)


# --- lists against no lists ---------------------------------------------------------------------


@pytest.mark.parametrize("width, height", [(43, 37), (32, 16), (1, 1), (17, 50)])
@pytest.mark.parametrize("response", RESPONSES)
def test_lists_lose_nothing(backend: Backend, response: int, width: int, height: int) -> None:
    prints = random_prints(90, 3, width=width, height=height, seed=5, response=response)
    bins = backend.bin(*prints.bin_args())
    args = prints.blend_args(bins, response)
    found = backend.blend(*args)
    truth = truths.blend_dense(*prints.dense_args(response))
    for one, two in zip(found, truth, strict=False):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    weights = {RADIANCE: torch.randn(truth[0].shape), TRANSMITTANCE: torch.randn(truth[1].shape)}
    listed = gradients(backend.blend, args, list(INPUTS.values()), weights)
    dense = gradients(
        truths.blend_dense, prints.dense_args(response), list(DENSE_INPUTS.values()), weights
    )
    for name, one, two in zip(INPUTS, listed, dense, strict=True):
        assert_double(one, two, f"gradient of {name}")


@pytest.mark.parametrize("response", RESPONSES)
def test_order_in_the_list_decides(backend: Backend, response: int) -> None:
    prints = stack([0.5, 0.5], [[1.0], [0.0]], [0.0])
    args = blend_args(prints, response)
    front = float(backend.blend(*args)[RADIANCE])
    args[6], args[7] = args[6].flip(0), args[7].flip(0)
    back = float(backend.blend(*args)[RADIANCE])
    alpha = 0.5 if response == GAUSSIAN else 1 - math.exp(-0.5)
    assert front == pytest.approx(alpha) and back == pytest.approx(alpha * (1 - alpha))


# --- against the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize(
    "cameras, channels, width, height",
    [(1, 1, 43, 37), (3, 3, 43, 37), (1, 4, 32, 48), (2, 7, 17, 31), (1, 3, 1, 1)],
)
@pytest.mark.parametrize("response", RESPONSES)
def test_equals_reference(
    kernel_in_any_order: Backend,
    response: int,
    cameras: int,
    channels: int,
    width: int,
    height: int,
    dtype: torch.dtype,
) -> None:
    count = 90 if width > 1 else 4  # all of them lie over the one pixel
    prints = random_prints(count, cameras, channels, width, height, seed=11, response=response)
    prints = prints.to(torch.float32).to(torch.float64)  # the lists see what the kernel sees
    stable = stable_pixels(prints, response)
    assert float(stable.double().mean()) > 0.9 or width == 1

    assert_stage_equals_reference(
        kernel_in_any_order.blend,
        truths.blend,
        blend_args(prints, response),
        outputs={"radiance": RADIANCE, "transmittance": TRANSMITTANCE},
        inputs=INPUTS,
        dtype=dtype,
        masks={RADIANCE: stable[..., None], TRANSMITTANCE: stable},
    )


@pytest.mark.parametrize("response", RESPONSES)
def test_faint_and_strong_splats_are_equally_exact(kernel: Backend, response: int) -> None:
    """Return the relative error of the opacity in float32 of one splat per pixel, and its mean."""
    count, double = 300, torch.float64
    column = torch.arange(count, dtype=double)
    offset = torch.rand(2, count, dtype=double) - 0.5
    prints = prints_from(
        torch.stack((16 * column + 8.5, 8.5 + 0 * column), dim=1)[None] + offset.T,
        torch.tensor([0.6, 0.2, 0.5], dtype=double).expand(1, count, 3),
        1 + column[None],
        torch.logspace(-2.2, -0.1, count, dtype=double)[None],
        torch.ones(1, count, 1, dtype=double),
        backgrounds=torch.zeros(1, 1, dtype=double),
        width=16 * count,
        height=16,
    )
    prints = prints.to(torch.float32).to(double)
    bins = truths.bin(*prints.bin_args())
    single = prints.to(torch.float32)
    found = kernel.blend(*single.blend_args(bins, response))[RADIANCE]
    exact = truths.blend(*prints.blend_args(bins, response))[RADIANCE]
    drawn = (found > 0) & (exact > 0)
    errors = found[drawn].double() / exact[drawn] - 1
    assert len(errors) > 2_000
    assert float(errors.square().mean().sqrt()) < tolerances.FLOAT32_FLOOR
    assert abs(float(errors.mean())) < tolerances.FLOAT32_BIAS


@pytest.mark.parametrize("response", RESPONSES)
def test_gradients_behind_opaque_splats(kernel: Backend, response: int) -> None:
    prints = random_prints(60, 1, seed=20, sigma=8.0)
    peak = 0.97 if response == GAUSSIAN else 3.5
    prints = replace(prints, peaks=torch.where(prints.peaks > 0, peak, 0.0).double())
    prints = prints.to(torch.float32).to(torch.float64)
    stable = stable_pixels(prints, response)
    truth_args = blend_args(prints, response)
    args = cast(truth_args, torch.float32)
    weights = {
        RADIANCE: torch.randn(1, 37, 43, 3) * stable[..., None],
        TRANSMITTANCE: torch.randn(1, 37, 43) * stable,
    }
    inputs = list(INPUTS.values())
    for name, found, truth in zip(
        INPUTS,
        gradients(kernel.blend, args, inputs, weights),
        gradients(truths.blend, truth_args, inputs, weights),
        strict=True,
    ):
        assert_gradient(found, truth, f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 256, 257, 600])
def test_lists_of_any_length(kernel_in_any_order: Backend, count: int, dtype: torch.dtype) -> None:
    """All splats in one tile; kernels take the list in parts of 128 or 256."""
    make = torch.Generator().manual_seed(count)
    places, amounts, light, *_ = torch.rand(5, count, 2, generator=make, dtype=torch.float64)
    prints = prints_from(
        (5 + 6 * places)[None],
        torch.tensor([4.0, 1.0, 3.0], dtype=torch.float64).expand(1, count, 3),
        1 + amounts[None, :, 0],
        0.012 + 0.02 * amounts[None, :, 1],  # so faint that no pixel fills up
        light[None],
        backgrounds=torch.tensor([[0.2, 0.7]], dtype=torch.float64),
        width=20,
        height=18,
    )
    prints = prints.to(torch.float32).to(torch.float64)
    args = blend_args(prints)
    assert args[5].diff().tolist() == [count, 0, 0, 0]
    stable = stable_pixels(prints, GAUSSIAN)
    unfused = os.environ.get("SPLATRENDER_ISA") == "portable" and platform.machine() == "x86_64"
    growth = max(1.0, count / tolerances.WALK) ** 0.5 if unfused else 1.0
    assert_stage_equals_reference(
        kernel_in_any_order.blend,
        truths.blend,
        args,
        outputs={"radiance": RADIANCE, "transmittance": TRANSMITTANCE},
        inputs=INPUTS,
        dtype=dtype,
        masks={RADIANCE: stable[..., None], TRANSMITTANCE: stable},
        gradient_floor=tolerances.FLOAT32_FLOOR * growth,
    )


@pytest.mark.parametrize("response", RESPONSES)
def test_more_than_512_splats_in_a_tile(kernel: Backend, response: int) -> None:
    # So faint that no pixel fills up; their extents are those of brighter ones, which is allowed.
    prints = random_prints(1500, 1, width=20, height=18, seed=2, response=response)
    prints = replace(prints, peaks=0.03 * prints.peaks + 0.004)
    args = blend_args(prints, response)
    assert int(args[5].diff().max()) > 1024
    assert_stage_equals_reference(
        kernel.blend,
        truths.blend,
        args,
        outputs={"radiance": RADIANCE, "transmittance": TRANSMITTANCE},
        inputs=INPUTS,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("response", RESPONSES)
def test_visibility_and_hits_equal_reference(kernel: Backend, response: int) -> None:
    args = blend_args(random_prints(response=response), response)
    found, truth = kernel.blend(*args), truths.blend(*args)
    torch.testing.assert_close(found[VISIBILITY], truth[VISIBILITY], rtol=1e-10, atol=1e-12)
    assert found[HITS].dtype == torch.int16
    assert torch.equal(found[HITS], truth[HITS])


@pytest.mark.parametrize("cameras, channels", [(1, 1), (2, 3), (1, 4), (1, 7)])
@pytest.mark.parametrize("response", RESPONSES)
def test_gradcheck(backend: Backend, response: int, cameras: int, channels: int) -> None:
    args = blend_args(wide_prints(cameras=cameras, channels=channels), response, False)
    assert_gradcheck(backend.blend, args, list(INPUTS.values()), [RADIANCE, TRANSMITTANCE])


# --- as an operator -----------------------------------------------------------------------------


@pytest.mark.parametrize("response", RESPONSES)
def test_same_bits_for_any_number_of_threads(
    cpu_kernel: Backend, response: int, restore_threads: None
) -> None:
    prints = random_prints(300, 2, 3, 130, 70, response=response)
    args = blend_args(prints.to(torch.float32), response)
    assert_same_bits_for_any_threads(
        cpu_kernel.blend, args, list(INPUTS.values()), [RADIANCE, TRANSMITTANCE]
    )


def test_composes_with_torch(kernel: Backend) -> None:
    args = blend_args(random_prints().to(torch.float32))
    assert_stage_composes(
        kernel.blend, args, list(INPUTS.values()), [RADIANCE, TRANSMITTANCE], kernel.device
    )


@pytest.mark.parametrize("response", RESPONSES)
def test_opcheck(kernel: Backend, response: int) -> None:
    prints = random_prints(7, width=20, height=18).to(torch.float32)
    args = [there(value, kernel.device) for value in blend_args(prints, response)]
    args[13] = None
    radiance, transmittance, _, hits, last = torch.ops.splatrender.blend(*args)
    grads = torch.randn_like(radiance), torch.randn_like(transmittance)
    assert_opcheck(
        "blend_backward",
        [*args[:9], transmittance, hits, last, *grads, 20, 18, response, False],
        kernel.device,
    )
    for position in INPUTS.values():
        args[position] = args[position].clone().requires_grad_()
    assert_opcheck("blend", args, kernel.device)


def test_takes_any_strides(kernel: Backend) -> None:
    args = blend_args(random_prints().to(torch.float32))
    assert_takes_any_strides(kernel.blend, args)


def test_takes_any_strides_of_gradients(kernel: Backend) -> None:
    args = blend_args(random_prints().to(torch.float32))
    weight = torch.randn(2, 43, 37, 3).transpose(1, 2)
    inputs = list(INPUTS.values())
    one = gradients(kernel.blend, args, inputs, {RADIANCE: weight})
    two = gradients(kernel.blend, args, inputs, {RADIANCE: weight.contiguous()})
    torch.testing.assert_close(one, two)
    # An expanded gradient, as .sum().backward() makes it.
    radiance = kernel.blend(*[a.requires_grad_() if i < 5 else a for i, a in enumerate(args)])[0]
    summed = torch.autograd.grad(radiance.sum(), args[:5])
    plain = gradients(kernel.blend, args, inputs, {RADIANCE: torch.ones(2, 37, 43, 3)})
    torch.testing.assert_close(list(summed), plain)


@pytest.mark.parametrize(
    "position, value, name, words",
    [
        (0, torch.zeros(2, 8), "means2d", ["2]", "[2, 8]"]),
        (0, torch.zeros(2, 8, 2, dtype=torch.bfloat16), "means2d", ["float32", "bfloat16"]),
        (1, torch.zeros(2, 8, 4), "conics", ["[C=2, N=8, 3]", "[2, 8, 4]"]),
        (2, torch.zeros(2, 8, dtype=torch.float64), "peaks", ["float32", "float64"]),
        (3, torch.zeros(2, 7, 3), "emission", ["[C=2, N=8, D]", "[2, 7, 3]"]),
        (3, torch.zeros(2, 8, 0), "emission", ["channel"]),
        (4, torch.zeros(2, 4), "backgrounds", ["[C=2, D=3]", "[2, 4]"]),
        (5, torch.zeros(3, dtype=torch.int32), "tile_offsets", ["[19]", "[3]"]),
        (6, torch.zeros(4, dtype=torch.int64), "splat_ids", ["int32", "int64"]),
        (7, torch.zeros(1, dtype=torch.int32), "slots", ["[1]"]),
        (8, torch.zeros(3, dtype=torch.int32), "splat_offsets", ["[17]", "[3]"]),
        (9, 0, "width", ["0"]),
        (11, 2, "response", ["gaussian", "beer_lambert", "2"]),
    ],
)
def test_refuses(kernel: Backend, position: int, value: Any, name: str, words: list[str]) -> None:
    args = blend_args(random_prints(8).to(torch.float32))
    # 43 x 37 px are 3 x 3 tiles: 2 * 9 + 1 tile offsets, 2 * 8 + 1 splat offsets.
    if position == 3 and value.shape[-1] == 0:
        args[4] = args[4][:, :0]
    assert_refuses(kernel.blend, args, {position: value}, name, *words)


def test_refuses_lists_that_do_not_end_with_the_pairs(cpu_kernel: Backend) -> None:
    """On the CPU alone: on a GPU a look at the list's end would mean to wait for it."""
    args = blend_args(random_prints(8).to(torch.float32))
    zeros = torch.zeros(19, dtype=torch.int32)
    assert_refuses(cpu_kernel.blend, args, {5: zeros}, "tile_offsets", "pairs")


def test_refuses_two_devices(kernel: Backend) -> None:
    args = blend_args(random_prints(8).to(torch.float32))
    assert_refuses(kernel.blend, args, {3: args[3].to("meta")}, "emission", "device")
