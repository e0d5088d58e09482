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


def spread(quats: Tensor, scales: Tensor, normal: Tensor) -> Tensor:
    """A ξ with A = R(q/|q|) diag(s): offsets within Gaussians from standard normal ones.

    Args:
        quats: [M, 4] wxyz, of any norm > 0.
        scales: [M, 3] s.
        normal: [M, 3] ξ.

    Returns:
        [M, 3].

    Example:
        >>> spread(torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[1.0, 2, 3]]), torch.ones(1, 3))
        tensor([[1., 2., 3.]])
    """
    return rotate(torch.nn.functional.normalize(quats, dim=1), scales * normal)


def turned(quats: Tensor, turns: Tensor) -> Tensor:
    """Turn about a splat's own axes, to first order: q (1, ω/2), normalised.

    Args:
        quats: [M, 4] wxyz, of norm 1.
        turns: [M, 3] ω [rad].

    Returns:
        [M, 4].

    Example:
        >>> turned(torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.0, 0, 2]])).round(decimals=2)
        tensor([[0.7100, 0.0000, 0.0000, 0.7100]])
    """
    w, u, half = quats[:, :1], quats[:, 1:], 0.5 * turns
    real = w - (u * half).sum(dim=1, keepdim=True)
    rest = u + w * half + torch.linalg.cross(u, half)
    return torch.nn.functional.normalize(torch.cat([real, rest], dim=1), dim=1)


def slope_of_turns(quats: Tensor, slopes: Tensor) -> Tensor:
    """Derivative by the turns of `turned` at ω = 0.

    Args:
        quats: [M, 4] wxyz, of norm 1.
        slopes: [M, 4] derivative by them.

    Returns:
        [M, 3].
    """
    w, u = quats[:, :1], quats[:, 1:]
    return 0.5 * (w * slopes[:, 1:] - slopes[:, :1] * u + torch.linalg.cross(slopes[:, 1:], u))
