"""Stage `blend`: the splats of every pixel, front to back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.operators import old_forms
from splatrender.operators.derivatives import (
    refuse_second_derivative,
    register_derivative,
    register_fake,
)
from splatrender.operators.inputs import input_errors
from splatrender.operators.old_forms import accepts_old_form
from splatrender.operators.stages import Blended, Footprints, Lens, TileLists, require_listed

ABSGRAD_CHANNELS = 4
"""Maximum number of channels with absolute gradients."""


@accepts_old_form("conics", old_forms.blend)
@input_errors
def blend(
    footprints: Footprints,
    lists: TileLists,
    lens: Lens,
    *,
    visibility: bool = False,
    absgrad: bool = False,
) -> Blended:
    """Blend front to back: radiance = Σ_i T_i α_i emission_i + T_N background.

    T_i = Π_{j<i} (1 - α_j). With a = peak · exp(-½ dᵀ conic d), d = pixel centre - mean2d:
    α = min(a, 0.99) for response `gaussian`, α = 1 - e^{-a} for `beer_lambert`. Splats with
    a < 1/255 are left out, and a pixel is finished once T <= 1e-4.

    Args:
        footprints: projected splats with colours; float32 or float64.
        lists: tile lists of `bin`.
        lens: size of the image, and the response.
        visibility: also sum the contribution of each splat.
        absgrad: also sum, in the backward pass, the absolute values of what each pixel adds to the
            gradient of means2d, for D <= 4: the gradient of `Blended.means2d_abs`.

    Returns:
        Images, see `Blended`. Gradients flow to means2d, conics, peaks, emission and backgrounds.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected, or there are
            more than four channels with absgrad.

    Source: Kerbl et al. 2023, "3D Gaussian Splatting"; the bound by opacity and exact tile test
        follow Hanson et al. 2025, "Speedy-Splat"; absolute gradients Ye et al. 2024, "AbsGS".

    Example: see `splatrender.operators.render.rasterize`, which calls the stages in order.
    """
    require_listed(footprints, lists, lens)
    means2d_abs = absolute_gradient_of(footprints.projected.means2d) if absgrad else None
    radiance, transmittance, seen, hits, last = torch.ops.splatrender.blend(
        *footprints.arguments,
        *lists.arguments,
        lens.width,
        lens.height,
        lens.response,
        visibility,
        means2d_abs,
    )
    return Blended(radiance, transmittance, seen, hits, last, means2d_abs)


def absolute_gradient_of(means2d: Tensor) -> Tensor:
    """Return zeros [C,N,2] whose gradient `blend` defines as Σ over pixels of |∂L_p/∂means2d|.

    The gradient is also added to `means2d.absgrad`, the name in gsplat. Under torch.compile the
    zeros get no gradient.
    """
    zeros = torch.zeros_like(means2d, requires_grad=False)
    if not torch.compiler.is_compiling():
        zeros.requires_grad_()

        def publish(gradient: Tensor) -> None:
            before = getattr(means2d, "absgrad", None)
            total = gradient if before is None else before + gradient
            means2d.absgrad = total  # type: ignore[attr-defined]

        zeros.register_hook(publish)
    return zeros


@register_fake("blend")
def _blend_fake(
    means2d: Tensor, conics: Tensor, peaks: Tensor, emission: Tensor, *args: Any
) -> tuple[Tensor, ...]:
    pairs, (width, height, _, with_visibility, _) = args[2].shape[0], args[5:]
    c, n, d = emission.shape
    return (
        means2d.new_empty((c, height, width, d)),
        means2d.new_empty((c, height, width)),
        means2d.new_empty((c if with_visibility else 0, n)),
        means2d.new_empty((pairs,), dtype=torch.int16),
        means2d.new_empty((c, height, width), dtype=torch.int32),
    )


@register_fake("blend_backward")
def _blend_backward_fake(
    means2d: Tensor, conics: Tensor, peaks: Tensor, emission: Tensor, *args: Any
) -> tuple[Tensor, ...]:
    absgrad = means2d if args[-1] else means2d[:0]
    return tuple(x.new_empty(x.shape) for x in (means2d, conics, peaks, emission, absgrad))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, transmittance, visibility, hits, last = output
    ctx.save_for_backward(*inputs[:9], transmittance, hits, last)
    ctx.options = inputs[9:12]
    ctx.with_absgrad = inputs[13] is not None
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(visibility, hits, last)


def _backward(
    ctx: Any, grad_radiance: Tensor | None, grad_transmittance: Tensor | None, *_: Any
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    transmittance = saved[9]
    if grad_radiance is None:
        grad_radiance = transmittance.new_zeros((*transmittance.shape, saved[3].shape[2]))
    if grad_transmittance is None:
        grad_transmittance = torch.zeros_like(transmittance)
    *out, absgrad = torch.ops.splatrender.blend_backward(
        *saved,
        grad_radiance.contiguous(),
        grad_transmittance.contiguous(),
        *ctx.options,
        ctx.with_absgrad,
    )
    grad_backgrounds = None
    if ctx.needs_input_grad[4]:
        # torch's sum adds in a tree: einsum's matrix product loses a digit on some processors.
        grad_backgrounds = (grad_radiance * transmittance[..., None]).sum(dim=(1, 2))
    return (*out, grad_backgrounds, *(None,) * 8, absgrad if ctx.with_absgrad else None)


register_derivative("blend", _backward, _setup_context)
refuse_second_derivative("blend")
