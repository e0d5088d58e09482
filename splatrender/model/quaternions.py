"""Rotations as unit quaternions wxyz."""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.arguments import described, require_tensors
from splatrender.errors import InputError


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
    """Return A ξ with A = R(q/|q|) diag(s): offsets within Gaussians from standard normal ones.

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
    """Return the derivative by the turns of `turned` at ω = 0.

    Args:
        quats: [M, 4] wxyz, of norm 1.
        slopes: [M, 4] derivative by the quaternions.

    Returns:
        [M, 3].
    """
    w, u = quats[:, :1], quats[:, 1:]
    across: Tensor = torch.linalg.cross(slopes[:, 1:], u)
    return 0.5 * (w * slopes[:, 1:] - slopes[:, :1] * u + across)


def rotations_from_quats(quats: Tensor) -> Tensor:
    """Return the rotation matrices of quaternions: p -> R p, with R = R(q/|q|).

    Args:
        quats: [..., 4] w, x, y, z, floating point, norm > 0.

    Returns:
        [..., 3, 3], same dtype and device.

    Example:
        >>> rotations_from_quats(torch.tensor([2.0, 0.0, 0.0, 0.0])).diagonal().tolist()
        [1.0, 1.0, 1.0]
    """
    require_tensors(quats=quats)
    if quats.shape[-1:] != (4,) or not quats.is_floating_point():
        raise InputError(f"quats: expected floating point [..., 4], got {described(quats)}")
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def quat_from_rotation(rotation: Tensor) -> Tensor:
    """Return the unit quaternion wxyz of a rotation matrix; w >= 0.

    It is the eigenvector to the largest eigenvalue of a symmetric matrix made of the entries,
    which needs no case distinction and tolerates a matrix that is almost a rotation.

    Args:
        rotation: [3, 3].

    Returns:
        float64 [4].

    Source:
        Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, 2000.

    Example:
        >>> quat_from_rotation(torch.eye(3)).tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    r = rotation.double()
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = r.tolist()
    matrix = torch.tensor(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ],
        dtype=torch.float64,
    )
    quat: Tensor = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    return (-quat if quat[0] < 0 else quat) + 0.0
