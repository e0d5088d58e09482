"""Stage `project` in pure torch: from splats in the world to footprints in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GAUSSIAN, BEER_LAMBERT = 0, 1

CUTOFF = 1 / 255
"""Smallest opacity (or optical depth) that still changes an 8-bit picture."""

FRUSTUM_MARGIN = 0.3
"""How far past the border, in half pictures, the affine map of the projection may be taken."""

COMPENSATION_MIN = 0.005
"""Floor of the antialiasing factor, as in 3DGS: keeps the square root differentiable."""

SMALL, HUGE = 1e-30, 1e30
"""Between these, determinants [px⁴] and peaks give finite conics and exponents; others are culled.
"""


def project(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    factors: Tensor | None,
    amplitudes: Tensor,
    viewmats: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
    far: float,
    eps2d: float,
    antialiased: bool,
    response: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Projects every splat into every camera (affine approximation at its centre).

    S = J W A (J W A)ᵀ + eps2d I, conic = S⁻¹, with J the Jacobian of the pinhole map.

    Args:
        means: [N,3].
        quats, scales: [N,4] wxyz and [N,3] > 0; the shape A = R diag(s). Or None and
        factors: [N,3,3], the shape A itself (covariance = A Aᵀ). Or None.
        amplitudes: [N], opacity (response 0) or extinction [1/length] (response 1).
        viewmats: [C,4,4], world to camera.
        intrinsics: [C,4], fx, fy, cx, cy in px.
        width, height: size of the picture [px].
        near, far: splats with camera z outside (near, far) are culled.
        eps2d: variance [px²] that the pixel adds to every footprint.
        antialiased: scale the peak by sqrt(det S0 / det S), so that eps2d blurs without adding.
        response: 0 gaussian, 1 beer_lambert.

    Returns:
        means2d [C,N,2] px, conics [C,N,3] (xx, xy, yy) px⁻², depths [C,N], peaks [C,N] (opacity or
        optical depth at the centre), extents [C,N,2] px (half the box outside of which
        peak * G < 1/255; no gradient). Culled rows are 0 in all of them.

    Source:
        Zwicker et al., EWA splatting, 2002; Kerbl et al., 3D Gaussian splatting, 2023.

    Example:
        >>> one = torch.ones(1)
        >>> camera = torch.eye(4)[None], torch.tensor([[10.0, 10.0, 8.0, 8.0]])
        >>> means, shape = torch.tensor([[0.0, 0.0, 2.0]]), 0.1 * torch.eye(3)[None]
        >>> project(means, None, None, shape, one, *camera, 16, 16, 0.1, 9.0, 0.0, False, 0)[1]
        tensor([[[4., -0., 4.]]])
    """
    lens = Lens(width, height, near, far, eps2d, antialiased, response)

    def footprints(kept: Tensor) -> Footprints:
        c, n = kept.nonzero(as_tuple=True)
        if factors is None:
            assert quats is not None and scales is not None
            shapes = rotations(quats[n]) * scales[n][:, None, :]
        else:
            shapes = factors[n]
        turns, shifts = viewmats[c, :3, :3], viewmats[c, :3, 3]
        positions = torch.einsum("rij,rj->ri", turns, means[n]) + shifts
        return lens.footprints(positions, turns @ shapes, amplitudes[n], intrinsics[c])

    # Two passes, so that no row with an undefined formula ever meets autograd.
    with torch.no_grad():
        kept = torch.ones(len(viewmats), len(means), dtype=torch.bool, device=means.device)
        kept[kept.clone()] = footprints(kept).visible
    rows = footprints(kept)

    def scatter(values: Tensor) -> Tensor:
        full = values.new_zeros(kept.shape + values.shape[1:])
        return full.index_put(kept.nonzero(as_tuple=True), values)

    return (
        scatter(rows.means2d),
        scatter(rows.conics),
        scatter(rows.depths),
        scatter(rows.peaks),
        scatter(rows.extents.detach()),
    )


