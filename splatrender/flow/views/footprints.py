"""Splats, and probes behind them in the same lists, as one training view sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.bin import TILE, bin_splats
from splatrender.operators.blend import blend
from splatrender.operators.flow_statistics import Footprints
from splatrender.operators.options import RESPONSES, RenderOptions
from splatrender.operators.project import project
from splatrender.operators.render import peak_amplitudes
from splatrender.operators.shade import shade
from splatrender.operators.stages import Look
from splatrender.reference.blend import ALPHA_MAX
from splatrender.reference.project import CUTOFF
from splatrender.runtime.devices import to_device

AT_ONCE = 64  # entries of a ray's list that are looked at together


@dataclass(frozen=True, eq=False)
class SeenSplats:
    """One view's footprints, with the tile lists that they are in.

    Attributes:
        prints: of splats and, behind them, probes; C = 1.
        bins: tile_offsets, splat_ids, slots, splat_offsets.
        depths: [N] camera z.
        visible: bool [N] whether the view can see the row at all.
        camera: the view's.
        response: 0 gaussian, 1 beer_lambert.
    """

    prints: Footprints
    bins: tuple[Tensor, Tensor, Tensor, Tensor]
    depths: Tensor
    visible: Tensor
    camera: Camera
    response: int


def see(
    splats: Splats,
    probes: Splats | None,
    camera: Camera,
    background: Tensor,
    options: RenderOptions,
) -> SeenSplats:
    """Rasterize footprints by the pair (background, options), until all callers pass a `Look`."""
    return rasterize_footprints(splats, probes, camera, Look(background, options))


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
    options = look.options
    parts = [part.detach() for part in (splats, probes) if part is not None]
    means, quats, scales = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("means", "quats", "scales")
    )
    amplitudes = torch.cat(
        [peak_amplitudes(part.opacity_logits, part.scales, options.response) for part in parts]
    )
    response = RESPONSES[options.response]
    viewmats, intrinsics = (
        to_device(tensor[None], means.device, means.dtype)
        for tensor in (camera.viewmat, camera.intrinsics())
    )
    size = (camera.width, camera.height)
    means2d, conics, depths, peaks, extents = project(
        means, quats, scales, None, amplitudes, viewmats, intrinsics, *size,
        options.near, options.far, options.eps2d, options.antialiased, response,
    )  # fmt: skip
    first, emissions = 0, []
    for part in parts:
        rows = slice(first, first + len(part))
        seen = extents[:, rows].contiguous()
        emissions.append(shade(part.means, part.sh, viewmats, seen, part.degree))
        first += len(part)
    prints = Footprints(
        means2d,
        conics,
        peaks,
        torch.cat(emissions, dim=1),
        look.background.to(means)[None],
        0 if probes is None else len(probes),
    )
    bins = bin_splats(means2d, conics, depths, peaks, extents, *size)
    return SeenSplats(prints, bins, depths[0], extents[0, :, 0] > 0, camera, response)


def blended(seen: SeenSplats) -> tuple[Tensor, Tensor]:
    """Radiance [H, W, 3] and transmittance [H, W] of footprints without probes."""
    p, camera = seen.prints, seen.camera
    size = (camera.width, camera.height)
    with torch.no_grad():
        radiance, transmittance = blend(
            p.means2d, p.conics, p.peaks, p.emission, p.backgrounds, *seen.bins, *size,
            seen.response, False,
        )[:2]  # fmt: skip
    return radiance[0], transmittance[0]


def picture_of(seen: SeenSplats) -> Tensor:
    """Radiance [H, W, 3] of footprints without probes."""
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
    """For each ray the splat at which a photon of the camera would be absorbed.

    Splat i of a ray is drawn with probability T_i α_i / Σ_j T_j α_j, by inversion: it is the first
    behind which the transmittance is at most 1 - chance (1 - T) with T that of the whole ray.

    Args:
        seen: footprints without probes.
        transmittance: [H, W] what `blended` gives.
        pixels: int64 [P] flat indices of pixels.
        chances: [P] uniform numbers in [0, 1).

    Returns:
        int64 [P] splats, or -1 where the ray meets none.
    """
    width, prints = seen.camera.width, seen.prints
    offsets, ids = seen.bins[0].long(), seen.bins[1].long()
    tiles = pixels // width // TILE * -(-width // TILE) + pixels % width // TILE
    opaque = 1 - transmittance.reshape(-1)[pixels]
    enough = 1 - chances * opaque
    chosen = torch.full_like(pixels, -1)
    rays, front = torch.arange(len(pixels), device=pixels.device), torch.ones_like(opaque)
    start, end = offsets[tiles], torch.where(opaque > 0, offsets[tiles + 1], 0)
    entry, there = torch.arange(AT_ONCE, device=pixels.device), start < end
    while len(rays) and len(ids):  # along all rays at once; most end soon
        at = start[rays, None] + entry
        listed = at < end[rays, None]
        rows = ids[at.clamp(max=len(ids) - 1)]
        x, y = (pixels[rays, None] % width + 0.5, pixels[rays, None] // width + 0.5)
        dx, dy = x - prints.means2d[0, rows, 0], y - prints.means2d[0, rows, 1]
        xx, xy, yy = prints.conics[0, rows].unbind(dim=2)
        power = -0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)
        amount = prints.peaks[0, rows] * power.exp()
        alpha = -torch.expm1(-amount) if seen.response else amount.clamp(max=ALPHA_MAX)
        alpha *= listed & (amount >= CUTOFF)
        behind = front[rays, None] * (1 - alpha).cumprod(dim=1)
        drawn = (alpha > 0) & (behind <= enough[rays, None])
        first = drawn.to(torch.uint8).argmax(dim=1, keepdim=True)
        ended = drawn.any(dim=1)
        chosen[rays] = torch.where(ended, rows.gather(1, first)[:, 0], -1)
        front[rays], start[rays] = behind[:, -1], start[rays] + AT_ONCE
        there[rays] = ~ended & (start[rays] < end[rays])
        rays = there.nonzero()[:, 0]  # waits for the device, like all that looks for a number
    return chosen
