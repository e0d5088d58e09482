"""Stage `shade` in pure torch: the colour that a splat shows to a camera."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shade(means: Tensor, sh: Tensor, viewmats: Tensor, extents: Tensor, degree: int) -> Tensor:
    """Evaluates spherical harmonics in the direction from each camera to each splat.

    emission = max(0, 1/2 + Σ_k Y_k(ω) sh_k),  ω = unit(mean + Wᵀ t).

    Args:
        means: [N,3].
        sh: [N,K,3] coefficients, K >= (degree+1)².
        viewmats: [C,4,4], world to camera.
        extents: [C,N,2] px, as `project` returns them; rows that are 0 are not shaded.
        degree: 0 to 3, the highest band that is used.

    Returns:
        emission [C,N,3]; culled rows are 0.

    Example:
        >>> pose, extents = torch.eye(4)[None], torch.ones(1, 1, 2)
        >>> shade(torch.ones(1, 3), torch.zeros(1, 1, 3), pose, extents, 0)
        tensor([[[0.5000, 0.5000, 0.5000]]])
    """
    seen = (extents > 0).any(dim=2)
    c, n = seen.nonzero(as_tuple=True)
    offsets = torch.einsum("cji,cj->ci", viewmats[:, :3, :3], viewmats[:, :3, 3])
    paths = means[n] + offsets[c]
    directions = paths / torch.linalg.vector_norm(paths, dim=1, keepdim=True)
    basis = harmonics(directions, degree)
    colors = 0.5 + torch.einsum("rk,rkd->rd", basis, sh[n, : basis.shape[1]])
    emission = colors.new_zeros(*seen.shape, sh.shape[2])
    return emission.index_put((c, n), torch.relu(colors))


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics with the signs of 3DGS files.

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
