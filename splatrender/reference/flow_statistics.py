"""The flow statistics in pure torch: exact changes of the squared error by births and deaths."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from splatrender.reference.blend import T_MIN, opacity, tile_pixels, transmittances


def flow_statistics(
    means2d: Tensor,
    conics: Tensor,
    peaks: Tensor,
    emission: Tensor,
    backgrounds: Tensor,
    tile_offsets: Tensor,
    splat_ids: Tensor,
    slots: Tensor,
    splat_offsets: Tensor,
    photos: Tensor,
    masks: Tensor | None,
    levels: Tensor,
    probes: int,
    width: int,
    height: int,
    response: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """What each removal and each insertion alone would change of F = 1/2 Σ |r|².

    With T in front of an entry, α its opacity and S̃ the light from behind it:
    ΔC = α/(1-α) (S̃ - T (1-α) c) for a removal, ΔC = α (T c - S̃) for an insertion, and
    ΔF = Σ ⟨r, ΔC⟩ + 1/2 |ΔC|².

    Args:
        means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots,
            splat_offsets: as of `blend`; the last `probes` rows are probes.
        photos: [C,H,W,3], uint8 or the dtype of means2d.
        masks: [C,H,W], 0 = leave out, or None.
        levels: [K] peaks of a probe at its masses, as parts of the largest.
        probes: number of rows without mass.
        width, height: size of the picture [px].
        response: 0 gaussian, 1 beer_lambert.

    Returns:
        error [C], removal [C,N-probes], insertion [C,probes,K,5].
    """
    cameras, count, _ = emission.shape
    splats = count - probes
    truth = photos / 255 if photos.dtype == torch.uint8 else photos
    truth = truth.to(means2d).reshape(cameras, -1, 3)
    kept = torch.ones(cameras, width * height) if masks is None else masks
    kept = (kept.reshape(cameras, -1) != 0).to(means2d)
    truth = torch.where(kept[..., None] != 0, truth, 0)  # what is left out may hold anything
    error = means2d.new_zeros(cameras)
    removal = means2d.new_zeros(cameras, splats)
    insertion = means2d.new_zeros(cameras, probes, len(levels), 5)
    tiles, ids = tile_pixels(width, height, means2d), splat_ids.long()
    for tile, (first, last) in enumerate(itertools.pairwise(tile_offsets.tolist())):
        (c, within), rows = divmod(tile, len(tiles)), ids[first:last] % count
        place, centers = tiles[within]
        amount = responses(centers, means2d[c, rows], conics[c, rows], peaks[c, rows])
        is_probe = rows >= splats
        weight = kept[c, place, None]
        alpha, passes = opacity(amount, response)
        alpha, passes = alpha.masked_fill(is_probe, 0), passes.masked_fill(is_probe, 1)
        clear = open_pixels(passes)
        alpha, passes = alpha * clear, torch.where(clear, passes, 1)
        front = transmittances(passes)
        light = front[:, :-1, None] * alpha[..., None] * emission[c, rows]
        beyond = front[:, -1:, None] * backgrounds[c]
        from_behind = torch.cat((light, beyond), dim=1).flip(1).cumsum(1).flip(1)
        residual = from_behind[:, 0] - truth[c, place]
        error[c] += 0.5 * (residual.square() * weight).sum()

        after = from_behind[:, 1:] - front[:, 1:, None] * emission[c, rows]
        change = (alpha / passes)[..., None] * after
        cost = change_of_error(residual, change, weight)
        removal[c].index_add_(0, rows[~is_probe], cost[~is_probe])

        numbers = rows[is_probe] - splats
        front, behind = front[:, :-1][:, is_probe], from_behind[:, :-1][:, is_probe]
        for k, level in enumerate(levels.tolist()):
            a = opacity(level * amount[:, is_probe], response)[0] * clear[:, is_probe]
            change = a[..., None] * (front[..., None] * emission[c, rows[is_probe]] - behind)
            gain = change_of_error(residual, change, weight)
            by_color = (a * front * weight)[..., None]  # ∂ΔC/∂c
            slope = (by_color * (residual[:, None] + change)).sum(dim=0)
            curvature = (by_color[..., 0] * a * front).sum(dim=0)
            found = torch.cat((gain[:, None], slope, curvature[:, None]), dim=1)
            insertion[c, :, k].index_add_(0, numbers, found)
    return error, removal, insertion


def responses(centers: Tensor, means2d: Tensor, conics: Tensor, peaks: Tensor) -> Tensor:
    """peak · G at pixels [P,2] of L footprints: [P,L]."""
    dx, dy = (centers[:, None] - means2d).unbind(dim=-1)
    xx, xy, yy = conics.unbind(dim=-1)
    return peaks * torch.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))


def open_pixels(passes: Tensor) -> Tensor:
    """[P,L] bool: a pixel would not be full yet, whichever splat before were left out."""
    passes = torch.cat((torch.ones_like(passes[:, :1]), passes), dim=1)
    least = passes.cummin(dim=1).values
    return (passes.cumprod(dim=1) > T_MIN * least)[:, :-1]


def change_of_error(residual: Tensor, change: Tensor, weight: Tensor) -> Tensor:
    """Σ over pixels of ⟨r, ΔC⟩ + 1/2 |ΔC|², for residual [P,3], change [P,L,3]: [L]."""
    each = (change * (residual[:, None] + 0.5 * change)).sum(dim=2)
    return (each * weight).sum(dim=0)
