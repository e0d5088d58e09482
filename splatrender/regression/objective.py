"""The objective of a fit to conditions, such as data and differential equations.

Legend: r residuals, c amplitudes, Φ = ∂r/∂c columns of the splats, ψ columns of a candidate, R
ridges of the prior, G = ΦᵀΦ + R.

    F = ½ Σ |r|² + prior
    removal      ΔF_i = ½ c_iᵀ [(G⁻¹)_ii]⁻¹ c_i         all other amplitudes refitted
    insertion    gain = ½ (ψ⊥ᵀ r)² / (|ψ⊥|² + R)        ψ⊥ = ψ − Φ Φ⁺ ψ

Both are exact at optimal amplitudes where residuals are linear in them, up to the prior's change by
an insertion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import (
    insertion_gains,
    orthogonal_least_squares,
    removal_cost_refitted,
)
from splatrender.flow.objective import Insertions, Objective, Removals
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, identity, operator_rows
from splatrender.regression.linearise import Design, design_of, is_linear, loss_of
from splatrender.regression.prior import Prior


@dataclass(frozen=True, eq=False)
class PointObjective(Objective[SplatMeasure]):
    """Squared residuals of conditions at points, plus a prior.

    Measures are peak-normalised with mass one (`as_peaks`); values, costs and gains are in units of
    the loss.

    Attributes:
        conditions: residuals to be small.
        prior: penalty of amplitudes.
        least_support: Σ |ρ(x)| over the points of the first condition below which a candidate may
            not be born, in points.
    """

    conditions: Sequence[Condition]
    prior: Prior
    least_support: float = 0.0

    def value(self, measure: SplatMeasure) -> float:
        """Return ½ Σ |r|² plus the prior's penalty."""
        return loss_of(measure, self.conditions) + self.prior.penalty(measure)

    def removals(self, measure: SplatMeasure) -> Removals:
        """Return the rise of F when one splat is removed and all other amplitudes are refitted."""
        design = design_of(measure, self.conditions)
        gram = design.flat.T @ design.flat
        gram.diagonal().add_(self.mean_ridge(measure))
        count, width = len(measure), design.columns.shape[2]
        amplitudes = measure.weights.reshape(count, width, -1)
        return Removals(removal_cost_refitted(amplitudes, gram))

    def insertions(
        self, measure: SplatMeasure, candidates: SplatMeasure
    ) -> Insertions[SplatMeasure]:
        """Return the gain of each candidate alone, all amplitudes refitted, and the candidates."""
        design, columns = self._columns(measure, candidates)
        ridge = self.mean_ridge(measure)
        gains, amplitudes = insertion_gains(design.residual, design.flat, columns, ridge)
        allowed = self._allowed(candidates)
        gains = gains if allowed is None else torch.where(allowed, gains, 0)
        newborn = replace(candidates, weights=amplitudes.reshape(len(candidates), -1))
        return Insertions(newborn, gains)

    def selection(
        self, measure: SplatMeasure, candidates: SplatMeasure, count: int
    ) -> Insertions[SplatMeasure]:
        """Return the candidates that gain most together, by orthogonal least squares.

        Args:
            measure: k splats.
            candidates: atoms that compete.
            count: maximum number of births.

        Returns:
            At most `count` candidates in the order of selection, each with its gain after those
            before it. Amplitudes are their joint optimum beside fixed splats where conditions are
            not linear; else they stay, and the next fit of all amplitudes sets them.
        """
        design, columns = self._columns(measure, candidates)
        ridge, allowed = self.mean_ridge(measure), self._allowed(candidates)
        best = orthogonal_least_squares(
            design.residual, design.flat, columns, count, ridge, allowed
        )
        newborn = candidates.index(best.ids)
        if not is_linear(self.conditions):
            amplitudes = _amplitudes(columns[:, best.ids].flatten(1), design.residual, ridge)
            newborn = replace(newborn, weights=amplitudes.reshape(len(newborn), -1))
        return Insertions(newborn, best.gains)

    def mean_ridge(self, measure: SplatMeasure) -> float:
        """Return the prior's mean ridge, which costs and gains count for every splat."""
        return float(self.prior.ridges(measure).mean())

    def support(self, measure: SplatMeasure) -> Tensor:
        """Return [k] Σ |ρ(x)| over the points of the first condition, a number of points."""
        values = operator_rows(identity(), measure, self.conditions[0].points).value
        return values.abs().sum(dim=0)

    def _allowed(self, candidates: SplatMeasure) -> Tensor | None:
        return self.support(candidates) >= self.least_support if self.least_support else None

    def _columns(self, measure: SplatMeasure, candidates: SplatMeasure) -> tuple[Design, Tensor]:
        design = design_of(measure, self.conditions)
        return design, design_of(measure, self.conditions, candidates).columns


def _amplitudes(columns: Tensor, residual: Tensor, ridge: float) -> Tensor:
    """Return [b] amplitudes that minimise |r + ψ c|² + ridge |c|² together."""
    gram = columns.T @ columns
    gram.diagonal().add_(ridge + 1e-12 * float(gram.diagonal().max()))
    solution: Tensor = torch.linalg.solve(gram, columns.T @ residual[:, 0])
    return -solution
