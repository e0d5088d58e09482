"""The objective of conditions: value, costs of removal and gains of insertion against refits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.measures import F64, make_measure, uniform

from splatrender.flow.objective import Objective
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.operators.sampling import observations
from splatrender.regression import PointObjective, Prior
from splatrender.regression.amplitudes import as_peaks, fit_amplitudes


def fitted(outputs: int = 1) -> tuple[PointObjective, SplatMeasure]:
    """Return an objective of data, and a measure with its best amplitudes."""
    points = uniform(80)
    conditions = [observations(points, uniform(80, outputs, seed=3))]
    objective = PointObjective(conditions, Prior())
    return objective, fit_amplitudes(as_peaks(make_measure(6, 2, outputs)), conditions, Prior())[0]


def refitted(objective: PointObjective, measure: SplatMeasure) -> tuple[SplatMeasure, float]:
    best, _ = fit_amplitudes(measure, objective.conditions, objective.prior)
    return best, objective.value(best)


def test_value_is_the_loss_and_the_prior() -> None:
    plain, measure = fitted()
    objective: Objective[SplatMeasure] = replace(plain, prior=Prior(ridge=0.5))
    penalty = 0.25 * float(measure.weights.square().sum())
    assert objective.value(measure) == pytest.approx(plain.value(measure) + penalty)


@pytest.mark.parametrize("outputs", [1, 2])
def test_costs_of_removal_are_those_of_a_refit(outputs: int) -> None:
    objective, measure = fitted(outputs)
    before, costs = objective.value(measure), objective.removals(measure).costs
    for i in range(len(measure)):
        _, after = refitted(objective, measure.index(torch.arange(len(measure)) != i))
        assert after - before == pytest.approx(float(costs[i]), rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
def test_gains_and_amplitudes_of_insertion_are_those_of_a_refit(outputs: int) -> None:
    objective, measure = fitted(outputs)
    candidates = as_peaks(make_measure(5, 2, outputs, seed=8))
    before, insertions = objective.value(measure), objective.insertions(measure, candidates)
    for i, gain in enumerate(insertions.gains.tolist()):
        both = SplatMeasure.cat([measure, candidates.index(torch.tensor([i]))])
        best, after = refitted(objective, both)
        assert before - after == pytest.approx(gain, rel=1e-6)
        torch.testing.assert_close(best.weights[-1], insertions.newborn.weights[i])


def test_candidates_are_selected_together() -> None:
    objective, measure = fitted()
    candidates = as_peaks(make_measure(20, 2, seed=8))
    alone, together = objective.insertions(measure, candidates), objective.selection
    selection = together(measure, candidates, 3)
    assert float(selection.gains[0]) == pytest.approx(float(alone.gains.max()))
    _, after = refitted(objective, SplatMeasure.cat([measure, selection.newborn]))
    assert objective.value(measure) - after == pytest.approx(float(selection.gains.sum()), rel=1e-6)


def test_candidates_without_support_gain_nothing() -> None:
    objective, measure = fitted()
    candidates = as_peaks(make_measure(2, 2, seed=8))
    far = replace(candidates, means=candidates.means + torch.tensor([[0.0], [1e3]], dtype=F64))
    gains = replace(objective, least_support=1.0).insertions(measure, far).gains
    assert float(gains[0]) > 0 and float(gains[1]) == 0


def test_newborn_of_nonlinear_conditions_have_their_joint_optimum() -> None:
    points = uniform(80)
    data = Condition(
        points, observations(points, points[:, :1]).operators, uniform(80, 1, seed=3)
    ).mean()
    measure = as_peaks(make_measure(4, 2))
    objective = PointObjective([replace(data, residual=lambda _, u: u + 0.1 * u**3)], Prior())
    selection = objective.selection(measure, as_peaks(make_measure(20, 2, seed=8)), 2)
    both = SplatMeasure.cat([measure, selection.newborn])
    assert len(selection.newborn) == 2
    assert objective.value(both) < objective.value(measure)
