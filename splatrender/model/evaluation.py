"""The function that a splat measure stands for, and its derivatives in closed form.

Legend: z = A⁻¹ (x − b) local coordinates, c amplitude, P = (A Aᵀ)⁻¹, φ profile of the parent.

    f = Σ c φ,      ∇f = Σ c φ' A⁻ᵀ z,      ∇²f = Σ c A⁻ᵀ (φ'' z zᵀ + φ' I) A⁻¹

Points are put into compact blocks, and only blocks that meet a splat's support are evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model.measure import SplatMeasure
from splatrender.model.ordering import morton_order

BLOCK = 64  # points of a block: enough to amortise a pair's set-up, few enough to stay compact
PAIRS = 1 << 20  # splat-point pairs in flight: about 100 MB with second derivatives in 2-D


@dataclass(frozen=True, eq=False)
class Field:
    """A function and its derivatives at n points.

    Attributes:
        value: [n, p] f.
        gradient: [n, p, d] ∂f/∂x, or None if it was not asked for.
        hessian: [n, p, d, d] ∂²f/∂x∂x, or None if it was not asked for.
    """

    value: Tensor
    gradient: Tensor | None = None
    hessian: Tensor | None = None

    @property
    def laplacian(self) -> Tensor:
        """[n, p] Σ_j ∂²f/∂x_j²."""
        if self.hessian is None:
            raise InputError("order: expected 2 for the Laplacian, got less")
        return self.hessian.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def evaluate(measure: SplatMeasure, points: Tensor, order: int = 0, pairs: int = PAIRS) -> Field:
    """Evaluate f and its derivatives at points, differentiable in the measure and the points.

    Pairs further apart than the parent's radius at the dtype's precision are left out. This changes
    f by less than rounding. Memory is bounded by `pairs`.

    Args:
        measure: k splats.
        points: [n, d], of the measure's dtype, in units of the inputs.
        order: 0 for values, 1 with gradient, 2 with Hessian.
        pairs: splat-point pairs that are held in memory at a time.

    Returns:
        Values and the derivatives asked for.

    Raises:
        InputError: points are of another shape or dtype, or a factor is singular.

    Example:
        >>> one = torch.ones(1, 1)
        >>> measure = SplatMeasure(one[0], one, 0 * one, one[None])
        >>> evaluate(measure, torch.tensor([[1.0]]), order=1).gradient
        tensor([[[-0.6065]]])
    """
    if points.dim() != 2 or points.shape[1] != measure.dims or points.dtype != measure.dtype:
        raise InputError(
            f"points: expected {measure.dtype} of shape (n, {measure.dims}), "
            f"got {points.dtype} of shape {tuple(points.shape)}"
        )
    if order not in (0, 1, 2):
        raise InputError(f"order: expected 0, 1 or 2, got {order}")
    inverses = measure.inverse_factors()
    amplitudes = measure.amplitudes
    layout, rows, active = _blocks(measure, points, pairs)
    blocks, size = layout.shape[:2]
    totals = [
        points.new_zeros(blocks, size, measure.outputs, *(measure.dims,) * i)
        for i in range(order + 1)
    ]
    for part in active.split(max(1, pairs // size), dim=1):
        block, splat = part
        terms = _pair_terms(layout[block], measure, inverses, splat, order)
        for i, term in enumerate(terms):
            shaped = amplitudes[splat].reshape(len(splat), 1, -1, *(1,) * i) * term[:, :, None]
            if blocks == 1:
                totals[i] = totals[i] + shaped.sum(dim=0, keepdim=True)
            else:
                totals[i] = totals[i].index_add(0, block, shaped)
    flat = [total.flatten(0, 1)[: len(points)] for total in totals]
    if rows is not None:
        positions = torch.arange(len(rows), device=rows.device)
        back = torch.empty_like(rows).scatter_(0, rows, positions)
        flat = [total[back] for total in flat]
    return Field(*flat)


def _blocks(
    measure: SplatMeasure, points: Tensor, pairs: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Put points into blocks.

    Returns:
        Blocks [blocks, size, d]; rows [n] of the points in their order, None if that is the given
        one; (block, splat) pairs to evaluate, int64 [2, P].
    """
    count = len(points)
    if count * len(measure) <= min(pairs, 16 * BLOCK * BLOCK):
        every = torch.stack([torch.zeros(len(measure)), torch.arange(len(measure))]).long()
        return points[None], None, every
    rows = morton_order(points.detach().flip(1))  # the last axis first
    padded = torch.cat([rows, rows[-1:].expand(-count % BLOCK)])
    layout = points[padded].reshape(-1, BLOCK, measure.dims)
    return layout, rows, _meetings(layout.detach(), measure.detach())


def _pair_terms(
    x: Tensor, measure: SplatMeasure, inverses: Tensor, splat: Tensor, order: int
) -> list[Tensor]:
    """Return the peak-1 bumps at points x [P, B, d], and derivatives [P, B, d], [P, B, d, d]."""
    inverse = inverses[splat]
    z = (x - measure.means[splat][:, None]) @ inverse.mT
    phi = measure.parent.profile(0.5 * z.square().sum(dim=-1), measure.dims, order)
    terms = [phi[0]]
    if order >= 1:
        q = z @ inverse  # A⁻ᵀ z as rows
        terms.append(phi[1][..., None] * q)
    if order == 2:
        precision = (inverse.mT @ inverse)[:, None]
        outer = q[..., :, None] * q[..., None, :]
        terms.append(phi[2][..., None, None] * outer + phi[1][..., None, None] * precision)
    return terms


def _reach(measure: SplatMeasure) -> Tensor:
    """Return half the sizes [k, d] of boxes around splats outside which they are below rounding."""
    tolerance = torch.finfo(measure.dtype).eps
    sizes: Tensor = measure.factors.norm(dim=2)
    return measure.parent.radius(measure.dims, tolerance) * sizes


def _meetings(layout: Tensor, measure: SplatMeasure) -> Tensor:
    """Find the (block, splat) pairs whose bounding boxes meet, int64 [2, P]."""
    low, high = layout.amin(dim=1), layout.amax(dim=1)
    reach = _reach(measure)
    step = max(1, PAIRS // len(low))
    found = []
    for start in range(0, len(measure), step):
        means, half = measure.means[start : start + step], reach[start : start + step]
        gap = torch.maximum(low[:, None] - means, means - high[:, None])  # [blocks, splats, d]
        pairs = (gap <= half).all(dim=2).nonzero().T
        pairs[1] += start
        found.append(pairs)
    return torch.cat(found, dim=1)
