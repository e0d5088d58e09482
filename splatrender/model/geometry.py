"""Geometry of splats and of measures made of them: distances, geodesics, means, merging.

Legend: A, R factors, b, s means, Q the rotation that brings two factors closest to each other.

A splat is the law of A ξ + b with ξ from the parent, whose covariance is the identity. Coupling two
splats by ξ ↦ Qᵀξ with AᵀR = U S Vᵀ, Q = V Uᵀ, is optimal; so all of Bures–Wasserstein geometry is
linear algebra on aligned factors R Q.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model.draws import draw
from splatrender.model.measure import SplatMeasure

BARYCENTRE_STEPS = 200
BARYCENTRE_TOLERANCE = 1e-13  # relative change of the factor at which the fixed point is reached


def bures_wasserstein(
    means: Tensor, factors: Tensor, others: Tensor, others_factors: Tensor
) -> Tensor:
    """Squared Wasserstein distance between splats of one parent.

        W₂² = |b − s|² + |A|_F² + |R|_F² − 2 |AᵀR|_*

    Args:
        means: [..., d] b.
        factors: [..., d, d] A.
        others: [..., d] s, broadcast against the first.
        others_factors: [..., d, d] R.

    Returns:
        [...] squared distances, in squared units of the inputs.

    Source:
        Splat Regression Models, ICLR 2026, proposition 1.

    Example:
        >>> one = torch.eye(1)
        >>> bures_wasserstein(one[0], one, one[0] + 3, 2 * one)
        tensor(10.)
    """
    nuclear = torch.linalg.svdvals(factors.mT @ others_factors).sum(dim=-1)
    squares = factors.square().sum(dim=(-2, -1)) + others_factors.square().sum(dim=(-2, -1))
    away = (means - others).square().sum(dim=-1)
    return (away + squares - 2 * nuclear).clamp(min=0)


def aligned(factors: Tensor, others_factors: Tensor) -> Tensor:
    """[..., d, d] R Q, the factor of the same splat as R that is closest to A.

    Args:
        factors: [..., d, d] A.
        others_factors: [..., d, d] R.
    """
    left, _, right = torch.linalg.svd(factors.mT @ others_factors)
    return others_factors @ right.mT @ left.mT


def geodesic(start: SplatMeasure, end: SplatMeasure, time: float) -> SplatMeasure:
    """Splats on the way between pairs of splats, displaced along the optimal coupling.

        b_t = (1 − t) b + t s,      A_t = (1 − t) A + t R Q

    Masses and weights are interpolated linearly.

    Args:
        start: k splats, t = 0.
        end: k splats of the same parent, t = 1.
        time: t in [0, 1].

    Returns:
        The k splats at t.
    """
    if len(start) != len(end):
        raise InputError(f"end: expected {len(start)} splats as at the start, got {len(end)}")
    target = replace(end, factors=aligned(start.factors, end.factors))
    mixed = {
        name: (1 - time) * tensor + time * getattr(target, name) for name, tensor in start.items()
    }
    return start.with_tensors(mixed)


def barycentre(means: Tensor, factors: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The splat whose mean squared Wasserstein distance to n splats is least.

    Fixed point of A ← Σ_i w_i R_i Q_i(A), the mean of all factors aligned with A.

    Args:
        means: [n, d].
        factors: [n, d, d], invertible.
        shares: [n] w >= 0, normalised here.

    Returns:
        Its mean [d] and factor [d, d].

    Source:
        Álvarez-Esteban et al., A fixed-point approach to barycenters in Wasserstein space, 2016.
    """
    shares = shares / shares.sum()
    factor = factors[int(shares.argmax())]
    for _ in range(BARYCENTRE_STEPS):
        update = torch.einsum("n,nij->ij", shares, aligned(factor.expand_as(factors), factors))
        change = float((update - factor).norm() / update.norm())
        factor = update
        if change < BARYCENTRE_TOLERANCE:
            break
    return shares @ means, factor


def integrals(measure: SplatMeasure) -> Tensor:
    """[k] m ∫ρ_i, the splats' masses as densities, whatever their normalisation."""
    if measure.normalised:
        return measure.mass
    volume = torch.linalg.det(measure.factors).abs() * measure.parent.integral(measure.dims)
    return measure.mass * volume


def with_integrals(measure: SplatMeasure, masses: Tensor) -> SplatMeasure:
    """The measure with masses such that m ∫ρ_i is as given."""
    unit = replace(measure, mass=torch.ones_like(masses))
    return replace(measure, mass=masses / integrals(unit))


