"""Real spherical harmonics up to degree 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Evaluate real spherical harmonics with the signs of 3DGS files.

    Y_lm = (-1)^m √2 N_lm P_l^|m|(z) {cos mφ, sin |m|φ}, ordered by l, then m = -l..l, orthonormal
    on the sphere; written as polynomials in x, y, z.

    Args:
        directions: [R,3], of length 1.
        degree: 0 to 3.

    Returns:
        [R,(degree+1)²].

    Source:
        Sloan, Stupid spherical harmonics tricks, 2008, appendix A2.
    """
    x, y, z = directions.unbind(dim=1)
    pi = math.pi
    values = [math.sqrt(1 / (4 * pi)) * torch.ones_like(x)]
    if degree >= 1:
        a = math.sqrt(3 / (4 * pi))
        values += [-a * y, a * z, -a * x]
    if degree >= 2:
        a, b = math.sqrt(15 / (4 * pi)), math.sqrt(5 / (16 * pi))
        values += [
            a * x * y,
            -a * y * z,
            b * (3 * z * z - 1),
            -a * x * z,
            a / 2 * (x * x - y * y),
        ]
    if degree >= 3:
        a, b = math.sqrt(35 / (32 * pi)), math.sqrt(105 / (4 * pi))
        c, d = math.sqrt(21 / (32 * pi)), math.sqrt(7 / (16 * pi))
        values += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -c * y * (5 * z * z - 1),
            d * z * (5 * z * z - 3),
            -c * x * (5 * z * z - 1),
            b / 2 * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    return torch.stack(values, dim=1)
