"""Levenberg–Marquardt, rounds of births and deaths, first-order descent."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from helpers.measures import F64, make_measure, uniform

from splatrender.errors import InputError
from splatrender.model import SplatMeasure, evaluate
from splatrender.operators.differential import Condition, identity, laplacian
from splatrender.operators.sampling import observations
from splatrender.regression import (
    LMOptions,
    Prior,
    Round,
    SolverOptions,
    fit,
    initial_measure,
    levenberg_marquardt,
)
from splatrender.regression.amplitudes import as_peaks, fit_amplitudes
from splatrender.regression.descent import DescentOptions, condition_loss, fit_first_order
from splatrender.regression.linearise import NormalEquations, loss_of, moved
from splatrender.regression.noise import neighbour_noise

TIGHT = LMOptions(iterations=200, tolerance=1e-10)


def nudged(measure: SplatMeasure, size: float = 0.03) -> SplatMeasure:
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(measure.means.shape, generator=generator, dtype=F64)
    return replace(measure, means=measure.means + size * noise, factors=1.1 * measure.factors)


@pytest.mark.parametrize(("parent", "dims"), [("gaussian", 1), ("gaussian", 2), ("student-t", 2)])
def test_levenberg_recovers_a_measure_from_its_function(parent: str, dims: int) -> None:
    truth = as_peaks(make_measure(3, dims, 2, parent=parent, seed=5))
    points = uniform(300, dims)
    conditions = [observations(points, evaluate(truth, points).value)]
    result = levenberg_marquardt(nudged(truth), conditions, options=TIGHT)
    assert result.loss < 1e-18
    torch.testing.assert_close(result.measure.means, truth.means, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.measure.covariances, truth.covariances, rtol=0, atol=1e-4)


def test_a_nonlinear_problem_converges_fast() -> None:
    """Gauss–Newton near a solution of Allen-Cahn's equation: from its data and the equation."""
    points = uniform(200)
    truth = as_peaks(make_measure(3, 2, seed=5))

    def residual(x: torch.Tensor, lap: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return 0.01 * lap + u - u**3

    field = evaluate(truth, points, 2)
    right = residual(points, field.laplacian, field.value)
    conditions = [
        Condition(points, (laplacian(2), identity()), target=right, residual=residual).mean(),
        observations(points, field.value),
    ]
    result = levenberg_marquardt(nudged(truth, 0.01), conditions, options=TIGHT)
    assert result.loss < 1e-18
    assert result.iterations < 30


def test_projection_gives_the_least_squares_amplitudes() -> None:
    measure = as_peaks(make_measure(4, 2, 2))
    points, target = uniform(50), uniform(50, 2, seed=3)
    result, loss = fit_amplitudes(measure, [observations(points, target)], Prior(ridge=1e-3))
    columns = torch.stack(
        [evaluate(replace(measure, weights=torch.eye(4, dtype=F64)), points).value], 0
    )[0]
    gram = columns.T @ columns / 50 + 1e-3 * torch.eye(4, dtype=F64)
    torch.testing.assert_close(result.weights, torch.linalg.solve(gram, columns.T @ target / 50))
    assert loss == pytest.approx(loss_of(result, [observations(points, target)]))


def test_projection_takes_a_gauss_newton_step_where_residuals_are_not_linear() -> None:
    measure = as_peaks(make_measure(4, 2))
    points, target, prior = uniform(50), uniform(50, 1, seed=3), Prior(ridge=1e-3)
    data = observations(points, target)
    linear, loss = fit_amplitudes(measure, [data], prior)
    written_out = replace(data, residual=lambda _, u: u)  # one step leads to the minimum
    result, result_loss = fit_amplitudes(measure, [written_out], prior)
    torch.testing.assert_close(result.weights, linear.weights)
    assert result_loss == pytest.approx(loss)
    bent = replace(data, residual=lambda _, u: u + u**3)
    before = loss_of(measure, [bent]) + prior.penalty(measure)
    result, result_loss = fit_amplitudes(measure, [bent], prior)
    assert result_loss + prior.penalty(result) < before
    assert result_loss == pytest.approx(loss_of(result, [bent]))


@pytest.mark.parametrize("first", [0, 1])
def test_descents_do_not_hang_on_the_last_bit(first: int) -> None:
    """Allen-Cahn's steady equation from amplitudes of zero, with inputs changed by 1e-13."""
    inside, side = uniform(200), torch.linspace(0, 1, 31, dtype=F64)
    ends = (torch.zeros_like(side), torch.ones_like(side))
    border = torch.cat([torch.stack(p, 1) for e in ends for p in ((side, e), (e, side))])
    start = initial_measure(inside, 10, generator=torch.Generator().manual_seed(first))
    prior, options = Prior(smallest=0.03, extents=(2, 2)), LMOptions(40, tolerance=0)
    losses = []
    for size in (0, 1e-13, -1e-13):
        generator = torch.Generator().manual_seed(0)
        x, at, front = (
            v * (1 + size * torch.randn(v.shape, generator=generator, dtype=F64))
            for v in (inside, border, ((border.sum(dim=1, keepdim=True) - 1) / 0.2).tanh())
        )
        equation = Condition(
            x, (laplacian(2), identity()), residual=lambda _, lap, u: 0.01 * lap + u - u**3
        )
        conditions = [equation.mean(), Condition(at, (identity(),), front).mean(100)]
        losses.append(levenberg_marquardt(start, conditions, prior, options).loss)
    assert max(losses) < 2e-3  # 3e-2 and more where amplitudes lag behind
    assert max(losses) < 2 * min(losses)


def test_scale_limits_hold() -> None:
    points = uniform(200)
    target = (40 * points[:, :1]).sin()
    prior = Prior(smallest=0.1, largest=0.2)
    result = levenberg_marquardt(as_peaks(make_measure(6)), [observations(points, target)], prior)
    scales = torch.linalg.svdvals(result.measure.factors)
    assert float(scales.min()) > 0.1 - 1e-9 and float(scales.max()) < 0.2 + 1e-9


def test_hopeless_descents_end_early() -> None:
    x = uniform(200, 1)
    conditions = [observations(x, (25 * x).sin())]
    start = as_peaks(initial_measure(x, 8, generator=torch.Generator().manual_seed(0)))
    whole = levenberg_marquardt(start, conditions, options=TIGHT)
    in_reach = replace(TIGHT, target=loss_of(start, conditions))
    assert levenberg_marquardt(start, conditions, options=in_reach).loss == whole.loss
    out_of_reach = replace(TIGHT, target=1e-3 * whole.loss)
    assert (
        levenberg_marquardt(start, conditions, options=out_of_reach).iterations < whole.iterations
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_noise_is_estimated_from_neighbours(dims: int, noise: float) -> None:
    x = uniform(1500, dims)
    generator = torch.Generator().manual_seed(1)
    clean = torch.where(x[:, :1] > 0.4, 2.0, 0.0) + x.square().sum(dim=1, keepdim=True)
    values = clean + noise * torch.randn(1500, 1, generator=generator, dtype=F64)
    result = neighbour_noise(x, values)
    assert result == pytest.approx(noise, rel=0.15, abs=0.02 if dims > 1 else 1e-4)
    assert neighbour_noise(x.repeat(2, 1), values.repeat(2, 1)) == pytest.approx(result)
    assert neighbour_noise(x[:6], values[:6]) == math.inf  # too few to tell
    assert neighbour_noise(x, 0 * values) == math.inf  # no noise at all: nothing is known


@pytest.mark.parametrize(("dims", "outputs"), [(1, 1), (2, 1), (3, 2)])
def test_the_prior_s_gradient_matches_finite_differences(dims: int, outputs: int) -> None:
    measure = as_peaks(make_measure(4, dims, outputs))
    prior, size, step = Prior(ridge=0.3, roughness=1.7), measure.parameters, 1e-5
    system = NormalEquations(torch.zeros(size, size, dtype=F64), torch.zeros(size, dtype=F64))
    prior.add_to(system, measure)
    slopes = [
        (prior.penalty(moved(measure, e)) - prior.penalty(moved(measure, -e))) / (2 * step)
        for e in step * torch.eye(size, dtype=F64)
    ]
    torch.testing.assert_close(system.gradient, torch.tensor(slopes, dtype=F64))
    assert torch.equal(system.hessian, system.hessian.T)


def test_lasso_lowers_the_mass() -> None:
    points = uniform(200)
    conditions = [observations(points, (5 * points[:, :1]).sin())]
    masses = []
    for lasso in (0.0, 1e-3, 1e-2):
        start = as_peaks(make_measure(6, seed=2))
        result = levenberg_marquardt(start, conditions, Prior(ridge=1e-9, lasso=lasso))
        masses.append(float(result.measure.weights.abs().sum()))
        assert math.isfinite(result.objective)
    assert masses[0] > masses[1] > masses[2]


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_rotating_and_scaling_the_data_commutes_with_fitting(scale: float) -> None:
    points = uniform(150)
    target = torch.sin(5 * points[:, :1]) * points[:, 1:]
    angle = torch.tensor(0.6, dtype=F64)
    c, s = angle.cos(), angle.sin()
    turn = scale * torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
    start = as_peaks(make_measure(5, seed=2))
    turned = replace(start, means=start.means @ turn.T, factors=turn @ start.factors)
    options = LMOptions(iterations=8, tolerance=0)
    here = levenberg_marquardt(start, [observations(points, target)], options=options)
    there = levenberg_marquardt(turned, [observations(points @ turn.T, target)], options=options)
    assert there.loss == pytest.approx(here.loss, rel=1e-5)
    torch.testing.assert_close(there.measure.weights, here.measure.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        there.measure.means / scale, here.measure.means @ turn.T / scale, rtol=1e-3, atol=1e-4
    )
    doubled = levenberg_marquardt(start, [observations(points, 2 * target)], options=options)
    assert doubled.loss == pytest.approx(4 * here.loss, rel=1e-3)


def planted() -> tuple[list[Condition], SplatMeasure]:
    """Two far bumps of f, and two splats that both sit on one of them: a local minimum."""
    x = torch.linspace(0, 1, 300, dtype=F64)[:, None]
    f = torch.exp(-((x - 0.2) ** 2) / 2 / 0.03**2) + torch.exp(-((x - 0.8) ** 2) / 2 / 0.03**2)
    start = SplatMeasure(
        torch.ones(2, dtype=F64),
        torch.full((2, 1), 0.5, dtype=F64),
        torch.tensor([[0.19], [0.21]], dtype=F64),
        torch.full((2, 1, 1), 0.03, dtype=F64),
    )
    return [observations(x, f)], start


def test_births_and_deaths_escape_a_minimum_that_gauss_newton_does_not() -> None:
    conditions, start = planted()
    stuck = levenberg_marquardt(start, conditions, options=TIGHT)
    rmse = math.sqrt(2 * stuck.loss)
    assert rmse > 0.1
    solution = fit(conditions, start, SolverOptions(n_splats=2, rounds=10, patience=10))
    assert len(solution.measure) == 2
    assert math.sqrt(2 * solution.loss) < 1e-6
    swapped = [entry for entry in solution.history if entry.kept and entry.deaths]
    assert swapped and swapped[0].births == swapped[0].deaths


def test_rounds_never_raise_the_loss_and_keep_the_budget() -> None:
    x = uniform(300, 1)
    conditions = [observations(x, (30 * x * (2 - x)).sin())]
    seen = []
    start = initial_measure(x, 4, generator=torch.Generator().manual_seed(0))
    options = SolverOptions(n_splats=9, rounds=10, iterations=20, polish=50, shrinkage=0)
    solution = fit(
        conditions,
        start,
        options,
        prior=Prior(ridge=1e-10),
        progress=lambda entry, measure: seen.append((entry, len(measure))),
    )
    losses = [entry.loss for entry, _ in seen]
    assert losses[-1] < 0.2 * losses[0]
    assert all(b <= a * 1.05 + 1e-12 for a, b in itertools.pairwise(losses))
    assert max(count for _, count in seen) == 9
    assert len(solution.history) == len(seen)
    assert all(entry.predicted <= 0 or entry.deaths for entry, _ in seen)


def test_the_best_of_several_starts_is_searched_further() -> None:
    conditions, stuck = planted()
    apart = replace(stuck, means=torch.tensor([[0.25], [0.75]], dtype=F64))

    def rounds(noise: float) -> list[Round]:
        options = SolverOptions(n_splats=2, rounds=4, patience=1, noise=noise, shrinkage=0)
        return fit(conditions, [stuck, apart, stuck], options).history

    first, second, *_ = rounds(noise=1e-3)  # which residuals are far from
    assert first.loss > 1e-3 and second.loss < 1e-9 and second.births == second.deaths == 0
    _, second, *_ = rounds(noise=0.2)  # nothing but noise is left: no other start
    assert second.births + second.deaths > 0


def test_splats_that_hold_no_points_are_taken_out() -> None:
    conditions, _ = planted()
    start = SplatMeasure(
        torch.ones(3, dtype=F64),
        torch.zeros(3, 1, dtype=F64),
        torch.tensor([[0.2], [0.8], [1.5]], dtype=F64),
        torch.full((3, 1, 1), 0.03, dtype=F64),
    )
    for support, left in ((0.0, 3), (3.0, 2)):
        result = fit(conditions, start, SolverOptions(n_splats=3, rounds=0, support=support))
        assert len(result.measure) == left
        assert result.loss < 1e-9


def test_the_same_seed_gives_the_same_splats() -> None:
    x = uniform(100, 1)
    conditions = [observations(x, (9 * x).sin())]

    def run(seed: int) -> SplatMeasure:
        generator = torch.Generator().manual_seed(seed)
        start = initial_measure(x, 3, generator=generator)
        options = SolverOptions(n_splats=5, rounds=3, iterations=10, polish=10)
        return fit(conditions, start, options, generator).measure

    first = run(1).means
    assert torch.equal(first, run(1).means)
    assert not torch.equal(first, run(2).means)


def test_progress_stops_and_resampling_replaces_the_conditions() -> None:
    x = uniform(100, 1)
    conditions = [observations(x, (9 * x).sin())]
    start = initial_measure(x, 3, generator=torch.Generator().manual_seed(0))
    short = SolverOptions(n_splats=4, rounds=3, iterations=10, polish=10)
    stopped = fit(conditions, start, short, progress=lambda entry, _: entry.round == 2)
    assert [entry.round for entry in stopped.history] == [0, 1, 2, 3]
    asked = []

    def resample(measure: SplatMeasure, number: int) -> list[Condition]:
        asked.append(number)
        fresh = uniform(100, 1, seed=number)
        return [observations(fresh, (9 * fresh).sin())]

    fit(conditions, start, short, resample=resample)
    assert asked == [1, 2, 3]


@pytest.mark.parametrize("method", ["wfr", "wasserstein", "adam"])
def test_first_order_methods_descend(method: str) -> None:
    x = uniform(100, 1)
    conditions = [observations(x, (6 * x).sin())]
    start = initial_measure(x, 6, generator=torch.Generator().manual_seed(0))
    options = DescentOptions(method=method, steps=100, rate=1e-2, every=20)
    solution = fit_first_order(conditions, start, options)
    losses = [entry.loss for entry in solution.history]
    assert len(losses) == 5 and losses == sorted(losses, reverse=True)
    assert solution.loss == pytest.approx(float(condition_loss(solution.measure, conditions)))
    if method == "wasserstein":
        assert torch.equal(solution.measure.mass, start.mass)
    with pytest.raises(InputError, match="method: expected one of"):
        DescentOptions(method="newton")
