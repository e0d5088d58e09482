"""Axes of formats: turns and shifts of all splats at once, their harmonics included.

Splats are kept in the axes of .ply files, which are those of the cameras' world: for scenes of
COLMAP usually x right, y down, z forward. SPZ has x right, y up, z backward: half a turn about x.
glTF has x left, y up, z forward: half a turn about z.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splatrender.model.harmonics import harmonics
from splatrender.model.quaternions import quat_from_rotation
from splatrender.model.splats import Splats

ABOUT_X = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
ABOUT_Z = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def moved(
    splats: Splats, rotation: Tensor, translation: Tensor | None = None, scale: float = 1.0
) -> Splats:
    """Move splats by p -> scale R p + t, with their shapes and their harmonics.

    Args:
        splats: N splats.
        rotation: float64 [3, 3] R.
        translation: float64 [3] t; zero by default.
        scale: factor > 0.

    Returns:
        N splats of the same dtype. Half turns about an axis change signs only, exactly.
    """
    kind = splats.dtype
    means = scale * (splats.means.double() @ rotation.T)
    if translation is not None:
        means = means + translation
    return Splats(
        means=means.to(kind),
        quats=_product(quat_from_rotation(rotation), splats.quats.double()).to(kind),
        log_scales=splats.log_scales + math.log(scale),
        opacity_logits=splats.opacity_logits,
        sh=_turned_harmonics(splats.sh, rotation),
    )


def _product(p: Tensor, q: Tensor) -> Tensor:
    """Return p q of quaternions wxyz, [4] and [N, 4]; components of p that are rounding are 0."""
    w, x, y, z = p.double().round(decimals=14).tolist()
    matrix = torch.tensor(
        [[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float64
    )
    return q @ matrix.T


def _turned_harmonics(sh: Tensor, rotation: Tensor) -> Tensor:
    """Return coefficients [N, K, 3] for which Σ Y_k(R ω) sh'_k = Σ Y_k(ω) sh_k in all directions.

    Each degree spans a space that rotations keep, so the matrix D of Y(R ω) D = Y(ω) exists; it
    follows from more directions than harmonics.
    """
    size = sh.shape[1]
    if size == 1:
        return sh
    degree = math.isqrt(size) - 1
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4 * size, 3, dtype=torch.float64, generator=generator)
    directions = torch.nn.functional.normalize(normal, dim=1)
    turned = harmonics(directions @ rotation.T, degree)
    matrix = torch.linalg.lstsq(turned, harmonics(directions, degree)).solution
    matrix = matrix.round(decimals=12)
    return torch.einsum("kj,njc->nkc", matrix, sh.double()).to(sh.dtype)
