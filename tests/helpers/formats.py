"""Splats for tests of formats, and their differences after a file."""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.model import Splats
from splatrender.model.quaternions import rotations_from_quats


def some_splats(count: int = 600, degree: int = 3, seed: int = 0) -> Splats:
    """Return splats of all sizes, turns and opacities, whose colours all formats can hold."""
    torch.manual_seed(seed)
    splats = Splats.random(count, extent=3.0, degree=degree, seed=seed)
    sh = torch.cat(
        [
            splats.sh[:, :1],
            (0.25 * torch.randn(count, splats.sh.shape[1] - 1, 3)).clamp(-0.95, 0.95),
        ],
        dim=1,
    )
    return Splats(
        means=splats.means,
        quats=torch.randn(count, 4),
        log_scales=splats.log_scales + 0.5 * torch.randn(count, 3),
        opacity_logits=2 * torch.randn(count),
        sh=sh,
    )


def matched(splats: Splats, others: Splats) -> Splats:
    """Return the splats of a file in the order of those that it was made of: formats reorder."""
    assert len(splats) == len(others)
    rows = torch.cdist(splats.means.double(), others.means.double()).argmin(dim=1)
    assert len(rows.unique()) == len(rows)
    return others.index(rows)


def shapes(splats: Splats) -> Tensor:
    """Return covariances: quaternions of one ellipsoid differ."""
    factors = rotations_from_quats(splats.quats.double()) * splats.scales.double()[:, None]
    return factors @ factors.mT


def worst_turn(splats: Splats, others: Splats) -> float:
    """Return the largest difference of components of unit quaternions, up to their sign."""
    p, q = (torch.nn.functional.normalize(s.quats.double(), dim=1) for s in (splats, others))
    return float(torch.minimum((p - q).abs().amax(dim=1), (p + q).abs().amax(dim=1)).max())


def worst_shape(splats: Splats, others: Splats) -> float:
    """Return the largest relative difference of covariances."""
    a, b = shapes(splats).flatten(1), shapes(others).flatten(1)
    return float(((a - b).norm(dim=1) / a.norm(dim=1)).max())
