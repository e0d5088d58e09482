"""Absolute gradients of centres in the image: `blend(..., absgrad=True)`, `Rendering`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from helpers import (
    BEER_LAMBERT,
    GAUSSIAN,
    RESPONSES,
    Prints,
    cast,
    prints_from,
    random_prints,
    random_world,
    tolerances,
    truths,
)
from helpers.backends import Backend, there
from helpers.compare import (
    assert_double,
    assert_gradient,
    assert_opcheck,
    assert_refuses,
    assert_single,
    stable_pixels,
)
from torch import Tensor

from splatrender import RenderOptions
from splatrender.operators.render import render

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
MEANS2D, INPUTS = 0, 5  # the first five arguments have gradients


def scene(response: int, *shape: int, seed: int = 3) -> tuple[Prints, list[Tensor]]:
    """Return footprints that float32 holds exactly, and weights of radiance and transmittance.

    Args:
        shape: splats, cameras, channels, width, height.
    """
    draw: Callable[..., Prints] = random_prints
    prints = draw(*shape, seed=seed, response=response)
    prints = prints.to(torch.float32).to(torch.float64)
    stable = stable_pixels(prints, response)
    assert float(stable.double().mean()) > 0.9
    make = torch.Generator().manual_seed(seed)
    weights = torch.randn(*stable.shape, shape[2] + 1, generator=make, dtype=torch.float64)
    weights = weights * stable[..., None]
    return prints, [weights[..., 1:], weights[..., 0]]


def arguments(prints: Prints, response: int, with_absgrad: bool = True) -> list[Any]:
    """Return the arguments of `blend`, with the reference's lists."""
    bins = truths.bin(*prints.bin_args())
    return prints.blend_args(bins, response, False, with_absgrad)


def backward(
    blend: Callable[..., Any], args: Sequence[Any], weights: Sequence[Tensor], device: str
) -> tuple[list[Tensor], Tensor | None]:
    """Gradients of Σ weights · (radiance, transmittance) in the five inputs; means2d.absgrad."""
    args = [there(value, device) for value in args]
    for i in range(INPUTS):
        args[i] = args[i].detach().clone().requires_grad_()
    radiance, transmittance, *_ = blend(*args)
    light, through = (w.to(radiance) for w in weights)
    loss = (light * radiance).sum() + (through * transmittance).sum()
    loss.backward()
    absgrad = getattr(args[MEANS2D], "absgrad", None)
    return [value.grad.cpu() for value in args[:INPUTS]], None if absgrad is None else absgrad.cpu()


@cache
def pixel_by_pixel(response: int, channels: int) -> tuple[Prints, list[Tensor], Tensor]:
    """Return a scene, and Σ |gradient of a pixel's part of the loss| [C,N,2], pixel by pixel."""
    prints, weights = scene(response, 16, 2, channels, 19, 18)
    args = prints.dense_args(response)
    args[MEANS2D] = args[MEANS2D].clone().requires_grad_()
    radiance, transmittance = truths.blend_dense(*args)
    # Cameras share no place: one pass takes the gradients of a pixel of each.
    parts = ((weights[0] * radiance).sum(dim=-1) + weights[1] * transmittance).sum(dim=0).flatten()
    total = torch.zeros_like(args[MEANS2D])
    for rows in torch.eye(len(parts), dtype=parts.dtype).split(57):
        (pixels,) = torch.autograd.grad(
            parts, args[MEANS2D], rows, retain_graph=True, is_grads_batched=True
        )
        total += pixels.abs().sum(dim=0)
    return prints, weights, total


@DTYPES
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("response", RESPONSES)
def test_sums_absolute_gradients_of_pixels(
    backend: Backend, response: int, channels: int, dtype: torch.dtype
) -> None:
    prints, weights, truth = pixel_by_pixel(response, channels)
    assert int((truth > 0).sum()) > 20
    args = cast(arguments(prints, response), dtype)
    grads, found = backward(backend.blend, args, weights, backend.device)
    assert found is not None
    if dtype == torch.float64:
        assert_double(found, truth, "absgrad")
    else:
        assert found.dtype == torch.float32
        assert_gradient(found, truth, "absgrad")
    slack = 1e-12 if dtype == torch.float64 else 1e-5
    assert bool((grads[MEANS2D].abs() <= found * (1 + slack) + slack * found.max()).all())
    assert float(grads[MEANS2D].abs().sum()) < 0.8 * float(found.sum())  # some pixels disagree


