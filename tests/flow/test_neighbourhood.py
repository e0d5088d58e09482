"""Subsets of footprints that do not overlap."""

from __future__ import annotations

from functools import cache

import torch
from helpers.exchanges import (
    seeded,
)
from torch import Tensor

from splatrender.flow.views.neighbourhood import non_overlapping
from splatrender.flow.views.sweep import (
    Placement,
)

IMAGES = torch.tensor([[128, 64], [128, 64]])


def by_pairs(
    places: Tensor, sizes: Tensor, weights: Tensor, images: Tensor, factor: float
) -> list[int]:
    """Apply the definition of `non_overlapping` row by row."""
    views, count = sizes.shape
    levels = (sizes / 0.5).clamp(min=1).log2().round().clamp(max=9)
    first = torch.zeros_like(sizes)

    @cache
    def cell(view: int, row: int, level: float) -> tuple[int, ...]:
        side = factor * 0.5 * 2.0**level
        at = (places[view, row] / side).floor().long()
        last = (images[view] / side).floor().long() + 1
        return tuple(at.clamp(min=-1).minimum(last).tolist())

    for view in range(views):
        seen = [row for row in range(count) if sizes[view, row] > 0]
        own = levels[view].tolist()
        for row in seen:
            pairs = [(max(own[row], own[other]), other) for other in seen]
            first[view, row] = all(
                other >= row or cell(view, other, level) != cell(view, row, level)
                for level, other in pairs
            )
    kept = (first * weights).sum(dim=0) >= 0.5 * weights.sum(dim=0)
    return kept.nonzero()[:, 0].tolist()


def test_all_views_and_sizes_at_once_are_as_by_pairs() -> None:
    generator = seeded(4)
    places = 100 * torch.rand(3, 60, 2, generator=generator) - 10  # some beyond the border
    sizes = 2.0 ** (5 * torch.rand(3, 60, generator=generator) - 2)
    sizes[torch.rand(3, 60, generator=generator) < 0.3] = 0
    weights = torch.rand(3, 60, generator=generator)
    images = torch.tensor([[80, 60], [40, 90], [64, 64]])
    for factor in (1.0, 3.0):
        expected = by_pairs(places, sizes, weights, images, factor)
        assert (
            non_overlapping(Placement(places, sizes), weights, images, factor).tolist() == expected
        )
        assert 5 < len(expected) < 55


def test_the_better_of_two_neighbours_is_kept() -> None:
    places = torch.tensor([[[2.0, 2.0], [2.5, 2.5], [40.0, 2.0]]])
    ones = torch.ones(1, 3)
    assert non_overlapping(Placement(places, ones), ones, IMAGES, 4.0).tolist() == [0, 2]
    assert non_overlapping(Placement(places, ones), ones, IMAGES, 0.0).tolist() == [0, 1, 2]


def test_sizes_meet_across_levels() -> None:
    places = torch.tensor([[[5.0, 5.0], [6.0, 6.0]]])
    for sizes in ([1.0, 8.0], [8.0, 1.0]):
        assert non_overlapping(
            Placement(places, torch.tensor([sizes])), torch.ones(1, 2), IMAGES, 4.0
        ).tolist() == [0]


def test_views_vote_by_weight() -> None:
    near, far = [[3.0, 3.0], [3.2, 3.2]], [[3.0, 3.0], [90.0, 90.0]]
    places, sizes = torch.tensor([near, far]), torch.ones(2, 2)
    assert non_overlapping(
        Placement(places, sizes), torch.tensor([[1.0, 3.0], [1.0, 1.0]]), IMAGES, 4.0
    ).tolist() == [0]
    assert non_overlapping(
        Placement(places, sizes), torch.tensor([[1.0, 1.0], [1.0, 3.0]]), IMAGES, 4.0
    ).tolist() == [0, 1]


def test_views_that_do_not_see_a_row_have_no_vote() -> None:
    places = torch.tensor([[[3.0, 3.0], [3.2, 3.2]]] * 2)
    sizes = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    weights = torch.tensor([[1.0, 0.1], [0.0, 1.0]])
    assert non_overlapping(Placement(places, sizes), weights, IMAGES, 4.0).tolist() == [0, 1]
