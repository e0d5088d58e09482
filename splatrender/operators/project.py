"""Stage `project`: from splats in the world to Gaussian footprints in the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors, require_type
from splatrender.operators import old_forms
from splatrender.operators.derivatives import (
    refuse_second_derivative,
    register_derivative,
    register_fake,
)
from splatrender.operators.inputs import input_errors
from splatrender.operators.old_forms import accepts_old_form
from splatrender.operators.options import RESPONSES, response_number
from splatrender.operators.stages import Lens, Projected, SplatTensors

__all__ = ["RESPONSES", "project", "response_number"]


@accepts_old_form("viewmats", old_forms.project)
@input_errors
def project(splats: SplatTensors, lens: Lens) -> Projected:
    """Project every splat into every camera (elliptical weighted average).

    p = W mean + t,  M = W A,  J = the pinhole Jacobian at p,  S = J M Mᵀ Jᵀ + eps2d I;
    conic = S⁻¹. The peak is comp·opacity for response `gaussian`, and for `beer_lambert` the
    optical depth of the ray through the centre, comp·extinction·√(2π)·|p|/|M⁻¹p|; with
    `antialiased`, comp = √(det S₀/det S), S₀ = S without eps2d, else 1.

    Args:
        splats: N splats; float32 or float64.
        lens: C cameras and their optics, of the same dtype.

    Returns:
        Footprints, see `Projected`. Gradients flow to every tensor but not from `extents`.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected.

    Source: Zwicker et al. 2001, "EWA volume splatting"; Yu et al. 2024, "Mip-Splatting".

    Example:
        >>> splats = SplatTensors(
        ...     torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([0.5]),
        ...     torch.tensor([[1.0, 0, 0, 0]]), 0.1 * torch.ones(1, 3))
        >>> lens = Lens(torch.eye(4)[None], torch.tensor([[100.0, 100, 32, 24]]), 64, 48, eps2d=0.0)
        >>> out = project(splats, lens)
        >>> variance = 1 / out.conics[0, 0, 0]  # (100·0.1/2)²
        >>> out.means2d[0, 0].tolist(), round(float(variance), 3)
        ([32.0, 24.0], 25.0)
    """
    s, lens = require_type("splats", splats, SplatTensors), require_type("lens", lens, Lens)
    require_tensors(
        {"quats": s.quats, "scales": s.scales, "factors": s.factors},
        means=s.means,
        amplitudes=s.amplitudes,
        viewmats=lens.viewmats,
        intrinsics=lens.intrinsics,
    )
    return Projected(*torch.ops.splatrender.project(*s.arguments, *lens.arguments))


@register_fake("project")
def _project_fake(means: Tensor, *args: Any) -> tuple[Tensor, ...]:
    n, c = means.shape[0], args[4].shape[0]
    return tuple(means.new_empty(s) for s in ((c, n, 2), (c, n, 3), (c, n), (c, n), (c, n, 2)))


@register_fake("project_backward")
def _project_backward_fake(means: Tensor, *args: Any) -> tuple[Tensor, ...]:
    by_factors = args[2] is not None
    n, c = means.shape[0], args[4].shape[0]
    shape_rows, factor_rows = (0, n) if by_factors else (n, 0)
    shapes = (
        (n, 3),
        (shape_rows, 4),
        (shape_rows, 3),
        (factor_rows, 3, 3),
        (n,),
        (c, 4, 4),
        (c, 4),
    )
    return tuple(means.new_empty(s) for s in shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:7], output[4])
    ctx.options = inputs[7:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[4])


def _backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    *tensors, extents = ctx.saved_tensors
    n, c = tensors[0].shape[0], tensors[5].shape[0]
    shapes = ((c, n, 2), (c, n, 3), (c, n), (c, n))
    flowing = [
        extents.new_zeros(shape) if grad is None else grad.contiguous()
        for grad, shape in zip(grads[:4], shapes, strict=True)
    ]
    out = torch.ops.splatrender.project_backward(*tensors, extents, *flowing, *ctx.options)
    out = [None if tensor is None else grad for tensor, grad in zip(tensors, out, strict=True)]
    return (*out, *(None,) * len(ctx.options))


register_derivative("project", _backward, _setup_context)
refuse_second_derivative("project")
