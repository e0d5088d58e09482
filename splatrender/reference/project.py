"""Stage `project` in pure torch: from splats in the world to footprints in the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splatrender.interfaces import Lens, Projected, SplatTensors
from splatrender.reference.thresholds import CUTOFF

GAUSSIAN, BEER_LAMBERT = 0, 1

FRUSTUM_MARGIN = 0.3
"""Distance past the border, in half images, up to which the projection is linearised in place."""

COMPENSATION_MIN = 0.005
"""Floor of the antialiasing factor, as in 3DGS: keeps the square root differentiable."""

SMALL, HUGE = 1e-30, 1e30
"""Bounds of determinants [px⁴] and peaks with finite conics and exponents; others are culled."""


def project(splats: SplatTensors, lens: Lens) -> Projected:
    """Project every splat into every camera (affine approximation at its centre).

    S = J W A (J W A)ᵀ + eps2d I, conic = S⁻¹, with J the Jacobian of the pinhole map.

    Args:
        splats: N splats of any floating dtype.
        lens: C cameras.

    Returns:
        Footprints; rows of culled splats are 0, and extents carry no gradient.

    Source:
        Zwicker et al., EWA splatting, 2002; Kerbl et al., 3D Gaussian splatting, 2023.

    Example:
        >>> means, one = torch.tensor([[0.0, 0.0, 2.0]]), torch.ones(1)
        >>> splats = SplatTensors(means, one, factors=0.1 * torch.eye(3)[None])
        >>> camera = torch.eye(4)[None], torch.tensor([[10.0, 10.0, 8.0, 8.0]])
        >>> project(splats, Lens(*camera, 16, 16, 0.1, 9.0, eps2d=0.0)).conics
        tensor([[[4., -0., 4.]]])
    """

    def rows_of(kept: Tensor) -> tuple[Projected, Tensor]:
        c, n = kept.nonzero(as_tuple=True)
        turns, shifts = lens.viewmats[c, :3, :3], lens.viewmats[c, :3, 3]
        positions = torch.einsum("rij,rj->ri", turns, splats.means[n]) + shifts
        shapes = turns @ _shapes(splats, n)
        return footprints(positions, shapes, splats.amplitudes[n], c, lens)

    # Two passes: no row with an undefined formula meets autograd.
    with torch.no_grad():
        size = (len(lens.viewmats), len(splats.means))
        kept = torch.ones(size, dtype=torch.bool, device=splats.means.device)
        kept[kept.clone()] = rows_of(kept)[1]
    rows, _ = rows_of(kept)

    def scatter(values: Tensor) -> Tensor:
        full = values.new_zeros(kept.shape + values.shape[1:])
        return full.index_put(kept.nonzero(as_tuple=True), values)

    means2d, conics, depths, peaks, extents = map(scatter, rows.arguments)
    return Projected(means2d, conics, depths, peaks, extents.detach())


def _shapes(splats: SplatTensors, rows: Tensor) -> Tensor:
    """Return the factors A [R,3,3] of some rows."""
    if splats.factors is not None:
        return splats.factors[rows]
    assert splats.quats is not None and splats.scales is not None
    return rotations(splats.quats[rows]) * splats.scales[rows][:, None, :]


def footprints(
    positions: Tensor, shapes: Tensor, amplitudes: Tensor, cameras: Tensor, lens: Lens
) -> tuple[Projected, Tensor]:
    """Return the footprints of R pairs of a splat and a camera, without a camera axis.

    Args:
        positions: [R,3] in the camera.
        shapes: [R,3,3] M = W A.
        amplitudes: [R].
        cameras: [R] indices.
        lens: all cameras.

    Returns:
        Footprints with [R,...] tensors, and visible, bool [R].
    """
    intrinsics = lens.intrinsics[cameras]
    focal, center = intrinsics[:, :2], intrinsics[:, 2:]
    depths, slope = positions[:, 2], positions[:, :2] / positions[:, 2:]
    size = positions.new_tensor([lens.width, lens.height])
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    lowest, highest = -center / focal - margin, (size - center) / focal + margin
    clamped = torch.minimum(torch.maximum(slope, lowest), highest)
    # Row i of J is focal_i/z (e_i - clamped_i e_z).
    to_pixels = focal[:, :, None] / positions[:, 2:, None]
    squashed = to_pixels * (shapes[:, :2] - clamped[:, :, None] * shapes[:, 2:])
    sharp = squashed @ squashed.mT
    blurred = sharp + lens.eps2d * torch.eye(2, dtype=sharp.dtype, device=sharp.device)
    det = determinant(blurred)
    xx, xy, yy = blurred[:, 0, 0], blurred[:, 0, 1], blurred[:, 1, 1]
    peaks = amplitudes
    if lens.antialiased:
        ratio = determinant(sharp) / det
        peaks = peaks * ratio.clamp(min=COMPENSATION_MIN**2).sqrt()
    if lens.response == BEER_LAMBERT:
        peaks = peaks * path_lengths(positions, shapes)
    means2d = focal * slope + center
    level = 2 * torch.log(peaks / CUTOFF)
    extents = (level[:, None] * torch.stack((xx, yy), dim=1)).sqrt()
    inside = (means2d + extents >= 0) & (means2d - extents <= size)
    between = (depths > lens.near) & (depths < lens.far)
    finite = (det > SMALL) & (det < HUGE) & (peaks < HUGE)
    conics = torch.stack((yy, -xy, xx), dim=1) / det[:, None]
    visible = between & finite & (peaks >= CUTOFF) & inside.all(dim=1)
    return Projected(means2d, conics, depths, peaks, extents), visible


def path_lengths(positions: Tensor, shapes: Tensor) -> Tensor:
    """Return ∫ of the bump along the ray through its centre, sqrt(2π) / |M⁻¹ p/|p||, [R]."""
    rays = positions / torch.linalg.vector_norm(positions, dim=1, keepdim=True)
    # A singular shape has no thickness anywhere; solve_ex lets it become inf or NaN: culled.
    inward, _ = torch.linalg.solve_ex(shapes, rays)
    lengths: Tensor = math.sqrt(2 * math.pi) / torch.linalg.vector_norm(inward, dim=1)
    return lengths


def determinant(matrices: Tensor) -> Tensor:
    """Return the determinants [R] of matrices [R,2,2]."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def rotations(quats: Tensor) -> Tensor:
    """Return R(q/|q|) = I + 2 w [v]ₓ + 2 [v]ₓ² (Rodrigues), for quats [N,4] wxyz: [N,3,3]."""
    unit = quats / torch.linalg.vector_norm(quats, dim=1, keepdim=True)
    w, x, y, z = unit.unbind(dim=1)
    zero = torch.zeros_like(w)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=1).reshape(-1, 3, 3)
    identity = torch.eye(3, dtype=quats.dtype, device=quats.device)
    turns: Tensor = identity + 2 * w[:, None, None] * cross + 2 * cross @ cross
    return turns
