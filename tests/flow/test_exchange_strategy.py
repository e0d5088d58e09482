"""The exchange strategy: exchanges lower F, budgets and prices hold, twins fill the growth."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.exchanges import (
    cloud,
    make_state,
    seeded,
    step_at_a_sweep,
)
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow import (
    ExchangeConfig,
    ExchangeStrategy,
    TrainState,
    create_strategy,
)
from splatrender.flow.birth_death import Exchange
from splatrender.flow.strategies.exchange import Attempt, apply_exchange, attempts, exchanged
from splatrender.flow.views.objective import PhotoObjective
from splatrender.flow.views.probes import KINDS, children
from splatrender.flow.views.sweep import (
    Sweep,
    squared_error,
    sweep,
)
from splatrender.model import Splats
from splatrender.model.quaternions import rotate
from splatrender.model.splitting import split_splats
from splatrender.operators.stages import Look


@pytest.mark.parametrize("seed", range(4))
def test_an_exchange_never_raises_the_error(seed: int) -> None:
    state = make_state(seed=seed)
    strategy = ExchangeStrategy(1000, max_splats=150, config=ExchangeConfig(views=6, twins=False))
    before = squared_error(state.splats, state.samples, state.look)
    report = step_at_a_sweep(state, strategy)
    after = squared_error(state.splats, state.samples, state.look)
    assert report.relocated > 0
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
    assert counts == [115, 130, 130, 130]
    assert report is not None and report.twins < 15
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


def planned(deaths: list[int], births: list[int]) -> tuple[TrainState, Sweep, Exchange]:
    """Return a state, the sweep of its 30 splats and 20 candidates, and an exchange of them."""
    state = make_state(count=30)
    probes = children(state.splats, 20, seeded(0))
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
    strategy = create_strategy("wfr", 1000, 100, price=0.5)
    assert isinstance(strategy, ExchangeStrategy) and strategy.price == 0.5
    with pytest.raises(InputError, match="price: expected strategy wfr"):
        create_strategy("mcmc", 1000, 100, price=0.5)
    with pytest.raises(InputError, match="price: expected"):
        create_strategy("wfr", 1000, 100, price=-1.0)


def test_flow_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from splatrender.plots.flow import plot_flow, read_flow

    report = step_at_a_sweep(make_state(), ExchangeStrategy(1000, 150))
    (tmp_path / "flow.jsonl").write_text(json.dumps(report.as_json()) + "\n")
    assert read_flow(tmp_path / "flow.jsonl")[0]["moved"] == report.relocated
    assert plot_flow(tmp_path).stat().st_size > 10_000
    with pytest.raises(InputError, match="no file"):
        plot_flow(tmp_path / "nothing")
