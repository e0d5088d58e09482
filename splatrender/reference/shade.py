"""Stage `shade` in pure torch: the colour of each splat in each camera."""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.model.harmonics import harmonics


def shade(means: Tensor, sh: Tensor, viewmats: Tensor, extents: Tensor, degree: int) -> Tensor:
    """Evaluate spherical harmonics in the direction from each camera to each splat.

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
