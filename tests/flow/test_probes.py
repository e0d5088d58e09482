"""Candidates of births: children of splats, on rays of large residuals, and anywhere."""

from __future__ import annotations

import math

import torch
from helpers.exchanges import (
    cameras,
    cloud,
    seeded,
    views_of,
)

from splatrender.flow.views.footprints import (
    blended,
    draw_on_rays,
    rasterize_footprints,
)
from splatrender.flow.views.probes import CHILD, RAY, UNIFORM, anywhere, children, on_rays
from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.operators.render import render
from splatrender.operators.stages import Look


def test_children_are_where_their_parents_are() -> None:
    splats = Splats.random(1, seed=0)
    splats.log_scales.copy_(torch.tensor([[0.3, 0.1, 0.02]]).log())
    splats.quats.copy_(torch.tensor([[0.6, 0.2, -0.5, 0.1]]))
    probes = children(splats, 4000, seeded(0))
    q = torch.nn.functional.normalize(splats.quats[0], dim=0)
    w, u = q[0], q[1:]
    cross = torch.tensor([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    axes = torch.eye(3) + 2 * w * cross + 2 * cross @ cross
    factor = axes * splats.scales
    covariance = factor @ factor.T
    found = probes.splats.means.T.cov()
    torch.testing.assert_close(found, covariance, rtol=0.1, atol=0.05 * float(covariance.max()))
    assert bool((probes.kinds == CHILD).all())
    assert float((probes.splats.scales / splats.scales - 0.6).abs().max()) < 1e-5


def test_rays_meet_splats_as_light_is_absorbed() -> None:
    camera = cameras(3)[0]
    seen = rasterize_footprints(cloud(50, 3), None, camera, Look())
    pixel = 20 * camera.width + 24
    count = 20_000
    rays = torch.full((count,), pixel)
    drawn = draw_on_rays(seen, blended(seen)[1], rays, torch.rand(count))
    # by rendering each splat's own colour: its weight T α is what a unit of it adds
    splats = cloud(50, 3)
    weights = torch.zeros(50)
    for n in range(50):
        marked = splats.clone().with_degree(0)
        marked.sh.fill_(-0.5 / 0.28209479177387814)
        marked.sh[n] *= -1
        weights[n] = render(marked, camera).radiance[0, 20, 24, 0]
    frequency = torch.bincount(drawn, minlength=50) / count
    torch.testing.assert_close(frequency, weights / weights.sum(), rtol=0, atol=0.02)
    assert float(weights.sum()) > 0.5


def test_rays_that_meet_nothing() -> None:
    far = cloud(5, 0)
    far.means.add_(100.0)
    seen = rasterize_footprints(far, None, cameras(3)[0], Look())
    drawn = draw_on_rays(seen, blended(seen)[1], torch.arange(10), torch.rand(10))
    assert drawn.tolist() == [-1] * 10


def test_rays_go_where_the_residual_is() -> None:
    splats = cloud(200, 5, scale=0.2)
    splats.opacity_logits.fill_(3.0)
    (view,) = views_of(splats, count=1)
    photo = view.photo.clone()
    photo[10:14, 20:30] = 255 - photo[10:14, 20:30]
    view = View(view.camera, photo, None, "")
    probes = on_rays(splats, [view], 300, Look(), seeded(0))
    at = rasterize_footprints(probes.splats, None, view.camera, Look()).projected.means2d[0]
    inside = (at[:, 0] >= 20) & (at[:, 0] < 30) & (at[:, 1] >= 10) & (at[:, 1] < 14)
    assert float(inside.float().mean()) > 0.95
    assert bool((probes.kinds == RAY).all()) and len(probes) > 250


def test_masks_keep_rays_away() -> None:
    splats = cloud(200, 5, scale=0.2)
    (view,) = views_of(cloud(50, 9), count=1)
    mask = torch.zeros(view.photo.shape[:2], dtype=torch.uint8)
    mask[:, :24] = 1
    view = View(view.camera, view.photo, mask, "")
    probes = on_rays(splats, [view], 300, Look(), seeded(0))
    at = rasterize_footprints(probes.splats, None, view.camera, Look()).projected.means2d[0]
    assert float(at[:, 0].max()) <= 24.01


def test_anywhere_covers_the_depths() -> None:
    splats = cloud(200, 5)
    probes = anywhere(splats, views_of(splats, 2), 400, Look(), seeded(0))
    assert len(probes) == 400 and bool((probes.kinds == UNIFORM).all())
    depths = rasterize_footprints(probes.splats, None, cameras(2)[0], Look()).depths
    assert float(depths[:200].std()) > 0.2


def test_where_nothing_is_to_be_drawn_there_are_no_probes() -> None:
    far = cloud(5, 0)
    far.means.add_(100.0)
    (view,) = views_of(far, 1)  # black, as it is rendered
    for propose in (on_rays, anywhere):
        assert len(propose(far, [view], 40, Look(), seeded(0))) == 0
    broken = torch.full((3,), math.nan)  # the background: residuals have no sum then
    splats = cloud(200, 5)
    assert len(on_rays(splats, [view], 40, Look(broken), seeded(0))) == 0
    both = on_rays(splats, [view, *views_of(far, 2)], 60, Look(), seeded(0))
    assert len(both) > 30 and bool(both.splats.finite().all())
