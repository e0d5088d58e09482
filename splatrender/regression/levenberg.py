"""Levenberg–Marquardt transport with variable projection.

Legend: θ = (c, u, ε) amplitudes, shifts and strains as in `linearise`, ρ ridge, λ damping.

Shifts and strains are measured in each splat's own coordinates, where the step does not depend on
how the inputs are scaled or rotated, and the damping λ diag(JᵀJ) divides a splat's gradient by its
squared amplitude: light splats move as fast as heavy ones, as in the Wasserstein flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import robust_cholesky
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, pack
from splatrender.regression.linearise import (
    NormalEquations,
    design_of,
    is_linear,
    loss_of,
    moved,
    normal_equations,
)

LONGEST_STEP = 1.0  # of shifts [standard deviations] and strains [e-folds]: the model is local
REJECTIONS = 8  # of a step in a row before the place counts as a minimum


@dataclass(frozen=True)
class Prior:
    """What is asked of a measure besides the conditions.

        ½ Σ_i ρ_i |c_i|² + lasso Σ_i |c_i|,      ρ_i = ridge · (|A_i⁻¹|² / d)^roughness

    With roughness > 0 splats that are small or thin must have small amplitudes, as in a Sobolev
    norm: the mean of |∇ρ|² is proportional to the squared Frobenius norm |A⁻¹|².

    Attributes:
        ridge: factor of the squared amplitudes.
        roughness: power of the splats' steepness; s in d = 1 if the norm has s derivatives.
        lasso: weight of Σ |c|, the total mass; kept down by reweighted ridges.
        smallest: standard deviation below which no splat shrinks, in units of the inputs.
        largest: standard deviation above which no splat grows.
        extents: d standard deviations along the inputs above which no splat grows, or None.
    """

    ridge: float = 0.0
    roughness: float = 0.0
    lasso: float = 0.0
    smallest: float = 0.0
    largest: float = float("inf")
    extents: tuple[float, ...] | None = None

    def relative(self, measure: SplatMeasure) -> Tensor:
        """[k] ρ_i / ridge."""
        if not self.roughness:
            return torch.ones_like(measure.mass)
        return (measure.inverse_factors().square().sum(dim=(1, 2)) / measure.dims) ** self.roughness

    def penalty(self, measure: SplatMeasure) -> float:
        """The penalty of a peak-normalised measure of mass one."""
        squares = measure.weights.square().sum(dim=1)
        total = 0.5 * self.ridge * float((self.relative(measure) * squares).sum())
        return total + (self.lasso * float(measure.weights.abs().sum()) if self.lasso else 0.0)

    def ridges(self, measure: SplatMeasure) -> Tensor:
        """[k, p] ridges of a quadratic that touches the penalty from above."""
        amplitudes = measure.weights
        ridges = (self.ridge * self.relative(measure))[:, None].expand_as(amplitudes)
        if self.lasso:
            floor = 1e-3 * amplitudes.abs().mean() + torch.finfo(amplitudes.dtype).tiny
            ridges = ridges + self.lasso / amplitudes.abs().clamp(min=floor)
        return ridges

    def add_to(self, system: NormalEquations, measure: SplatMeasure) -> None:
        """Add the penalty's Gauss–Newton terms, in place, of residuals √ρ_i c_i.

        By strains, ∂ ln √ρ / ∂ε = −roughness · M / tr M with M = A⁻¹ A⁻ᵀ.
        """
        count, outputs = len(measure), measure.outputs
        ridges, amplitudes = self.ridges(measure).reshape(-1), measure.weights.reshape(-1)
        size = count * outputs
        system.hessian.diagonal()[:size].add_(ridges)
        system.gradient[:size].add_(ridges * amplitudes)
        if not self.roughness:
            return
        inverse = measure.inverse_factors()
        metric = inverse @ inverse.mT
        trace = metric.diagonal(dim1=1, dim2=2).sum(dim=1)
        slope = -self.roughness * pack(metric / trace[:, None, None])  # [k, g]
        rough = (self.ridge * self.relative(measure))[:, None] * measure.weights  # [k, p]
        energy = (rough * measure.weights).sum(dim=1)[:, None]
        strains = _strains_of(measure)
        heights = torch.arange(size).reshape(count, outputs)
        system.gradient[strains] += slope * energy
        outer = slope[:, :, None] * slope[:, None, :]
        system.hessian[strains[:, :, None], strains[:, None, :]] += outer * energy[:, :, None]
        cross = rough[:, :, None] * slope[:, None, :]
        system.hessian[heights[:, :, None], strains[:, None, :]] += cross
        system.hessian[strains[:, :, None], heights[:, None, :]] += cross.mT

    def hold(self, system: NormalEquations, measure: SplatMeasure, step: Tensor) -> bool:
        """Tie those widths to their bounds, in place, that `step` would lead beyond.

        The width w_j along input j is the length of row j of A; with n the row's direction, its
        logarithm changes by nᵀ ε n.

        Returns:
            Whether there are any; then the step is to be solved for anew.
        """
        if self.extents is None:
            return False
        rows, columns = torch.triu_indices(measure.dims, measure.dims)
        widths = measure.factors.norm(dim=2)  # [k, d]
        n = measure.factors / widths[..., None]
        slopes = n[..., rows] * n[..., columns] * (1 + (rows != columns).to(n))  # [k, d, strains]
        places = _strains_of(measure)
        slack = widths.log() - widths.new_tensor(self.extents).log()
        ahead = slack + torch.einsum("kjs,ks->kj", slopes, step[places])
        splats, axes = (ahead > 1e-9).nonzero().unbind(1)
        if len(splats) == 0:
            return False
        v, at = slopes[splats, axes], places[splats]
        tie = 1e6 * system.hessian.diagonal()[at].amax(dim=1)
        system.hessian.index_put_(
            (at[:, :, None], at[:, None, :]), tie[:, None, None] * v[:, :, None] * v[:, None, :],
            accumulate=True,
        )  # fmt: skip
        pull = (tie * slack[splats, axes])[:, None] * v
        system.gradient.index_put_((at,), pull, accumulate=True)
        return True

    def limited(self, measure: SplatMeasure) -> SplatMeasure:
        """The measure with every standard deviation within its bounds."""
        if self.extents is not None:
            widths = measure.factors.norm(dim=2)  # along the inputs: the roots of Σ_jj
            shrink = (widths.new_tensor(self.extents) / widths).clamp(max=1)
            measure = replace(measure, factors=shrink[:, :, None] * measure.factors)
        if self.smallest <= 0 and self.largest == float("inf"):
            return measure
        if measure.dims == 1:
            size = measure.factors.abs().clamp(self.smallest, self.largest)
            return replace(measure, factors=size)
        left, values, right = torch.linalg.svd(measure.factors)
        if float(values.min()) >= self.smallest and float(values.max()) <= self.largest:
            return measure
        values = values.clamp(self.smallest, self.largest)
        return replace(measure, factors=left * values[:, None, :] @ right)


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


def project(
    measure: SplatMeasure, conditions: Sequence[Condition], prior: Prior
) -> tuple[SplatMeasure, float]:
    """The best amplitudes for given places and shapes, by least squares, and the loss there.

    Args:
        measure: k splats; its amplitudes only matter for the lasso.
        conditions: linear ones.
        prior: its ridge makes the solution unique.

    Returns:
        The measure with those amplitudes, and ½ Σ |r|².
    """
    design = design_of(replace(measure, weights=torch.zeros_like(measure.weights)), conditions)
    columns, target = design.columns[..., 0], -design.residual
    gram, right = columns.T @ columns, columns.T @ target
    ridges = prior.ridges(measure)
    if prior.lasso and measure.outputs > 1:
        amplitudes = torch.stack(
            [_solve(gram, right[:, j], ridges[:, j]) for j in range(measure.outputs)], dim=1
        )
    else:
        amplitudes = _solve(gram, right, ridges[:, 0])
    loss = 0.5 * float((columns @ amplitudes - target).square().sum())
    return replace(measure, weights=amplitudes), loss


def _solve(gram: Tensor, right: Tensor, ridges: Tensor) -> Tensor:
    lifted = gram.clone()
    lifted.diagonal().add_(ridges)
    columns = right if right.dim() == 2 else right[:, None]
    return torch.cholesky_solve(columns, robust_cholesky(lifted)).reshape(right.shape)


def levenberg_marquardt(
    measure: SplatMeasure,
    conditions: Sequence[Condition],
    prior: Prior | None = None,
    options: LevenbergOptions | None = None,
) -> Minimum:
    """Move splats to a minimum of ½ Σ |r|² + prior.

    Each step solves (JᵀJ + ρ + λ diag) δθ = −(Jᵀr + ρ c). Where all conditions are linear, the
    amplitudes are then set to their optimum (variable projection after Kaufman).

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
    linear = is_linear(conditions)
    measure = prior.limited(measure)
    if linear:
        measure, loss = project(measure, conditions, prior)
    else:
        loss = loss_of(measure, conditions)
    objective = loss + prior.penalty(measure)
    damping, tried = options.damping, 0
    while tried < options.iterations:
        system = normal_equations(measure, conditions)
        prior.add_to(system, measure)
        before = objective
        for _ in range(REJECTIONS):
            tried += 1
            step = _damped_step(system, damping, prior, measure)
            trial = prior.limited(moved(measure, step))
            if linear:
                trial, trial_loss = project(trial, conditions, prior)
            else:
                trial_loss = loss_of(trial, conditions)
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


def _strains_of(measure: SplatMeasure) -> Tensor:
    """[k, d(d+1)/2] where a splat's strains stand among all parameters."""
    count, dims = len(measure), measure.dims
    each = dims * (dims + 1) // 2
    return count * (measure.outputs + dims) + torch.arange(count * each).reshape(count, each)


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


def as_peaks(measure: SplatMeasure) -> SplatMeasure:
    """The same function with peak-normalised splats of mass one, whose weights are amplitudes."""
    return replace(
        measure,
        mass=torch.ones_like(measure.mass),
        weights=measure.amplitudes,
        normalised=False,
    )
