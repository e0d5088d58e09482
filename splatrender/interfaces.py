"""Types that travel between the stages: project, shade, bin, blend, flow_statistics.

The operators and the pure-torch reference share these containers and nothing else.

Shapes: C cameras, N splats, D channels, P pairs of a splat and a tile, H x W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class SplatTensors:
    """Splats without their colours.

    Attributes:
        means: [N,3], scene units.
        amplitudes: [N] opacity in (0,1), or extinction [1/length] for response beer_lambert.
        quats: [N,4] wxyz, any norm > 0; with `scales`: A = R(q/|q|) diag(s).
        scales: [N,3] standard deviations >= 0.
        factors: [N,3,3] A itself, instead of quats and scales; covariance A Aᵀ.
    """

    means: Tensor
    amplitudes: Tensor
    quats: Tensor | None = None
    scales: Tensor | None = None
    factors: Tensor | None = None

    @property
    def arguments(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor]:
        """All fields, in the order of the op schema of `project`."""
        return self.means, self.quats, self.scales, self.factors, self.amplitudes


@dataclass(frozen=True, eq=False)
class Lens:
    """Cameras of one image size, and the approximation of their optics.

    Attributes:
        viewmats: [C,4,4] world-to-camera, OpenCV axes.
        intrinsics: [C,4] fx, fy, cx, cy [px].
        width, height: size of the image [px].
        near, far: splats with camera z outside (near, far) are culled [scene units].
        eps2d: variance added to every footprint [px²]; 3DGS adds 0.3.
        antialiased: keep the integral of small footprints (Mip-Splatting's 2D filter).
        response: 0 gaussian, 1 beer_lambert.
    """

    viewmats: Tensor
    intrinsics: Tensor
    width: int
    height: int
    near: float = 0.01
    far: float = math.inf
    eps2d: float = 0.3
    antialiased: bool = False
    response: int = 0

    @property
    def arguments(self) -> tuple[Any, ...]:
        """All fields, in the order of the op schema of `project`."""
        return (
            self.viewmats,
            self.intrinsics,
            self.width,
            self.height,
            self.near,
            self.far,
            self.eps2d,
            self.antialiased,
            self.response,
        )


@dataclass(frozen=True, eq=False)
class Projected:
    """Elliptical Gaussian footprints of splats; rows of culled splats are 0.

    Attributes:
        means2d: [C,N,2] centres [px].
        conics: [C,N,3] inverse covariances xx, xy, yy [px⁻²].
        depths: [C,N] camera z [scene units].
        peaks: [C,N] opacity (gaussian) or optical depth (beer_lambert) at the centre.
        extents: [C,N,2] half-widths [px] of the rectangle outside of which the response is below
            the cut-off; no gradient.
    """

    means2d: Tensor
    conics: Tensor
    depths: Tensor
    peaks: Tensor
    extents: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All fields, in the order of the op schemas."""
        return self.means2d, self.conics, self.depths, self.peaks, self.extents

    @property
    def visible(self) -> Tensor:
        """Bool [C,N], True where a camera can see the splat."""
        return self.extents[..., 0] > 0


@dataclass(frozen=True, eq=False)
class TileLists:
    """Splats that meet each tile, front to back; all int32.

    Attributes:
        tile_offsets: [C·tiles+1] start of each tile's list, tiles row by row.
        splat_ids: [P] the lists, c·N + n, by depth, then by n.
        slots: [P] position of each pair when pairs are ordered by splat.
        splat_offsets: [C·N+1] start of each splat's pairs in that order.
    """

    tile_offsets: Tensor
    splat_ids: Tensor
    slots: Tensor
    splat_offsets: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All fields, in the order of the op schemas."""
        return self.tile_offsets, self.splat_ids, self.slots, self.splat_offsets


@dataclass(frozen=True, eq=False)
class Footprints:
    """Projected splats with their colours; probes, if any, are the last rows.

    Attributes:
        projected: footprints of all N rows; probes have the peak of their largest mass.
        emission: [C,N,D] colours, any D >= 1; an insertion of a probe is scored at its colour.
        backgrounds: [C,D] light from behind all splats.
        probes: number of rows that are probes: candidates, which change no pixel.
    """

    projected: Projected
    emission: Tensor
    backgrounds: Tensor
    probes: int = 0

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Tensors that `blend` and `flow_statistics` read, in the order of their schemas."""
        p = self.projected
        return p.means2d, p.conics, p.peaks, self.emission, self.backgrounds


@dataclass(frozen=True, eq=False)
class Blended:
    """Images of `blend`, with what its backward pass needs.

    Attributes:
        radiance: [C,H,W,D] Σ_i T_i α_i emission_i + T background.
        transmittance: [C,H,W] T behind all splats.
        visibility: [C,N] Σ over pixels of T_i α_i, no gradient; [0,N] if not requested.
        hits: int16 [P] blocks of 4x4 pixels of the tile that each pair changes, bit 4·row + column.
        last: int32 [C,H,W] number of entries of its tile's list that a pixel went through.
        means2d_abs: [C,N,2] zeros whose `.grad` is, after the backward pass, the sum over pixels p
            of |∂L_p/∂means2d|; None if not requested.
    """

    radiance: Tensor
    transmittance: Tensor
    visibility: Tensor
    hits: Tensor
    last: Tensor | None = None
    means2d_abs: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FlowStatistics:
    """Exact changes of F = ½ Σ |radiance - photo|², for S = N - probes splats and K masses.

    Attributes:
        error: [C] F over the pixels that the mask keeps.
        removal: [C,S] change of F when one splat is removed.
        insertion: [C,probes,K,5] when one probe is inserted: the change e, its slopes g (three) and
            its curvature a in the probe's colour: with colour c + δ the change is
            e + ⟨g, δ⟩ + ½ a |δ|², exactly.
    """

    error: Tensor
    removal: Tensor
    insertion: Tensor


@dataclass(frozen=True, eq=False)
class PhotometricLoss:
    """Difference of an image and a photo.

    Attributes:
        loss: scalar, differentiable.
        l1: scalar, mean absolute difference; carries no gradient.
        ssim: scalar, mean structural similarity, 1 for equal images; carries no gradient.
    """

    loss: Tensor
    l1: Tensor
    ssim: Tensor
