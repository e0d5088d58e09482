"""Stage `blend` in pure torch: from footprints to an image, front to back."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from splatrender.interfaces import Blended, Footprints, Lens, TileLists
from splatrender.reference.project import BEER_LAMBERT
from splatrender.reference.thresholds import ALPHA_MAX, CUTOFF, T_MIN, TILE

BLOCK = 4
"""Side of the blocks of pixels [px] that `hits` distinguishes."""

PIXELS_AT_ONCE = 4096
"""Number of pixels that `blend_dense` evaluates against all splats at a time."""


def blend(
    footprints: Footprints,
    lists: TileLists,
    lens: Lens,
    *,
    visibility: bool = False,
    absgrad: bool = False,
) -> Blended:
    """Composite the splats of each tile's list in the order of the list.

    radiance = Σ_i T_i α_i emission_i + T background,  T_i = Π_{j<i} (1 - α_j).

    Args:
        footprints: projected splats with colours.
        lists: tile lists; slots and splat_offsets serve the kernels alone.
        lens: size of the image, and the response.
        visibility: also sum the contribution of each splat.
        absgrad: also return zeros with the gradient Σ over pixels p of |∂L_p/∂means2d|.

    Returns:
        Images.
    """
    cameras, count, channels = footprints.emission.shape
    p, width, height = footprints.projected, lens.width, lens.height
    rows = [x.flatten(0, 1) for x in (p.means2d, p.conics, p.peaks, footprints.emission)]
    offsets, ids = lists.tile_offsets.tolist(), lists.splat_ids.long()
    tiles = tile_pixels(width, height, p.means2d)
    seen = p.means2d.new_zeros(cameras * count)
    means2d_abs = absolute_gradient_of(p.means2d) if absgrad else None
    places, light, through, hits = [], [], [], []
    for tile, (first, last) in enumerate(itertools.pairwise(offsets)):
        camera, within = divmod(tile, len(tiles))
        listed, (place, centers) = ids[first:last], tiles[within]
        splats = [values[listed] for values in rows]
        if means2d_abs is not None:
            splats[0] = with_absolute_gradient(splats[0], means2d_abs, listed, len(centers))
        radiance, transmittance, weights = composite(centers, *splats, response=lens.response)
        light.append(radiance + transmittance[:, None] * footprints.backgrounds[camera])
        through.append(transmittance)
        places.append(camera * width * height + place)
        seen.index_add_(0, listed, weights.detach().sum(dim=0))
        hits.append(touched_blocks(centers, weights > 0))
    order = torch.argsort(torch.cat(places))
    return Blended(
        torch.cat(light)[order].reshape(cameras, height, width, channels),
        torch.cat(through)[order].reshape(cameras, height, width),
        seen.reshape(cameras, count) if visibility else seen.new_zeros(0),
        torch.cat(hits),
        means2d_abs=means2d_abs,
    )


def blend_dense(footprints: Footprints, lens: Lens) -> tuple[Tensor, Tensor]:
    """Composite every splat at every pixel, without tiles: the truth that lists must not change.

    Args:
        footprints: projected splats with colours; equal depths keep the order of their index.
        lens: size of the image, and the response.

    Returns:
        radiance [C,H,W,D] and transmittance [C,H,W].
    """
    p, width, height = footprints.projected, lens.width, lens.height
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centers = torch.stack((x, y), dim=-1).reshape(-1, 2).to(p.means2d) + 0.5
    light, through = [], []
    for camera, order in enumerate(torch.argsort(p.depths.detach(), dim=1, stable=True)):
        tensors = (p.means2d, p.conics, p.peaks, footprints.emission)
        rows = [values[camera, order] for values in tensors]
        for chunk in centers.split(PIXELS_AT_ONCE):
            radiance, transmittance, _ = composite(chunk, *rows, response=lens.response)
            light.append(radiance + transmittance[:, None] * footprints.backgrounds[camera])
            through.append(transmittance)
    shape = (len(p.depths), height, width)
    return torch.cat(light).reshape(*shape, -1), torch.cat(through).reshape(shape)


def composite(
    centers: Tensor,
    means2d: Tensor,
    conics: Tensor,
    peaks: Tensor,
    emission: Tensor,
    *,
    response: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Composite L splats, in their order, at P pixels, over black.

    Args:
        centers: [P,2], pixel centres.
        means2d, conics, peaks, emission: [L,2] or [P,L,2], [L,3], [L], [L,D].
        response: 0 gaussian, 1 beer_lambert.

    Returns:
        radiance [P,D], transmittance [P], weights T α [P,L].
    """
    dx, dy = (centers[:, None] - means2d).unbind(dim=-1)
    xx, xy, yy = conics.unbind(dim=-1)
    amount = peaks * torch.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))
    alpha, passes = opacity(amount, response)
    with torch.no_grad():
        alive = transmittances(passes)[:, :-1] > T_MIN
    # T only falls: once a pixel is full, no later splat is alive and T stays as it is.
    transmittance = transmittances(torch.where(alive, passes, 1))
    weights = transmittance[:, :-1] * torch.where(alive, alpha, 0)
    return weights @ emission, transmittance[:, -1], weights


