"""Rotations as unit quaternions wxyz."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(quats: Tensor, vectors: Tensor, inverse: bool = False) -> Tensor:
    """Rotate vectors by unit quaternions: v + 2 u × (u × v + w v).

    Args:
        quats: [M, 4] wxyz, of norm 1.
        vectors: [M, 3].
        inverse: rotate backwards.

    Returns:
        [M, 3].

    Example:
        >>> half = 0.5**0.5  # a quarter turn about z
        >>> rotate(torch.tensor([[half, 0, 0, half]]), torch.tensor([[1.0, 0, 0]])).round()
        tensor([[0., 1., 0.]])
    """
    w, u = quats[:, :1], quats[:, 1:]
    if inverse:
        w = -w
    inner = torch.linalg.cross(u, vectors).addcmul_(w, vectors)
    return torch.add(vectors, torch.linalg.cross(u, inner), alpha=2)
