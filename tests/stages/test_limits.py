"""The ends of a logit or a logarithm: opaque, invisible and flat splats, on every executor."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BEER_LAMBERT, GAUSSIAN, RESPONSES, random_world, truths
from helpers.backends import Backend, require_extension
from helpers.training import options, ring_scene
from test_flow_statistics import flow_on
from torch import Tensor

from splatrender.model import Splats
from splatrender.model.splats import DEEPEST, optical_depths

INF = math.inf
DTYPES = (torch.float32, torch.float64)
DEPTHS = (30.0, 45.0, 104.0, 750.0, 1e6, 1e20)
"""Optical depths: e^-τ is no number beside 1, then none of float32, then none of float64."""
SIZE = 4
COLORS = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.7, 0.3], [0.2, 0.3, 0.8]], dtype=torch.float64)


def stack(depths: Tensor) -> list[Any]:
    """Arguments of `blend`: splats as wide as the world behind one another, over black."""
    count = len(depths)
    means2d = torch.full((1, count, 2), SIZE / 2).to(depths)
    conics = torch.tensor([1e-12, 0.0, 1e-12]).to(depths).expand(1, count, 3).contiguous()
    order, extents = torch.arange(1, count + 1).to(depths)[None], torch.full((1, count, 2), 9.0)
    bins = truths.bin(means2d, conics, order, depths[None], extents.to(depths), SIZE, SIZE)
    emission, black = COLORS[None, :count].to(depths), torch.zeros(1, 3).to(depths)
    return [means2d, conics, depths[None], emission, black, *bins, SIZE, SIZE, BEER_LAMBERT, True]


def tolerance(dtype: torch.dtype) -> dict[str, Any]:
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opaque_splat_behind_a_thin_one(backend: Backend, dtype: torch.dtype, depth: float) -> None:
    # Light and gradients of all three against paper: C = (1 - e^-τ) c0 + e^-τ c1, nothing behind.
    args = stack(torch.tensor([0.5, depth, 1.0], dtype=dtype))
    leaves = [value.clone().requires_grad_() for value in args[:5]]
    radiance, transmittance, visibility, _ = backend.blend(*leaves, *args[5:])
    passes, pixels, c = math.exp(-0.5), SIZE * SIZE, COLORS.to(dtype)
    expected = (1 - passes) * c[0] + passes * c[1]
    torch.testing.assert_close(radiance, expected.expand_as(radiance), **tolerance(dtype))
    assert float(transmittance.detach().abs().max()) < 1e-12
    seen = pixels * torch.tensor([[1 - passes, passes, 0]], dtype=dtype)
    torch.testing.assert_close(visibility, seen, **tolerance(dtype))
    means2d, conics, peaks, emission, backgrounds = torch.autograd.grad(
        radiance.sum() + transmittance.sum(), leaves
    )
    by_peak = torch.tensor([[pixels * passes * float((c[0] - c[1]).sum()), 0, 0]], dtype=dtype)
    torch.testing.assert_close(peaks, by_peak, **tolerance(dtype))
    by_color = seen[..., None].expand(1, 3, 3)
    torch.testing.assert_close(emission, by_color, **tolerance(dtype))
    assert float(backgrounds.abs().max()) < 1e-10
    assert bool(means2d.isfinite().all()) and bool(conics.isfinite().all())
    assert float(conics[0, 1:].abs().max()) < 1e-9


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_removal_of_an_opaque_splat_shows_the_next(
    backend: Backend, dtype: torch.dtype, depth: float
) -> None:
    args = stack(torch.tensor([depth, depth, 1.0], dtype=dtype))[:-1]
    photo = torch.full((1, SIZE, SIZE, 3), 0.5, dtype=dtype)
    levels = torch.ones(1, dtype=dtype)
    error, removal, *_ = flow_on(backend)(
        *args[:9], photo, None, levels, 0, SIZE, SIZE, BEER_LAMBERT
    )
    of_color = 0.5 * SIZE * SIZE * (COLORS - 0.5).square().sum(dim=1)
    torch.testing.assert_close(error.double(), of_color[:1], **tolerance(dtype))
    expected = torch.stack((of_color[1] - of_color[0], of_color[0] * 0, of_color[0] * 0))[None]
    torch.testing.assert_close(removal.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_splats(
    backend: Backend, dtype: torch.dtype, response: int, antialiased: bool
) -> None:
    """Scales of 0 are as scales that are almost 0, and so are their gradients."""
    world = random_world(24, cameras=2, seed=2)
    results = []
    for thin in (0.0, 1e-12):
        world.scales[::3, 1] = thin
        world.scales[1::6] = thin
        args = replace(world).to(dtype).project_args(response, antialiased=antialiased)
        leaves = [args[i].clone().requires_grad_() for i in (0, 1, 2, 4, 5, 6)]
        for i, leaf in zip((0, 1, 2, 4, 5, 6), leaves, strict=True):
            args[i] = leaf
        outputs = backend.project(*args)
        loss = sum((value * value).sum() for value in outputs[:4])
        gradients = torch.autograd.grad(loss, leaves)
        values = [value.detach() for value in (*outputs, *gradients)]
        assert all(bool(value.isfinite().all()) for value in values)
        results.append(values)
    flat = torch.zeros(24, dtype=torch.bool)
    flat[::3] = flat[1::6] = True
    seen = results[0][4][:, flat, 0] > 0
    assert bool(seen.any()) == (response == GAUSSIAN)  # no light has a way within a flat extinction
    for one, two in zip(results[0][:4], results[1][:4], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e-12, 1e-20, 1e-38])
@pytest.mark.parametrize("eps2d", [0.0, 0.3])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_vanishing_splats_have_finite_footprints(
    backend: Backend, dtype: torch.dtype, antialiased: bool, eps2d: float, scale: float
) -> None:
    # Their determinants are denormal: 1 over them overflows.
    world = random_world(9, cameras=1)
    world.means[:4] = 0
    world.scales[:4] = scale
    args = world.to(dtype).project_args(GAUSSIAN, antialiased=antialiased, eps2d=eps2d)
    leaves = [args[i].clone().requires_grad_() for i in (0, 1, 2)]
    outputs = backend.project(*leaves, *args[3:])
    assert all(bool(value.isfinite().all()) for value in outputs)
    loss = sum(value.square().sum() for value in outputs[:4])
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, leaves))


# --- splats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_optical_depths(dtype: torch.dtype) -> None:
    logits = torch.tensor([-INF, -80.0, -3.0, 0.0, 17.0, 30.0, 50.0, INF], dtype=dtype)
    depths = optical_depths(logits.requires_grad_())
    middle = (math.log1p(math.exp(x)) for x in (-3, 0, 17, 30))
    expected = torch.tensor([0.0, math.exp(-80), *middle, DEEPEST, DEEPEST], dtype=dtype)
    torch.testing.assert_close(depths.detach(), expected, rtol=1e-6, atol=0)
    depths.sum().backward()
    slopes = torch.tensor([0, math.exp(-80), 0.0474259, 0.5, 1, 1, 0, 0], dtype=dtype)
    torch.testing.assert_close(logits.grad, slopes, rtol=1e-5, atol=0)


def test_ends_of_ranges_are_no_broken_splats() -> None:
    splats = Splats.random(6)
    splats.opacity_logits[0], splats.opacity_logits[1] = INF, -INF
    splats.log_scales[2, 1] = -INF
    splats.log_scales[3, 1] = INF
    splats.opacity_logits[4] = math.nan
    assert splats.finite().tolist() == [True, True, True, False, False, True]


def rendered(splats: Splats, response: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an image, and the gradients of its splats."""
    require_extension()
    from splatrender.model.camera import Camera
    from splatrender.operators.options import RenderOptions
    from splatrender.operators.render import render

    splats = splats.clone().requires_grad_()
    camera = Camera(torch.eye(4), 40.0, 40.0, 24.0, 18.0, 48, 36)
    out = render(splats, camera, options=RenderOptions(response=response), depth=True)
    assert out.depth is not None
    (out.radiance.square().sum() + out.depth.sum()).backward()
    gradients = {name: value.grad for name, value in splats.items() if value.grad is not None}
    assert len(gradients) == len(dict(splats.items()))
    return out.radiance.detach(), gradients


