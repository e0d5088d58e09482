"""Sweep: predicted changes of F are those of renders."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.exchanges import (
    RESPONSES,
    cameras,
    cloud,
    seeded,
    views_of,
)
from torch import Tensor

from splatrender.flow.strategies.mcmc import shared
from splatrender.flow.views.footprints import (
    image_of,
    rasterize_footprints,
)
from splatrender.flow.views.probes import children
from splatrender.flow.views.sweep import (
    Placement,
    best_insertions,
    covariance_gradients,
    squared_error,
    sweep,
)
from splatrender.model import Splats
from splatrender.model.quaternions import rotations_from_quats
from splatrender.operators.options import RenderOptions
from splatrender.operators.render import peak_amplitudes, rasterize
from splatrender.operators.stages import Look

BLACK = torch.zeros(3)
PREDICTION = 2e-4  # tolerance in units of F: float32 images, and pixels near the cut-off


@pytest.mark.parametrize("response", RESPONSES)
def test_predictions_hold_over_views(response: str) -> None:
    options = RenderOptions(response=response)
    look = Look(BLACK, options)
    splats, views = cloud(60, 1), views_of(cloud(50, 2, scale=0.2), options=options)
    probes = children(splats, 40, seeded(3))
    swept = sweep(splats, probes.splats, views, look)
    before = squared_error(splats, views, look)
    assert float(swept.error.sum()) == pytest.approx(before, rel=1e-4)
    costs, gains = swept.removals.costs, swept.insertions.gains
    for n in range(0, 60, 7):
        rest = splats.index(torch.tensor([i for i in range(60) if i != n]))
        change = squared_error(rest, views, look) - before
        assert float(costs[n]) == pytest.approx(change, abs=PREDICTION * before)
    for m in range(0, 40, 5):
        born = swept.insertions.newborn.index(torch.tensor([m])).with_degree(splats.degree)
        change = squared_error(Splats.cat([splats, born]), views, look) - before
        assert -float(gains[m]) == pytest.approx(change, abs=PREDICTION * before)
    assert float(costs.max()) > 100 * PREDICTION * before


def test_best_births_find_mass_and_colour() -> None:
    generator = seeded(0)
    color = torch.rand(30, 3, generator=generator)
    probes = Splats.random(30, seed=1, degree=0)
    probes.sh[:, 0] = 0.0  # quadratics refer to grey
    curvature = 0.5 + torch.rand(4, 30, 2, 1, generator=generator)
    slope = -(curvature * (color - 0.5)[:, None])  # the minimum is at `color` in every view
    offset = torch.tensor([0.3, -0.2]).expand(4, 30, 2)[..., None]
    placement = Placement(torch.zeros(4, 30, 2), torch.ones(4, 30))
    quadratics = torch.cat([offset, slope, curvature], dim=3)
    births = best_insertions(probes, quadratics, (0.5, 2.0), placement)
    found = 0.5 + 0.28209479177387814 * births.newborn.sh[:, 0]
    torch.testing.assert_close(found, color, atol=1e-5, rtol=1e-4)
    # the second mass starts lower by far: it is the better one
    torch.testing.assert_close(births.newborn.opacities, torch.full((30,), 1 - math.exp(-2.0)))
    lowest = 0.2 + 0.5 * curvature[:, :, 1, 0] * (color - 0.5).square().sum(dim=1)
    torch.testing.assert_close(births.by_view, lowest)
    ratio = lowest.mean(dim=0) / (lowest.std(dim=0) / 2)
    torch.testing.assert_close(births.significance, ratio, rtol=1e-3, atol=1e-3)


def test_a_splat_divided_in_place_changes_no_pixel_of_beer_lambert() -> None:
    """Two splats of half the optical mass, each cut off where the parent still shows a little."""
    look, camera = Look(BLACK, RenderOptions(response="beer_lambert")), cameras(3)[1]
    splats = cloud(40, 4, degree=0)
    parents = torch.arange(0, 40, 2)
    halves = splats.index(parents)
    halves.opacity_logits.copy_(torch.logit(-torch.expm1(0.5 * torch.log1p(-halves.opacities))))
    others = splats.index(torch.arange(1, 40, 2))
    seen = rasterize_footprints(splats, None, camera, look)
    divided = Splats.cat([others, halves, halves])
    change = image_of(rasterize_footprints(divided, None, camera, look)) - image_of(seen)
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    dx, dy = (side[..., None] - seen.projected.means2d[0, :, i] for i, side in ((0, x), (1, y)))
    xx, xy, yy = seen.projected.conics[0].unbind(dim=1)
    depths = seen.projected.peaks[0] * torch.exp(
        -0.5 * (xx * dx**2 + 2 * xy * dx * dy + yy * dy**2)
    )
    lost = ((depths * 255 > 0.99) & (depths * 255 < 2.02))[..., parents].any(dim=-1)
    assert float(change[~lost].abs().max()) < 3e-6
    assert float((~lost).float().mean()) > 0.1 and bool((seen.visible[parents]).any())
    covered = depths[..., parents].sum(dim=-1) > 0.1
    assert int((covered & ~lost).sum()) > 30


def test_a_splat_divided_in_place_stays_close_in_gaussian() -> None:
    """Scales of twins keep integrals along lines, not every pixel: at most 0.06 of 1."""
    look, camera = Look(), cameras(3)[1]
    splats = cloud(60, 4, degree=0)
    splats.opacity_logits.clamp_(max=2.0)  # opacity 0.88
    family = splats.index(torch.arange(0, 60, 2))
    halves, factors = shared(family.opacities, torch.full((30,), 2))
    family.log_scales.add_(factors.log()[:, None])
    family.opacity_logits.copy_(torch.logit(halves))
    divided = Splats.cat([splats.index(torch.arange(1, 60, 2)), family, family])
    before = image_of(rasterize_footprints(splats, None, camera, look))
    after = image_of(rasterize_footprints(divided, None, camera, look))
    assert 0 < float((after - before).abs().max()) < 0.06


@pytest.mark.parametrize("response", RESPONSES)
def test_covariance_gradients_are_those_of_differences(response: str) -> None:
    options = RenderOptions(response=response)
    truth, guess = cloud(12, 1).to(torch.float64), cloud(12, 2).to(torch.float64)
    views = views_of(truth, 3, options)
    mask = torch.ones(views[0].photo.shape[:2], dtype=torch.uint8)
    mask[:, :20] = 0
    views[0] = replace(views[0], mask=mask)
    found = covariance_gradients(guess, views, Look(BLACK.double(), options))
    torch.testing.assert_close(found, found.mT)
    factors = rotations_from_quats(guess.quats) * guess.scales[:, None, :]
    change = torch.randn(12, 3, 3, generator=seeded(0), dtype=torch.float64)
    change = 1e-7 * (change + change.mT)

    def error(covariances: Tensor) -> float:
        total = 0.0
        sizes = torch.linalg.det(covariances).pow(1 / 6)[:, None].expand(-1, 3)
        peaks = peak_amplitudes(guess.opacity_logits, sizes, response)
        for view in views:
            radiance = rasterize(
                guess.means, None, None, peaks, guess.sh, view.camera.viewmat[None].double(),
                view.camera.intrinsics()[None].double(), view.camera.width, view.camera.height,
                sh_degree=guess.degree, factors=torch.linalg.cholesky(covariances), options=options,
            ).radiance[0]  # fmt: skip
            residual = radiance - view.photo / 255
            keep = 1 if view.mask is None else view.mask[..., None]
            total += 0.5 * float((keep * residual.square()).sum())
        return total

    start = factors @ factors.mT
    difference = (error(start + change) - error(start - change)) / 2
    assert difference == pytest.approx(float((found * change).sum()), rel=1e-3)
