"""Stage `bin`: the splats that meet each tile, front to back. No gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors, require_type
from splatrender.operators import old_forms
from splatrender.operators.derivatives import refuse_vmap, register_fake
from splatrender.operators.inputs import input_errors
from splatrender.operators.stages import Lens, Projected, TileLists
from splatrender.operators.thresholds import TILE


@input_errors
def bin(projected: Projected, lens: Lens) -> TileLists:
    """List, for every tile, the splats whose ellipse meets it, by depth.

    A splat reaches as far as its response is at least 1/255: dᵀ conic d <= 2 ln(255 peak). The
    test of this ellipse against the rectangle of a tile's pixel centres is exact.

    Args:
        projected: footprints of `project`.
        lens: size of the image.

    Returns:
        The lists of all cameras, see `TileLists`.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected, or there are
            2³¹ pairs or more.

    Example:
        >>> point, one = torch.tensor([[[8.0, 8.0]]]), torch.ones(1, 1)
        >>> conics = torch.tensor([[[1.0, 0.0, 1.0]]])
        >>> projected = Projected(point, conics, one, one, torch.ones(1, 1, 2))
        >>> lists = bin(projected, Lens(torch.eye(4)[None], torch.ones(1, 4), 32, 16))
        >>> lists.tile_offsets.tolist(), lists.splat_ids.tolist()
        ([0, 1, 1], [0])
    """
    p, lens = require_type("projected", projected, Projected), require_type("lens", lens, Lens)
    require_tensors(
        means2d=p.means2d, conics=p.conics, depths=p.depths, peaks=p.peaks, extents=p.extents
    )
    return TileLists(*torch.ops.splatrender.bin(*p.arguments, lens.width, lens.height))


def bin_splats(*args: Any, **options: Any) -> tuple[Tensor, ...]:
    """Call `bin` with the arguments means2d, conics, depths, peaks, extents, width, height.

    Returns:
        tile_offsets, splat_ids, slots, splat_offsets. A DeprecationWarning is given.
    """
    old_forms.warn_of_old_form("bin_splats")
    return old_forms.bin_splats(bin, *args, **options)


@register_fake("bin")
def _bin_fake(means2d: Tensor, *args: Any) -> tuple[Tensor, ...]:
    width, height = args[4:]
    c, n = means2d.shape[:2]
    tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    pairs = torch.library.get_ctx().new_dynamic_size()
    sizes: tuple[Any, ...] = (c * tiles + 1, pairs, pairs, c * n + 1)
    return tuple(means2d.new_empty(size, dtype=torch.int32) for size in sizes)


refuse_vmap("bin", "lists differ in length; give all cameras in one call, or loop")
