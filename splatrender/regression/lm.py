"""Levenberg–Marquardt transport with variable projection.

Legend: θ = (c, u, ε) amplitudes, shifts and strains as in `linearise`, ρ ridge, λ damping.

Shifts and strains are measured in each splat's own coordinates. Therefore the step commutes with
scaling and rotating the inputs. The damping λ diag(JᵀJ) divides a splat's gradient by its squared
amplitude: light splats move as fast as heavy ones, as in the Wasserstein flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender._moved import renamed
from splatrender.flow.birth_death import robust_cholesky
from splatrender.flow.line_search import line_search
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.regression.amplitudes import fit_amplitudes
from splatrender.regression.linearise import NormalEquations, moved, normal_equations
from splatrender.regression.prior import Prior

LONGEST_STEP = 1.0  # shifts [standard deviations] and strains [e-folds]: the model is local
LEAST_DAMPING = 1e-12  # λ of a step
REJECTIONS = 8  # in a row; after them the place counts as a minimum


@dataclass(frozen=True)
class LMOptions:
    """Criteria that end a descent.

    Attributes:
        iterations: maximum number of steps tried.
        tolerance: relative decrease of the objective in one step below which the descent ends.
        damping: λ at the start.
        target: objective to reach; the descent ends as soon as it would stay above that at the
            pace of the last step.
    """

    iterations: int = 100
    tolerance: float = 1e-4
    damping: float = 1e-2
    target: float = float("inf")


@dataclass(frozen=True, eq=False)
class Minimum:
    """End of a descent.

    Attributes:
        measure: splats, peak-normalised with mass one.
        loss: ½ Σ |r|² at the measure.
        objective: loss plus the prior's penalty.
        iterations: number of steps tried.
    """

    measure: SplatMeasure
    loss: float
    objective: float
    iterations: int


@dataclass(frozen=True, eq=False)
class _Place:
    """Measure on the way, reached with a damping."""

    measure: SplatMeasure
    loss: float
    objective: float
    damping: float


def levenberg_marquardt(
    measure: SplatMeasure,
    conditions: Sequence[Condition],
    prior: Prior | None = None,
    options: LMOptions | None = None,
) -> Minimum:
    """Move splats to a minimum of ½ Σ |r|² + prior.

    Each step solves (JᵀJ + ρ + λ diag) δθ = −(Jᵀr + ρ c) and then sets the amplitudes to their
    optimum for the new places and shapes (variable projection after Kaufman). Where conditions are
    not linear they take a Gauss–Newton step towards it: otherwise amplitudes lag behind, and the
    descent stalls at a place that depends on rounding.

    Args:
        measure: start; peak-normalised with mass one (`as_peaks`).
        conditions: the problem, in float64.
        prior: regularisation, none if None.
        options: criteria that end the descent.

    Returns:
        The minimum.

    Source:
        Golub and Pereyra, Separable nonlinear least squares, 2003; Kaufman, BIT 15, 1975.
    """
    prior, options = prior or Prior(), options or LMOptions()
    place = _placed(measure, conditions, prior, options.damping)
    trials = 0
    while trials < options.iterations:
        attempts = _damped_steps(place, conditions, prior)
        search = line_search(attempts, lambda trial: trial.objective, place.objective)
        trials += search.trials
        if search.attempt is None:
            break
        before, place = place.objective, search.attempt
        decrease = before - place.objective
        if decrease <= options.tolerance * before:
            break
        if place.objective - (options.iterations - trials) * decrease > options.target:
            break
    return Minimum(place.measure, place.loss, place.objective, trials)


def _placed(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior, damping: float
) -> _Place:
    """Limit the widths, fit the amplitudes, and evaluate the objective."""
    measure, loss = fit_amplitudes(prior.limited(measure), conditions, prior)
    return _Place(measure, loss, loss + prior.penalty(measure), damping)


def _damped_steps(place: _Place, conditions: Sequence[Condition], prior: Prior) -> Iterator[_Place]:
    """Yield the ends of steps of growing damping; each carries the damping of the next step."""
    system = normal_equations(place.measure, conditions)
    prior.add_to(system, place.measure)
    damping = place.damping
    for _ in range(REJECTIONS):
        step = _damped_step(system, damping, prior, place.measure)
        less = max(damping / 5, LEAST_DAMPING)
        yield _placed(moved(place.measure, step), conditions, prior, less)
        damping *= 4


def _newton_step(system: NormalEquations) -> Tensor:
    """Return [P] −H⁻¹ g."""
    factor = robust_cholesky(system.hessian)
    return -torch.cholesky_solve(system.gradient[:, None], factor)[:, 0]


def _damped_step(
    system: NormalEquations, damping: float, prior: Prior, measure: SplatMeasure
) -> Tensor:
    """Return [P] −(H + λ diag H)⁻¹ g, within the prior's bounds and the longest step."""
    diagonal = system.hessian.diagonal()
    floor = 1e-12 * float(diagonal.max())  # splats without amplitude have no curvature
    damped = NormalEquations(system.hessian.clone(), system.gradient.clone())
    damped.hessian.diagonal().add_(damping * diagonal.clamp(min=floor))
    step = _newton_step(damped)
    if prior.hold(damped, measure, step):
        step = _newton_step(damped)
    step[measure.weights.numel() :].clamp_(-LONGEST_STEP, LONGEST_STEP)
    return step


__getattr__ = renamed(__name__, {"LevenbergOptions": "splatrender.regression.lm.LMOptions"})
