"""The pipeline: project, shade, bin and blend, from splats and cameras to images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.arguments import (
    MOST_PIXELS,
    described,
    require_flag,
    require_integer,
    require_type,
)
from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.splats import Splats, optical_depths
from splatrender.operators.bin import bin
from splatrender.operators.blend import ABSGRAD_CHANNELS, blend
from splatrender.operators.inputs import (
    UNSET,
    SceneTensors,
    Unset,
    require_background,
    require_cameras,
    require_colors,
    require_scene,
)
from splatrender.operators.options import DEFAULTS, RESPONSES, RenderOptions, response_number
from splatrender.operators.pipeline import footprints_of
from splatrender.operators.plausible import SPLATS, check_numbers, wanted
from splatrender.operators.stages import Colors, Footprints, SplatTensors, lens_of

THINNEST = 1e-30
"""Scales below it [scene units] count as this one in extinctions, which are then finite."""


@dataclass(frozen=True)
class Rendering:
    """Images of the cameras.

    Attributes:
        radiance: [C,H,W,D] colour (linear in the photos' own encoding), background included.
        transmittance: [C,H,W] share of the light from behind that passes; `alpha` is 1 - it.
        visible: bool [C,N] True where the camera can see the splat at all.
        means2d: [C,N,2] the splats' centres [px]; part of the graph.
        extents: [C,N,2] their half-widths [px], 0 where culled; no gradient.
        depth: [C,H,W] expected camera z, Σ w z / Σ w, 0 on empty pixels; None if not requested.
        visibility: [C,N] Σ over pixels of T α; None if not requested.
        means2d_abs: [C,N,2] zeros whose `.grad` is, after the backward pass, the sum over pixels p
            of |∂L_p/∂means2d|; None if not requested.
    """

    radiance: Tensor
    transmittance: Tensor
    visible: Tensor
    means2d: Tensor
    extents: Tensor
    depth: Tensor | None = None
    visibility: Tensor | None = None
    means2d_abs: Tensor | None = None

    @property
    def alpha(self) -> Tensor:
        """Opacity [C,H,W] of the image, 1 - transmittance."""
        return 1 - self.transmittance

    @property
    def absgrad(self) -> Tensor | None:
        """Gradient [C,N,2] of `means2d_abs`; None before backward or if not requested."""
        return None if self.means2d_abs is None else self.means2d_abs.grad


def rasterize(  # noqa: PLR0913, the signature of gsplat
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
    sh_degree: int | Unset | None = UNSET,
    factors: Tensor | None = None,
    background: Tensor | Sequence[float] | None = None,
    options: RenderOptions = DEFAULTS,
    depth: bool = False,
    visibility: bool = False,
    absgrad: bool = False,
) -> Rendering:
    """Render splats given as tensors; differentiable, once and in reverse, in every tensor.

    Args:
        means: [N,3]; quats: [N,4] wxyz; scales: [N,3]; or `factors` [N,3,3] instead of the two.
        amplitudes: [N] opacities, or extinctions [1/length] for response beer_lambert.
        colors: values [N,D] or [C,N,D] that are blended as they are, or spherical harmonics
            [N,K,3]: sh_degree says which.
        viewmats: [C,4,4] world-to-camera, OpenCV axes; intrinsics: [C,4] fx, fy, cx, cy [px].
        width, height: size of the image [px], 1 to 65535.
        sh_degree: None blends colors as they are; 0 to 3 evaluates harmonics up to that degree,
            (sh_degree+1)² <= K <= 16, or up to `options.sh_degree`, if that is lower. Where it is
            not given, colors that can only be harmonics are taken for harmonics, with a
            DeprecationWarning; None will be the default.
        background: [D] or [C,D]; black by default.
        options: see `RenderOptions`.
        depth, visibility: also render expected depth / sum each splat's contribution.
        absgrad: also sum, in the backward pass, absolute gradients of the splats' places in the
            image (`Rendering.absgrad`), for at most four channels, depth included.

    Returns:
        See `Rendering`. All tensors share one dtype, float32 or float64, and are on one device;
        viewmats, intrinsics and background are brought to the dtype of means.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected; a camera
            on the CPU has a focal length <= 0, NaN, or a viewmat whose last row is not 0, 0, 0, 1;
            there are more than four channels with `absgrad`.

    Warns:
        InputWarning: numbers are implausible, with `RenderOptions(check=True)`.

    Example:
        >>> out = rasterize(
        ...     torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]]),
        ...     0.1 * torch.ones(1, 3), torch.tensor([0.5]), torch.tensor([[1.0, 0.0, 0.0]]),
        ...     torch.eye(4)[None], torch.tensor([[100.0, 100.0, 8.5, 8.5]]), 17, 17,
        ...     sh_degree=None)
        >>> round(float(out.radiance[0, 8, 8, 0]), 4)
        0.5
    """
    require_type("options", options, RenderOptions)
    shape = {"quats": quats, "scales": scales, "factors": factors}
    cameras = {"viewmats": viewmats, "intrinsics": intrinsics}
    require_scene({"means": means, **shape, "amplitudes": amplitudes, **cameras})
    degree = require_colors(colors, means, len(viewmats), sh_degree)
    viewmats, intrinsics = viewmats.to(means.dtype), intrinsics.to(means.dtype)
    if not torch.compiler.is_compiling():
        width = require_integer("width", width, 1, MOST_PIXELS)
        height = require_integer("height", height, 1, MOST_PIXELS)
        if viewmats.device.type == "cpu":
            require_cameras(viewmats, intrinsics)
    if degree is not None and options.sh_degree is not None:
        degree = min(degree, options.sh_degree)
    scene = SceneTensors(
        SplatTensors(means, amplitudes, quats, scales, factors),
        Colors(colors, degree),
        options.lens(viewmats, intrinsics, width, height),
    )
    behind = require_background(background, scene)
    if wanted(options.check):
        check_numbers(scene, behind)
    return _draw(scene, behind, depth, visibility, absgrad)


def peak_amplitudes(opacity_logits: Tensor, scales: Tensor, response: str) -> Tensor:
    """Convert opacities o to what `rasterize` takes: o itself, or peaks of an extinction field.

    With `beer_lambert` a splat's peak extinction is its optical depth -ln(1 - o) over its thickness
    √(2π) s along an average direction, s the geometric mean of its standard deviations, so that it
    looks as opaque. A flat splat (s = 0) is transparent then: no light has a way within it.

    Args:
        opacity_logits: [N] logits of o, ±inf included.
        scales: [N,3] standard deviations >= 0.
        response: "gaussian" or "beer_lambert".

    Returns:
        [N], finite, with finite gradients.

    Example:
        >>> peak_amplitudes(torch.tensor([0.0]), torch.ones(1, 3), "beer_lambert")
        tensor([0.2765])
    """
    if response_number(response) == RESPONSES["gaussian"]:
        return opacity_logits.sigmoid()
    log_thickness = 0.5 * math.log(2 * math.pi) + scales.clamp(min=THINNEST).log().mean(-1)
    return optical_depths(opacity_logits) * torch.exp(-log_thickness)


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

    Splats and cameras must be in one frame. The cameras of a loaded scene are in its inside frame:
    `Scene.load_splats` reads a .ply for them, and `Splats.load` reads it in the world, for cameras
    of cameras.json or `scene.similarity.invert(view.camera)`.

    Args:
        splats: the model; for response beer_lambert its opacities are turned into the extinction
            that gives the same peak opacity along an average direction.
        cameras: one camera or several; several must share width and height.
        background: [3] colour in 0..1; black by default.
        options, depth, visibility, absgrad: see `rasterize`.

    Returns:
        See `Rendering`; C = 1 for a single camera.

    Raises:
        InputError: an argument has another type than expected, there is no camera, or cameras
            differ in size.

    Warns:
        InputWarning: numbers are implausible, with `RenderOptions(check=True)`.

    Example:
        >>> from splatrender.model.camera import Camera
        >>> camera = Camera(torch.eye(4), 100.0, 100.0, 32.0, 24.0, 64, 48)
        >>> render(Splats.random(10, seed=0), camera).radiance.shape
        torch.Size([1, 48, 64, 3])
    """
    require_type("splats", splats, Splats)
    views = _cameras(cameras)
    lens = lens_of(views, require_type("options", options, RenderOptions), splats.means)
    scales = splats.scales
    amplitudes = peak_amplitudes(splats.opacity_logits, scales, options.response)
    most = splats.degree if options.sh_degree is None else options.sh_degree
    scene = SceneTensors(
        SplatTensors(splats.means, amplitudes, splats.quats, scales),
        Colors(splats.sh, min(splats.degree, most)),
        lens,
    )
    behind = require_background(background, scene)
    if wanted(options.check):
        check_numbers(scene, behind, SPLATS)
    return _draw(scene, behind, depth, visibility, absgrad)


