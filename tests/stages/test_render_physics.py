"""Properties of any renderer of this kind: the four stages in a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers import (
    BEER_LAMBERT,
    GAUSSIAN,
    RESPONSES,
    Prints,
    World,
    random_prints,
    random_world,
    wide_prints,
)
from helpers.backends import Backend
from helpers.compare import assert_stage_equals_reference
from torch import Tensor

from splatrender import reference
from splatrender.operators.options import RenderOptions


def render(
    backend: Backend,
    world: World,
    response: int = GAUSSIAN,
    *,
    emission: Tensor | None = None,
    backgrounds: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Radiance, transmittance and visibility of a scene; emission [N,D] replaces `shade`."""
    args = world.project_args(response, **options)
    means2d, conics, depths, peaks, extents = backend.project(*args)
    if emission is None:
        light = backend.shade(world.means, world.sh, world.viewmats, extents, 3)
    else:
        light = emission.expand(len(world.viewmats), *emission.shape).contiguous()
    size = world.width, world.height
    bins = backend.bin(means2d, conics, depths, peaks, extents, *size)
    behind = world.backgrounds if backgrounds is None else backgrounds
    radiance, transmittance, visibility, _ = backend.blend(
        means2d, conics, peaks, light, behind, *bins, *size, response, True
    )
    return radiance, transmittance, visibility


def blended(backend: Backend, prints: Prints, response: int) -> tuple[Tensor, Tensor]:
    """Radiance and transmittance of footprints."""
    bins = backend.bin(*prints.bin_args())
    radiance, transmittance, *_ = backend.blend(*prints.blend_args(bins, response))
    return radiance, transmittance


def splats_of(prints: Prints, ids: Tensor) -> Prints:
    """Return the footprints `ids` alone."""
    names = ("means2d", "conics", "depths", "peaks", "extents", "emission")
    return replace(prints, **{name: getattr(prints, name)[:, ids] for name in names})


