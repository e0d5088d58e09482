"""Stage `flow_statistics` in pure torch: exact changes of the error by births and deaths."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.interfaces import FlowStatistics, Footprints, Lens, TileLists
from splatrender.reference.blend import opacity, tile_pixels, transmittances
from splatrender.reference.thresholds import T_MIN


def flow_statistics(
    footprints: Footprints,
    lists: TileLists,
    lens: Lens,
    photos: Tensor,
    masks: Tensor | None,
    levels: Tensor,
) -> FlowStatistics:
    """Compute the change of F = ½ Σ |r|² by each removal and each insertion alone.

    With T in front of an entry, α its opacity and S̃ the light from behind it:
    ΔC = α/(1-α) (S̃ - T (1-α) c) for a removal, ΔC = α (T c - S̃) for an insertion, and
    ΔF = Σ ⟨r, ΔC⟩ + ½ |ΔC|².

    Args:
        footprints: splats and, in the last rows, probes.
        lists: tile lists of all rows.
        lens: size of the image, and the response.
        photos: [C,H,W,3], uint8 or the dtype of means2d.
        masks: [C,H,W], 0 = leave out, or None.
        levels: [K] peaks of a probe at its masses, relative to the largest.

    Returns:
        See `FlowStatistics`.
    """
    cameras, count, _ = footprints.emission.shape
    means2d, probes = footprints.projected.means2d, footprints.probes
    splats = count - probes
    truth = photos / 255 if photos.dtype == torch.uint8 else photos
    truth = truth.to(means2d).reshape(cameras, -1, 3)
    kept = torch.ones(cameras, lens.width * lens.height) if masks is None else masks
    kept = (kept.reshape(cameras, -1) != 0).to(means2d)
    truth = torch.where(kept[..., None] != 0, truth, 0)  # what is left out may hold anything
    error = means2d.new_zeros(cameras)
    removal = means2d.new_zeros(cameras, splats)
    insertion = means2d.new_zeros(cameras, probes, len(levels), 5)
    tiles, ids = tile_pixels(lens.width, lens.height, means2d), lists.splat_ids.long()
    for tile, (first, last) in enumerate(itertools.pairwise(lists.tile_offsets.tolist())):
        (c, within), rows = divmod(tile, len(tiles)), ids[first:last] % count
        place, centers = tiles[within]
        rays = _rays(footprints, c, rows, centers, lens.response)
        residual = rays.light[:, 0] - truth[c, place]
        weight = kept[c, place, None]
        error[c] += 0.5 * (residual.square() * weight).sum()
        is_probe = rows >= splats
        cost = _removals(rays, residual, weight)
        removal[c].index_add_(0, rows[~is_probe], cost[~is_probe])
        for k, level in enumerate(levels.tolist()):
            found = _insertions(rays.of(is_probe), level, residual, weight)
            insertion[c, :, k].index_add_(0, rows[is_probe] - splats, found)
    return FlowStatistics(error, removal, insertion)


@dataclass(frozen=True)
class _Rays:
    """Entries of a list at the pixels of its tile.

    Attributes:
        amount: [P,L] responses.
        clear: bool [P,L] the pixel is not full yet.
        alpha, passes: [P,L] opacity, 0 for probes, and 1 - α.
        front: [P,L+1] transmittance before each entry and behind all.
        light: [P,L+1,3] light from each entry on, background included.
        colors: [L,3].
        response: 0 gaussian, 1 beer_lambert.
    """

    amount: Tensor
    clear: Tensor
    alpha: Tensor
    passes: Tensor
    front: Tensor
    light: Tensor
    colors: Tensor
    response: int

    def of(self, rows: Tensor) -> _Rays:
        """Return the entries `rows`, bool [L]; the last columns, behind all, are dropped."""
        return _Rays(
            self.amount[:, rows],
            self.clear[:, rows],
            self.alpha[:, rows],
            self.passes[:, rows],
            self.front[:, :-1][:, rows],
            self.light[:, :-1][:, rows],
            self.colors[rows],
            self.response,
        )


def _rays(footprints: Footprints, c: int, rows: Tensor, centers: Tensor, response: int) -> _Rays:
    """Return the rays of a tile of camera `c` through its listed `rows`."""
    p, colors = footprints.projected, footprints.emission[c, rows]
    amount = responses(centers, p.means2d[c, rows], p.conics[c, rows], p.peaks[c, rows])
    is_probe = rows >= len(p.peaks[c]) - footprints.probes
    alpha, passes = opacity(amount, response)
    alpha, passes = alpha.masked_fill(is_probe, 0), passes.masked_fill(is_probe, 1)
    clear = open_pixels(passes)
    alpha, passes = alpha * clear, torch.where(clear, passes, 1)
    front = transmittances(passes)
    light = front[:, :-1, None] * alpha[..., None] * colors
    beyond = front[:, -1:, None] * footprints.backgrounds[c]
    from_behind = torch.cat((light, beyond), dim=1).flip(1).cumsum(1).flip(1)
    return _Rays(amount, clear, alpha, passes, front, from_behind, colors, response)


def _removals(rays: _Rays, residual: Tensor, weight: Tensor) -> Tensor:
    """Return the changes of F [L] by removals of the entries."""
    after = rays.light[:, 1:] - rays.front[:, 1:, None] * rays.colors
    change = (rays.alpha / rays.passes)[..., None] * after
    return change_of_error(residual, change, weight)


def _insertions(probes: _Rays, level: float, residual: Tensor, weight: Tensor) -> Tensor:
    """Return e, g and a of insertions [L,5] of probes at a part `level` of their peaks."""
    a = opacity(level * probes.amount, probes.response)[0] * probes.clear
    change = a[..., None] * (probes.front[..., None] * probes.colors - probes.light)
    gain = change_of_error(residual, change, weight)
    by_color = (a * probes.front * weight)[..., None]  # ∂ΔC/∂c
    slope = (by_color * (residual[:, None] + change)).sum(dim=0)
    curvature = (by_color[..., 0] * a * probes.front).sum(dim=0)
    return torch.cat((gain[:, None], slope, curvature[:, None]), dim=1)


def responses(centers: Tensor, means2d: Tensor, conics: Tensor, peaks: Tensor) -> Tensor:
    """Return peak · G at pixels [P,2] of L footprints: [P,L]."""
    dx, dy = (centers[:, None] - means2d).unbind(dim=-1)
    xx, xy, yy = conics.unbind(dim=-1)
    return peaks * torch.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))


def open_pixels(passes: Tensor) -> Tensor:
    """Return bool [P,L]: the pixel is not full yet, whichever earlier splat is left out."""
    passes = torch.cat((torch.ones_like(passes[:, :1]), passes), dim=1)
    least = passes.cummin(dim=1).values
    return (passes.cumprod(dim=1) > T_MIN * least)[:, :-1]


def change_of_error(residual: Tensor, change: Tensor, weight: Tensor) -> Tensor:
    """Return Σ over pixels of ⟨r, ΔC⟩ + ½ |ΔC|², for residual [P,3], change [P,L,3]: [L]."""
    each = (change * (residual[:, None] + 0.5 * change)).sum(dim=2)
    return (each * weight).sum(dim=0)