@dataclass(frozen=True)
class Footprints:
    """What splats leave in a picture; R rows."""

    means2d: Tensor  # [R,2]
    conics: Tensor  # [R,3]
    depths: Tensor  # [R]
    peaks: Tensor  # [R]
    extents: Tensor  # [R,2]
    visible: Tensor  # [R] bool


@dataclass(frozen=True)
class Lens:
    """Everything about the projection that is neither splat nor camera pose."""

    width: int
    height: int
    near: float
    far: float
    eps2d: float
    antialiased: bool
    response: int

    def footprints(
        self, positions: Tensor, shapes: Tensor, amplitudes: Tensor, intrinsics: Tensor
    ) -> Footprints:
        """Footprints of splats at camera positions [R,3] with shapes M = W A [R,3,3]."""
        focal, center = intrinsics[:, :2], intrinsics[:, 2:]
        depth = positions[:, 2:]
        size = positions.new_tensor([self.width, self.height])
        slope = positions[:, :2] / depth
        margin = FRUSTUM_MARGIN * 0.5 * size / focal
        clamped = torch.minimum(torch.maximum(slope, -center / focal - margin),
                                (size - center) / focal + margin)  # fmt: skip
        # Row i of J is focal_i/z (e_i - clamped_i e_z).
        to_pixels = focal[:, :, None] / depth[:, :, None]
        squashed = to_pixels * (shapes[:, :2] - clamped[:, :, None] * shapes[:, 2:])
        sharp = squashed @ squashed.mT
        blurred = sharp + self.eps2d * torch.eye(2, dtype=sharp.dtype, device=sharp.device)
        det = determinant(blurred)
        xx, xy, yy = blurred[:, 0, 0], blurred[:, 0, 1], blurred[:, 1, 1]
        peaks = amplitudes
        if self.antialiased:
            ratio = determinant(sharp) / det
            peaks = peaks * ratio.clamp(min=COMPENSATION_MIN**2).sqrt()
        if self.response == BEER_LAMBERT:
            peaks = peaks * path_lengths(positions, shapes)
        means2d = focal * slope + center
        level = 2 * torch.log(peaks / CUTOFF)
        extents = (level[:, None] * torch.stack((xx, yy), dim=1)).sqrt()
        inside = (means2d + extents >= 0) & (means2d - extents <= size)
        depths = positions[:, 2]
        between = (depths > self.near) & (depths < self.far)
        finite = (det > SMALL) & (det < HUGE) & (peaks < HUGE)
        return Footprints(
            means2d,
            torch.stack((yy, -xy, xx), dim=1) / det[:, None],
            depths,
            peaks,
            extents,
            between & finite & (peaks >= CUTOFF) & inside.all(dim=1),
        )


def path_lengths(positions: Tensor, shapes: Tensor) -> Tensor:
    """∫ of the bump along the ray through its centre: sqrt(2π) / |M⁻¹ p/|p|| [R]."""
    rays = positions / torch.linalg.vector_norm(positions, dim=1, keepdim=True)
    # A singular shape has no thickness anywhere; solve_ex lets it become inf or NaN: culled.
    inward, _ = torch.linalg.solve_ex(shapes, rays)
    return math.sqrt(2 * math.pi) / torch.linalg.vector_norm(inward, dim=1)


def determinant(matrices: Tensor) -> Tensor:
    """Determinants of [R,2,2]."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def rotations(quats: Tensor) -> Tensor:
    """Rodrigues' form of R(q/|q|): I + 2 w [v]ₓ + 2 [v]ₓ², for quats [N,4] wxyz -> [N,3,3]."""
    unit = quats / torch.linalg.vector_norm(quats, dim=1, keepdim=True)
    w, x, y, z = unit.unbind(dim=1)
    zero = torch.zeros_like(w)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=1).reshape(-1, 3, 3)
    identity = torch.eye(3, dtype=quats.dtype, device=quats.device)
    return identity + 2 * w[:, None, None] * cross + 2 * cross @ cross
