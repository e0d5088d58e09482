"""The Morton curve: neighbours in space become neighbours in memory."""

from __future__ import annotations

import pytest
import torch

from splatrender.model.ordering import morton_order


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_neighbours_come_together(dims: int) -> None:
    axes = [torch.arange(8.0 if dims < 4 else 4.0)] * dims
    grid = torch.cartesian_prod(*axes).reshape(-1, dims)
    grid = grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))]
    order = morton_order(grid)
    jumps = grid[order].diff(dim=0).norm(dim=1)
    assert float(jumps.mean()) < 0.6 * float(grid.diff(dim=0).norm(dim=1).mean())
    assert sorted(order.tolist()) == list(range(len(grid)))


def test_the_first_axis_is_the_most_significant() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    assert morton_order(corners).tolist() == list(range(8))
    assert morton_order(corners.flip(1)).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


def test_degenerate_clouds_keep_their_order() -> None:
    assert morton_order(torch.empty(0, 3)).tolist() == []
    assert morton_order(torch.ones(3, 3)).tolist() == [0, 1, 2]
    assert morton_order(torch.full((3, 2), torch.nan)).tolist() == [0, 1, 2]