@pytest.mark.parametrize("cameras", [1, 3])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("response", RESPONSES)
def test_equals_the_dense_reference(
    backend: Backend, response: int, antialiased: bool, cameras: int
) -> None:
    world = random_world(cameras=cameras, seed=8)
    radiance, transmittance, _ = render(backend, world, response, antialiased=antialiased)
    truth = reference.rasterize(
        world.means,
        world.quats,
        world.scales,
        world.amplitudes(response),
        world.sh,
        world.viewmats,
        world.intrinsics,
        world.width,
        world.height,
        sh_degree=3,
        background=world.backgrounds,
        near=0.05,
        far=50.0,
        antialiased=antialiased,
        response=response,
        dense=True,
    )
    torch.testing.assert_close(radiance, truth[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(transmittance, truth[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_factors", [False, True], ids=["axes", "factors"])
@pytest.mark.parametrize("channels", [3, 5], ids=["harmonics", "five channels"])
@pytest.mark.parametrize("response", RESPONSES)
def test_rasterize_equals_the_dense_reference(
    kernel: Backend, response: int, channels: int, with_factors: bool
) -> None:
    """Compare the operators in a row with one dense formula: the image and every gradient."""
    names = {GAUSSIAN: "gaussian", BEER_LAMBERT: "beer_lambert"}
    options = RenderOptions(names[response], antialiased=True, near=0.05, far=50.0)
    world = random_world(80, cameras=2, seed=8)
    size = world.width, world.height

    def image(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *splats, background, factors = tensors
        rendering = kernel.rasterize(
            *splats,
            *size,
            sh_degree=degree,
            background=background,
            factors=factors,
            options=options,
        )
        assert rendering.visible.shape == (2, 80) and rendering.depth is None
        return rendering.radiance, rendering.transmittance

    def truth(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *splats, background, factors = tensors
        dense: Callable[..., tuple[Tensor, Tensor]] = partial(reference.rasterize, dense=True)
        lens = {
            "sh_degree": degree,
            "near": 0.05,
            "far": 50.0,
            "antialiased": True,
            "response": response,
        }
        return dense(*splats, *size, background=background, factors=factors, **lens)

    means, quats, scales, _, amplitudes, viewmats, intrinsics, *_ = world.project_args(response)
    degree = 3 if channels == 3 else None
    colors = world.sh if channels == 3 else torch.rand(80, 5, dtype=torch.float64)
    background = torch.rand(channels, dtype=torch.float64)
    shape = [None, None] if with_factors else [quats, scales]
    splats = [means, *shape, amplitudes, colors, viewmats, intrinsics]
    arguments = [*splats, background, world.factors if with_factors else None]
    inputs = {"means": 0, "amplitudes": 3, "colors": 4, "viewmats": 5, "intrinsics": 6}
    inputs |= {"background": 7, **({"factors": 8} if with_factors else {"quats": 1, "scales": 2})}
    assert_stage_equals_reference(
        image,
        truth,
        arguments,
        outputs={"radiance": 0, "transmittance": 1},
        inputs=inputs,
        dtype=torch.float64,
    )


def test_depth_of_one_splat_and_of_none(kernel: Backend) -> None:
    double = torch.float64
    out = kernel.rasterize(
        torch.tensor([[0.0, 0.0, 2.5]], dtype=double),
        torch.tensor([[1.0, 0, 0, 0]], dtype=double),
        torch.full((1, 3), 0.1, dtype=double),
        torch.tensor([0.7], dtype=double),
        torch.ones(1, 4, dtype=double),
        torch.eye(4, dtype=double)[None],
        torch.tensor([[20.0, 20.0, 16.5, 8.5]], dtype=double),
        33,
        17,
        sh_degree=None,
        depth=True,
        visibility=True,
    )
    hit = out.alpha[0] > 0
    assert bool(hit[8, 16]) and not bool(hit[0, 0])
    torch.testing.assert_close(out.depth[0], torch.where(hit, 2.5, 0.0).to(double))
    assert out.radiance.shape == (1, 17, 33, 4)
    assert float(out.visibility) == pytest.approx(float(out.alpha.sum()))


@pytest.mark.parametrize("response", RESPONSES)
def test_transmittance_is_a_fraction(backend: Backend, response: int) -> None:
    _, transmittance, visibility = render(backend, random_world(60).to(torch.float32), response)
    assert bool((transmittance >= 0).all() and (transmittance <= 1).all())
    assert float(transmittance.min()) < 0.01 and float(transmittance.max()) > 0.4
    # What is absorbed is what the splats show.
    absorbed = (1 - transmittance.double()).sum(dim=(1, 2))
    torch.testing.assert_close(visibility.double().sum(dim=1), absorbed, rtol=1e-5, atol=0)


@pytest.mark.parametrize("response", RESPONSES)
def test_transmittance_multiplies_over_parts(backend: Backend, response: int) -> None:
    prints = wide_prints(12, width=23, height=18, peak=0.3)
    ids = torch.arange(12)
    parts = (ids, ids[::2], ids[1::2])
    whole, even, odd = (blended(backend, splats_of(prints, part), response)[1] for part in parts)
    assert float(whole.min()) > 1e-3, "the scene meets the early stop"
    torch.testing.assert_close(whole, even * odd, rtol=1e-9, atol=0)


@pytest.mark.parametrize("response", RESPONSES)
def test_constant_source_gives_c_times_what_is_absorbed(backend: Backend, response: int) -> None:
    world = random_world(150)
    color = torch.tensor([0.2, 0.5, 0.7, 1.3], dtype=torch.float64)
    radiance, transmittance, _ = render(
        backend,
        world,
        response,
        emission=color.expand(150, 4),
        backgrounds=torch.zeros(2, 4, dtype=torch.float64),
    )
    expected = color * (1 - transmittance)[..., None]
    torch.testing.assert_close(radiance, expected, rtol=1e-9, atol=1e-12)
    # And in front of a background of its own colour it is invisible.
    inside, _, _ = render(
        backend,
        world,
        response,
        emission=color.expand(150, 4),
        backgrounds=color.expand(2, 4).contiguous(),
    )
    torch.testing.assert_close(inside, color.expand_as(inside), rtol=1e-9, atol=0)


def test_halves_of_a_splat_are_the_splat(backend: Backend) -> None:
    # Beer–Lambert only: e^(-τ/2) e^(-τ/2) = e^(-τ).
    prints = wide_prints(5, width=9, height=8, peak=0.6)
    twins = splats_of(prints, torch.arange(5).repeat_interleave(2))
    level = 2 * torch.log(0.5 * twins.peaks * 255)
    halves = replace(
        twins,
        peaks=0.5 * twins.peaks,
        extents=twins.extents * (level / (2 * torch.log(255 * twins.peaks))).sqrt()[..., None],
    )
    for one, two in zip(
        blended(backend, prints, BEER_LAMBERT), blended(backend, halves, BEER_LAMBERT), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    # The gaussian response is not additive: there the same split shows.
    gaussian = blended(backend, prints, GAUSSIAN)[1] - blended(backend, halves, GAUSSIAN)[1]
    assert float(gaussian.abs().max()) > 1e-3


def test_halves_of_a_splat_in_the_world(backend: Backend) -> None:
    world = random_world(6, cameras=1, seed=9)
    world = replace(world, scales=0.5 + world.scales, extinctions=0.2 + 0 * world.extinctions)
    twins = world.take(torch.arange(6).repeat_interleave(2))
    twins = replace(twins, extinctions=0.5 * twins.extinctions)
    whole, halves, none = (
        render(backend, w, BEER_LAMBERT)[0] for w in (world, twins, world.take(torch.arange(0)))
    )
    # Only the rims below the cut-off differ: 6 splats of at most 2/255 each.
    assert float((whole - halves).abs().max()) < 0.05 < float((whole - none).abs().max())


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("response", RESPONSES)
def test_rigid_motion_of_everything_changes_nothing(
    backend: Backend, response: int, antialiased: bool
) -> None:
    world = replace(random_world(seed=6), sh=random_world(seed=6).sh[:, :1])
    axis = torch.tensor([0.3, -0.5, 0.2, 0.78], dtype=torch.float64)
    turn = (axis / axis.norm())[None]
    rotation = replace(world, quats=turn, scales=torch.ones(1, 3, dtype=torch.float64)).factors[0]
    moved = world.moved(rotation, torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64), turn)
    one, two = (
        render(
            backend,
            w,
            response,
            emission=w.sh[:, 0],
            antialiased=antialiased,
        )
        for w in (world, moved)
    )
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("response", RESPONSES)
def test_translation_of_everything_keeps_every_colour(backend: Backend, response: int) -> None:
    world = random_world(seed=6)
    still = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    step = torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)
    moved = world.moved(torch.eye(3, dtype=torch.float64), step, still)
    one, two = (render(backend, w, response)[0] for w in (world, moved))
    torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_order_of_the_splats_in_memory_changes_nothing(
    backend: Backend, dtype: torch.dtype
) -> None:
    world = random_world(200).to(dtype)
    order = torch.randperm(200)
    radiance, transmittance, visibility = render(backend, world)
    shuffled = render(backend, world.take(order))
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(shuffled[0], radiance, rtol=0, atol=limit)
    torch.testing.assert_close(shuffled[1], transmittance, rtol=0, atol=limit)
    torch.testing.assert_close(shuffled[2], visibility[:, order], rtol=limit, atol=10 * limit)


def test_cameras_do_not_see_each_other(backend: Backend) -> None:
    world = random_world(cameras=3)
    together = render(backend, world)
    for c in range(3):
        camera = replace(
            world,
            viewmats=world.viewmats[[c]],
            intrinsics=world.intrinsics[[c]],
            backgrounds=world.backgrounds[[c]],
        )
        alone = render(backend, camera)
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[c], rtol=1e-12, atol=1e-12)


def test_a_window_of_the_image_is_the_image(backend: Backend) -> None:
    # Splats inside the frustum only: past its border J depends on the size of the image.
    prints = random_prints(width=64, height=48)
    whole = blended(backend, prints, GAUSSIAN)[0]
    for left, top, width, height in ((7, 5, 30, 20), (16, 16, 17, 1), (63, 47, 1, 1)):
        moved = replace(
            prints,
            means2d=prints.means2d - torch.tensor([left, top]),
            width=width,
            height=height,
        )
        window = blended(backend, moved, GAUSSIAN)[0]
        expected = whole[:, top : top + height, left : left + width]
        torch.testing.assert_close(window, expected, rtol=1e-9, atol=1e-9)


def test_no_splats_at_all(backend: Backend) -> None:
    world = random_world(cameras=3).take(torch.arange(0))
    radiance, transmittance, visibility = render(backend, world)
    assert torch.equal(radiance, world.backgrounds[:, None, None].expand(3, 37, 43, 3))
    assert bool((transmittance == 1).all()) and visibility.shape == (3, 0)


def test_no_visible_splats(backend: Backend) -> None:
    world = random_world()
    radiance, transmittance, visibility = render(backend, world, near=90.0, far=100.0)
    assert torch.equal(radiance, world.backgrounds[:, None, None].expand(2, 37, 43, 3))
    assert bool((transmittance == 1).all()) and not bool(visibility.any())


def test_one_pixel(backend: Backend) -> None:
    world = random_world(30, cameras=1, width=1, height=1)
    radiance, transmittance, _ = render(backend, world)
    assert radiance.shape == (1, 1, 1, 3) and 0 <= float(transmittance) < 1


@pytest.mark.parametrize("response", RESPONSES)
def test_finite_differences_of_a_whole_image(backend: Backend, response: int) -> None:
    """Pose, lens, place, shape, amount, colour and background at once, along random directions."""
    world = random_world(8, cameras=1, width=19, height=14, seed=9)
    # Wide splats near the axis: every one reaches every pixel, so nothing jumps.
    world = replace(
        world,
        means=0.2 * world.means,
        scales=1.2 + world.scales,
        sh=0.3 * world.sh,
        opacities=0.3 + 0.2 * world.opacities,
        extinctions=0.05 + 0 * world.extinctions,
    )
    names = ["means", "quats", "scales", "sh", "viewmats", "intrinsics", "backgrounds"]
    names.append("extinctions" if response == BEER_LAMBERT else "opacities")
    target = torch.rand(1, 14, 19, 3, dtype=torch.float64)

    def loss(values: list[Tensor]) -> Tensor:
        changes: dict[str, Any] = dict(zip(names, values, strict=True))
        changed = replace(world, **changes)
        radiance, transmittance, _ = render(backend, changed, response, antialiased=True)
        return (radiance - target).square().mean() + transmittance.square().mean()

    start = [getattr(world, name).clone().requires_grad_() for name in names]
    slopes = torch.autograd.grad(loss(start), start)
    for name, value, slope in zip(names, start, slopes, strict=True):
        direction = torch.randn_like(value)
        if name == "viewmats":
            direction[:, 3] = 0
        direction = direction / direction.norm() * value.detach().norm()
        shifted = []
        for step in (-1e-5, 1e-5):
            with torch.no_grad():
                shifted.append(loss([v + step * direction if v is value else v for v in start]))
        measured = float(shifted[1] - shifted[0]) / 2e-5
        predicted = float((slope * direction).sum())
        assert predicted == pytest.approx(measured, rel=1e-4, abs=1e-8), name
