"""Candidates for births: splats that are not there yet and might pay.

Proposals need only cover the space of useful splats; the sweep scores them by what they would
change. A probe is a splat of degree 0 without mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.flow.views.footprints import (
    SeenSplats,
    blended,
    draw_on_rays,
    rasterize_footprints,
)
from splatrender.model import Splats
from splatrender.model.draws import draw_unchecked
from splatrender.model.quaternions import spread
from splatrender.model.splats import SH_C0
from splatrender.model.view import View
from splatrender.operators.stages import Look
from splatrender.runtime.devices import to_device

CHILD, RAY, UNIFORM = range(3)
KINDS = ("child", "ray", "uniform")
CHILD_SCALE = 0.6  # relative to the parent: two children about cover it
SMALLEST = 0.5  # px, standard deviation of a probe on a ray
LARGEST = 8.0  # px
DEPTHS_SEEN = 0.01, 0.99  # quantiles of the depths in a view between which probes are anywhere


@dataclass(frozen=True, eq=False)
class Probes:
    """Candidates with their origin.

    Attributes:
        splats: [M] of degree 0; opacities are not used.
        kinds: int64 [M] CHILD, RAY or UNIFORM.
    """

    splats: Splats
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.splats)

    @staticmethod
    def cat(parts: Sequence[Probes]) -> Probes:
        """Return all probes of several sets."""
        return Probes(
            Splats.cat([part.splats for part in parts]), torch.cat([part.kinds for part in parts])
        )


def children(splats: Splats, count: int, generator: torch.Generator) -> Probes:
    """Propose probes of the shape of splats that are there: b + A ξ, ξ normal, 0.6 of the size.

    Args:
        splats: the parents, each as likely as another.
        count: number of probes.
        generator: source of randomness.

    Returns:
        `count` probes.
    """
    parents = torch.randint(len(splats), (count,), generator=generator, device=splats.device)
    family = splats.detach().index(parents)
    xi = torch.randn(count, 3, generator=generator, device=splats.device)
    quats = torch.nn.functional.normalize(family.quats, dim=1)
    means = family.means + spread(family.quats, family.scales, xi)
    log_scales = family.log_scales + math.log(CHILD_SCALE)
    kinds = torch.full((count,), CHILD, device=splats.device)
    return Probes(
        Splats(means, quats, log_scales, family.opacity_logits, family.sh[:, :1].clone()), kinds
    )


def on_rays(
    splats: Splats,
    views: Sequence[View],
    count: int,
    look: Look,
    generator: torch.Generator,
) -> Probes:
    """Propose round probes on rays through large residuals, at depths drawn by opacity.

    A pixel is drawn with probability proportional to |r|², a splat of its ray as a photon would
    be absorbed, and the probe sits on the ray at that splat's depth, as far before or behind it
    as the splat is deep. Its standard deviation is log-uniform between 0.5 and 8 px.

    Args:
        splats: the model.
        views: views of the rays; each gets an equal share.
        count: number of probes; fewer are returned where rays meet nothing.
        look: background and options of the rendering.
        generator: source of randomness.

    Returns:
        At most `count` probes, in the colour of the photo's pixel.
    """
    parts = []
    for view, number in zip(views, _shares(count, len(views)), strict=True):
        seen = rasterize_footprints(splats, None, view.camera, look)
        photo = to_device(view.photo, splats.device).reshape(-1, 3).float() / 255
        radiance, transmittance = blended(seen)
        residual = (radiance.reshape(-1, 3) - photo).square().sum(dim=1)
        if view.mask is not None:
            residual = residual * (to_device(view.mask, splats.device).reshape(-1) != 0)
        drawn = draw_unchecked(residual, number, generator)
        pixels = drawn.clamp(min=0)
        chances = torch.rand(number, generator=generator, device=pixels.device)
        hit = draw_on_rays(seen, transmittance, pixels, chances)
        spread = splats.detach().log_scales[hit].mean(dim=1).exp()
        off = torch.randn(number, generator=generator, device=hit.device)
        depths = seen.depths[hit] + spread * off
        depths = depths.clamp(min=look.options.near)
        probes = _at_pixels(seen, pixels, depths, photo[pixels], RAY, generator)
        parts.append((probes, (drawn >= 0) & (hit >= 0)))
    return _those(parts, splats)


def anywhere(
    splats: Splats,
    views: Sequence[View],
    count: int,
    look: Look,
    generator: torch.Generator,
) -> Probes:
    """Propose round probes on rays of any pixel, log-uniform in depth: for missing geometry.

    Args:
        splats, views, count, look, generator: see `on_rays`.

    Returns:
        At most `count` probes.
    """
    parts = []
    for view, number in zip(views, _shares(count, len(views)), strict=True):
        seen = rasterize_footprints(splats, None, view.camera, look)
        photo = to_device(view.photo, splats.device).reshape(-1, 3).float() / 255
        pixels = torch.randint(len(photo), (number,), generator=generator, device=photo.device)
        last = seen.visible.sum() - 1
        depths = seen.depths.masked_fill(~seen.visible, math.inf).sort().values.log()
        ends = torch.stack([part * last for part in DEPTHS_SEEN]).round().long().clamp(min=0)
        nearest, farthest = depths.index_select(0, ends).unbind()
        along = torch.rand(number, generator=generator, device=photo.device)
        depths = torch.exp(nearest + along * (farthest - nearest))
        probes = _at_pixels(seen, pixels, depths, photo[pixels], UNIFORM, generator)
        parts.append((probes, (last >= 0).expand(number)))
    return _those(parts, splats)


def _at_pixels(
    seen: SeenSplats,
    pixels: Tensor,
    depths: Tensor,
    colors: Tensor,
    kind: int,
    generator: torch.Generator,
) -> Probes:
    """Place round probes within pixels [M] of a view at camera z `depths` [M]."""
    camera, count = seen.camera, len(pixels)
    jitter = torch.rand(count, 2, generator=generator, device=pixels.device)
    x = (pixels % camera.width + jitter[:, 0] - camera.cx) / camera.fx
    y = (pixels // camera.width + jitter[:, 1] - camera.cy) / camera.fy
    places = torch.stack((x, y, torch.ones_like(x)), dim=1) * depths[:, None]
    viewmat = to_device(camera.viewmat, places.device, places.dtype)
    means = (places - viewmat[:3, 3]) @ viewmat[:3, :3]
    along = torch.rand(count, generator=generator, device=pixels.device)
    sizes = SMALLEST * (LARGEST / SMALLEST) ** along * depths / camera.fx
    quats = sizes.new_zeros(count, 4)
    quats[:, 0] = 1
    probes = Splats(
        means,
        quats,
        sizes.log()[:, None].repeat(1, 3),
        torch.zeros_like(sizes),
        ((colors - 0.5) / SH_C0)[:, None],
    )
    return Probes(probes, torch.full((count,), kind, device=pixels.device))


def _shares(count: int, parts: int) -> list[int]:
    return [(i + 1) * count // parts - i * count // parts for i in range(parts)]


def _those(parts: Sequence[tuple[Probes, Tensor]], like: Splats) -> Probes:
    """Return the probes of all parts that are marked [bool], with a single wait for the device."""
    nothing = torch.zeros(0, dtype=torch.int64, device=like.device)
    none = Probes(like.detach().with_degree(0).index(nothing), nothing)
    probes = Probes.cat([none, *(part for part, _ in parts)])
    rows = torch.cat([nothing.bool(), *(marks for _, marks in parts)]).nonzero()[:, 0]
    return Probes(probes.splats.index(rows), probes.kinds[rows])
