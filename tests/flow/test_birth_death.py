"""Deaths, births and exchanges: predicted against true changes of the loss."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers.measures import F64, make_measure, uniform

from splatrender.errors import InputError
from splatrender.flow.birth_death import (
    ExchangeLimits,
    Prices,
    choose_deaths,
    duplicate_and_kill,
    exchange,
    orthogonal_least_squares,
    perturbed_log_costs,
    removal_cost,
    removal_cost_refitted,
    robust_cholesky,
    splitting_direction,
)
from splatrender.model import SplatMeasure, evaluate
from splatrender.model.splitting import split
from splatrender.operators.sampling import observations
from splatrender.regression.amplitudes import as_peaks, fit_amplitudes
from splatrender.regression.linearise import design_of
from splatrender.regression.prior import Prior

POINTS = uniform(80)
TARGET = torch.stack([(4 * POINTS[:, 0]).sin(), (3 * POINTS[:, 1]).cos()], dim=1)


def loss_of_design(columns: torch.Tensor, amplitudes: torch.Tensor) -> float:
    return 0.5 * float((columns @ amplitudes - TARGET).square().sum())


def test_frozen_removal_cost_is_the_true_one() -> None:
    measure = make_measure(6, 2, 2)
    values = torch.stack(
        [
            evaluate(measure.index(torch.tensor([i])), POINTS).value / measure.mass[i]
            for i in range(6)
        ],
        dim=2,
    )  # ∂f/∂m
    residual = values @ measure.mass - TARGET
    potentials = torch.einsum("npk,np->k", values, residual)
    costs = removal_cost(measure.mass, potentials, values.square().sum(dim=(0, 1)))
    for i in range(6):
        mass = measure.mass.clone()
        mass[i] = 0
        change = 0.5 * (values @ mass - TARGET).square().sum() - 0.5 * residual.square().sum()
        assert float(costs[i]) == pytest.approx(float(change), rel=1e-10)


def test_refitted_removal_cost_is_the_true_one() -> None:
    conditions = [observations(POINTS, TARGET)]
    measure, before = fit_amplitudes(as_peaks(make_measure(6, 2, 2)), conditions, Prior())
    design = design_of(measure, conditions)
    gram = design.flat.T @ design.flat
    costs = removal_cost_refitted(measure.weights[:, None, :], gram)
    for i in range(6):
        rest = torch.arange(6) != i
        _, after = fit_amplitudes(measure.index(rest), conditions, Prior())
        assert float(costs[i]) == pytest.approx(after - before, rel=1e-6)


def test_refitted_cost_with_coupled_outputs() -> None:
    """Two columns a splat, as where an equation couples the outputs."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(40, 6, generator=generator, dtype=F64)
    target = torch.randn(40, 1, generator=generator, dtype=F64)
    best = torch.linalg.lstsq(columns, target).solution
    costs = removal_cost_refitted(best.reshape(3, 2, 1), columns.T @ columns)
    before = (columns @ best - target).square().sum()
    for i in range(3):
        rest = columns[:, [j for j in range(6) if j // 2 != i]]
        after = (rest @ torch.linalg.lstsq(rest, target).solution - target).square().sum()
        assert float(costs[i]) == pytest.approx(float(after - before) / 2, rel=1e-9)


def test_births_gain_what_was_predicted_and_are_the_best() -> None:
    conditions = [observations(POINTS, TARGET)]
    measure, before = fit_amplitudes(as_peaks(make_measure(4, 2, 2)), conditions, Prior())
    atoms = as_peaks(make_measure(20, 2, 2, seed=9))
    design = design_of(measure, conditions)
    columns = design_of(measure, conditions, atoms).columns
    born = orthogonal_least_squares(design.residual, design.flat, columns, 3)
    assert len(set(born.ids.tolist())) == 3
    for chosen in range(1, 4):
        both = type(measure).cat([measure, atoms.index(born.ids[:chosen])])
        _, after = fit_amplitudes(both, conditions, Prior())
        assert after - before == pytest.approx(-float(born.gains[:chosen].sum()), rel=1e-6)
    singles = [
        fit_amplitudes(measure.cat([measure, atoms.index(torch.tensor([i]))]), conditions, Prior())
        for i in range(20)
    ]
    assert int(torch.tensor([s[1] for s in singles]).argmin()) == int(born.ids[0])


def test_births_skip_what_is_spanned_or_forbidden() -> None:
    columns = torch.eye(4, dtype=F64)[:, :2]
    residual = torch.ones(4, 1, dtype=F64)
    candidates = torch.eye(4, dtype=F64)[:, :, None]
    born = orthogonal_least_squares(residual, columns, candidates, 4)
    assert sorted(born.ids.tolist()) == [2, 3]
    only = orthogonal_least_squares(
        residual, columns, candidates, 4, allowed=torch.tensor([True, True, False, True])
    )
    assert only.ids.tolist() == [3]
    assert float(only.gains[0]) == pytest.approx(0.5)
    with pytest.raises(InputError, match="candidates: expected 4 rows"):
        orthogonal_least_squares(residual, columns, candidates[:3], 1)


def test_deaths_prefer_the_cheap() -> None:
    costs = torch.tensor([1.0, 1e-6, 10.0, 1e-3], dtype=F64)
    generator = torch.Generator().manual_seed(0)
    assert perturbed_log_costs(costs, generator, temperature=0).argsort().tolist() == [1, 3, 0, 2]
    first = [int(perturbed_log_costs(costs, generator).argmin()) for _ in range(400)]
    assert first.count(1) > 380
    ones = torch.ones(4, dtype=F64)
    equal = [int(perturbed_log_costs(ones, generator).argmin()) for _ in range(400)]
    assert min(equal.count(i) for i in range(4)) > 60
    assert bool(perturbed_log_costs(0 * ones, generator).isfinite().all())


def test_choose_deaths_is_deprecated_and_gives_the_cheapest() -> None:
    costs = torch.tensor([1.0, 1e-6, 10.0, 1e-3], dtype=F64)
    with pytest.warns(DeprecationWarning, match=r"choose_deaths\(...\) is perturbed_log_costs"):
        deaths = choose_deaths(costs, 2, torch.Generator().manual_seed(0), temperature=0)
    assert deaths.tolist() == [1, 3]


def test_rates_of_the_particle_flow() -> None:
    potentials = torch.tensor([-1.0, 1.0, -1.0, 1.0] * 500, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    deaths, births = duplicate_and_kill(potentials, torch.ones(2000, dtype=F64), 0.5, generator)
    assert len(deaths) == len(births)
    assert len(deaths) / 1000 == pytest.approx(1 - 2.718281828**-0.5, abs=0.04)
    assert bool((potentials[deaths] > 0).all()) and bool((potentials[births] < 0).all())


def test_exchange_pairs_and_prices() -> None:
    costs = torch.tensor([5.0, 1.0, 2.0], dtype=F64)
    gains = torch.tensor([4.0, 3.0, 0.5, 0.0], dtype=F64)
    limits = ExchangeLimits(deaths=3, births=3, growth=0)
    swap = exchange(costs, gains, limits)
    assert swap.deaths.tolist() == [1, 2] and swap.births.tolist() == [0, 1]
    assert swap.predicted == pytest.approx(3 - 7)
    roomy = exchange(costs, gains, ExchangeLimits(deaths=3, births=5, growth=2))
    assert roomy.deaths.tolist() == [] and roomy.births.tolist() == [0, 1]
    harmful = exchange(costs - 1.5, gains, limits)
    assert harmful.deaths.tolist() == [1, 2] and harmful.births.tolist() == [0, 1]
    alone = exchange(costs - 1.5, gains[3:], limits)
    assert alone.deaths.tolist() == [1] and alone.births.tolist() == []
    priced = exchange(costs, gains, ExchangeLimits(3, 3, prices=Prices(1.5, 1.5)))
    assert priced.deaths.tolist() == [1] and priced.births.tolist() == [0, 1]


def test_exchange_keeps_every_limit() -> None:
    generator = torch.Generator().manual_seed(0)
    for deaths, births in itertools.product(range(4), repeat=2):
        for growth, prices in itertools.product((None, 0, 1, 2), (None, Prices(0.5, 0.5))):
            costs = torch.randn(6, generator=generator, dtype=F64)
            gains = torch.randn(5, generator=generator, dtype=F64)
            result = exchange(costs, gains, ExchangeLimits(deaths, births, growth, prices))
            assert len(result.deaths) <= deaths and len(result.births) <= births
            if growth is not None:
                assert len(result.births) - len(result.deaths) <= growth
            if prices is not None:
                assert bool((costs[result.deaths] < prices.death).all())
                assert bool((gains[result.births] > prices.birth).all())
            predicted = costs[result.deaths].sum() - gains[result.births].sum()
            assert result.predicted == pytest.approx(float(predicted))
            if prices is None:
                assert result.predicted <= 0


def test_exchange_explores_with_prices_that_allow_all() -> None:
    """Every death up to the number, in the order of the costs, and every birth that gains."""
    costs = torch.tensor([-3.0, 5.0, 1.0, 2.0], dtype=F64)
    gains = torch.tensor([4.0, 3.0, 0.5, 0.0], dtype=F64)
    limits = ExchangeLimits(deaths=2, births=4, prices=Prices(math.inf, 0.0))
    result = exchange(costs, gains, limits)
    assert result.deaths.tolist() == [0, 2] and result.births.tolist() == [0, 1, 2]
    generator = torch.Generator().manual_seed(0)
    perturbed = perturbed_log_costs(costs.clamp(min=0.1), generator)
    again = exchange(perturbed, gains[:0], limits)
    assert again.deaths.tolist() == perturbed.argsort()[:2].tolist() and len(again.births) == 0


def test_splits_gain_along_the_negative_eigenvector() -> None:
    """A wide splat in place of two bumps: S is negative along the line that joins them."""
    truth = make_measure(2, 2)
    factors = 0.12 * torch.eye(2, dtype=F64).repeat(2, 1, 1)
    centres = torch.tensor([[0.3, 0.5], [0.7, 0.5]], dtype=F64)
    truth = type(truth)(
        torch.ones(2, dtype=F64), torch.ones(2, 1, dtype=F64), centres, factors, normalised=True
    )
    one = type(truth)(
        torch.full((1,), 2.0, dtype=F64),
        torch.ones(1, 1, dtype=F64),
        torch.full((1, 2), 0.5, dtype=F64),
        0.15 * torch.eye(2, dtype=F64)[None],
        normalised=True,
    )
    points = uniform(2000)
    target = evaluate(truth, points).value

    def loss(measure: SplatMeasure) -> torch.Tensor:
        return 0.5 * (evaluate(measure, points).value - target).square().mean()

    from splatrender.flow.step import gradients
    from splatrender.flow.transports.velocity import splitting_matrix

    matrix = splitting_matrix(one.factors, gradients(one, loss).velocity.factors)
    value, direction = splitting_direction(matrix, one.factors)
    assert float(value) < 0
    assert abs(float(direction[0, 0])) > 0.99
    twins = split(one, torch.tensor([0]), direction, 0.9)
    assert float(loss(twins)) < 0.9 * float(loss(one))


def test_robust_cholesky() -> None:
    matrix = torch.ones(3, 3, dtype=F64)  # of rank one
    lower = robust_cholesky(matrix)
    torch.testing.assert_close(lower @ lower.T, matrix, rtol=0, atol=1e-10)
    assert bool(robust_cholesky(torch.zeros(2, 2, dtype=F64)).isfinite().all())
    with pytest.raises(InputError, match="finite"):
        robust_cholesky(torch.full((2, 2), float("nan"), dtype=F64))
