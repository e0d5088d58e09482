"""The stages in a row: splats and cameras to pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.camera import Camera
from splatrender.errors import InputError
from splatrender.model.splats import Splats
from splatrender.operators.bin import bin_splats
from splatrender.operators.blend import blend
from splatrender.operators.devices import send
from splatrender.operators.project import RESPONSES, project
from splatrender.operators.shade import shade


@dataclass(frozen=True)
class RenderOptions:
    """Which approximation of the transfer equation is rendered.

    Attributes:
        response: "gaussian" (α = opacity · G, as 3DGS) or "beer_lambert" (α = 1 - e^{-τ}).
        antialiased: keep the integral of footprints smaller than a pixel.
        near, far: splats with camera z outside (near, far) are culled [scene units].
        eps2d: variance added to every footprint [px²].
        sh_degree: highest degree of harmonics that is used; None uses all there are.
    """

    response: str = "gaussian"
    antialiased: bool = False
    near: float = 0.01
    far: float = math.inf
    eps2d: float = 0.3
    sh_degree: int | None = None

    def __post_init__(self) -> None:
        if self.response not in RESPONSES:
            known = " or ".join(map(repr, RESPONSES))
            raise InputError(f"response: expected {known}, found {self.response!r}")
        if not 0 < self.near < self.far:
            raise InputError(f"near, far: expected 0 < near < far, found {self.near}, {self.far}")
        if not self.eps2d >= 0:
            raise InputError(f"eps2d: expected a number >= 0, found {self.eps2d}")


DEFAULTS = RenderOptions()


@dataclass(frozen=True)
class Rendering:
    """What the cameras see.

    Attributes:
        radiance: [C,H,W,D] colour (linear in the photos' own encoding), background included.
        transmittance: [C,H,W] what is left of the light from behind; `alpha` = 1 - transmittance.
        visible: bool [C,N] whether the camera can see the splat at all.
        means2d: [C,N,2] where the splats' centres are [px]; part of the graph.
        extents: [C,N,2] their half-widths [px], 0 where culled; no gradient.
        depth: [C,H,W] expected camera z, Σ w z / Σ w, 0 where nothing is; None if not asked for.
        visibility: [C,N] Σ over pixels of T α; None if not asked for.
    """

    radiance: Tensor
    transmittance: Tensor
    visible: Tensor
    means2d: Tensor
    extents: Tensor
    depth: Tensor | None = None
    visibility: Tensor | None = None

    @property
    def alpha(self) -> Tensor:
        """[C,H,W] opacity of the picture, 1 - transmittance."""
        return 1 - self.transmittance

    @property
    def absgrad(self) -> Tensor | None:
        """[C,N,2] Σ over pixels p of |∂L_p/∂means2d|; None before backward or if not asked for."""
        return getattr(self.means2d, "absgrad", None)


def rasterize(
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
    factors: Tensor | None = None,
    background: Tensor | None = None,
    options: RenderOptions = DEFAULTS,
    depth: bool = False,
    visibility: bool = False,
    absgrad: bool = False,
) -> Rendering:
    """Render splats given as tensors; differentiable in every tensor, cameras included.

    Args:
        means: [N,3]; quats: [N,4] wxyz; scales: [N,3]; or `factors` [N,3,3] instead of the two.
        amplitudes: [N] opacities, or extinctions [1/length] for response beer_lambert.
        colors: [N,K,3] spherical harmonics, or [N,D] / [C,N,D] values that are blended as they are.
        viewmats: [C,4,4] world-to-camera, OpenCV axes; intrinsics: [C,4] fx, fy, cx, cy [px].
        width, height: size of the picture [px].
        background: [D] or [C,D]; black by default.
        options: see `RenderOptions`.
        depth, visibility: also render expected depth / sum each splat's contribution.
        absgrad: also sum, in the backward pass, absolute gradients of the splats' places in the
            picture (`Rendering.absgrad`), for at most four channels, depth included.

    Returns:
        See `Rendering`. All tensors share one dtype, float32 or float64.

    Raises:
        InputError: colors or background have a shape that is not listed above.
        RuntimeError: another tensor has an unexpected shape, dtype or device, or there are too many
            channels with `absgrad`.

    Example:
        >>> out = rasterize(
        ...     torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]]),
        ...     0.1 * torch.ones(1, 3), torch.tensor([0.5]), torch.tensor([[1.0, 0.0, 0.0]]),
        ...     torch.eye(4)[None], torch.tensor([[100.0, 100.0, 8.5, 8.5]]), 17, 17)
        >>> round(float(out.radiance[0, 8, 8, 0]), 4)
        0.5
    """
    response = RESPONSES[options.response]
    means2d, conics, depths, peaks, extents = project(
        means, quats, scales, factors, amplitudes, viewmats, intrinsics, width, height,
        options.near, options.far, options.eps2d, options.antialiased, response,
    )  # fmt: skip
    emission = _emission(means, colors, viewmats, extents, options.sh_degree)
    cameras, channels = emission.shape[0], emission.shape[2]
    backgrounds = _backgrounds(background, emission)
    if depth:  # one more channel whose colour is the depth
        emission = torch.cat([emission, depths[..., None]], -1)
        backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(cameras, 1)], -1)
    bins = bin_splats(means2d, conics, depths, peaks, extents, width, height)
    radiance, transmittance, seen, _ = blend(
        means2d, conics, peaks, emission, backgrounds, *bins, width, height, response,
        visibility, absgrad,
    )  # fmt: skip
    expected_depth = None
    if depth:
        alpha = 1 - transmittance
        expected_depth = torch.where(alpha > 0, radiance[..., channels] / alpha.clamp_min(1e-10), 0)
        radiance = radiance[..., :channels]
    return Rendering(
        radiance, transmittance, extents[..., 0] > 0, means2d, extents, expected_depth,
        seen if visibility else None,
    )  # fmt: skip


def peak_amplitudes(opacities: Tensor, scales: Tensor, response: str) -> Tensor:
    """What `rasterize` takes for opacities [N]: themselves, or peaks of an extinction field.

    With `beer_lambert` a splat's peak extinction is -ln(1 - o) over its thickness √(2π) s along an
    average direction, s the geometric mean of its standard deviations, so that it looks as opaque.

    Args:
        opacities: [N] in 0..1.
        scales: [N,3] standard deviations.
        response: "gaussian" or "beer_lambert".

    Returns:
        [N].

    Example:
        >>> peak_amplitudes(torch.tensor([0.5]), torch.ones(1, 3), "beer_lambert")
        tensor([0.2765])
    """
    if response != "beer_lambert":
        return opacities
    thickness = math.sqrt(2 * math.pi) * scales.prod(-1).pow(1 / 3)
    return -torch.log1p(-opacities) / thickness


def render(
    splats: Splats,
    cameras: Camera | Sequence[Camera],
    *,
    background: Tensor | Sequence[float] | None = None,
    options: RenderOptions = DEFAULTS,
    depth: bool = False,
    visibility: bool = False,
    absgrad: bool = False,
) -> Rendering:
    """Render a splat model from one camera or from several of the same size.

    Args:
        splats: the model; for response beer_lambert its opacities are turned into the extinction
            that gives the same peak opacity along an average direction.
        cameras: one camera or several; several must share width and height.
        background: [3] colour in 0..1; black by default.
        options, depth, visibility, absgrad: see `rasterize`.

    Returns:
        See `Rendering`; C = 1 for a single camera.

    Raises:
        InputError: no camera, or cameras of different sizes.

    Example:
        >>> from splatrender.camera import Camera
        >>> camera = Camera(torch.eye(4), 100.0, 100.0, 32.0, 24.0, 64, 48)
        >>> render(Splats.random(10, seed=0), camera).radiance.shape
        torch.Size([1, 48, 64, 3])
    """
    views = [cameras] if isinstance(cameras, Camera) else list(cameras)
    if not views:
        raise InputError("cameras: expected at least one camera, found none")
    sizes = {(view.width, view.height) for view in views}
    if len(sizes) > 1:
        raise InputError(f"cameras: expected one picture size, found {sorted(sizes)}")
    like = splats.means
    width, height = sizes.pop()
    device, dtype = like.device, like.dtype
    viewmats = send(torch.stack([view.viewmat for view in views]), device, dtype)
    intrinsics = send(torch.stack([view.intrinsics() for view in views]), device, dtype)
    scales = splats.scales
    amplitudes = peak_amplitudes(splats.opacities, scales, options.response)
    if background is not None:
        background = send(torch.as_tensor(background), device, dtype)
    return rasterize(
        splats.means, splats.quats, scales, amplitudes, splats.sh, viewmats, intrinsics,
        width, height, background=background, options=options, depth=depth, visibility=visibility,
        absgrad=absgrad,
    )  # fmt: skip


def _emission(
    means: Tensor, colors: Tensor, viewmats: Tensor, extents: Tensor, sh_degree: int | None
) -> Tensor:
    """Colours as the cameras see them, [C,N,D]."""
    cameras, count = len(viewmats), len(means)
    if colors.dim() == 2 and len(colors) == count:
        return colors.expand(cameras, *colors.shape)
    if colors.dim() == 3 and colors.shape[:2] == (cameras, count) and colors.shape[0] != count:
        return colors
    degree = math.isqrt(colors.shape[1]) - 1 if colors.dim() == 3 else -1
    harmonic = colors.dim() == 3 and len(colors) == count and colors.shape[2] == 3
    if not harmonic or degree > 3 or (degree + 1) ** 2 != colors.shape[1]:
        raise InputError(
            f"colors: expected [N,K,3] with K in 1, 4, 9, 16, [N,D] or [C,N,D] with N = {count} "
            f"and C = {cameras}, found {list(colors.shape)}"
        )
    if sh_degree is not None:
        degree = min(degree, sh_degree)
    return shade(means, colors, viewmats, extents, degree)


def _backgrounds(background: Tensor | None, emission: Tensor) -> Tensor:
    cameras, _, channels = emission.shape
    if background is None:
        return emission.new_zeros(cameras, channels)
    if background.shape not in ((channels,), (cameras, channels)):
        raise InputError(
            f"background: expected [{channels}] or [{cameras}, {channels}], "
            f"found {list(background.shape)}"
        )
    return background.expand(cameras, channels)
