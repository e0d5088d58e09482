"""Stage `shade`: from spherical harmonics to the colour of each splat in each camera."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.operators.derivatives import (
    refuse_second_derivative,
    register_derivative,
    register_fake,
)
from splatrender.operators.inputs import input_errors


@input_errors
def shade(means: Tensor, sh: Tensor, viewmats: Tensor, extents: Tensor, degree: int) -> Tensor:
    """Evaluate the emission of every splat towards each camera.

    emission = max(0, ½ + Σ_k Y_k(ω) sh_k),  ω = unit(mean - camera centre).

    Args:
        means: [N,3], scene units; float32 or float64, like all tensors here.
        sh: [N,K,3] coefficients, (degree+1)² <= K <= 16; basis and signs of 3DGS files.
        viewmats: [C,4,4] world-to-camera.
        extents: [C,N,2] from `project`; rows with 0 (culled) give 0.
        degree: 0 to 3; coefficients of higher degrees are ignored and get zero gradients.

    Returns:
        [C,N,3]. Gradients flow to sh, means and viewmats.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected.

    Example:
        >>> sh = torch.zeros(1, 1, 3) + 0.25 / 0.28209479177387814
        >>> shade(torch.ones(1, 3), sh, torch.eye(4)[None], torch.ones(1, 1, 2), 0).tolist()
        [[[0.75, 0.75, 0.75]]]
    """
    require_tensors(means=means, sh=sh, viewmats=viewmats, extents=extents)
    emission: Tensor = torch.ops.splatrender.shade(means, sh, viewmats, extents, degree)
    return emission


@register_fake("shade")
def _shade_fake(
    means: Tensor, sh: Tensor, viewmats: Tensor, extents: Tensor, degree: int
) -> Tensor:
    return means.new_empty((viewmats.shape[0], means.shape[0], 3))


@register_fake("shade_backward")
def _shade_backward_fake(
    means: Tensor, sh: Tensor, viewmats: Tensor, *args: Any
) -> tuple[Tensor, ...]:
    return tuple(means.new_empty(x.shape) for x in (means, sh, viewmats))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4], output)
    ctx.degree = inputs[4]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    out = torch.ops.splatrender.shade_backward(*ctx.saved_tensors, grad.contiguous(), ctx.degree)
    return (*out, None, None)


register_derivative("shade", _backward, _setup_context)
refuse_second_derivative("shade")
