"""Rows drawn at random by weight, with the same bits in whatever order a sum is computed.

torch.multinomial is unsuitable on a GPU: its running sum depends on the order of thread blocks, it
refuses more than 2^24 rows, and one infinite weight ends the process.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.errors import InputError

RANGE = 62  # bits of the sum of all weights as integers


def draw(weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw rows with replacement, each time row i with probability w_i / Σ w.

    Args:
        weights: [N] w >= 0, N >= 1.
        count: number of rows.
        generator: source of random numbers, on the device of the weights.

    Returns:
        int64 [count].

    Raises:
        InputError: a weight is negative or not finite, or all are 0.

    Example:
        >>> draw(torch.tensor([0.0, 2.0]), 3, torch.Generator()).tolist()
        [1, 1, 1]
    """
    rows = draw_unchecked(weights, count, generator)
    if count and int(rows[0]) < 0:
        raise _refused(weights, 1)
    return rows


def draw_unchecked(weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw rows like `draw` without a check of the weights, which would wait for the device.

    Weights are rounded to integers between 0 and 2^62 / N, whose running sum is exact in any
    order. Row i is drawn where a uniform number of [0, Σ) is in its part of the sum.

    Args:
        weights, count, generator: see `draw`.

    Returns:
        int64 [count]; all are -1 where `draw` raises.
    """
    smallest, largest = weights.aminmax()
    valid = (smallest >= 0) & (largest > 0) & largest.isfinite()
    shares = torch.where(valid, weights.double() / largest.double(), 1.0)
    ends = (shares * 2.0 ** (RANGE - len(weights).bit_length())).round().long().cumsum(dim=0)
    total = ends[-1]
    chances = torch.rand(count, generator=generator, dtype=torch.float64, device=weights.device)
    places = (chances * total.double()).long().minimum(total - 1)
    return torch.where(valid, torch.searchsorted(ends, places, right=True), -1)


def draw_distinct(weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw rows without replacement, each time by the weights of those that are left.

    Each row has an exponential clock of rate w_i; rows come in the order in which clocks ring.

    Args:
        weights: [N] w >= 0, at least `count` of them > 0.
        count: number of rows.
        generator: source of random numbers, on the device of the weights.

    Returns:
        int64 [count], in the order in which they were drawn.

    Raises:
        InputError: a weight is negative or not finite, or fewer than `count` are > 0.

    Source:
        Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006.

    Example:
        >>> draw_distinct(torch.tensor([0.0, 2.0, 1.0]), 2, torch.Generator()).sort().values
        tensor([1, 2])
    """
    valid = weights.isfinite().all() & (weights >= 0).all() & ((weights > 0).sum() >= count)
    if not bool(valid):
        raise _refused(weights, count)
    chances = torch.rand(
        len(weights), generator=generator, dtype=torch.float64, device=weights.device
    )
    return (weights.double() / -chances.log()).topk(count).indices


def _refused(weights: Tensor, count: int) -> InputError:
    smallest, largest = (float(end) for end in weights.aminmax())
    return InputError(
        f"weights: expected finite numbers >= 0, at least {count} of them > 0; got "
        f"{int((weights > 0).sum())} such among {len(weights)} from {smallest} to {largest}"
    )
