"""Selection of births, or of deaths, that may happen together: those of different pixels.

The joint change of two splats is not the sum of their single changes where their footprints
overlap, behind one another in depth just as side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.flow.views.sweep import Placement
from splatrender.runtime.devices import to_device

LEVELS = 10  # sizes are distinguished by powers of two, from half a pixel on
SMALLEST = 0.5  # px
LAST = torch.iinfo(torch.int64).max  # order of no row


def non_overlapping(placement: Placement, weights: Tensor, images: Tensor, factor: float) -> Tensor:
    """Return the rows that are the first of their neighbourhood in the views that matter to them.

    In a view a neighbourhood is a cell of a lattice as large as the footprint: `factor` standard
    deviations, rounded to a power of two. A row is first there if no row that is preferred has
    its centre in the cell and is at most as large, and no larger one that is preferred has this
    row's centre in its own cell. A row is kept if it is first in views that hold at least half of
    its weight.

    Args:
        placement: footprints of K rows in V views; rows in order of preference.
        weights: [V, K] importance of a view for a row, >= 0.
        images: [V, 2] width and height of the views [px], on the CPU.
        factor: side of the cells, in standard deviations; 0 keeps all rows.

    Returns:
        int64 rows that are kept, in order.

    Example:
        >>> centers = torch.tensor([[[1.0, 1.0], [1.2, 1.1], [9.0, 9.0]]])
        >>> placement = Placement(centers, torch.ones(1, 3))
        >>> non_overlapping(placement, torch.ones(1, 3), torch.tensor([[16, 16]]), 2.0).tolist()
        [0, 2]
    """
    centers, sizes = placement.centers, placement.sizes
    count = sizes.shape[1]
    if factor <= 0 or count == 0:
        return torch.arange(count, device=sizes.device)
    view, order = (sizes > 0).nonzero(as_tuple=True)  # rows in sight, view by view
    level = (sizes / SMALLEST).clamp(min=1).log2().round().clamp(max=LEVELS - 1)
    place, level = centers[view, order], level[view, order]
    alone = torch.ones_like(view, dtype=torch.bool)
    for at in range(LEVELS):  # all views at once: each read of a number waits for the device
        cell, cells = _cells(place, view, factor * SMALLEST * 2.0**at, images)
        larger = _least(order, cell, cells, level == at)
        smaller = _least(order, cell, cells, level <= at)
        alone &= ((level > at) | (larger >= order)) & ((level != at) | (smaller >= order))
    first = torch.zeros_like(sizes)
    first[view, order] = alone.to(first.dtype)
    kept = (first * weights).sum(dim=0) >= 0.5 * weights.sum(dim=0)
    return kept.nonzero()[:, 0]


def _cells(place: Tensor, view: Tensor, side: float, images: Tensor) -> tuple[Tensor, int]:
    """Return the number [P] of the cell of its view that each place [P, 2] is in, and their count.

    All places beyond a border of an image share a cell.
    """
    sizes = (images / side).floor().long() + 3  # cells of the lattices, with one beyond each end
    cells = sizes.prod(dim=1)
    first = to_device(cells.cumsum(dim=0) - cells, view.device)[view]
    last = to_device(sizes - 2, view.device)[view]
    column, row = (torch.floor(place / side).long().clamp_(min=-1).minimum(last) + 1).unbind(dim=1)
    return first + row * (last[:, 0] + 2) + column, int(cells.sum())


def _least(order: Tensor, cell: Tensor, cells: int, part: Tensor) -> Tensor:
    """Return [P] the least `order` among those of `part` in the cell of each."""
    least = torch.full((cells,), LAST, device=order.device)
    least.scatter_reduce_(0, cell, torch.where(part, order, LAST), "amin")
    return least[cell]
