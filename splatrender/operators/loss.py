"""The photometric loss of an image against a photo, with its gradient in one sweep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.interfaces import PhotometricLoss
from splatrender.operators.derivatives import first_derivative, register_derivative, register_fake
from splatrender.operators.inputs import input_errors


def photometric_loss(
    radiance: Tensor, photo: Tensor, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> PhotometricLoss:
    """Compare a rendered image with a photo.

    loss = (1-λ) mean |radiance - photo| + λ (1 - mean SSIM), λ = `ssim_weight`. SSIM is taken per
    channel over Gaussian windows of 11x11 pixels (sigma 1.5), 0 outside the image, C1 = 0.01²,
    C2 = 0.03².

    With a mask both images are 0 where it is 0, and the means run over the pixels that it
    keeps: pixels left out change nothing, whatever they hold, and get no gradient. A mask that
    keeps nothing gives loss 0.

    Args:
        radiance: [H,W,3], float32 or float64, about 0..1.
        photo: [H,W,3], uint8 (0..255) or the dtype of radiance (0..1); gets no gradient.
        mask: [H,W], uint8 or bool, 0 = leave the pixel out.
        ssim_weight: λ, 0 to 1.

    Returns:
        Loss and its two parts. Gradients flow from the loss to radiance.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural
        similarity"; the weights follow Kerbl et al. 2023, "3D Gaussian Splatting".

    Example:
        >>> photo = torch.full((8, 8, 3), 255, dtype=torch.uint8)
        >>> photometric_loss(torch.full((8, 8, 3), 0.75), photo, ssim_weight=0.0).loss
        tensor(0.2500)
    """
    require_tensors({"mask": mask}, radiance=radiance, photo=photo)
    with_grad = torch.is_grad_enabled() and radiance.requires_grad
    loss, l1, ssim, _ = _call(radiance, photo, mask, ssim_weight, with_grad)
    return PhotometricLoss(loss, l1, ssim)


def photometric_gradient(
    radiance: Tensor, photo: Tensor, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Return `photometric_loss` and its gradient, without autograd, for `radiance.backward(grad)`.

    Args:
        radiance, photo, mask, ssim_weight: see `photometric_loss`.

    Returns:
        The loss, a scalar, and its gradient to the radiance [H,W,3], both detached.

    Example:
        >>> photo = torch.zeros(8, 8, 3, dtype=torch.uint8)
        >>> loss, grad = photometric_gradient(torch.full((8, 8, 3), 0.5), photo, ssim_weight=0.0)
        >>> float(loss), round(float(grad.sum()), 4)
        (0.5, 1.0)
    """
    require_tensors({"mask": mask}, radiance=radiance, photo=photo)
    with torch.no_grad():
        loss, _, _, grad = _call(radiance.detach(), photo, mask, ssim_weight, True)
    return loss, grad


@input_errors
def _call(
    radiance: Tensor, photo: Tensor, mask: Tensor | None, ssim_weight: float, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kept = mask.to(torch.uint8) if mask is not None and mask.dtype == torch.bool else mask
    results: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.splatrender.photometric_loss(
        radiance, photo.detach(), kept, ssim_weight, with_grad
    )
    return results


@register_fake("photometric_loss")
def _loss_fake(
    radiance: Tensor, photo: Tensor, mask: Tensor | None, ssim_weight: float, with_grad: bool
) -> tuple[Tensor, ...]:
    numbers = tuple(radiance.new_empty(()) for _ in range(3))
    return (*numbers, radiance.new_empty(radiance.shape if with_grad else (0,)))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, l1, ssim, grad = output
    ctx.with_grad = inputs[4]
    ctx.radiance = inputs[0]  # not saved: the gradient is there, and it may change in place
    ctx.save_for_backward(grad)
    ctx.mark_non_differentiable(l1, ssim, grad)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if not ctx.with_grad:
        raise RuntimeError("photometric_loss: with_grad: expected True for a gradient, got False")
    if grad_loss is None:
        return (None,) * 5
    (grad,) = ctx.saved_tensors
    return (first_derivative("photometric_loss", grad * grad_loss, ctx.radiance), *(None,) * 4)


register_derivative("photometric_loss", _backward, _setup_context)