def opacity(amount: Tensor, response: int) -> tuple[Tensor, Tensor]:
    """Return α of a response, and 1 - α; 0 and 1 below the cut-off.

    1 - α has a floor of 2⁻⁵⁶ in float32 and 2⁻⁴⁵⁴ in float64, as in the kernels: the product of two
    such factors and T_MIN is a normal number, and the factors can be divided out again.
    """
    if response == BEER_LAMBERT:
        least = torch.finfo(amount.dtype).tiny ** (4 / 9)
        alpha, passes = -torch.expm1(-amount), torch.exp(-amount).clamp(min=least)
    else:
        alpha = amount.clamp(max=ALPHA_MAX)
        passes = 1 - alpha
    counts = amount >= CUTOFF
    return torch.where(counts, alpha, 0), torch.where(counts, passes, 1)


def transmittances(passes: Tensor) -> Tensor:
    """Return T before each splat and, last, behind all of them: [P,L] -> [P,L+1]."""
    ones = passes.new_ones(len(passes), 1)
    return torch.cat((ones, passes), dim=1).cumprod(dim=1)


def absolute_gradient_of(means2d: Tensor) -> Tensor:
    """Return zeros [C,N,2] that receive absolute gradients; also added to `means2d.absgrad`."""
    zeros = torch.zeros_like(means2d, requires_grad=True)

    def publish(gradient: Tensor) -> None:
        before = getattr(means2d, "absgrad", None)
        total = gradient if before is None else before + gradient
        means2d.absgrad = total  # type: ignore[attr-defined]

    zeros.register_hook(publish)
    return zeros


def with_absolute_gradient(
    centers: Tensor, means2d_abs: Tensor, listed: Tensor, pixels: int
) -> Tensor:
    """Return one copy of centres [L,2] for each pixel, [P,L,2], with a second gradient.

    Args:
        centers: [L,2] centres of the splats of a tile.
        means2d_abs: [C,N,2] zeros; its gradient is the sum of the copies' absolute gradients.
        listed: [L] rows c·N + n of the splats.
        pixels: number P of copies.
    """
    zeros = means2d_abs.flatten(0, 1)[listed]
    copies: Tensor = _AbsoluteGradient.apply(  # type: ignore[no-untyped-call]
        centers.expand(pixels, -1, -1), zeros.expand(pixels, -1, -1)
    )
    return copies


class _AbsoluteGradient(torch.autograd.Function):
    """Identity of its first argument; the second gets the absolute value of the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, zeros: Tensor) -> Tensor:
        """Return the value."""
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient and its absolute value."""
        return gradient, gradient.abs()


def touched_blocks(centers: Tensor, contributes: Tensor) -> Tensor:
    """Return bits int16 [L]: blocks where `contributes` [P,L] holds at a pixel of `centers`."""
    column, row = (centers % TILE).div(BLOCK, rounding_mode="floor").long().unbind(dim=1)
    block = row * (TILE // BLOCK) + column
    bits = torch.zeros_like(contributes[0], dtype=torch.int64)
    for b in block.unique().tolist():
        bits += contributes[block == b].any(dim=0).long() << b
    return bits.to(torch.int16)  # bit 15 is the sign


def tile_pixels(width: int, height: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return, for every tile of an image, flat indices [P] of its pixels and centres [P,2]."""
    pixels = torch.arange(width * height, device=like.device)
    x, y = pixels % width, pixels // width
    tile = y // TILE * -(-width // TILE) + x // TILE
    centers = torch.stack((x, y), dim=1).to(like) + 0.5
    groups = torch.argsort(tile, stable=True).split(torch.bincount(tile).tolist())
    return [(pixels[group], centers[group]) for group in groups]
