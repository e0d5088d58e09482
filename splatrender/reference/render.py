"""The pipeline in pure torch: project, shade, bin, blend."""

from __future__ import annotations

import math

from torch import Tensor

from splatrender.interfaces import Footprints, Lens, SplatTensors
from splatrender.reference.bin import bin
from splatrender.reference.blend import blend, blend_dense
from splatrender.reference.project import GAUSSIAN, project
from splatrender.reference.shade import shade


def rasterize(  # noqa: PLR0913, the signature of the operator
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    amplitudes: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: int | None = None,
    factors: Tensor | None = None,
    background: Tensor | None = None,
    near: float = 0.01,
    far: float = math.inf,
    eps2d: float = 0.3,
    antialiased: bool = False,
    response: int = GAUSSIAN,
    dense: bool = False,
) -> tuple[Tensor, Tensor]:
    """Render splats from every camera; gradients to every tensor.

    Args:
        means, quats, scales, amplitudes, factors: see `SplatTensors`.
        viewmats, intrinsics, width, height: see `Lens`.
        colors: values [N,D] or [C,N,D], or harmonics [N,K,3] with a degree.
        sh_degree: None takes colors as they are, a degree evaluates them as harmonics.
        background: [D] or [C,D]; black by default.
        near, far, eps2d, antialiased, response: see `Lens`.
        dense: evaluate every splat at every pixel instead of tiles.

    Returns:
        radiance [C,H,W,D] and transmittance [C,H,W].
    """
    optics = (near, far, eps2d, antialiased, response)
    lens = Lens(viewmats, intrinsics, width, height, *optics)
    projected = project(SplatTensors(means, amplitudes, quats, scales, factors), lens)
    cameras = len(viewmats)
    if sh_degree is None:
        emission = colors.expand(cameras, len(means), -1)
    else:
        emission = shade(means, colors, viewmats, projected.extents, sh_degree)
    if background is None:
        background = colors.new_zeros(colors.shape[-1])
    backgrounds = background.expand(cameras, colors.shape[-1])
    footprints = Footprints(projected, emission, backgrounds)
    if dense:
        return blend_dense(footprints, lens)
    images = blend(footprints, bin(projected, lens), lens)
    return images.radiance, images.transmittance
