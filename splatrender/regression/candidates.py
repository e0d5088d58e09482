"""Candidates for births: random atoms at large residuals, shaped like their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from splatrender.model import SplatMeasure
from splatrender.model.draws import draw
from splatrender.operators.differential import Condition, unpack
from splatrender.regression.linearise import design_of

STRAIN = 0.5  # standard deviation of a random strain's entries [e-folds]
EVERYWHERE = 1e-3  # share of the mean squared residual, added to all points' odds


def residual_energy(measure: SplatMeasure, conditions: Sequence[Condition]) -> Tensor:
    """Return [n] odds of a birth at the points of all conditions, by squared residual."""
    energy = design_of(measure, conditions).at_points(conditions)
    return energy + EVERYWHERE * energy.mean() + torch.finfo(energy.dtype).tiny


def random_atoms(
    measure: SplatMeasure,
    conditions: Sequence[Condition],
    count: int,
    generator: torch.Generator,
) -> SplatMeasure:
    """Draw atoms at points by their squared residual.

    Their factors are those of the nearest splat, stretched by e^ε with a common stretch between
    e⁻² and e and a random strain.

    Args:
        measure: k splats.
        conditions: the problem.
        count: number of atoms.
        generator: source of randomness.

    Returns:
        Atoms of amplitude 0.
    """
    points = torch.cat([condition.points for condition in conditions])
    odds = residual_energy(measure, conditions)
    means = points[draw(odds, count, generator)]
    gaps = torch.einsum("kij,nkj->nki", measure.inverse_factors(), means[:, None] - measure.means)
    nearest = measure.index(gaps.square().sum(dim=2).argmin(dim=1))
    dims = measure.dims
    uniform = torch.rand(count, 1, 1, generator=generator, dtype=torch.float64)
    size = (count, dims * (dims + 1) // 2)
    strain = torch.randn(size, generator=generator, dtype=torch.float64)
    stretch = (3 * uniform - 2) * torch.eye(dims, dtype=torch.float64)
    if dims > 1:
        stretch = stretch + STRAIN * unpack(strain, dims)
    factors = nearest.factors @ torch.linalg.matrix_exp(stretch.to(points))
    weights = torch.zeros_like(nearest.weights)
    return replace(nearest, weights=weights, means=means, factors=factors)
