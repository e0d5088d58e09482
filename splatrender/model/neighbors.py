"""Exact distances to nearest neighbours, on any machine and without a tree library."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

LEAF = 48  # points in a leaf at most: few enough to prune well, enough for vector operations
PAIRS = 2_000_000  # (point, leaf) tests held in memory at once


def nearest_distances(points: Tensor, k: int = 3) -> Tensor:
    """Return distances of each point to its k nearest other points, by a balanced k-d tree.

    Every leaf is searched within itself first; that bounds how far a better neighbour can be, and
    only leaves whose box comes closer are searched afterwards, the nearest first. The result is
    exact; points that coincide with others are at distance 0 from them.

    Args:
        points: [P, 3], finite, any length unit.
        k: number of neighbours.

    Returns:
        [P, min(k, P - 1)] distances, ascending along each row, in the unit and dtype of `points`.

    Example:
        >>> nearest_distances(torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]), k=1).flatten()
        tensor([1., 1., 2.])
    """
    count = len(points)
    k = min(k, count - 1)
    if k <= 0:
        return points.new_empty(count, 0)
    leaves, order = _build(points)
    low, high = _boxes(leaves)
    n_leaves, size = leaves.shape[:2]
    best = torch.full((n_leaves, size, k), torch.inf, dtype=points.dtype)  # squared
    step = max(1, PAIRS // (size * size))
    for start in range(0, n_leaves, step):
        part = leaves[start : start + step]
        squared = _squared_distances(part.reshape(-1, 3), part.repeat_interleave(size, dim=0))
        squared = squared.view(-1, size, size)
        squared.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        padded = squared.new_full((len(part), size, max(size, k)), torch.inf)
        padded[:, :, :size] = squared
        best[start : start + step] = padded.topk(k, dim=2, largest=False).values

    real = order >= 0
    for pairs in _near_leaves(low, high, best[..., -1].where(real, -1.0)):
        _search(leaves, low, high, best, pairs)
    result = points.new_empty(count, k)
    result[order[real]] = best[real]
    return result.sort(dim=1).values.sqrt()


def _build(points: Tensor) -> tuple[Tensor, Tensor]:
    """Split at medians: leaves [L, S, 3], filled up with infinity, and their rows (-1: filler)."""
    leaf = max(LEAF, math.isqrt(len(points)) // 8)  # all pairs of leaves are compared: few in all
    levels = 0
    while (len(points) >> levels) > leaf:
        levels += 1
    n_leaves = 1 << levels
    size = -(-len(points) // n_leaves)
    filler = n_leaves * size - len(points)
    blocks = torch.cat([points, points.new_full((filler, 3), torch.inf)])[None]
    rows = torch.cat([torch.arange(len(points)), torch.full((filler,), -1)])[None]
    for _ in range(levels):
        low, high = _boxes(blocks)
        axis = (high - low).argmax(dim=1)
        keys = blocks.gather(2, axis[:, None, None].expand(-1, blocks.shape[1], 1))[..., 0]
        order = keys.argsort(dim=1)
        blocks = blocks.gather(1, order[..., None].expand(-1, -1, 3))
        blocks = blocks.reshape(2 * len(blocks), -1, 3)
        rows = rows.gather(1, order).reshape(len(blocks), -1)
    return blocks, rows


def _boxes(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return lower and upper corners [B, 3] of the finite points; an empty block is (inf, -inf)."""
    return blocks.amin(dim=1), blocks.where(blocks.isfinite(), -torch.inf).amax(dim=1)


def _squared_distances(queries: Tensor, blocks: Tensor) -> Tensor:
    """Return squared distances [Q, S] of queries [Q, 3] to the points of their block [Q, S, 3]."""
    squared = torch.zeros(blocks.shape[:2], dtype=queries.dtype)
    for axis in range(3):
        squared += (blocks[..., axis] - queries[:, None, axis]).square_()
    return squared


def _gap(low_a: Tensor, high_a: Tensor, low_b: Tensor, high_b: Tensor) -> Tensor:
    """Return the squared distance between boxes, over the last dimension."""
    return torch.maximum(low_a - high_b, low_b - high_a).clamp_(min=0).square_().sum(dim=-1)


def _near_leaves(low: Tensor, high: Tensor, bounds: Tensor) -> Iterator[Tensor]:
    """Yield pairs [2, M] of (leaf, leaf with a box near enough), for one group of leaves at a time.

    `bounds` [L, S] are the squared distances within which each point still searches.
    """
    n_leaves = len(bounds)
    reach = bounds.amax(dim=1)
    step = max(1, PAIRS // n_leaves)
    for start in range(0, n_leaves, step):
        stop = min(start + step, n_leaves)
        gaps = _gap(low[start:stop, None], high[start:stop, None], low[None], high[None])
        near = gaps < reach[start:stop, None]
        near[torch.arange(stop - start), torch.arange(start, stop)] = False
        pairs = near.nonzero().T
        pairs[0] += start
        yield pairs


def _search(leaves: Tensor, low: Tensor, high: Tensor, best: Tensor, pairs: Tensor) -> None:
    """Improve `best` [L, S, k] of the searching leaves by the points of the leaves near them."""
    size, k = best.shape[1:]
    flat = best.view(-1, k)
    points = leaves.view(-1, 3)
    found_points, found_leaves, found_gaps = [], [], []
    for chunk in pairs.split(max(1, PAIRS // size), dim=1):
        ids = chunk[0, :, None] * size + torch.arange(size)  # [M, S] points of the searching leaf
        where = points[ids]
        other = chunk[1, :, None]
        gaps = _gap(where, where, low[other], high[other])
        useful = (gaps < flat[ids, -1]) & where[..., 0].isfinite()
        found_points.append(ids[useful])
        found_leaves.append(other.expand(-1, size)[useful])
        found_gaps.append(gaps[useful])
    if not found_points:
        return
    ids, others, gaps = map(torch.cat, (found_points, found_leaves, found_gaps))
    order = gaps.argsort(stable=True)
    order = order[ids[order].argsort(stable=True)]  # by point, the nearest leaf first
    ids, others, gaps = ids[order], others[order], gaps[order]
    first = torch.searchsorted(ids, ids)  # where the point's run begins
    rank = torch.arange(len(ids)) - first
    by_rank = rank.argsort(stable=True)
    for todo in by_rank.split(rank.bincount().tolist()):
        todo = todo[gaps[todo] < flat[ids[todo], -1]]
        for part in todo.split(max(1, PAIRS // size)):
            squared = _squared_distances(points[ids[part]], leaves[others[part]])
            both = torch.cat([flat[ids[part]], squared], dim=1)
            flat[ids[part]] = both.topk(k, dim=1, largest=False).values
