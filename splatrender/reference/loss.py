"""The photometric loss in pure torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from splatrender.interfaces import PhotometricLoss

RADIUS = 5  # a window of 11x11 pixels
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def photometric_loss(
    radiance: Tensor, photo: Tensor, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> PhotometricLoss:
    """Compare a rendered image with a photo.

    loss = (1-λ) mean |radiance - photo| + λ (1 - mean SSIM). With a mask both images are 0 where
    it is 0, and the means run over the pixels that it keeps; loss 0 if it keeps none.

    Args:
        radiance: [H,W,3], any floating dtype.
        photo: [H,W,3], uint8 (0..255) or floating (0..1).
        mask: [H,W], 0 = leave the pixel out.
        ssim_weight: λ, 0 to 1.

    Returns:
        Loss, mean absolute difference and mean SSIM; only the loss carries a gradient.

    Example:
        >>> photometric_loss(torch.full((8, 8, 3), 0.75), torch.ones(8, 8, 3), None, 0.0).loss
        tensor(0.2500)
    """
    scale = 1 if photo.is_floating_point() else 255
    target = photo.detach().to(radiance.dtype) / scale
    keep = torch.ones_like(radiance[..., :1], dtype=torch.bool)
    if mask is not None:
        keep = (mask != 0)[..., None]
    keep = keep.expand_as(radiance)
    image, target = torch.where(keep, radiance, 0), torch.where(keep, target, 0)
    count = keep.sum().clamp(min=1)
    l1 = (image - target).abs().sum() / count
    unlike = torch.where(keep, 1 - similarity(image, target), 0).sum() / count
    loss = (1 - ssim_weight) * l1 + ssim_weight * unlike
    return PhotometricLoss(loss, l1.detach(), 1 - unlike.detach())


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """Return the structural similarity of the windows around each pixel, per channel.

    S = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)).

    Args:
        x, y: [H,W,3] of one floating dtype, 0..1; 0 outside.

    Returns:
        [H,W,3], -1 to 1.

    Source:
        Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    mean_x, mean_y = _windows(x), _windows(y)
    var_x, var_y = _windows(x * x) - mean_x.square(), _windows(y * y) - mean_y.square()
    covariance = _windows(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return luminance * (2 * covariance + C2) / (var_x + var_y + C2)


def _windows(image: Tensor) -> Tensor:
    """Return Gaussian means of the windows around each pixel, [H,W,3]."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    planes = image.permute(2, 0, 1)[:, None]
    planes = functional.conv2d(planes, weights[None, None, :, None], padding=(RADIUS, 0))
    planes = functional.conv2d(planes, weights[None, None, None, :], padding=(0, RADIUS))
    return planes[:, 0].permute(1, 2, 0)
