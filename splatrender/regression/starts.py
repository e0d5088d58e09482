"""First splats of a search."""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.model import Parent, SplatMeasure, create_parent


def initial_measure(
    points: Tensor,
    n_splats: int,
    outputs: int = 1,
    generator: torch.Generator | None = None,
    parent: str | Parent = "gaussian",
) -> SplatMeasure:
    """Return splats of amplitude 0 at random points, each as wide as its share of the points' box.

    An input that does not vary gets the largest size of the others: nothing depends on it.

    Args:
        points: [n, d] float64, in units of the inputs.
        n_splats: number of splats.
        outputs: number of outputs p.
        generator: source of randomness.
        parent: shape of the splats.

    Returns:
        A peak-normalised measure of mass one.
    """
    dims = points.shape[1]
    sizes = (points.amax(dim=0) - points.amin(dim=0)) * n_splats ** (-1 / dims)
    sizes = torch.where(sizes > 0, sizes, sizes.max() if float(sizes.max()) > 0 else 1.0)
    ids = torch.randint(len(points), (n_splats,), generator=generator)
    return SplatMeasure(
        mass=points.new_ones(n_splats),
        weights=points.new_zeros(n_splats, outputs),
        means=points[ids].clone(),
        factors=torch.diag(sizes).repeat(n_splats, 1, 1),
        parent=create_parent(parent),
    )
