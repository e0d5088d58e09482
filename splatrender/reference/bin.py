"""Stage `bin` in pure torch: the splats that meet each tile, front to back."""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.interfaces import Lens, Projected, TileLists
from splatrender.reference.thresholds import CUTOFF, TILE


def bin(projected: Projected, lens: Lens) -> TileLists:
    """List, for every tile, the splats that reach one of its pixels, by depth.

    A pair exists where min over the box of the tile's pixel centres of dᵀ conic d is at most
    k = 2 ln(255 peak); brute force: every splat against every tile.

    Args:
        projected: footprints of `project`.
        lens: size of the image.

    Returns:
        The lists of all cameras.

    Example:
        >>> row = torch.ones(1, 1)
        >>> mean, conic = torch.full((1, 1, 2), 8.0), torch.tensor([[[1.0, 0.0, 1.0]]])
        >>> projected = Projected(mean, conic, row, row, torch.full((1, 1, 2), 3.4))
        >>> bin(projected, Lens(torch.eye(4)[None], torch.ones(1, 4), 32, 16)).tile_offsets.tolist()
        [0, 1, 1]
    """
    cameras, count = projected.depths.shape
    # In double, whatever the input: the lists are exact for the numbers that came in.
    means2d, conics = projected.means2d.detach().double(), projected.conics.detach().double()
    levels = 2 * torch.log(projected.peaks.detach().double() / CUTOFF)
    seen = (projected.extents > 0).any(dim=2)
    by_depth = torch.argsort(projected.depths.detach(), dim=1, stable=True)
    offsets, ids = [0], []
    for c in range(cameras):
        for low, high in tile_boxes(lens.width, lens.height):
            reached = nearest_form(means2d[c], conics[c], low, high) <= levels[c]
            order = by_depth[c]
            ids.append(c * count + order[(reached & seen[c])[order]])
            offsets.append(offsets[-1] + len(ids[-1]))
    splat_ids = torch.cat(ids)
    slots = torch.empty_like(splat_ids)
    slots[torch.argsort(splat_ids, stable=True)] = torch.arange(len(splat_ids), device=slots.device)
    pairs = torch.bincount(splat_ids, minlength=cameras * count)
    splat_offsets = torch.cat((pairs.new_zeros(1), pairs.cumsum(0)))
    tile_offsets = torch.tensor(offsets, device=splat_ids.device)
    return TileLists(tile_offsets.int(), splat_ids.int(), slots.int(), splat_offsets.int())


def tile_boxes(width: int, height: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return corners (x, y) of the box of pixel centres of every tile of an image, row by row."""
    return [
        ((x + 0.5, y + 0.5), (min(x + TILE, width) - 0.5, min(y + TILE, height) - 0.5))
        for y in range(0, height, TILE)
        for x in range(0, width, TILE)
    ]


def nearest_form(
    means2d: Tensor, conics: Tensor, low: tuple[float, float], high: tuple[float, float]
) -> Tensor:
    """Return the minimum of dᵀ conic d over a box, d = point - mean: 0 inside, else on an edge.

    Args:
        means2d, conics: [N,2] and [N,3].
        low, high: corners (x, y) of the box.

    Returns:
        [N].
    """
    xx, xy, yy = conics.unbind(dim=1)
    (left, top), (right, bottom) = (
        (corner[0] - means2d[:, 0], corner[1] - means2d[:, 1]) for corner in (low, high)
    )
    smallest = torch.full_like(xx, torch.inf)
    for x in (left, right):  # on a vertical edge: the best y, clamped to the edge
        y = torch.clamp(-xy * x / yy, top, bottom)
        smallest = torch.minimum(smallest, xx * x * x + 2 * xy * x * y + yy * y * y)
    for y in (top, bottom):
        x = torch.clamp(-xy * y / xx, left, right)
        smallest = torch.minimum(smallest, xx * x * x + 2 * xy * x * y + yy * y * y)
    inside = (left <= 0) & (right >= 0) & (top <= 0) & (bottom >= 0)
    return torch.where(inside, 0, smallest)
