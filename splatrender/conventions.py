"""Frames, orders and units that every module of the package shares.

World       right-handed, any length unit: the frame of COLMAP's model, of .ply files and of
            cameras.json. float64; in a .ply float32, relative to an offset if it is too coarse.
Inside      the frame of a loaded scene, its views and points, and of training: the world moved and
            scaled so that its cameras are within one unit of the origin, without a rotation.
            `scenes.similarity.Similarity` moves points, cameras and splats from one to the other.
Camera      OpenCV: x right, y down, z forward. `viewmat` [4,4] is world-to-camera:
            p_camera = W p_world + t with W = viewmat[:3, :3] and t = viewmat[:3, 3].
Image       row-major [H,W,3]; the pixel in row i, column j has its centre at
            (x, y) = (j+0.5, i+0.5), so the image covers [0, width] x [0, height] and
            intrinsics scale with its size.
Intrinsics  fx, fy, cx, cy in px: x = fx p_x/p_z + cx, y = fy p_y/p_z + cy.
Quaternion  w, x, y, z; any norm > 0, normalised where it is used.
Depth       `depths` is camera z; distance along a ray is called `t`. The two are never mixed.
Shapes      N splats, C cameras, P points or (splat, tile) pairs, K harmonics, D channels,
            H x W pixels.
"""

from __future__ import annotations

from splatrender._moved import renamed

__getattr__ = renamed(
    __name__, {"rotations_from_quats": "splatrender.model.quaternions.rotations_from_quats"}
)
