"""The prior of a measure: small amplitudes, widths within bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.model import SplatMeasure
from splatrender.operators.differential import pack
from splatrender.regression.linearise import NormalEquations


@dataclass(frozen=True)
class Prior:
    """Penalty of amplitudes, and bounds of widths.

        ½ Σ_i ρ_i |c_i|² + lasso Σ_i |c_i|,      ρ_i = ridge · (|A_i⁻¹|² / d)^roughness

    With roughness > 0 small or thin splats must have small amplitudes, as in a Sobolev norm: the
    mean of |∇ρ|² is proportional to the squared Frobenius norm |A⁻¹|².

    Attributes:
        ridge: factor of the squared amplitudes.
        roughness: power of the splats' steepness; s in d = 1 if the norm has s derivatives.
        lasso: weight of Σ |c|, the total mass; minimised by reweighted ridges.
        smallest: minimum standard deviation, in units of the inputs.
        largest: maximum standard deviation.
        extents: d maximum standard deviations along the inputs, or None.
    """

    ridge: float = 0.0
    roughness: float = 0.0
    lasso: float = 0.0
    smallest: float = 0.0
    largest: float = float("inf")
    extents: tuple[float, ...] | None = None

    def relative(self, measure: SplatMeasure) -> Tensor:
        """Return [k] ρ_i / ridge."""
        if not self.roughness:
            return torch.ones_like(measure.mass)
        return (measure.inverse_factors().square().sum(dim=(1, 2)) / measure.dims) ** self.roughness

    def penalty(self, measure: SplatMeasure) -> float:
        """Return the penalty of a peak-normalised measure of mass one."""
        squares = measure.weights.square().sum(dim=1)
        total = 0.5 * self.ridge * float((self.relative(measure) * squares).sum())
        return total + (self.lasso * float(measure.weights.abs().sum()) if self.lasso else 0.0)

    def ridges(self, measure: SplatMeasure) -> Tensor:
        """Return [k, p] ridges of a quadratic that touches the penalty from above."""
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
        strains = strains_of(measure)
        heights = torch.arange(size).reshape(count, outputs)
        system.gradient[strains] += slope * energy
        outer = slope[:, :, None] * slope[:, None, :]
        system.hessian[strains[:, :, None], strains[:, None, :]] += outer * energy[:, :, None]
        cross = rough[:, :, None] * slope[:, None, :]
        system.hessian[heights[:, :, None], strains[:, None, :]] += cross
        system.hessian[strains[:, :, None], heights[:, None, :]] += cross.mT

    def hold(self, system: NormalEquations, measure: SplatMeasure, step: Tensor) -> bool:
        """Tie widths to their bounds, in place, where `step` would exceed these.

        The width w_j along input j is the length of row j of A; with n the row's direction, its
        logarithm changes by nᵀ ε n.

        Returns:
            True if a width was tied: the step must be solved for again.
        """
        if self.extents is None:
            return False
        rows, columns = torch.triu_indices(measure.dims, measure.dims)
        widths = measure.factors.norm(dim=2)  # [k, d]
        n = measure.factors / widths[..., None]
        slopes = n[..., rows] * n[..., columns] * (1 + (rows != columns).to(n))  # [k, d, strains]
        places = strains_of(measure)
        slack = widths.log() - widths.new_tensor(self.extents).log()
        ahead = slack + torch.einsum("kjs,ks->kj", slopes, step[places])
        splats, axes = (ahead > 1e-9).nonzero().unbind(1)
        if len(splats) == 0:
            return False
        v, at = slopes[splats, axes], places[splats]
        tie = 1e6 * system.hessian.diagonal()[at].amax(dim=1)
        stiffness = tie[:, None, None] * v[:, :, None] * v[:, None, :]
        pairs = (at[:, :, None], at[:, None, :])
        system.hessian.index_put_(pairs, stiffness, accumulate=True)
        pull = (tie * slack[splats, axes])[:, None] * v
        system.gradient.index_put_((at,), pull, accumulate=True)
        return True

    def limited(self, measure: SplatMeasure) -> SplatMeasure:
        """Return the measure with all standard deviations within their bounds."""
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


def strains_of(measure: SplatMeasure) -> Tensor:
    """Return [k, d(d+1)/2] positions of the splats' strains among all parameters."""
    count, dims = len(measure), measure.dims
    each = dims * (dims + 1) // 2
    return count * (measure.outputs + dims) + torch.arange(count * each).reshape(count, each)
