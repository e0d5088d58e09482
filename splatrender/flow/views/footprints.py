"""Footprints of splats, with probes behind them in the same tile lists, in one training view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.bin import bin
from splatrender.operators.blend import blend
from splatrender.operators.pipeline import footprints_of
from splatrender.operators.render import peak_amplitudes
from splatrender.operators.stages import (
    Colors,
    Footprints,
    Lens,
    Look,
    Projected,
    SplatTensors,
    TileLists,
    lens_of,
)
from splatrender.operators.thresholds import ALPHA_MAX, CUTOFF, TILE
from splatrender.runtime.devices import to_device

AT_ONCE = 64  # entries of a ray's list that are evaluated together


@dataclass(frozen=True, eq=False)
class SeenSplats:
    """Footprints of one view, with the tile lists that they are in.

    Attributes:
        footprints: splats and, behind them, probes; C = 1.
        lists: their tile lists.
        lens: the view's.
        camera: the view's.
    """

    footprints: Footprints
    lists: TileLists
    lens: Lens
    camera: Camera

    @property
    def projected(self) -> Projected:
        """Footprints without their colours."""
        return self.footprints.projected

    @property
    def depths(self) -> Tensor:
        """Camera z [N] of the rows."""
        return self.projected.depths[0]

    @property
    def visible(self) -> Tensor:
        """Bool [N], True where the view can see the row at all."""
        return self.projected.visible[0]


def rasterize_footprints(
    splats: Splats, probes: Splats | None, camera: Camera, look: Look
) -> SeenSplats:
    """Project, shade and bin splats and probes together.

    Args:
        splats: N of them.
        probes: probes of degree 0, with the opacity of their largest mass; None for none.
        camera: the view's.
        look: background and options of the rendering.

    Returns:
        Footprints in the order splats, probes.
    """
    parts = [part.detach() for part in (splats, probes) if part is not None]
    means, quats, scales = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("means", "quats", "scales")
    )
    amplitudes = torch.cat(
        [peak_amplitudes(part.opacity_logits, part.scales, look.options.response) for part in parts]
    )
    lens = lens_of([camera], look.options, means)
    colors = [Colors(part.sh, part.degree) for part in parts]
    tensors = SplatTensors(means, amplitudes, quats, scales)
    footprints = footprints_of(tensors, colors, look.background.to(means)[None], lens)
    footprints = replace(footprints, probes=0 if probes is None else len(probes))
    return SeenSplats(footprints, bin(footprints.projected, lens), lens, camera)


def blended(seen: SeenSplats) -> tuple[Tensor, Tensor]:
    """Return radiance [H, W, 3] and transmittance [H, W] of footprints without probes."""
    with torch.no_grad():
        images = blend(seen.footprints, seen.lists, seen.lens)
    return images.radiance[0], images.transmittance[0]


def image_of(seen: SeenSplats) -> Tensor:
    """Return the radiance [H, W, 3] of footprints without probes."""
    return blended(seen)[0]


def residual_of(radiance: Tensor, view: View) -> Tensor:
    """r = radiance - photo [H, W, 3], 0 where the mask leaves pixels out; differentiable."""
    residual = radiance - to_device(view.photo, radiance.device).to(radiance) / 255
    if view.mask is None:
        return residual
    return residual * (to_device(view.mask, radiance.device) != 0)[..., None]


def draw_on_rays(
    seen: SeenSplats, transmittance: Tensor, pixels: Tensor, chances: Tensor
) -> Tensor:
    """Draw for each ray the splat at which a photon of the camera would be absorbed.

    Splat i of a ray is drawn with probability T_i α_i / Σ_j T_j α_j, by inversion: it is the first
    behind which the transmittance is at most 1 - chance (1 - T) with T that of the whole ray.

    Args:
        seen: footprints without probes.
        transmittance: [H, W] transmittance of `blended`.
        pixels: int64 [P] flat indices of pixels.
        chances: [P] uniform numbers in [0, 1).

    Returns:
        int64 [P] splats, or -1 where the ray meets none.
    """
    width = seen.camera.width
    offsets, ids = seen.lists.tile_offsets.long(), seen.lists.splat_ids.long()
    tiles = pixels // width // TILE * -(-width // TILE) + pixels % width // TILE
    opaque = 1 - transmittance.reshape(-1)[pixels]
    enough = 1 - chances * opaque
    drawn = torch.full_like(pixels, -1)
    rays, front = torch.arange(len(pixels), device=pixels.device), torch.ones_like(opaque)
    start, end = offsets[tiles], torch.where(opaque > 0, offsets[tiles + 1], 0)
    entry, active = torch.arange(AT_ONCE, device=pixels.device), start < end
    while len(rays) and len(ids):  # along all rays at once; most end soon
        at = start[rays, None] + entry
        listed = at < end[rays, None]
        rows = ids[at.clamp(max=len(ids) - 1)]
        alpha = _opacities(seen, pixels[rays, None], rows) * listed
        behind = front[rays, None] * (1 - alpha).cumprod(dim=1)
        absorbs = (alpha > 0) & (behind <= enough[rays, None])
        first = absorbs.to(torch.uint8).argmax(dim=1, keepdim=True)
        ended = absorbs.any(dim=1)
        drawn[rays] = torch.where(ended, rows.gather(1, first)[:, 0], -1)
        front[rays], start[rays] = behind[:, -1], start[rays] + AT_ONCE
        active[rays] = ~ended & (start[rays] < end[rays])
        rays = active.nonzero()[:, 0]  # waits for the device
    return drawn


def _opacities(seen: SeenSplats, pixels: Tensor, rows: Tensor) -> Tensor:
    """Return the opacities α of splats `rows` [P, L] at pixels [P, 1], 0 below the cut-off."""
    width, projected = seen.camera.width, seen.projected
    dx = pixels % width + 0.5 - projected.means2d[0, rows, 0]
    dy = pixels // width + 0.5 - projected.means2d[0, rows, 1]
    xx, xy, yy = projected.conics[0, rows].unbind(dim=2)
    power = -0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)
    amount = projected.peaks[0, rows] * power.exp()
    alpha = -torch.expm1(-amount) if seen.lens.response else amount.clamp(max=ALPHA_MAX)
    return alpha * (amount >= CUTOFF)
