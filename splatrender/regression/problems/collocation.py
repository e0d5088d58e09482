"""Collocation points of an equation: stratified ones, and more where its residual is large."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from splatrender.model import SplatMeasure
from splatrender.model.draws import draw_distinct
from splatrender.operators.differential import Condition
from splatrender.regression.linearise import residuals_of

TRIAL_POINTS = 4000  # from which hard points are drawn

Conditions = Callable[[Tensor], Sequence[Condition]]


def stratified(columns: int, rows: int, generator: torch.Generator) -> Tensor:
    """Return [columns · rows, 2] random points of the unit square, one in each cell of a grid."""
    cells = torch.cartesian_prod(torch.arange(columns), torch.arange(rows))
    jitter = torch.rand(cells.shape, generator=generator, dtype=torch.float64)
    return (cells + jitter) / torch.tensor([columns, rows])


def hard_points(
    trial: Tensor,
    conditions: Conditions,
    measure: SplatMeasure,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw some of many points, without replacement, by the squared residual of the equation.

    Args:
        trial: [n, d] points to draw from.
        conditions: conditions at given points, the equation first.
        measure: present solution.
        count: number of points to draw.
        generator: source of randomness.

    Returns:
        [count, d] points.
    """
    energy = residuals_of(measure, conditions(trial)[0]).square().sum(dim=1)
    odds = energy + 1e-3 * energy.mean() + torch.finfo(energy.dtype).tiny
    return trial[draw_distinct(odds, count, generator)]
