"""Small random splat measures, and derivatives by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from splatrender.model import Parent, SplatMeasure, create_parent

F64 = torch.float64


def make_measure(
    count: int = 5,
    dims: int = 2,
    outputs: int = 1,
    seed: int = 0,
    parent: str | Parent = "gaussian",
    normalised: bool = False,
) -> SplatMeasure:
    """Make splats in the unit box, none thin: condition numbers of factors below about ten."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    return SplatMeasure(
        mass=torch.rand(count, generator=generator, dtype=F64) + 0.5,
        weights=normal(count, outputs),
        means=torch.rand(count, dims, generator=generator, dtype=F64),
        factors=0.3 * torch.eye(dims, dtype=F64) + 0.05 * normal(count, dims, dims),
        parent=create_parent(parent),
        normalised=normalised,
    )


def uniform(count: int, dims: int = 2, seed: int = 100) -> Tensor:
    """Draw points in the unit box."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dims, generator=generator, dtype=F64)


def difference_quotient(
    function: Callable[[Tensor], float], place: Tensor, step: float = 1e-5
) -> Tensor:
    """Return central differences of a scalar function in every entry of a tensor."""
    gradient = torch.zeros_like(place)
    for index in range(place.numel()):
        change = torch.zeros(place.numel(), dtype=place.dtype)
        change[index] = step
        shift = change.reshape(place.shape)
        gradient.view(-1)[index] = (function(place + shift) - function(place - shift)) / (2 * step)
    return gradient