@DTYPES
@pytest.mark.parametrize("channels, width, height", [(3, 70, 53), (4, 32, 48), (1, 17, 31)])
@pytest.mark.parametrize("response", RESPONSES)
def test_equals_reference(
    kernel_in_any_order: Backend,
    response: int,
    channels: int,
    width: int,
    height: int,
    dtype: torch.dtype,
) -> None:
    prints, weights = scene(response, 150, 2, channels, width, height, seed=11)
    args, kernel = arguments(prints, response), kernel_in_any_order
    _, truth = backward(truths.blend, args, weights, "cpu")
    _, single = backward(truths.blend, cast(args, torch.float32), weights, "cpu")
    _, found = backward(kernel.blend, cast(args, dtype), weights, kernel.device)
    assert truth is not None and single is not None and found is not None
    if dtype == torch.float64:
        assert_double(found, truth, "absgrad")
    else:
        assert_single(found, single, truth, "absgrad")


@pytest.mark.parametrize("response", RESPONSES)
def test_opposite_sides_add_up(backend: Backend, response: int) -> None:
    """Put a splat in the middle of an image in which every pixel wants it brighter.

    Then ∂L_p/∂mean2d = w ∂α/∂mean2d, and with a = peak exp(-½ q |d|²): ∂a/∂mean2d = a q d.
    """
    size, peak, variance = 9, 0.6, 2.0
    double = torch.float64
    prints = prints_from(
        torch.full((1, 1, 2), size / 2, dtype=double),
        torch.tensor([[[variance, 0, variance]]], dtype=double),
        torch.ones(1, 1, dtype=double),
        torch.full((1, 1), peak, dtype=double),
        torch.full((1, 1, 1), 0.8, dtype=double),
        backgrounds=torch.full((1, 1), 0.3, dtype=double),
        width=size,
        height=size,
    )
    weights = [torch.ones(1, size, size, 1), torch.zeros(1, size, size)]
    args = arguments(prints, response)
    grads, found = backward(backend.blend, args, weights, backend.device)
    expected = 0.0
    for y in range(size):
        for x in range(size):
            dx, dy = x - size // 2, y - size // 2
            amount = peak * math.exp(-0.5 * (dx * dx + dy * dy) / variance)
            if amount >= 1 / 255:
                slope = math.exp(-amount) if response == BEER_LAMBERT else 1.0
                expected += (0.8 - 0.3) * slope * amount * abs(dx) / variance
    assert found is not None
    assert found[0, 0].tolist() == pytest.approx([expected] * 2, rel=tolerances.CLOSED_FORM)
    assert bool((grads[MEANS2D].abs() < 1e-12).all())


@DTYPES
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("response", RESPONSES)
def test_changes_nothing_else(
    backend: Backend, response: int, channels: int, dtype: torch.dtype
) -> None:
    prints, weights = scene(response, 80, 2, channels, 43, 37)
    with_it, without = (
        backward(
            backend.blend, cast(arguments(prints, response, asked), dtype), weights, backend.device
        )
        for asked in (True, False)
    )
    assert without[1] is None
    close = 1e-12 if dtype == torch.float64 else 1e-5  # another instantiation, rounded elsewhere
    for one, two in zip(with_it[0], without[0], strict=True):
        torch.testing.assert_close(one, two, rtol=close, atol=close)


def test_accumulates_as_grad_does(backend: Backend) -> None:
    prints, weights = scene(GAUSSIAN, 30, 1, 3, 20, 18)
    args = [there(value, backend.device) for value in arguments(prints, GAUSSIAN)]
    args[MEANS2D].requires_grad_()
    once = backward(backend.blend, args, weights, backend.device)[1]
    for _ in range(2):
        radiance, transmittance, *_ = backend.blend(*args)
        light, through = (w.to(radiance) for w in weights)
        ((light * radiance).sum() + (through * transmittance).sum()).backward()
    assert once is not None
    torch.testing.assert_close(args[MEANS2D].absgrad.cpu(), 2 * once)


