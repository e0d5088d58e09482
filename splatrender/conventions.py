"""Frames, orders and units that every module of the package shares.

World       right-handed, any length unit: the frame of COLMAP's model, of .ply files and of
            cameras.json. float64; in a .ply float32, relative to an offset if it is too coarse.
Inside      the frame of a loaded scene, its views and points, and of training: the world moved and
            scaled so that its cameras are within one unit of the origin, without a rotation.
            `scenes.similarity.Similarity` moves points, cameras and splats from one to the other.
Camera      OpenCV: x right, y down, z forward. `viewmat` [4,4] is world-to-camera:
            p_camera = W p_world + t with W = viewmat[:3, :3] and t = viewmat[:3, 3].
Picture     row-major [H,W,3]; the pixel in row i, column j has its centre at
            (x, y) = (j+0.5, i+0.5), so the picture covers [0, width] x [0, height] and
            intrinsics scale with its size.
Intrinsics  fx, fy, cx, cy in px: x = fx p_x/p_z + cx, y = fy p_y/p_z + cy.
Quaternion  w, x, y, z; any norm > 0, normalised where it is used.
Depth       `depths` is camera z; distance along a ray is called `t`. The two are never mixed.
Shapes      N splats, C cameras, P points or (splat, tile) pairs, K harmonics, D channels,
            H x W pixels.
"""

from __future__ import annotations

import torch

from splatrender.arguments import described, require_tensors
from splatrender.errors import InputError

PIXEL_CENTER = 0.5
"""Offset of a pixel's centre from its corner [px]."""


def rotations_from_quats(quats: torch.Tensor) -> torch.Tensor:
    """Rotation matrices of quaternions: p -> R p, with R = R(q/|q|).

    Args:
        quats: [..., 4] w, x, y, z, floating point, norm > 0.

    Returns:
        [..., 3, 3], same dtype and device.

    Example:
        >>> rotations_from_quats(torch.tensor([2.0, 0.0, 0.0, 0.0])).diagonal().tolist()
        [1.0, 1.0, 1.0]
    """
    require_tensors(quats=quats)
    if quats.shape[-1:] != (4,) or not quats.is_floating_point():
        raise InputError(f"quats: expected floating point [..., 4], got {described(quats)}")
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)