def _cameras(cameras: Camera | Sequence[Camera]) -> list[Camera]:
    """Return one or more cameras of one image size as a list."""
    if isinstance(cameras, Camera):
        return [cameras]
    items = list(cameras) if isinstance(cameras, Iterable) else [cameras]
    for item in items:
        if not isinstance(item, Camera):
            has_one = isinstance(getattr(item, "camera", None), Camera)
            hint = ", which has one: pass its .camera" if has_one else ""
            raise InputError(f"cameras: expected a Camera or several, got {described(item)}{hint}")
    if not items:
        raise InputError("cameras: expected at least one camera, got none")
    sizes = {(view.width, view.height) for view in items}
    if len(sizes) > 1:
        raise InputError(f"cameras: expected one image size, got {sorted(sizes)}")
    return items


def _draw(
    scene: SceneTensors, backgrounds: Tensor, depth: bool, visibility: bool, absgrad: bool
) -> Rendering:
    """Return the images of the four stages, on arguments that fit; backgrounds [C,D]."""
    lens, channels = scene.lens, scene.channels
    depth, absgrad = require_flag("depth", depth), require_flag("absgrad", absgrad)
    visibility = require_flag("visibility", visibility)
    if absgrad and channels + depth > ABSGRAD_CHANNELS:
        raise InputError(
            f"absgrad: expected at most {ABSGRAD_CHANNELS} channels, depth included, "
            f"got {channels + depth}"
        )
    footprints = footprints_of(scene.splats, [scene.colors], backgrounds, lens)
    projected = footprints.projected
    if depth:
        footprints = _with_depth(footprints)
    lists = bin(projected, lens)
    images = blend(footprints, lists, lens, visibility=visibility, absgrad=absgrad)
    radiance, expected_depth = images.radiance, None
    if depth:
        alpha = 1 - images.transmittance
        expected_depth = torch.where(alpha > 0, radiance[..., channels] / alpha.clamp_min(1e-10), 0)
        radiance = radiance[..., :channels]
    return Rendering(
        radiance,
        images.transmittance,
        projected.visible,
        projected.means2d,
        projected.extents,
        expected_depth,
        images.visibility if visibility else None,
        images.means2d_abs,
    )


def _with_depth(footprints: Footprints) -> Footprints:
    """Return footprints with one more channel, whose colour is the depth."""
    emission, backgrounds = footprints.emission, footprints.backgrounds
    depths = footprints.projected.depths[..., None]
    return replace(
        footprints,
        emission=torch.cat([emission, depths], -1),
        backgrounds=torch.cat([backgrounds, backgrounds.new_zeros(len(backgrounds), 1)], -1),
    )
