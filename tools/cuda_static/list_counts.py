"""Work of the CUDA kernels for the tile lists of an image, counted on the CPU backend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.render.workloads import Workload
from splatrender.operators.bin import bin
from splatrender.operators.blend import blend
from splatrender.operators.pipeline import footprints_of
from splatrender.operators.stages import Colors, Lens, SplatTensors

TILE, QUADRANT, WARP = 16, 8, 32
STRETCH = 128  # entries that a block fetches at once going forward; backward it is a warp's
SUMMED = 8  # splats that a warp sums up together going backward
CHUNK = 1 << 20  # pairs at a time


@dataclass(frozen=True)
class ListCounts:
    """Counts of one image.

    Attributes:
        size: width and height [px].
        splats, visible, pixels, pairs: numbers of them.
        tile_passes: passes of a radix sort by tile, 8 bits each.
        forward_entries, backward_entries: pairs of splat and tile that a block fetches.
        pairs_hit: pairs of splat and tile that changed a pixel.
        forward_pixels, backward_pixels: pairs of splat and pixel that warps go through.
        chunk_pixels: backward_pixels, every 8 splats that a warp sums up together counted in full.
        block_pixels: backward_pixels in 4x4 blocks that were changed.
    """

    size: tuple[int, int]
    splats: int
    visible: int
    pixels: int
    pairs: int
    tile_passes: int
    forward_entries: int
    backward_entries: int
    pairs_hit: int
    forward_pixels: int
    backward_pixels: int
    chunk_pixels: int
    block_pixels: int


def count_lists(workload: Workload) -> ListCounts:
    """Render the workload on the CPU and count the entries that the CUDA kernels would walk.

    Forward, a warp walks the entries whose ellipse meets its quadrant of 8x8 pixels, 32
    entries of the list at a time until its pixels are opaque. Backward through those that changed
    one.

    Args:
        workload: splats and camera.

    Returns:
        The counts.
    """
    lists = _blend(workload)
    size, bits = (workload.width, workload.height), lists.hits.int() & 0xFFFF
    lengths = lists.tile_offsets.diff()
    columns, rows = -(-size[0] // TILE), -(-size[1] // TILE)
    reach = _furthest(lists.last, rows, columns)  # [tiles,4]
    furthest = reach.amax(dim=1)
    forward = torch.minimum(_round_up(furthest, STRETCH), lengths)
    backward = torch.minimum(_round_up(furthest, WARP), lengths)
    quadrants = torch.stack([bits & (0x33 << s) != 0 for s in (0, 2, 8, 10)], dim=1)
    blocks = sum(int((bits >> b & 1).sum()) for b in range(16))
    met, missed, in_batch = _walk(lists, quadrants, reach)
    if missed > 1e-4 * met:  # a few are on the edge to within rounding
        raise AssertionError(f"{missed} quadrants were changed by splats that do not meet them")
    return ListCounts(
        size=size,
        splats=len(workload),
        visible=lists.visible,
        pixels=size[0] * size[1],
        pairs=len(lists.splat_ids),
        tile_passes=-(-(rows * columns - 1).bit_length() // 8),
        forward_entries=int(forward.sum()),
        backward_entries=int(backward.sum()),
        pairs_hit=int((bits != 0).sum()),
        forward_pixels=QUADRANT**2 * met,
        backward_pixels=QUADRANT**2 * int(quadrants.sum()),
        chunk_pixels=QUADRANT**2 * SUMMED * int(_ceil(in_batch, SUMMED).sum()),
        block_pixels=16 * blocks,
    )


@dataclass(frozen=True)
class _Lists:
    """Tile lists of one camera, and results of blending over them."""

    tile_offsets: Tensor
    splat_ids: Tensor
    hits: Tensor
    last: Tensor
    means2d: Tensor
    conics: Tensor
    peaks: Tensor
    columns: int
    visible: int


def _blend(workload: Workload) -> _Lists:
    """Render the workload."""
    w, size = workload, (workload.width, workload.height)
    lens = Lens(w.viewmats, w.intrinsics, *size)
    splats = SplatTensors(w.means, w.opacities, w.quats, w.scales)
    footprints = footprints_of(splats, [Colors(w.sh, 3)], torch.zeros(1, 3), lens)
    p = footprints.projected
    lists = bin(p, lens)
    images = blend(footprints, lists, lens)
    assert images.last is not None
    columns, visible = -(-size[0] // TILE), int(p.visible.sum())
    shape = (p.means2d[0], p.conics[0], p.peaks[0])
    results = (images.hits, images.last[0], *shape, columns, visible)
    return _Lists(lists.tile_offsets, lists.splat_ids, *results)


def _walk(lists: _Lists, quadrants: Tensor, reach: Tensor) -> tuple[int, int, Tensor]:
    """Count pairs of entry and quadrant.

    Args:
        lists: the tile lists.
        quadrants: [P,4] quadrants that each pair has changed.
        reach: [tiles,4] entries that the pixels of a quadrant reached.

    Returns:
        Pairs whose ellipse meets the quadrant before it is opaque, changed pairs that do not,
        and changed pairs by batch of 32 entries from behind and quadrant.
    """
    tile_offsets, splat_ids, columns = lists.tile_offsets, lists.splat_ids, lists.columns
    furthest = reach.amax(dim=1)
    batches = _ceil(furthest, WARP)
    in_batch = torch.zeros(int(batches.sum()), 4, dtype=torch.int64)  # hits of each quadrant
    first_batch = batches.cumsum(0) - batches
    met = missed = 0
    for begin in range(0, len(splat_ids), CHUNK):
        k = torch.arange(begin, min(begin + CHUNK, len(splat_ids)))
        tile = torch.searchsorted(tile_offsets.long(), k, right=True) - 1
        before = _round_up(reach[tile], WARP) > (k - tile_offsets[tile])[:, None]
        splat = splat_ids[k].long()
        corner = torch.stack([tile % columns, tile // columns], dim=1) * TILE + 0.5
        offset = corner - lists.means2d[splat]
        here = _meets(offset, lists.conics[splat], lists.peaks[splat]) & before
        met += int(here.sum())
        missed += int((quadrants[k] & ~here).sum())
        from_behind = furthest[tile] - 1 - (k - tile_offsets[tile])
        seen = from_behind >= 0
        batch = (first_batch[tile] + from_behind // WARP)[seen]
        in_batch.index_add_(0, batch, quadrants[k][seen].long())
    return met, missed, in_batch


def _ceil(x: Tensor, step: int) -> Tensor:
    return (x + step - 1) // step


def _round_up(x: Tensor, step: int) -> Tensor:
    return _ceil(x, step) * step


def _furthest(last: Tensor, rows: int, columns: int) -> Tensor:
    """Return the most entries that a pixel of each quadrant reached: [H,W] -> [tiles,4]."""
    padded = torch.zeros(rows * TILE, columns * TILE, dtype=torch.int64)
    padded[: last.shape[0], : last.shape[1]] = last
    cut = padded.reshape(rows, 2, QUADRANT, columns, 2, QUADRANT).amax(dim=(2, 5))
    return cut.permute(0, 2, 1, 3).reshape(rows * columns, 4)


def _meets(offset: Tensor, conics: Tensor, peaks: Tensor) -> Tensor:
    """Check that the ellipse of the cut-off meets the rectangle of each quadrant's pixel centres.

    Args:
        offset: [P,2] from the splat's centre to the tile's first pixel centre [px].
        conics: [P,3]. peaks: [P].

    Returns:
        [P,4].
    """
    xx, xy, yy = conics.double().unbind(1)
    level = 2 * (255 * peaks.double()).log()
    found = []
    for shift in ((0, 0), (QUADRANT, 0), (0, QUADRANT), (QUADRANT, QUADRANT)):
        left, top = (offset.double() + torch.tensor(shift)).unbind(1)
        right, bottom = left + QUADRANT - 1, top + QUADRANT - 1
        inside = (left <= 0) & (right >= 0) & (top <= 0) & (bottom >= 0)
        least = torch.full_like(level, math.inf)
        for x in (left, right):  # the least of the quadratic on a side of fixed x, then of fixed y
            y = (-xy * x / yy).clamp(top, bottom)
            least = torch.minimum(least, xx * x * x + 2 * xy * x * y + yy * y * y)
        for y in (top, bottom):
            x = (-xy * y / xx).clamp(left, right)
            least = torch.minimum(least, xx * x * x + 2 * xy * x * y + yy * y * y)
        found.append(inside | (least <= level))
    return torch.stack(found, dim=1)
