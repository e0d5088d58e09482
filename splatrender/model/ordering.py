"""An order of points in which neighbours in space are neighbours in memory."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_BITS = 16  # per axis; 2^-16 of the bounding box is finer than any splat that matters


def morton_order(points: Tensor) -> Tensor:
    """Return the order of points along a Morton (Z-order) curve through their bounding box.

    Args:
        points: [N, d] in any unit; the first axis has the most significant bits.

    Returns:
        int64 [N] rows, in the order of the interleaved bits of their quantised coordinates.

    Example:
        >>> morton_order(torch.tensor([[1.0, 1, 1], [0, 0, 0], [0, 0, 1]])).tolist()
        [1, 2, 0]
    """
    count, dims = points.shape
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=points.device)
    bits = min(MOST_BITS, 62 // dims)  # a code is one int64
    low, high = points.amin(dim=0), points.amax(dim=0)
    size = (high - low).clamp(min=torch.finfo(points.dtype).tiny)
    cells = ((points - low) / size * (2**bits - 1)).nan_to_num().long()
    codes = torch.zeros(count, dtype=torch.int64, device=points.device)
    for bit in range(bits):
        for axis in range(dims):
            codes |= ((cells[:, axis] >> bit) & 1) << (dims * bit + dims - 1 - axis)
    return codes.argsort(stable=True)
