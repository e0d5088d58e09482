"""Sweep, probe, exchange: predictions hold on views, exchanges lower F, and what surrounds them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow import (
    ExchangeConfig,
    ExchangeReport,
    ExchangeStrategy,
    TrainState,
    create_strategy,
)
from splatrender.flow.birth_death import Exchange
from splatrender.flow.strategies.exchange import Attempt, apply_exchange, attempts, exchanged
from splatrender.flow.strategies.mcmc import shared
from splatrender.flow.views.footprints import (
    blended,
    draw_on_rays,
    picture_of,
    rasterize_footprints,
)
from splatrender.flow.views.neighbourhood import non_overlapping
from splatrender.flow.views.objective import PhotoObjective
from splatrender.flow.views.probes import CHILD, KINDS, RAY, UNIFORM, anywhere, children, on_rays
from splatrender.flow.views.sweep import (
    Placement,
    Sweep,
    best_insertions,
    covariance_gradients,
    squared_error,
    sweep,
)
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.quaternions import rotate, rotations_from_quats
from splatrender.model.splitting import split_splats
from splatrender.operators.render import RenderOptions, peak_amplitudes, rasterize, render
from splatrender.operators.stages import Look

RESPONSES = ("gaussian", "beer_lambert")
BLACK = torch.zeros(3)
PREDICTION = 2e-4  # of F: float32 images, and pixels near the cut-off


@dataclass(frozen=True)
class View:
    camera: Camera
    photo: Tensor
    mask: Tensor | None
    name: str


def cameras(count: int, size: int = 48) -> list[Camera]:
    turns = [2 * math.pi * i / count for i in range(count)]
    eyes = [(3 * math.sin(t), -0.4, -3 * math.cos(t)) for t in turns]
    return [Camera.look_at(eye, (0, 0, 0), width=size, height=size - 8) for eye in eyes]


def views_of(truth: Splats, count: int = 6, options: RenderOptions | None = None) -> list[View]:
    views = []
    for camera in cameras(count):
        radiance = render(truth, camera, options=options or RenderOptions()).radiance[0]
        photo = (255 * radiance.clamp(0, 1)).round().to(torch.uint8)
        views.append(View(camera, photo, None, f"view {len(views)}"))
    return views


def cloud(count: int, seed: int, scale: float = 0.12, degree: int = 1) -> Splats:
    splats = Splats.random(count, extent=0.8, seed=seed, degree=degree)
    splats.log_scales.fill_(math.log(scale))
    splats.log_scales.add_(0.3 * torch.randn(count, 3, generator=_random(seed)))
    splats.quats.copy_(torch.randn(count, 4, generator=_random(seed + 1)))
    splats.opacity_logits.copy_(torch.randn(count, generator=_random(seed + 2)))
    return splats


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_state(count: int = 150, seed: int = 0) -> TrainState:
    """Splats that are not those of the photos, in the middle of a run."""
    state = TrainState.start(cloud(count, seed), 1000, _random(seed))
    state.samples = state.views = views_of(cloud(80, seed + 7, scale=0.2))
    return state


def step_at_a_sweep(state: TrainState, strategy: ExchangeStrategy) -> ExchangeReport | None:
    state.iteration = strategy.interval * 3
    return strategy.step(state)


@pytest.mark.parametrize("response", RESPONSES)
def test_predictions_hold_over_views(response: str) -> None:
    options = RenderOptions(response=response)
    look = Look(BLACK, options)
    splats, views = cloud(60, 1), views_of(cloud(50, 2, scale=0.2), options=options)
    probes = children(splats, 40, _random(3))
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
    generator = _random(0)
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
    """Twins of half the optical mass; but each is cut off where the parent still shows a little."""
    look, camera = Look(BLACK, RenderOptions(response="beer_lambert")), cameras(3)[1]
    splats = cloud(40, 4, degree=0)
    parents = torch.arange(0, 40, 2)
    halves = splats.index(parents)
    halves.opacity_logits.copy_(torch.logit(-torch.expm1(0.5 * torch.log1p(-halves.opacities))))
    others = splats.index(torch.arange(1, 40, 2))
    seen = rasterize_footprints(splats, None, camera, look)
    divided = Splats.cat([others, halves, halves])
    change = picture_of(rasterize_footprints(divided, None, camera, look)) - picture_of(seen)
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
    """The scale of twins keeps integrals along lines, not every pixel: at most 0.06 of 1."""
    look, camera = Look(), cameras(3)[1]
    splats = cloud(60, 4, degree=0)
    splats.opacity_logits.clamp_(max=2.0)  # opacity 0.88
    family = splats.index(torch.arange(0, 60, 2))
    halves, factors = shared(family.opacities, torch.full((30,), 2))
    family.log_scales.add_(factors.log()[:, None])
    family.opacity_logits.copy_(torch.logit(halves))
    divided = Splats.cat([splats.index(torch.arange(1, 60, 2)), family, family])
    before = picture_of(rasterize_footprints(splats, None, camera, look))
    after = picture_of(rasterize_footprints(divided, None, camera, look))
    assert 0 < float((after - before).abs().max()) < 0.06


@pytest.mark.parametrize("seed", range(4))
def test_an_exchange_never_raises_the_error(seed: int) -> None:
    state = make_state(seed=seed)
    strategy = ExchangeStrategy(1000, max_splats=150, config=ExchangeConfig(views=6, twins=False))
    before = squared_error(state.splats, state.samples, state.look)
    report = step_at_a_sweep(state, strategy)
    after = squared_error(state.splats, state.samples, state.look)
    assert report is not None and report.relocated > 0
    assert len(state) == 150 + report.born - report.died <= 150
    assert after - before == pytest.approx(report.realised, abs=1e-3 * before)
    assert after <= before * (1 + 1e-4)
    assert report.predicted < 0


def test_growth_stops_at_the_budget_and_lowers_the_error() -> None:
    state = make_state(count=100)
    strategy = ExchangeStrategy(1000, max_splats=130, config=ExchangeConfig(views=6, twins=False))
    counts, errors = [], [squared_error(state.splats, state.samples, state.look)]
    for turn in range(1, 5):
        state.iteration = strategy.interval * turn
        strategy.step(state)
        counts.append(len(state))
        errors.append(squared_error(state.splats, state.samples, state.look))
    assert max(counts) <= 130 and counts[-1] >= 95
    assert all(after <= before * 1.0001 for before, after in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]
    assert all(len(m.exp_avg) == counts[-1] for m in state.moments.values())


def test_twins_fill_the_budget() -> None:
    state = make_state(count=100)
    strategy = ExchangeStrategy(1000, max_splats=130, config=ExchangeConfig(views=6, rest=1))
    counts = []
    for turn in range(1, 5):
        state.iteration = strategy.interval * turn
        report = strategy.step(state)
        assert report is not None and report.splats == len(state)
        counts.append(len(state))
    assert counts == [115, 130, 130, 130] and report.twins < 15
    assert all(len(m.exp_avg) == 130 for m in state.moments.values())
    assert all(len(rows) == 130 for rows in state.rows.values())


def covariances(splats: Splats) -> Tensor:
    columns = torch.diag_embed(splats.scales).unbind(dim=2)
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    factors = torch.stack([rotate(quats, column) for column in columns], dim=2)
    return factors @ factors.mT


def test_short_runs_have_fewer_sweeps_and_grow_as_much() -> None:
    long, short = ExchangeStrategy(7000, 100), ExchangeStrategy(1000, 100)
    assert (long.interval, short.interval) == (297, 170)
    assert (1 + short.growth) ** 5 == pytest.approx((1 + long.growth) ** 20)


def test_the_mass_of_opaque_splats_is_finite() -> None:
    state = make_state(count=100)
    state.splats.opacity_logits.data[:5] = 30.0  # an opacity of 1 in float32
    mass = torch.nn.functional.softplus(state.splats.opacity_logits.detach().double()).sum()
    report = step_at_a_sweep(
        state, ExchangeStrategy(1000, max_splats=100, config=ExchangeConfig(views=6))
    )
    assert isinstance(report, ExchangeReport)
    assert math.isfinite(report.mass)
    assert report.mass == pytest.approx(float(mass), rel=1e-5)


def test_a_splat_that_one_view_alone_needs_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    state, whole = make_state(count=100), PhotoObjective.sweep
    config = ExchangeConfig(views=6, rest=1, turnover=0.0)
    strategy = ExchangeStrategy(1000, max_splats=130, config=config)
    state.iteration = strategy.interval

    def swept(self: PhotoObjective, measure: Splats) -> Sweep:
        sweep = whole(self, measure)
        costs = sweep.removals.by_view.abs() + 1
        costs[1:, 50:] = 0  # the first view alone needs the second half
        seen = torch.full_like(sweep.removals.seen, 6)
        insertions = replace(sweep.insertions, significance=0 * sweep.insertions.significance)
        removals = replace(sweep.removals, costs=costs.sum(dim=0), by_view=costs, seen=seen)
        return replace(sweep, removals=removals, insertions=insertions)

    monkeypatch.setattr(PhotoObjective, "sweep", swept)
    before = state.splats.detach().clone()
    report = strategy.step(state)
    assert report is not None and report.twins == 15 == len(state) - 100
    changed = (state.splats.detach().log_scales[:100] != before.log_scales).any(dim=1)
    assert bool(changed[:50].any()) and not bool(changed[50:].any())


def test_twins_have_the_mass_the_mean_and_the_covariance_of_their_parent() -> None:
    parents = cloud(50, 2).map(Tensor.double)
    one, other = split_splats(parents)
    masses = [-torch.log1p(-s.opacities) * s.scales.prod(dim=1) for s in (parents, one, other)]
    torch.testing.assert_close(masses[1] + masses[2], masses[0])
    torch.testing.assert_close(0.5 * (one.means + other.means), parents.means)
    apart = 0.5 * (one.means - other.means)
    within = 0.5 * (covariances(one) + covariances(other))
    between = apart[:, :, None] * apart[:, None, :]
    torch.testing.assert_close(within + between, covariances(parents))


def test_a_higher_price_keeps_fewer_splats() -> None:
    counts = []
    for price in (0.0, 0.02, 0.5):
        state = make_state(count=120)
        strategy = ExchangeStrategy(
            1000, max_splats=400, price=price, config=ExchangeConfig(views=6)
        )
        for turn in range(1, 5):
            state.iteration = strategy.interval * turn
            strategy.step(state)
        counts.append(len(state))
    assert counts[0] > counts[1] > counts[2]


def test_nothing_happens_between_sweeps() -> None:
    state, strategy = make_state(), ExchangeStrategy(1000, 150)
    for iteration in (strategy.interval + 1, strategy.interval - 1, 990):
        state.iteration = iteration
        assert strategy.step(state) is None


def test_the_same_seed_gives_the_same_splats() -> None:
    results = []
    for _ in range(2):
        state = make_state()
        step_at_a_sweep(state, ExchangeStrategy(1000, 160))
        results.append(dict(state.splats.items()))
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_reports_are_plain_numbers() -> None:
    report = step_at_a_sweep(make_state(), ExchangeStrategy(1000, 150))
    details = json.loads(json.dumps(report.as_json()))
    assert details["predicted"] == report.predicted
    born = sum(details[f"born_{kind}"] for kind in KINDS)
    assert born + details["twins"] == report.relocated + report.born
    assert len(details["costs"]) == len(details["log10"])


class TestProbes:
    def test_children_lie_where_their_parents_are(self) -> None:
        splats = Splats.random(1, seed=0)
        splats.log_scales.copy_(torch.tensor([[0.3, 0.1, 0.02]]).log())
        splats.quats.copy_(torch.tensor([[0.6, 0.2, -0.5, 0.1]]))
        probes = children(splats, 4000, _random(0))
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

    def test_rays_meet_splats_as_light_is_absorbed(self) -> None:
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

    def test_rays_that_meet_nothing(self) -> None:
        far = cloud(5, 0)
        far.means.add_(100.0)
        seen = rasterize_footprints(far, None, cameras(3)[0], Look())
        drawn = draw_on_rays(seen, blended(seen)[1], torch.arange(10), torch.rand(10))
        assert drawn.tolist() == [-1] * 10

    def test_rays_go_where_the_residual_is(self) -> None:
        splats = cloud(200, 5, scale=0.2)
        splats.opacity_logits.fill_(3.0)
        (view,) = views_of(splats, count=1)
        photo = view.photo.clone()
        photo[10:14, 20:30] = 255 - photo[10:14, 20:30]
        view = View(view.camera, photo, None, "")
        probes = on_rays(splats, [view], 300, Look(), _random(0))
        at = rasterize_footprints(probes.splats, None, view.camera, Look()).projected.means2d[0]
        inside = (at[:, 0] >= 20) & (at[:, 0] < 30) & (at[:, 1] >= 10) & (at[:, 1] < 14)
        assert float(inside.float().mean()) > 0.95
        assert bool((probes.kinds == RAY).all()) and len(probes) > 250

    def test_masks_keep_rays_away(self) -> None:
        splats = cloud(200, 5, scale=0.2)
        (view,) = views_of(cloud(50, 9), count=1)
        mask = torch.zeros(view.photo.shape[:2], dtype=torch.uint8)
        mask[:, :24] = 1
        view = View(view.camera, view.photo, mask, "")
        probes = on_rays(splats, [view], 300, Look(), _random(0))
        at = rasterize_footprints(probes.splats, None, view.camera, Look()).projected.means2d[0]
        assert float(at[:, 0].max()) <= 24.01

    def test_anywhere_covers_the_depths(self) -> None:
        splats = cloud(200, 5)
        probes = anywhere(splats, views_of(splats, 2), 400, Look(), _random(0))
        assert len(probes) == 400 and bool((probes.kinds == UNIFORM).all())
        depths = rasterize_footprints(probes.splats, None, cameras(2)[0], Look()).depths
        assert float(depths[:200].std()) > 0.2

    def test_where_nothing_is_to_be_drawn_there_are_no_probes(self) -> None:
        far = cloud(5, 0)
        far.means.add_(100.0)
        (view,) = views_of(far, 1)  # black, as it is rendered
        for propose in (on_rays, anywhere):
            assert len(propose(far, [view], 40, Look(), _random(0))) == 0
        broken = torch.full((3,), math.nan)  # of the background: residuals without a sum
        splats = cloud(200, 5)
        assert len(on_rays(splats, [view], 40, Look(broken), _random(0))) == 0
        both = on_rays(splats, [view, *views_of(far, 2)], 60, Look(), _random(0))
        assert len(both) > 30 and bool(both.splats.finite().all())


IMAGES = torch.tensor([[128, 64], [128, 64]])


def by_pairs(
    places: Tensor, sizes: Tensor, weights: Tensor, images: Tensor, factor: float
) -> list[int]:
    """Apply the definition of `non_overlapping` row by row."""
    views, count = sizes.shape
    levels = (sizes / 0.5).clamp(min=1).log2().round().clamp(max=9)
    first = torch.zeros_like(sizes)

    @cache
    def cell(view: int, row: int, level: float) -> tuple[int, ...]:
        side = factor * 0.5 * 2.0**level
        at = (places[view, row] / side).floor().long()
        last = (images[view] / side).floor().long() + 1
        return tuple(at.clamp(min=-1).minimum(last).tolist())

    for view in range(views):
        seen = [row for row in range(count) if sizes[view, row] > 0]
        own = levels[view].tolist()
        for row in seen:
            pairs = [(max(own[row], own[other]), other) for other in seen]
            first[view, row] = all(
                other >= row or cell(view, other, level) != cell(view, row, level)
                for level, other in pairs
            )
    kept = (first * weights).sum(dim=0) >= 0.5 * weights.sum(dim=0)
    return kept.nonzero()[:, 0].tolist()


class TestNonOverlapping:
    def test_all_views_and_sizes_at_once_are_as_by_pairs(self) -> None:
        generator = _random(4)
        places = 100 * torch.rand(3, 60, 2, generator=generator) - 10  # some beyond the border
        sizes = 2.0 ** (5 * torch.rand(3, 60, generator=generator) - 2)
        sizes[torch.rand(3, 60, generator=generator) < 0.3] = 0
        weights = torch.rand(3, 60, generator=generator)
        images = torch.tensor([[80, 60], [40, 90], [64, 64]])
        for factor in (1.0, 3.0):
            expected = by_pairs(places, sizes, weights, images, factor)
            assert (
                non_overlapping(Placement(places, sizes), weights, images, factor).tolist()
                == expected
            )
            assert 5 < len(expected) < 55

    def test_the_better_of_two_neighbours_is_kept(self) -> None:
        places = torch.tensor([[[2.0, 2.0], [2.5, 2.5], [40.0, 2.0]]])
        ones = torch.ones(1, 3)
        assert non_overlapping(Placement(places, ones), ones, IMAGES, 4.0).tolist() == [0, 2]
        assert non_overlapping(Placement(places, ones), ones, IMAGES, 0.0).tolist() == [0, 1, 2]

    def test_sizes_meet_across_levels(self) -> None:
        places = torch.tensor([[[5.0, 5.0], [6.0, 6.0]]])
        for sizes in ([1.0, 8.0], [8.0, 1.0]):
            assert non_overlapping(
                Placement(places, torch.tensor([sizes])), torch.ones(1, 2), IMAGES, 4.0
            ).tolist() == [0]

    def test_views_vote_by_weight(self) -> None:
        near, far = [[3.0, 3.0], [3.2, 3.2]], [[3.0, 3.0], [90.0, 90.0]]
        places, sizes = torch.tensor([near, far]), torch.ones(2, 2)
        assert non_overlapping(
            Placement(places, sizes), torch.tensor([[1.0, 3.0], [1.0, 1.0]]), IMAGES, 4.0
        ).tolist() == [0]
        assert non_overlapping(
            Placement(places, sizes), torch.tensor([[1.0, 1.0], [1.0, 3.0]]), IMAGES, 4.0
        ).tolist() == [0, 1]

    def test_views_that_do_not_see_a_row_have_no_vote(self) -> None:
        places = torch.tensor([[[3.0, 3.0], [3.2, 3.2]]] * 2)
        sizes = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        weights = torch.tensor([[1.0, 0.1], [0.0, 1.0]])
        assert non_overlapping(Placement(places, sizes), weights, IMAGES, 4.0).tolist() == [0, 1]


def planned(deaths: list[int], births: list[int]) -> tuple[TrainState, Sweep, Exchange]:
    """Return a state, the sweep of its 30 splats and 20 candidates, and an exchange of them."""
    state = make_state(count=30)
    probes = children(state.splats, 20, _random(0))
    swept = sweep(state.splats, probes.splats, state.views, Look())
    return state, swept, Exchange(torch.tensor(deaths), torch.tensor(births), -1.0)


def test_exchanged_puts_the_newborn_behind() -> None:
    state, swept, exchange = planned([3, 5], [7])
    attempt = Attempt(exchange, swept.insertions.newborn.index(exchange.births))
    after = exchanged(state.splats, attempt)
    assert len(after) == 29
    torch.testing.assert_close(after.means[-1], swept.insertions.newborn.means[7])
    torch.testing.assert_close(after.means[3], state.splats.means[4].detach())


@pytest.mark.parametrize(("deaths", "births"), [([3, 5], [7]), ([3], [7, 2, 9]), ([4], [1])])
def test_an_exchange_returns_the_rows_of_before(deaths: list[int], births: list[int]) -> None:
    state, swept, exchange = planned(deaths, births)
    before = state.splats.detach().means.clone()
    attempt = Attempt(exchange, swept.insertions.newborn.index(exchange.births))
    expected = exchanged(state.splats, attempt)
    rows = apply_exchange(state, attempt)
    assert len(rows) == len(state) == 30 - len(deaths) + len(births)
    old = rows >= 0
    assert torch.equal(state.splats.detach().means[old], before[rows[old]])
    assert int((~old).sum()) == len(births) and not set(deaths) & set(rows[old].tolist())
    kept = [expected.means.tolist(), state.splats.detach().means.tolist()]
    assert sorted(kept[0]) == sorted(kept[1])


def test_attempts_halve_masses_and_then_numbers() -> None:
    _, swept, exchange = planned([3], [7, 2, 9])
    made = list(attempts(swept, exchange, vacancies=2))
    sizes = [(len(a.exchange.deaths), len(a.exchange.births)) for a in made]
    assert sizes == [(1, 3)] * 4 + [(0, 1)]
    depths = [float(a.newborn.optical_depths[0]) for a in made]
    assert depths == pytest.approx([depths[0] * 0.5**i for i in (0, 1, 2, 3, 3)], rel=1e-4)
    priced = list(attempts(swept, replace(exchange, deaths=torch.tensor([3, 4, 5])), None))
    sizes = [(len(a.exchange.deaths), len(a.exchange.births)) for a in priced]
    assert sizes == [(3, 3), (1, 1)]


def test_price_belongs_to_wfr_only() -> None:
    assert create_strategy("wfr", 1000, 100, price=0.5).price == 0.5
    with pytest.raises(InputError, match="price: expected strategy wfr"):
        create_strategy("mcmc", 1000, 100, price=0.5)
    with pytest.raises(InputError, match="price: expected"):
        create_strategy("wfr", 1000, 100, price=-1.0)


def test_flow_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from splatrender.plots.flow import plot_flow, read_flow

    report = step_at_a_sweep(make_state(), ExchangeStrategy(1000, 150))
    (tmp_path / "flow.jsonl").write_text(json.dumps(report.as_json()) + "\n")
    assert read_flow(tmp_path / "flow.jsonl")[0]["moved"] == report.relocated
    assert plot_flow(tmp_path).stat().st_size > 10_000
    with pytest.raises(InputError, match="no file"):
        plot_flow(tmp_path / "nothing")


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
    change = torch.randn(12, 3, 3, generator=_random(0), dtype=torch.float64)
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