def merge(measure: SplatMeasure, groups: Tensor) -> SplatMeasure:
    """Put one splat in place of each group, with the group's integral, mean and covariance.

        M = Σ m,  b = Σ m b_i / M,  Σ = Σ m (Σ_i + (b_i − b)(b_i − b)ᵀ) / M,  v = Σ m v_i / M

    with m the splats' integrals: for weights of one sign the moments of f up to order two stay.

    Args:
        measure: k splats.
        groups: int64 [k] number of each splat's group, 0 ... g − 1, none of them empty.

    Returns:
        g splats.
    """
    count = int(groups.max()) + 1
    masses = integrals(measure)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add(0, groups, values)

    def mean(values: Tensor) -> Tensor:
        share = (masses / total(masses)[groups]).reshape(-1, *(1,) * (values.dim() - 1))
        return total(share * values)

    means = mean(measure.means)
    away = measure.means - means[groups]
    covariances = mean(measure.covariances + away[:, :, None] * away[:, None, :])
    merged = SplatMeasure(
        mass=total(masses),
        weights=mean(measure.weights),
        means=means,
        factors=torch.linalg.cholesky(covariances),
        parent=measure.parent,
        normalised=measure.normalised,
    )
    return with_integrals(merged, total(masses))


def sample(measure: SplatMeasure, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw points from the mixture of the splats in proportion to their integrals.

    Args:
        measure: k splats; weights do not matter.
        count: how many points.
        generator: source of randomness.

    Returns:
        [count, d] in units of the inputs.

    Raises:
        InputError: an integral is negative or not finite, or all are 0.
    """
    odds = integrals(measure)
    ids = draw(odds, count, generator)
    z = measure.parent.sample(count, measure.dims, generator).to(measure.means)
    return measure.means[ids] + (measure.factors[ids] @ z[..., None])[..., 0]


def measure_distance(one: SplatMeasure, other: SplatMeasure) -> float:
    """W₂ between two splat measures, with |v − v'|² + W₂²(splat, splat') as the cost.

    Args:
        one: k splats; masses are normalised to sum one.
        other: of the same number of inputs and outputs.

    Returns:
        The distance.

    Raises:
        InputError: numbers of inputs or outputs differ, or a measure has no mass.
    """
    if (one.dims, one.outputs) != (other.dims, other.outputs):
        raise InputError(
            f"other: expected {one.dims} inputs and {one.outputs} outputs, "
            f"got {other.dims} and {other.outputs}"
        )
    cost = bures_wasserstein(
        one.means[:, None], one.factors[:, None], other.means, other.factors
    ) + (one.weights[:, None] - other.weights).square().sum(dim=-1)
    plan = transport_plan(_shares(one), _shares(other), cost.detach().double().numpy())
    return math.sqrt(max(0.0, float((plan * cost.detach().double().numpy()).sum())))


def _shares(measure: SplatMeasure) -> NDArray[np.float64]:
    mass = measure.mass.detach().double().numpy()
    if not mass.sum() > 0 or (mass < 0).any():
        raise InputError("SplatMeasure.mass: expected masses >= 0 with a positive sum")
    return np.asarray(mass / mass.sum())


def transport_plan(
    supply: NDArray[np.float64], demand: NDArray[np.float64], cost: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The optimal plan between two discrete distributions, exactly, by successive shortest paths.

    Each augmentation sends as much as it can along the cheapest path in the residual graph, found
    by Dijkstra's algorithm on costs reduced by the dual prices.

    Args:
        supply: [n] > 0 of sum one.
        demand: [m] > 0 of sum one.
        cost: [n, m].

    Returns:
        [n, m] plan with these marginals.
    """
    left, open_demand = supply.copy(), demand.copy()
    plan = np.zeros_like(cost)
    prices_in, prices_out = np.zeros(len(left)), cost.min(axis=0).copy()
    rest = 1e-14 * supply.sum()
    while left.sum() > rest and open_demand.sum() > rest:
        source = int(left.argmax())
        rows, columns = np.full(len(left), np.inf), np.full(len(open_demand), np.inf)
        via_row = np.full(len(columns), -1)
        via_column = np.full(len(rows), -1)
        done_rows, done_columns = np.zeros(len(rows), bool), np.zeros(len(columns), bool)
        rows[source] = 0.0
        while True:
            open_rows = np.where(done_rows, np.inf, rows)
            open_columns = np.where(done_columns, np.inf, columns)
            i, j = int(open_rows.argmin()), int(open_columns.argmin())
            if open_rows[i] <= open_columns[j]:
                done_rows[i] = True
                reduced = np.maximum(cost[i] + prices_in[i] - prices_out, 0.0)
                better = ~done_columns & (rows[i] + reduced < columns)
                columns[better], via_row[better] = (rows[i] + reduced)[better], i
                continue
            done_columns[j] = True
            if open_demand[j] > 0:
                break
            back = (plan[:, j] > 0) & ~done_rows
            reduced = np.maximum(prices_out[j] - cost[:, j] - prices_in, 0.0)
            better = back & (columns[j] + reduced < rows)
            rows[better], via_column[better] = (columns[j] + reduced)[better], j
        reach = columns[j]
        prices_in += np.minimum(rows, reach)
        prices_out += np.minimum(columns, reach)
        path, row, column = [], int(via_row[j]), j
        amount = min(left[source], open_demand[j])
        while True:
            path.append((row, column, 1.0))
            if row == source and via_column[row] < 0:
                break
            column = int(via_column[row])
            path.append((row, column, -1.0))
            amount = min(amount, plan[row, column])
            row = int(via_row[column])
        for row, column, sign in path:
            plan[row, column] = max(0.0, plan[row, column] + sign * amount)
        left[source] -= amount
        open_demand[j] -= amount
    return plan
