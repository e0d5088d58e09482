"""Stage `blend` in pure torch: from footprints to a picture, front to back."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from splatrender.reference.bin import TILE
from splatrender.reference.project import BEER_LAMBERT, CUTOFF

ALPHA_MAX = 0.99
"""Largest opacity of a splat in the gaussian response: transmittance never becomes 0."""

T_MIN = 1e-4
"""Transmittance at which a pixel counts as full."""

BLOCK = 4
"""Side of the blocks of pixels [px] that `hits` tells apart."""

PIXELS_AT_ONCE = 4096
"""How many pixels `blend_dense` holds against all splats at a time."""


def blend(
    means2d: Tensor,
    conics: Tensor,
    peaks: Tensor,
    emission: Tensor,
    backgrounds: Tensor,
    tile_offsets: Tensor,
    splat_ids: Tensor,
    slots: Tensor,
    splat_offsets: Tensor,
    width: int,
    height: int,
    response: int,
    with_visibility: bool,
    with_absgrad: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Composites the splats of each tile's list in the order of the list.

    radiance = Σ_i T_i α_i emission_i + T background,  T_i = Π_{j<i} (1 - α_j).

    Args:
        means2d, conics, peaks: [C,N,2], [C,N,3], [C,N], as `project` returns them.
        emission: [C,N,D], any D >= 1.
        backgrounds: [C,D].
        tile_offsets, splat_ids, slots, splat_offsets: as `bin_splats` returns them; the last two
            serve the kernels' backward pass and are not read here.
        width, height: size of the picture [px].
        response: 0 gaussian, 1 beer_lambert.
        with_visibility: whether to sum visibility.
        with_absgrad: whether backward adds Σ over pixels p of |∂L_p/∂means2d| to the attribute
            means2d.absgrad [C,N,2].

    Returns:
        radiance [C,H,W,D], transmittance [C,H,W], visibility [C,N] (Σ over pixels of T α; [0] when
        not asked for; no gradient) and hits int16 [P] (bit b: the pair contributes to a pixel of
        block b of its tile's 4 x 4 blocks of 4 x 4 pixels, row by row).
    """
    cameras, count, channels = emission.shape
    rows = [values.flatten(0, 1) for values in (means2d, conics, peaks, emission)]
    offsets, ids = tile_offsets.tolist(), splat_ids.long()
    tiles = tile_pixels(width, height, means2d)
    visibility = means2d.new_zeros(cameras * count)
    places, light, through, hits = [], [], [], []
    for tile, (first, last) in enumerate(itertools.pairwise(offsets)):
        camera, within = divmod(tile, len(tiles))
        listed, (place, centers) = ids[first:last], tiles[within]
        splats = [values[listed] for values in rows]
        if with_absgrad:
            splats[0] = splats[0].expand(len(centers), -1, -1)
            collect_absgrad(splats[0], means2d, listed)
        radiance, transmittance, weights = composite(centers, *splats, response=response)
        light.append(radiance + transmittance[:, None] * backgrounds[camera])
        through.append(transmittance)
        places.append(camera * width * height + place)
        visibility.index_add_(0, listed, weights.detach().sum(dim=0))
        hits.append(touched_blocks(centers, weights > 0))
    order = torch.argsort(torch.cat(places))
    return (
        torch.cat(light)[order].reshape(cameras, height, width, channels),
        torch.cat(through)[order].reshape(cameras, height, width),
        visibility.reshape(cameras, count) if with_visibility else visibility.new_zeros(0),
        torch.cat(hits),
    )


def blend_dense(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    peaks: Tensor,
    emission: Tensor,
    backgrounds: Tensor,
    width: int,
    height: int,
    response: int,
) -> tuple[Tensor, Tensor]:
    """Composites every splat at every pixel, with no tiles: what `bin_splats` must not change.

    Args:
        depths: [C,N], the order; equal depths stay in the order of their index.
        The others: see `blend`.

    Returns:
        radiance [C,H,W,D] and transmittance [C,H,W].
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centers = torch.stack((x, y), dim=-1).reshape(-1, 2).to(means2d) + 0.5
    light, through = [], []
    for camera, order in enumerate(torch.argsort(depths.detach(), dim=1, stable=True)):
        rows = [values[camera, order] for values in (means2d, conics, peaks, emission)]
        for chunk in centers.split(PIXELS_AT_ONCE):
            radiance, transmittance, _ = composite(chunk, *rows, response=response)
            light.append(radiance + transmittance[:, None] * backgrounds[camera])
            through.append(transmittance)
    shape = (len(depths), height, width)
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
    """Composites L splats, in their order, at P pixels, over black.

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
    """α of a response and what passes, 1 - α; 0 and 1 below the cut-off.

    What passes has a floor of 2⁻⁵⁶ in float32 and 2⁻⁴⁵⁴ in float64, as of the kernels: two such
    factors and T_MIN are a normal number, so that they can be divided out again.
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
    """T before each splat and, last, behind all of them: [P,L] -> [P,L+1]."""
    ones = passes.new_ones(len(passes), 1)
    return torch.cat((ones, passes), dim=1).cumprod(dim=1)


def collect_absgrad(places: Tensor, means2d: Tensor, listed: Tensor) -> None:
    """Let backward add the absolute gradients of `places` to the attribute means2d.absgrad.

    Args:
        places: [P,L,2], for each pixel a copy of its own of where the splats are.
        means2d: [C,N,2].
        listed: [L], which of their C N rows the splats are.
    """

    def add(gradient: Tensor) -> None:
        if getattr(means2d, "absgrad", None) is None:
            means2d.absgrad = torch.zeros_like(means2d)  # type: ignore[attr-defined]
        sums = means2d.absgrad.flatten(0, 1)  # type: ignore[attr-defined]
        sums.index_add_(0, listed, gradient.abs().sum(dim=0))

    if places.requires_grad:
        places.register_hook(add)


def touched_blocks(centers: Tensor, contributes: Tensor) -> Tensor:
    """Bits int16 [L]: the blocks where `contributes` [P,L] holds at a pixel of `centers` [P,2]."""
    column, row = (centers % TILE).div(BLOCK, rounding_mode="floor").long().unbind(dim=1)
    block = row * (TILE // BLOCK) + column
    bits = torch.zeros_like(contributes[0], dtype=torch.int64)
    for b in block.unique().tolist():
        bits += contributes[block == b].any(dim=0).long() << b
    return bits.to(torch.int16)  # bit 15 is the sign


def tile_pixels(width: int, height: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For every tile of one picture: flat indices [P] of its pixels and their centres [P,2]."""
    pixels = torch.arange(width * height, device=like.device)
    x, y = pixels % width, pixels // width
    tile = y // TILE * -(-width // TILE) + x // TILE
    centers = torch.stack((x, y), dim=1).to(like) + 0.5
    groups = torch.argsort(tile, stable=True).split(torch.bincount(tile).tolist())
    return [(pixels[group], centers[group]) for group in groups]
