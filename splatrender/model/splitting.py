"""The law by which one splat becomes two that together look like it.

Legend: b mean, A factor, e a unit vector in the splat's own coordinates, δ offset, m mass.

    b± = b ± δ A e,      A' = A (I − (1 − √(1 − δ²)) e eᵀ),      m' = m / 2

Since A' A'ᵀ = A Aᵀ − δ² (A e)(A e)ᵀ, mass, mean and covariance of the pair are those of the parent,
and so are all moments to order three. At δ = 0 the two coincide and the function is unchanged;
transport separates them. At δ = √¾ each is half as wide along e: the division of splats of a scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model.geometry import integrals, with_integrals
from splatrender.model.measure import SplatMeasure
from splatrender.model.quaternions import rotate
from splatrender.model.splats import Splats

HALVING = math.sqrt(0.75)  # the offset δ at which each child has half the parent's width


def _law(along: Tensor, offset: float) -> tuple[Tensor, float]:
    """Return the children's displacement δ A e and their relative width √(1 − δ²) along e."""
    if not 0 <= offset < 1:
        raise InputError(f"offset: expected a number in [0, 1), got {offset}")
    return offset * along, math.sqrt(1 - offset**2)


@dataclass(frozen=True, eq=False)
class Children:
    """Pairs of splats that replace n parents.

    Attributes:
        mass: [n] mass of either child as a density, half the parent's.
        means: [2, n, d] b ± δ A e.
        factors: [n, d, d] A' of both children.
    """

    mass: Tensor
    means: Tensor
    factors: Tensor


def split_factors(
    mass: Tensor, means: Tensor, factors: Tensor, direction: Tensor, offset: float = 0.0
) -> Children:
    """Split splats that are given by factors.

    Args:
        mass: [n] m, as densities.
        means: [n, d] b.
        factors: [n, d, d] A.
        direction: [n, d] e in local coordinates, normalised here.
        offset: δ in standard deviations, 0 <= δ < 1.

    Returns:
        The children.

    Raises:
        InputError: the offset is out of range.

    Example:
        >>> one = torch.ones(1)
        >>> pair = split_factors(one, one[:, None], one[:, None, None], one[:, None], 0.6)
        >>> pair.means.flatten().tolist(), pair.factors.flatten().tolist()
        ([1.600000023841858, 0.3999999761581421], [0.800000011920929])
    """
    e = direction / direction.norm(dim=1, keepdim=True)
    along = (factors @ e[..., None])[..., 0]
    shift, width = _law(along, offset)
    narrower = factors - (1 - width) * along[:, :, None] * e[:, None, :]
    return Children(mass / 2, torch.stack([means + shift, means - shift]), narrower)


def split(
    measure: SplatMeasure, ids: Tensor, direction: Tensor, offset: float = 0.0
) -> SplatMeasure:
    """Replace some splats of a measure by two each: one in the parent's row, one at the end.

    Args:
        measure: k splats.
        ids: int64 [n] distinct splats to split.
        direction: [n, d] in the splats' own coordinates.
        offset: δ in standard deviations, 0 <= δ < 1.

    Returns:
        k + n splats.

    Raises:
        InputError: the offset is out of range.
    """
    parents = measure.index(ids)
    pair = split_factors(integrals(parents), parents.means, parents.factors, direction, offset)
    children = [
        with_integrals(replace(parents, means=means, factors=pair.factors), pair.mass)
        for means in pair.means
    ]
    first = {
        name: tensor.index_copy(0, ids, getattr(children[0], name))
        for name, tensor in measure.items()
    }
    return SplatMeasure.cat([measure.with_tensors(first), children[1]])


def split_splats(splats: Splats, offset: float = HALVING) -> tuple[Splats, Splats]:
    """Split splats of a scene along their longest axis, with the peak opacity of the parent.

    The optical mass of a splat is its peak optical depth times its volume. With the peak kept, two
    children of half the width have the optical mass of the parent.

    Args:
        splats: N parents.
        offset: δ in standard deviations of the longest axis, 0 <= δ < 1.

    Returns:
        N children on one side, N on the other, outside the autograd graph.

    Raises:
        InputError: the offset is out of range.

    Example:
        >>> parents = Splats.random(5, seed=0)
        >>> one, other = split_splats(parents)
        >>> bool(((one.means + other.means) / 2 - parents.means).abs().max() < 1e-6)
        True
    """
    splats = splats.detach()
    axis = splats.log_scales.argmax(dim=1, keepdim=True)
    longest = torch.zeros_like(splats.scales).scatter_(1, axis, splats.scales.gather(1, axis))
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    shift, width = _law(rotate(quats, longest), offset)
    narrowing = torch.zeros_like(splats.log_scales).scatter_(1, axis, math.log(width))

    def child(displacement: Tensor) -> Splats:
        copy = splats.clone()
        return replace(
            copy, means=copy.means + displacement, log_scales=copy.log_scales + narrowing
        )

    return child(shift), child(-shift)
