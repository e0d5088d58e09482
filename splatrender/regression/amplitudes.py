"""The best amplitudes for given places and shapes: variable projection.

Legend: c amplitudes, Φ = ∂r/∂c, ρ ridges of the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import robust_cholesky
from splatrender.flow.line_search import line_search
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, joint_rows
from splatrender.regression.linearise import design_of, is_linear, unit_slopes
from splatrender.regression.prior import Prior

LEAST = 1e-14  # share of the largest curvature, added to all: unseen splats keep their amplitudes


def fit_amplitudes(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
    """Set the amplitudes to their optimum for given places and shapes, and return the loss there.

    Where residuals are linear in the amplitudes this is their least-squares optimum. Elsewhere
    they take a Gauss–Newton step, which is kept if it lowers the objective.

    Args:
        measure: k splats; where all conditions are linear, only the lasso depends on its
            amplitudes.
        conditions: the problem.
        prior: prior whose ridge makes the solution unique.

    Returns:
        The measure with those amplitudes, and ½ Σ |r|².
    """
    if is_linear(conditions):
        return _optimum(measure, conditions, prior)
    return _gauss_newton(measure, conditions, prior)


def _optimum(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
    """Solve a linear problem."""
    design = design_of(replace(measure, weights=torch.zeros_like(measure.weights)), conditions)
    columns, target = design.columns[..., 0], -design.residual
    ridges = prior.ridges(measure)
    if prior.lasso and measure.outputs > 1:
        parts = [_ridge(columns, target[:, j : j + 1], r) for j, r in enumerate(ridges.unbind(1))]
        amplitudes = torch.cat(parts, dim=1)
    else:
        amplitudes = _ridge(columns, target, ridges[:, 0])
    loss = 0.5 * float((columns @ amplitudes - target).square().sum())
    return replace(measure, weights=amplitudes), loss


def _gauss_newton(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
    """Take a Gauss–Newton step in the amplitudes, if it pays; each splat's rows serve twice."""
    rows = [
        torch.stack([row.value for row in joint_rows(c.operators, measure, c.points)], dim=1)
        for c in conditions
    ]  # [n, q, k] of each condition

    def loss_at(amplitudes: Tensor) -> float:
        parts = zip(conditions, rows, strict=True)
        residuals = [c.residuals((r @ amplitudes).unbind(1)) for c, r in parts]
        return 0.5 * sum(float(r.square().sum()) for r in residuals)

    loss = loss_at(measure.weights)
    step = _step(measure, conditions, rows, prior.ridges(measure))
    trial = replace(measure, weights=measure.weights + step)
    trial_loss = loss_at(trial.weights)
    search = line_search(
        [trial], lambda m: trial_loss + prior.penalty(m), loss + prior.penalty(measure)
    )
    return (measure, loss) if search.attempt is None else (trial, trial_loss)


def _step(
    measure: SplatMeasure, conditions: Sequence[Condition], rows: Sequence[Tensor], ridges: Tensor
) -> Tensor:
    """Return [k, p] −(ΦᵀΦ + ρ)⁻¹ (Φᵀr + ρ c)."""
    size = measure.weights.numel()
    gram, gradient = ridges.new_zeros(size, size), (ridges * measure.weights).reshape(-1)
    for condition, values in zip(conditions, rows, strict=True):
        residual, slopes = condition.linearised((values @ measure.weights).unbind(1))
        if slopes is None:
            slopes = unit_slopes(condition, residual)
        columns = torch.einsum("nmqp,nqk->nmkp", slopes, values).reshape(residual.numel(), size)
        gram.addmm_(columns.T, columns)
        gradient = gradient + columns.T @ residual.reshape(-1)
    gram.diagonal().add_(ridges.reshape(-1) + LEAST * gram.diagonal().max())
    step = -torch.cholesky_solve(gradient[:, None], robust_cholesky(gram))
    return step.reshape(measure.weights.shape)


def _ridge(columns: Tensor, target: Tensor, ridges: Tensor) -> Tensor:
    """Return [k, s] the minimum of |Φ c − y|² + Σ ρ c².

    The normal equations are solved, and the solution is corrected once by its residuals.

    Source:
        Björck, Stability analysis of the method of seminormal equations, 1987.
    """
    gram = columns.T @ columns
    gram.diagonal().add_(ridges)
    factor = robust_cholesky(gram)
    solution = torch.cholesky_solve(columns.T @ target, factor)
    rest = columns.T @ (target - columns @ solution) - ridges[:, None] * solution
    return solution + torch.cholesky_solve(rest, factor)


def as_peaks(measure: SplatMeasure) -> SplatMeasure:
    """Return the same function of peak-normalised splats of mass one: weights are amplitudes."""
    return replace(
        measure,
        mass=torch.ones_like(measure.mass),
        weights=measure.amplitudes,
        normalised=False,
    )
