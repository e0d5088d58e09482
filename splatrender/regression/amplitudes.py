"""The best amplitudes for given places and shapes: variable projection.

Legend: c amplitudes, Φ = ∂r/∂c, ρ ridges of the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import robust_cholesky
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, joint_rows
from splatrender.regression.linearise import design_of, is_linear, unit_slopes
from splatrender.regression.prior import Prior

LEAST = 1e-14  # of the largest curvature, added to all: unseen splats keep their amplitudes


def project(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
    """The best amplitudes for given places and shapes, by least squares, and the loss there.

    Where residuals are linear in the amplitudes this is their optimum. Elsewhere they take a
    Gauss-Newton step from where they are, which is kept if it lowers the objective.

    Args:
        measure: k splats; where all conditions are linear, its amplitudes only matter for the
            lasso.
        conditions: the problem.
        prior: its ridge makes the solution unique.

    Returns:
        The measure with those amplitudes, and ½ Σ |r|².
    """
    if is_linear(conditions):
        return _solved(measure, conditions, prior)
    return _improved(measure, conditions, prior)


def _solved(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
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


def _improved(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
    """A Gauss-Newton step in the amplitudes, if it pays; every splat's rows are computed once."""
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
    if trial_loss + prior.penalty(trial) < loss + prior.penalty(measure):
        return trial, trial_loss
    return measure, loss


def _step(
    measure: SplatMeasure, conditions: Sequence[Condition], rows: Sequence[Tensor], ridges: Tensor
) -> Tensor:
    """[k, p] −(ΦᵀΦ + ρ)⁻¹ (Φᵀr + ρ c)."""
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
    """[k, s] the minimum of |Φ c − y|² + Σ ρ c²: normal equations, and a correction by residuals.

    Source:
        Björck, Stability analysis of the method of seminormal equations, 1987.
    """
    gram = columns.T @ columns
    gram.diagonal().add_(ridges)
    factor = robust_cholesky(gram)
    found = torch.cholesky_solve(columns.T @ target, factor)
    rest = columns.T @ (target - columns @ found) - ridges[:, None] * found
    return found + torch.cholesky_solve(rest, factor)


def as_peaks(measure: SplatMeasure) -> SplatMeasure:
    """The same function with peak-normalised splats of mass one, whose weights are amplitudes."""
    return replace(
        measure,
        mass=torch.ones_like(measure.mass),
        weights=measure.amplitudes,
        normalised=False,
    )
