"""Numbers as bytes and back: what the compressed formats share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MOST_CODES = 256


def bytes_of_unit(values: Tensor) -> np.ndarray:
    """Return numbers of [0, 1] as bytes, to the nearest; others are clamped.

    Args:
        values: any shape, finite.
    """
    codes: np.ndarray = (values.double() * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return codes


def logits_of_bytes(codes: np.ndarray) -> Tensor:
    """Return logits, float32, of opacities in bytes.

    A logit has no 0 and no 1: these bytes stand for a quarter of a step from the end, which is
    rounded to the same byte again.
    """
    alpha = (codes.astype(np.float64) / 255).clip(0.25 / 255, 1 - 0.25 / 255)
    return torch.from_numpy(np.log(alpha / (1 - alpha)).astype(np.float32))


def smallest_three(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the largest component of unit quaternions, and the other three.

    Args:
        quats: [N, 4].

    Returns:
        int64 [N], and float64 [N, 3] in their order, within ±√½, for the sign that makes the
        largest positive.
    """
    quats = quats.astype(np.float64)
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(quats[np.arange(len(quats)), largest] < 0, -1.0, 1.0)
    others = quats[np.arange(4)[None] != largest[:, None]].reshape(-1, 3)
    return largest, others * sign[:, None]


def from_smallest_three(largest: np.ndarray, others: np.ndarray) -> Tensor:
    """Return unit quaternions, float32 [N, 4], the inverse of `smallest_three`."""
    quats = np.empty((len(largest), 4), dtype=np.float64)
    place = np.arange(4)[None] != largest[:, None]
    quats[place] = others.reshape(-1)
    quats[~place] = np.sqrt((1 - np.square(others).sum(axis=1)).clip(0, 1))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    return torch.from_numpy(quats.astype(np.float32))


def codebook(values: np.ndarray) -> np.ndarray:
    """Return at most 256 numbers, in order, that stand for many.

    Up to 256 distinct numbers are kept as they are. Of more, the entries are the means of cells
    that are half evenly spaced and half equally filled: (t + F(t))/2 rises by 1/256 in each, with
    t from 0 to 1 over the range and F the share of numbers below. A cell is therefore at most
    1/128 of the range wide, which bounds the error, and dense places have narrower ones.

    Args:
        values: [M] finite, M >= 1.

    Returns:
        float32 [256]; unused entries repeat the last one.
    """
    distinct = np.unique(values.astype(np.float32))
    if len(distinct) <= MOST_CODES:
        return np.concatenate([distinct, np.repeat(distinct[-1:], MOST_CODES - len(distinct))])
    ordered = np.sort(values.astype(np.float64), axis=None)
    grid = np.linspace(ordered[0], ordered[-1], 1 << 14)
    filled = np.searchsorted(ordered, grid, side="right") / len(ordered)
    mixed = 0.5 * (np.linspace(0, 1, len(grid)) + filled)
    edges = np.interp(np.linspace(0, 1, MOST_CODES + 1), mixed, grid)
    edges[0], edges[-1] = ordered[0], ordered[-1]
    cell = np.searchsorted(edges[1:-1], ordered, side="right")
    number = np.bincount(cell, minlength=MOST_CODES)
    total = np.bincount(cell, weights=ordered, minlength=MOST_CODES)
    middle = 0.5 * (edges[1:] + edges[:-1])
    entries = np.where(number > 0, total / number.clip(1), middle)
    return np.sort(entries).astype(np.float32)


def codes_in(book: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the nearest entry of a codebook in order, uint8 of the shape of `values`."""
    middles = 0.5 * (book[1:].astype(np.float64) + book[:-1])
    codes: np.ndarray = np.searchsorted(middles, values.astype(np.float64)).astype(np.uint8)
    return codes