def ahead(logit: float, log_scale: float = -1.0, dtype: torch.dtype = torch.float32) -> Splats:
    splats = Splats.random(12).to(dtype).clone()
    splats.means[:, 2] += 3
    splats.opacity_logits[::3] = logit
    splats.log_scales[::3] = -1.5
    splats.log_scales[::3, 0] = log_scale
    return splats


@pytest.mark.parametrize("response", ["gaussian", "beer_lambert"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_opaque_splats_are_seen(dtype: torch.dtype, response: str) -> None:
    opaque, gradients = rendered(ahead(INF, dtype=dtype), response)
    assert all(bool(value.isfinite().all()) for value in gradients.values())
    almost, _ = rendered(ahead(DEEPEST, dtype=dtype), response)
    torch.testing.assert_close(opaque, almost)
    last = None
    for logit in (15.0, 16.0, 17.0, 18.0, 19.0):  # nothing happens where an opacity rounds to 1
        image, gradients = rendered(ahead(logit, dtype=dtype), response)
        assert last is None or float((image - last).abs().max()) < 0.05
        last = image
        assert all(bool(value.isfinite().all()) for value in gradients.values())


@pytest.mark.parametrize("response", ["gaussian", "beer_lambert"])
def test_flat_and_invisible_splats_have_finite_gradients(response: str) -> None:
    for splats in (ahead(2.0, -INF), ahead(-INF), ahead(INF, -INF), ahead(2.0, -60.0)):
        image, gradients = rendered(splats, response)
        assert bool(image.isfinite().all())
        assert all(bool(value.isfinite().all()) for value in gradients.values())


@pytest.mark.parametrize(
    ("strategy", "transport"),
    [("wfr", "adam"), ("mcmc", "adam"), ("adc", "adam"), ("wfr", "wasserstein")],
)
def test_training_goes_on_with_opaque_flat_and_invisible_splats(
    tmp_path: Path, strategy: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_extension()
    from splatrender.training import run, train
    from splatrender.training.initial import initial_splats

    initial = initial_splats

    def at_the_ends(*args: Any) -> Splats:
        splats = initial(*args)
        splats.opacity_logits[::7], splats.opacity_logits[1::7] = INF, -INF
        splats.log_scales[2::7, 1] = -INF
        splats.log_scales[3::7] = -INF
        return splats

    monkeypatch.setattr(run, "initial_splats", at_the_ends)
    settings: dict[str, Any] = {"strategy": strategy, "transport": transport, "iterations": 20}
    results = train(options(tmp_path / "out", **settings, backend="cpu"), ring_scene()).results
    assert math.isfinite(results["psnr"])  # and no splat is NaN, or training had said so
