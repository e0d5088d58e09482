"""Stage 4: blend the splats of every pixel front to back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.operators.derivatives import refuse_second_derivative, register_derivative
from splatrender.operators.inputs import input_errors

ABSGRAD_CHANNELS = 4
"""Channels for which absolute gradients can be asked, at most."""


@input_errors
def blend(
    means2d: Tensor,
    conics: Tensor,
    peaks: Tensor,
    emission: Tensor,
    backgrounds: Tensor,
    tile_offsets: Tensor,
    splat_ids: Tensor,
    slots: Tensor,
    splat_offsets: Tensor,
    width: int,
    height: int,
    response: int,
    with_visibility: bool,
    with_absgrad: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Blend front to back: radiance = Σ_i T_i α_i emission_i + T_N background.

    T_i = Π_{j<i} (1 - α_j). With a = peak · exp(-½ dᵀ conic d), d = pixel centre - mean2d:
    α = min(a, 0.99) for response `gaussian`, α = 1 - e^{-a} for `beer_lambert`. Splats with
    a < 1/255 are left out, and a pixel is finished once T <= 1e-4.

    Args:
        means2d, conics, peaks: see `project`; float32 or float64.
        emission: [C,N,D], any D >= 1 (3 and 4 have kernels of their own).
        backgrounds: [C,D].
        tile_offsets, splat_ids, slots, splat_offsets: see `bin_splats`; the same sizes.
        width, height: size of the picture [px].
        response: 0 gaussian, 1 beer_lambert.
        with_visibility: also sum what each splat contributes.
        with_absgrad: also sum, in the backward pass, the absolute values of what each pixel adds to
            the gradient of means2d, for D <= 4. They are added to the attribute
            means2d.absgrad [C,N,2], (Σ_p |∂L_p/∂x|, Σ_p |∂L_p/∂y|), which is made if it is not
            there: like .grad, not cleared by this function. torch.compile drops it.

    Returns:
        radiance [C,H,W,D]; transmittance T_N [C,H,W]; visibility [C,N] = Σ_pixels T_i α_i, or
        [0,N] when not asked for (no gradient); hits int16 [P], which of the sixteen 4x4 blocks of
        a tile each pair changed (bit 4·row + column), for the backward pass. (The operator itself
        returns one more, last int32 [C,H,W]: how far down its tile's list each pixel got.)
        Gradients flow to means2d, conics, peaks, emission and backgrounds.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected, or there are
            more than four channels with_absgrad.

    Source: Kerbl et al. 2023, "3D Gaussian Splatting"; the bound by opacity and exact tile test
        follow Hanson et al. 2025, "Speedy-Splat"; absolute gradients Ye et al. 2024, "AbsGS".

    Example: see `splatrender.operators.render.rasterize`, which calls the four stages in order.
    """
    require_tensors(
        means2d=means2d, conics=conics, peaks=peaks, emission=emission, backgrounds=backgrounds,
        tile_offsets=tile_offsets, splat_ids=splat_ids, slots=slots, splat_offsets=splat_offsets,
    )  # fmt: skip
    radiance, transmittance, visibility, hits, _ = torch.ops.splatrender.blend(
        means2d, conics, peaks, emission, backgrounds, tile_offsets, splat_ids, slots,
        splat_offsets, width, height, response, with_visibility, with_absgrad,
    )  # fmt: skip
    return radiance, transmittance, visibility, hits


@torch.library.register_fake("splatrender::blend")
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


@torch.library.register_fake("splatrender::blend_backward")
def _blend_backward_fake(
    means2d: Tensor, conics: Tensor, peaks: Tensor, emission: Tensor, *args: Any
) -> tuple[Tensor, ...]:
    absgrad = means2d if args[-1] else means2d[:0]
    return tuple(x.new_empty(x.shape) for x in (means2d, conics, peaks, emission, absgrad))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, transmittance, visibility, hits, last = output
    ctx.save_for_backward(*inputs[:9], transmittance, hits, last)
    ctx.options = (*inputs[9:12], inputs[13])
    ctx.means2d = inputs[0] if inputs[13] else None  # the caller's own: it gets an attribute
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
        *saved, grad_radiance.contiguous(), grad_transmittance.contiguous(), *ctx.options
    )
    if ctx.means2d is not None:
        before = getattr(ctx.means2d, "absgrad", None)
        absgrad = absgrad.detach()
        ctx.means2d.absgrad = absgrad if before is None else before + absgrad
    grad_backgrounds = None
    if ctx.needs_input_grad[4]:
        # torch's sum adds in a tree: einsum's matrix product loses a digit on some processors.
        grad_backgrounds = (grad_radiance * transmittance[..., None]).sum(dim=(1, 2))
    return (*out, grad_backgrounds, *(None,) * 9)


register_derivative("blend", _backward, _setup_context)
refuse_second_derivative("blend")
