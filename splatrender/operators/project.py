"""Stage 1: splats in the world to Gaussian footprints in the picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.operators.derivatives import refuse_second_derivative, register_derivative
from splatrender.operators.inputs import input_errors


@input_errors
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
    """Project every splat into every camera (elliptical weighted average).

    p = W mean + t,  M = W A,  J = the pinhole Jacobian at p,  S = J M Mᵀ Jᵀ + eps2d I;
    conic = S⁻¹. The peak is comp·opacity for response `gaussian`, and for `beer_lambert` the
    optical depth of the ray through the centre, comp·extinction·√(2π)·|p|/|M⁻¹p|; with
    `antialiased`, comp = √(det S₀/det S), S₀ = S without eps2d, else 1.

    Args:
        means: [N,3], scene units; float32 or float64, like all tensors here.
        quats: [N,4] wxyz, any norm > 0; with `scales` [N,3] > 0: A = R(q/|q|) diag(s).
        scales: see `quats`.
        factors: [N,3,3] A itself, instead of quats and scales; covariance A Aᵀ.
        amplitudes: [N] opacity in (0,1), or extinction [1/length] for beer_lambert.
        viewmats: [C,4,4] world-to-camera, OpenCV axes.
        intrinsics: [C,4] fx, fy, cx, cy [px].
        width, height: size of the picture [px].
        near, far: splats whose centre has z outside (near, far) are culled.
        eps2d: variance added to the footprint [px²]; 0.3 is the field's habit.
        antialiased: keep the integral of small footprints (Mip-Splatting's 2D filter).
        response: 0 gaussian, 1 beer_lambert.

    Returns:
        means2d [C,N,2] px; conics [C,N,3] xx, xy, yy [px⁻²]; depths [C,N] camera z;
        peaks [C,N]; extents [C,N,2] half-widths [px] of the rectangle outside of which the
        response is below 1/255, 0 for culled splats (whose other outputs are 0 too).
        Gradients flow to every input but not from `extents`.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected.

    Source: Zwicker et al. 2001, "EWA volume splatting"; Yu et al. 2024, "Mip-Splatting".

    Example:
        >>> one = torch.ones(1)
        >>> means2d, conics, *_ = project(
        ...     torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]]),
        ...     0.1 * torch.ones(1, 3), None, 0.5 * one, torch.eye(4)[None],
        ...     torch.tensor([[100.0, 100.0, 32.0, 24.0]]), 64, 48, 0.01, 100.0, 0.0, False, 0)
        >>> means2d[0, 0].tolist(), round(float(1 / conics[0, 0, 0]), 3)  # variance (100·0.1/2)²
        ([32.0, 24.0], 25.0)
    """
    require_tensors(
        {"quats": quats, "scales": scales, "factors": factors},
        means=means, amplitudes=amplitudes, viewmats=viewmats, intrinsics=intrinsics,
    )  # fmt: skip
    return torch.ops.splatrender.project(
        means, quats, scales, factors, amplitudes, viewmats, intrinsics,
        width, height, near, far, eps2d, antialiased, response,
    )  # fmt: skip


@torch.library.register_fake("splatrender::project")
def _project_fake(means: Tensor, *args: Any) -> tuple[Tensor, ...]:
    n, c = means.shape[0], args[4].shape[0]
    return tuple(means.new_empty(s) for s in ((c, n, 2), (c, n, 3), (c, n), (c, n), (c, n, 2)))


@torch.library.register_fake("splatrender::project_backward")
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
