"""Stage 3: which splats touch which tiles, front to back. No gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.operators.derivatives import refuse_vmap
from splatrender.operators.inputs import input_errors

TILE = 16
"""Pixels along the side of a tile."""


@input_errors
def bin_splats(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    peaks: Tensor,
    extents: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """List for every tile the splats whose ellipse meets it, by depth.

    A splat reaches as far as its response is at least 1/255: dᵀ conic d <= 2 ln(255 peak). The
    test of this ellipse against the rectangle of a tile's pixel centres is exact.

    Args:
        means2d, conics, depths, peaks, extents: see `project`.
        width, height: size of the picture [px].

    Returns:
        tile_offsets int32 [C·tiles+1]: where each tile's list begins, tiles row by row;
        splat_ids int32 [P]: the lists, c·N + n, by depth, then by n;
        slots int32 [P]: where each pair stands when pairs are ordered by splat;
        splat_offsets int32 [C·N+1]: where each splat's pairs begin in that order.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected, or there are
            2³¹ pairs or more.

    Example:
        >>> point = torch.tensor([[[8.0, 8.0]]])
        >>> conics, one = torch.tensor([[[1.0, 0.0, 1.0]]]), torch.ones(1, 1)
        >>> offsets, ids, *_ = bin_splats(point, conics, one, one, torch.ones(1, 1, 2), 32, 16)
        >>> offsets.tolist(), ids.tolist()
        ([0, 1, 1], [0])
    """
    require_tensors(means2d=means2d, conics=conics, depths=depths, peaks=peaks, extents=extents)
    return torch.ops.splatrender.bin(means2d, conics, depths, peaks, extents, width, height)


@torch.library.register_fake("splatrender::bin")
def _bin_fake(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    peaks: Tensor,
    extents: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, ...]:
    c, n = means2d.shape[:2]
    tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    pairs = torch.library.get_ctx().new_dynamic_size()
    sizes: tuple[Any, ...] = (c * tiles + 1, pairs, pairs, c * n + 1)
    return tuple(means2d.new_empty(size, dtype=torch.int32) for size in sizes)


refuse_vmap("bin", "lists differ in length; give all cameras in one call, or loop")
