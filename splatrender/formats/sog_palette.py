"""A palette of harmonics: few vectors that stand for many, by k-means in two levels."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ENTRIES = 1 << 16  # labels have two bytes
BRANCHES = 256
ROUNDS = 8
CHUNK = 1 << 16  # rows whose distances are in memory at once


def palette_of(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return at most 65,536 vectors and the one that stands for each row.

    Up to 65,536 distinct rows are kept as they are. More are divided into 256 clusters by k-means,
    and each of these into at most 256.

    Args:
        vectors: float32 [N, D].

    Returns:
        [P, D] entries, and int64 [N] rows of them.
    """
    distinct, labels = torch.unique(vectors, dim=0, return_inverse=True)
    if len(distinct) <= MOST_ENTRIES:
        return distinct, labels
    outer = _clusters(vectors, BRANCHES)
    entries: list[Tensor] = []
    labels = torch.empty(len(vectors), dtype=torch.int64)
    first = 0
    for cluster in range(BRANCHES):
        rows = (outer == cluster).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        inner = _clusters(vectors[rows], BRANCHES)
        _, inner = torch.unique(inner, return_inverse=True)
        size = int(inner.max()) + 1
        entries.append(_means(vectors[rows], inner, size))
        labels[rows] = inner + first
        first += size
    return torch.cat(entries), labels


def _clusters(vectors: Tensor, count: int) -> Tensor:
    """Return the cluster of each row, int64 [N]: k-means from rows drawn with a fixed seed."""
    if len(vectors) <= count:
        return torch.arange(len(vectors))
    generator = torch.Generator().manual_seed(0)
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:count]]
    labels = _nearest(vectors, centres)
    for _ in range(ROUNDS):
        means = _means(vectors, labels, count)
        used = torch.bincount(labels, minlength=count) > 0
        centres = torch.where(used[:, None], means, centres)
        labels = _nearest(vectors, centres)
    return labels


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """Return the nearest centre of each row: that of the smallest |c|² - 2 v c."""
    squares = centres.square().sum(dim=1)
    parts = [(squares - 2 * part @ centres.T).argmin(dim=1) for part in vectors.split(CHUNK)]
    return torch.cat(parts)


def _means(vectors: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the mean of the rows of each label, [count, D]; 0 where there is none."""
    total = vectors.new_zeros(count, vectors.shape[1], dtype=torch.float64)
    total.index_add_(0, labels, vectors.double())
    number = torch.bincount(labels, minlength=count).clamp(min=1)
    return (total / number[:, None]).to(vectors.dtype)
