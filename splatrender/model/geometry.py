"""Bures–Wasserstein geometry of splats and measures: distances, geodesics, barycentres, merging.

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
from splatrender.model.transport_plan import transport_plan

BARYCENTRE_STEPS = 200
BARYCENTRE_TOLERANCE = 1e-13  # relative change of the factor at which the fixed point is reached


def bures_wasserstein(
    means: Tensor, factors: Tensor, others: Tensor, others_factors: Tensor
) -> Tensor:
    """Return the squared Wasserstein distance between splats of one parent.

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
    nuclear: Tensor = torch.linalg.svdvals(factors.mT @ others_factors).sum(dim=-1)
    squares = factors.square().sum(dim=(-2, -1)) + others_factors.square().sum(dim=(-2, -1))
    away = (means - others).square().sum(dim=-1)
    return (away + squares - 2 * nuclear).clamp(min=0)


def aligned(factors: Tensor, others_factors: Tensor) -> Tensor:
    """Return R Q [..., d, d], the factor of the same splat as R that is closest to A.

    Args:
        factors: [..., d, d] A.
        others_factors: [..., d, d] R.

    Returns:
        [..., d, d].

    Example:
        >>> aligned(torch.eye(1), -2 * torch.eye(1))
        tensor([[2.]])
    """
    left, _, right = torch.linalg.svd(factors.mT @ others_factors)
    turned: Tensor = others_factors @ right.mT @ left.mT
    return turned


def geodesic(start: SplatMeasure, end: SplatMeasure, time: float) -> SplatMeasure:
    """Return the splats on the geodesics between pairs of splats, by the optimal coupling.

        b_t = (1 − t) b + t s,      A_t = (1 − t) A + t R Q

    Masses and weights are interpolated linearly.

    Args:
        start: k splats, t = 0.
        end: k splats of the same parent, t = 1.
        time: t in [0, 1].

    Returns:
        The k splats at t.

    Raises:
        InputError: the numbers of splats differ.

    Example:
        >>> one = torch.ones(1)
        >>> start = SplatMeasure(one, one[:, None], 0 * one[:, None], one[:, None, None])
        >>> end = SplatMeasure(one, one[:, None], 4 * one[:, None], 3 * one[:, None, None])
        >>> middle = geodesic(start, end, 0.5)
        >>> float(middle.means), float(middle.factors)
        (2.0, 2.0)
    """
    if len(start) != len(end):
        raise InputError(f"end: expected {len(start)} splats as at the start, got {len(end)}")
    target = replace(end, factors=aligned(start.factors, end.factors))
    mixed = {
        name: (1 - time) * tensor + time * getattr(target, name) for name, tensor in start.items()
    }
    return start.with_tensors(mixed)


def barycentre(means: Tensor, factors: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return the splat whose mean squared Wasserstein distance to n splats is least.

    Fixed point of A ← Σ_i w_i R_i Q_i(A), the mean of all factors aligned with A.

    Args:
        means: [n, d].
        factors: [n, d, d], invertible.
        shares: [n] w >= 0, normalised here.

    Returns:
        Its mean [d] and factor [d, d].

    Source:
        Álvarez-Esteban et al., A fixed-point approach to barycenters in Wasserstein space, 2016.

    Example:
        >>> scales = torch.tensor([1.0, 2.0, 6.0])[:, None, None]
        >>> barycentre(torch.zeros(3, 1), scales, torch.ones(3))[1]
        tensor([[3.]])
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
    """Return m ∫ρ_i [k], the splats' masses as densities, whatever their normalisation."""
    if measure.normalised:
        return measure.mass
    volume: Tensor = torch.linalg.det(measure.factors).abs() * measure.parent.integral(measure.dims)
    return measure.mass * volume


def with_integrals(measure: SplatMeasure, masses: Tensor) -> SplatMeasure:
    """Return the measure with masses such that m ∫ρ_i [k] is `masses`."""
    unit = replace(measure, mass=torch.ones_like(masses))
    return replace(measure, mass=masses / integrals(unit))


def merge(measure: SplatMeasure, groups: Tensor) -> SplatMeasure:
    """Replace each group of splats by one, with the group's integral, mean and covariance.

        M = Σ m,  b = Σ m b_i / M,  Σ = Σ m (Σ_i + (b_i − b)(b_i − b)ᵀ) / M,  v = Σ m v_i / M

    with m the splats' integrals: for weights of one sign the moments of f up to order two stay.

    Args:
        measure: k splats.
        groups: int64 [k] group of each splat, 0 ... g − 1, none of them empty.

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
        count: number of points.
        generator: source of random numbers.

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
    """Return W₂ between two splat measures, with |v − v'|² + W₂²(splat, splat') as the cost.

    Args:
        one: k splats; masses are normalised to sum one.
        other: of the same number of inputs and outputs.

    Returns:
        The distance, by an exact optimal plan; no gradient flows through it.

    Raises:
        InputError: numbers of inputs or outputs differ, or a measure has no mass.

    Example:
        >>> one = torch.ones(1)
        >>> here = SplatMeasure(one, one[:, None], 0 * one[:, None], one[:, None, None])
        >>> there = SplatMeasure(one, one[:, None], 3 * one[:, None], 2 * one[:, None, None])
        >>> round(measure_distance(here, there) ** 2, 6)
        10.0
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
    """Return the masses [k], normalised to sum one."""
    mass = measure.mass.detach().double().numpy()
    if not mass.sum() > 0 or (mass < 0).any():
        raise InputError("SplatMeasure.mass: expected masses >= 0 with a positive sum")
    return np.asarray(mass / mass.sum())
