"""Which births, or which deaths, may happen together: those that touch different pixels.

What two of them change together is not the sum of what each would change alone where their
footprints overlap, behind one another in depth just as side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 10  # sizes are told apart by powers of two, from half a pixel on
SMALLEST = 0.5  # px


def apart(
    places: Tensor, sizes: Tensor, weights: Tensor, pictures: Tensor, factor: float
) -> Tensor:
    """Rows that are the first of their neighbourhood in the views that count most for them.

    In a view a neighbourhood is a cell of a lattice as large as the footprint: `factor` standard
    deviations, rounded to a power of two. A row is first there if no row that is preferred has
    its centre in the cell and is at most as large, and no larger one that is preferred has this
    row's centre in its own cell. A row is kept if it is first in views that hold at least half of
    its weight.

    Args:
        places: [V, K, 2] centres of footprints in V views [px]; rows in order of preference.
        sizes: [V, K] standard deviations [px], 0 where a view does not see the row.
        weights: [V, K] how much a view counts for a row, >= 0.
        pictures: [V, 2] width and height of the views [px].
        factor: side of the cells, in standard deviations; 0 keeps all rows.

    Returns:
        int64 rows that are kept, in order.

    Example:
        >>> places = torch.tensor([[[1.0, 1.0], [1.2, 1.1], [9.0, 9.0]]])
        >>> picture = torch.tensor([[16, 16]])
        >>> apart(places, torch.ones(1, 3), torch.ones(1, 3), picture, factor=2.0).tolist()
        [0, 2]
    """
    views, count = sizes.shape
    rank = torch.arange(count, device=sizes.device)
    if factor <= 0 or count == 0:
        return rank
    level = (sizes / SMALLEST).clamp(min=1).log2().round().clamp(max=LEVELS - 1)
    first = torch.zeros_like(sizes)
    for view in range(views):
        ids = (sizes[view] > 0).nonzero()[:, 0]
        if len(ids) == 0:
            continue
        own, order = level[view, ids], rank[ids]
        alone = torch.ones_like(ids, dtype=torch.bool)
        for at in own.unique().long().tolist():  # a level that no row has decides nothing
            cell = _cells(places[view, ids], factor * SMALLEST * 2.0**at, pictures[view])
            larger = _least(order, cell, own == at)
            smaller = _least(order, cell, own <= at)
            alone &= ((own > at) | (larger >= order)) & ((own != at) | (smaller >= order))
        first[view, ids] = alone.to(first.dtype)
    kept = (first * weights).sum(dim=0) >= 0.5 * weights.sum(dim=0)
    return kept.nonzero()[:, 0]


def _cells(places: Tensor, side: float, picture: Tensor) -> Tensor:
    """[K] numbers of the cells that places [K, 2] lie in; beyond the border all share a cell."""
    columns, rows = (picture / side).floor().long().tolist()
    column, row = torch.floor(places / side).long().unbind(dim=1)
    return (row.clamp(-1, rows + 1) + 1) * (columns + 3) + column.clamp(-1, columns + 1) + 1


def _least(order: Tensor, cell: Tensor, part: Tensor) -> Tensor:
    """[K] the least `order` among the rows of `part` in the cell of each row."""
    least = torch.full((int(cell.max()) + 1,), torch.iinfo(order.dtype).max, device=order.device)
    least.scatter_reduce_(0, cell[part], order[part], "amin")
    return least[cell]