def test_empty_lists_give_zeros(kernel: Backend) -> None:
    prints, weights = scene(GAUSSIAN, 6, 2, 3, 20, 18)
    args = arguments(prints, GAUSSIAN)
    empty = torch.zeros(0, dtype=torch.int32)
    args[5:9] = [torch.zeros_like(args[5]), empty, empty, torch.zeros_like(args[8])]
    found = backward(kernel.blend, args, weights, kernel.device)[1]
    assert found is not None and found.shape == (2, 6, 2) and not bool(found.any())


def test_same_bits_for_any_number_of_threads(cpu_kernel: Backend, restore_threads: None) -> None:
    prints, weights = scene(GAUSSIAN, 300, 2, 3, 130, 70)
    args = cast(arguments(prints, GAUSSIAN), torch.float32)
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs.append(backward(cpu_kernel.blend, args, weights, "cpu")[1])
    one, two = runs
    assert one is not None and two is not None and torch.equal(one, two)


@pytest.mark.parametrize("response", RESPONSES)
def test_opcheck(kernel: Backend, response: int) -> None:
    prints = random_prints(7, width=20, height=18).to(torch.float32)
    args = [there(value, kernel.device) for value in arguments(prints, response)]
    args[13] = torch.zeros_like(args[MEANS2D])
    radiance, transmittance, _, hits, last = torch.ops.splatrender.blend(*args)
    grads = torch.randn_like(radiance), torch.randn_like(transmittance)
    assert_opcheck(
        "blend_backward",
        [*args[:9], transmittance, hits, last, *grads, 20, 18, response, True],
        kernel.device,
    )
    for position in (*range(INPUTS), 13):
        args[position] = args[position].clone().requires_grad_()
    assert_opcheck("blend", args, kernel.device)


def test_refuses_more_than_four_channels(kernel: Backend) -> None:
    """Kernels would take several passes, whose absolute values do not add up."""
    args = arguments(random_prints(8, channels=5).to(torch.float32), GAUSSIAN)
    assert_refuses(kernel.blend, args, {}, "emission", "4 channels", "absgrad", "got 5")
    assert kernel.blend(*args[:13], False)[0].shape[-1] == 5


@pytest.mark.parametrize("response", ["gaussian", "beer_lambert"])
@pytest.mark.parametrize("depth", [False, True])
def test_of_a_rendering(kernel: Backend, depth: bool, response: str) -> None:
    world = random_world(60, cameras=2, seed=8).to(torch.float32)
    splats = [world.means, world.quats, world.scales, world.opacities, world.sh]
    tensors = [there(value, kernel.device) for value in (*splats, world.viewmats, world.intrinsics)]
    tensors[0].requires_grad_()
    options = RenderOptions(response=response)
    results = []
    for asked in (True, False):
        rendering = kernel.rasterize(
            *tensors,
            world.width,
            world.height,
            sh_degree=3,
            options=options,
            depth=depth,
            absgrad=asked,
        )
        assert rendering.absgrad is None
        rendering.means2d.retain_grad()
        (rendering.radiance - 0.4).square().sum().backward()
        results.append((rendering.absgrad, rendering.means2d.grad))
    (absgrad, grad), (nothing, same) = results
    assert nothing is None and absgrad is not None and grad is not None
    torch.testing.assert_close(grad, same, rtol=1e-4, atol=1e-5)
    assert absgrad.shape == grad.shape == (2, 60, 2)
    assert bool((grad.abs() <= absgrad * (1 + 1e-4) + 1e-5 * absgrad.max()).all())
    assert bool((absgrad[rendering.extents[..., 0] == 0] == 0).all()) and bool(absgrad.any())


def test_render_passes_it_on() -> None:
    from splatrender import Camera, Splats

    splats = Splats.random(20, seed=0)
    splats.means.requires_grad_()
    camera = Camera(torch.eye(4), 50.0, 50.0, 16.0, 12.0, 32, 24)
    rendering = render(splats, camera, absgrad=True)
    rendering.radiance.sum().backward()
    assert rendering.absgrad is not None and rendering.absgrad.shape == (1, 20, 2)
