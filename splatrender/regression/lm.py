"""Levenberg–Marquardt transport with variable projection.

Legend: θ = (c, u, ε) amplitudes, shifts and strains as in `linearise`, ρ ridge, λ damping.

Shifts and strains are measured in each splat's own coordinates, where the step does not depend on
how the inputs are scaled or rotated, and the damping λ diag(JᵀJ) divides a splat's gradient by its
squared amplitude: light splats move as fast as heavy ones, as in the Wasserstein flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.flow.birth_death import robust_cholesky
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.regression.amplitudes import project
from splatrender.regression.linearise import NormalEquations, moved, normal_equations
from splatrender.regression.prior import Prior

LONGEST_STEP = 1.0  # of shifts [standard deviations] and strains [e-folds]: the model is local
REJECTIONS = 8  # of a step in a row before the place counts as a minimum


@dataclass(frozen=True)
class LevenbergOptions:
    """When to stop.

    Attributes:
        iterations: steps tried at most.
        tolerance: relative decrease of the objective in one step below which it stops.
        damping: λ at the start.
        target: stop as soon as the objective would stay above it at the pace of the last step.
    """

    iterations: int = 100
    tolerance: float = 1e-4
    damping: float = 1e-2
    target: float = float("inf")


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a descent ended.

    Attributes:
        measure: the splats, peak-normalised with mass one.
        loss: ½ Σ |r|² there.
        objective: the loss plus the prior's penalty.
        iterations: steps tried.
    """

    measure: SplatMeasure
    loss: float
    objective: float
    iterations: int


def levenberg_marquardt(
    measure: SplatMeasure,
    conditions: Sequence[Condition],
    prior: Prior | None = None,
    options: LevenbergOptions | None = None,
) -> Minimum:
    """Move splats to a minimum of ½ Σ |r|² + prior.

    Each step solves (JᵀJ + ρ + λ diag) δθ = −(Jᵀr + ρ c) and then sets the amplitudes to their
    optimum for the new places and shapes, or a Gauss-Newton step closer to it where the conditions
    are not linear (variable projection after Kaufman): else they lag behind, and the descent stalls
    where rounding decides.

    Args:
        measure: where to start; peak-normalised with mass one (`as_peaks`).
        conditions: the problem, in float64.
        prior: regularisation, none if None.
        options: when to stop.

    Returns:
        The minimum.

    Source:
        Golub and Pereyra, Separable nonlinear least squares, 2003; Kaufman, BIT 15, 1975.
    """
    prior, options = prior or Prior(), options or LevenbergOptions()
    measure, loss = project(prior.limited(measure), conditions, prior)
    objective = loss + prior.penalty(measure)
    damping, tried = options.damping, 0
    while tried < options.iterations:
        system = normal_equations(measure, conditions)
        prior.add_to(system, measure)
        before = objective
        for _ in range(REJECTIONS):
            tried += 1
            step = _damped_step(system, damping, prior, measure)
            trial, trial_loss = project(prior.limited(moved(measure, step)), conditions, prior)
            trial_objective = trial_loss + prior.penalty(trial)
            if trial_objective < objective:
                measure, loss, objective = trial, trial_loss, trial_objective
                damping = max(damping / 5, 1e-12)
                break
            damping *= 4
        decrease = before - objective
        if decrease <= options.tolerance * before:
            break
        if objective - (options.iterations - tried) * decrease > options.target:
            break
    return Minimum(measure, loss, objective, tried)


def _newton_step(system: NormalEquations) -> Tensor:
    """[P] −H⁻¹ g."""
    factor = robust_cholesky(system.hessian)
    return -torch.cholesky_solve(system.gradient[:, None], factor)[:, 0]


def _damped_step(
    system: NormalEquations, damping: float, prior: Prior, measure: SplatMeasure
) -> Tensor:
    """[P] −(H + λ diag H)⁻¹ g within the prior's bounds, shifts and strains at most the longest."""
    diagonal = system.hessian.diagonal()
    floor = 1e-12 * float(diagonal.max())  # splats without amplitude have no curvature
    damped = NormalEquations(system.hessian.clone(), system.gradient.clone())
    damped.hessian.diagonal().add_(damping * diagonal.clamp(min=floor))
    step = _newton_step(damped)
    if prior.hold(damped, measure, step):
        step = _newton_step(damped)
    step[measure.weights.numel() :].clamp_(-LONGEST_STEP, LONGEST_STEP)
    return step
