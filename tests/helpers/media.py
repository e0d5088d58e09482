"""Small random media and rays through them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatrender.model.fields import ExtinctionField, SourceField
from splatrender.model.medium import Medium

F64 = torch.float64


def make_field(count: int = 6, seed: int = 0, size: float = 0.3) -> ExtinctionField:
    """Splats in the unit cube, none of them thin."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(count, 3, generator=generator, dtype=F64)
    noise = torch.randn(count, 3, 3, generator=generator, dtype=F64)
    factors = size * (torch.eye(3, dtype=F64) + 0.3 * noise)
    return ExtinctionField(means, factors, torch.rand(count, generator=generator, dtype=F64) + 0.5)


def make_medium(
    kind: str = "shared", count: int = 6, seed: int = 0, size: float = 0.3, degree: int = 1
) -> Medium:
    """Make a medium of 3 channels; with kind independent three normalised sources."""
    generator = torch.Generator().manual_seed(seed + 1000)
    field, size_of = make_field(count, seed, size), (degree + 1) ** 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    if kind != "independent":
        harmonics = 0.3 * normal(count, size_of, 3)
        if kind == "emissive":
            harmonics[:, 0] += 3.0
        return Medium(field, harmonics, kind)
    coarse = make_field(3, seed + 1, 3 * size)
    sources = SourceField(coarse.means, coarse.factors, 0.3 * normal(3, size_of, 3))
    return Medium(field, 0.3 * normal(count, 1, 3), kind, sources)


def make_rays(count: int = 5, seed: int = 0, distance: float = 3.0) -> tuple[Tensor, Tensor]:
    """Origins on a sphere around the unit cube, and directions into it."""
    generator = torch.Generator().manual_seed(seed + 2000)
    away = normalize(torch.randn(count, 3, generator=generator, dtype=F64), dim=1)
    targets = torch.rand(count, 3, generator=generator, dtype=F64)
    origins = 0.5 + distance * away
    return origins, normalize(targets - origins, dim=1)


def ball(peak: float, place: float = 3.0, size: float = 0.5) -> ExtinctionField:
    """Make a round splat on the z axis."""
    means = torch.tensor([[0.0, 0.0, place]], dtype=F64)
    peaks = torch.tensor([peak], dtype=F64)
    return ExtinctionField(means, size * torch.eye(3, dtype=F64)[None], peaks)


def axis_ray() -> tuple[Tensor, Tensor]:
    """Return the z axis from the origin."""
    return torch.zeros(1, 3, dtype=F64), torch.tensor([[0.0, 0.0, 1.0]], dtype=F64)


SH_C0 = math.sqrt(1 / (4 * math.pi))


def plain_colors(rgb: Tensor) -> Tensor:
    """Harmonics [N, 1, 3] that show colours [N, 3] from all sides."""
    return ((rgb - 0.5) / SH_C0)[:, None]


def random_lines(
    count: int, total: float, spread: float, rays: int = 60, seed: int = 0
) -> tuple[Medium, Tensor, Tensor]:
    """Rays far apart, each through `count` round splats of its own and of random colours.

    Places are uniform in `spread`, widths log-normal around 1, and optical depths exponential,
    scaled to the sum `total`.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=F64)

    places = uniform(rays, count) * spread + 60
    widths = torch.exp(0.4 * torch.randn(rays, count, generator=generator, dtype=F64))
    depths = -torch.log(uniform(rays, count))
    depths = depths * (total / depths.sum(1, keepdim=True))
    x = torch.arange(rays, dtype=F64) * 1000
    zero = torch.zeros_like(places)
    means = torch.stack([x[:, None].expand_as(places), zero, places], -1).reshape(-1, 3)
    factors = widths.reshape(-1, 1, 1) * torch.eye(3, dtype=F64)
    peaks = (depths / (widths * math.sqrt(2 * math.pi))).reshape(-1)
    medium = Medium(ExtinctionField(means, factors, peaks), plain_colors(uniform(rays * count, 3)))
    origins = torch.stack([x, 0 * x, 0 * x], 1)
    return medium, origins, torch.tensor([[0.0, 0.0, 1.0]], dtype=F64).expand(rays, 3)
