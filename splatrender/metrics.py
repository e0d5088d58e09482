"""Similarity of an image to a photo: PSNR and SSIM."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.errors import InputError
from splatrender.model.view import View
from splatrender.operators.loss import photometric_loss


@dataclass(frozen=True)
class ViewScore:
    """Scores of one view: PSNR [dB] and SSIM."""

    name: str
    psnr: float
    ssim: float


def score(image: Tensor, view: View) -> ViewScore:
    """Compare an image with the photo of a view, where the view's mask keeps it.

    Args:
        image: uint8 [H, W, 3].
        view: the photo and its mask.

    Returns:
        The scores of the 8-bit image, which can be computed from its file.
    """
    photo, mask = view.photo, view.mask
    return ViewScore(view.name, psnr(image, photo, mask), ssim(image, photo, mask))


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Return the peak signal-to-noise ratio, -10 log10 mean (image - target)².

    Args:
        image, target: [...,3] of one shape; uint8 (0..255) or floating, clamped to 0..1.
        mask: [...], uint8 or bool; pixels where it is 0 are ignored.

    Returns:
        dB; infinite for equal images.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the mask ignores all pixels.

    Example:
        >>> round(psnr(torch.full((4, 4, 3), 0.6), torch.full((4, 4, 3), 0.5)), 3)
        20.0
    """
    image, target = _checked(image, target, mask)
    squares = (image - target).square()
    if mask is not None:
        squares = squares[mask != 0]
    error = float(squares.mean())
    return -10 * math.log10(error) if error else math.inf


def ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Return the mean structural similarity over windows of 11x11 pixels, see `photometric_loss`.

    Args:
        image, target: [H,W,3] of one shape; uint8 (0..255) or floating, clamped to 0..1.
        mask: [H,W], uint8 or bool; where it is 0 both images are 0 and pixels are ignored.

    Returns:
        -1 to 1; 1 for equal images.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the mask ignores all pixels.

    Source:
        Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.

    Example:
        >>> ssim(torch.ones(4, 4, 3), torch.full((4, 4, 3), 255, dtype=torch.uint8))
        1.0
    """
    image, target = _checked(image, target, mask)
    if image.ndim != 3:
        raise InputError(f"image: expected shape [H, W, 3], got {list(image.shape)}")
    with torch.no_grad():
        return float(photometric_loss(image, target, mask, ssim_weight=1.0).ssim)


def _checked(image: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return both images as float64 in 0..1, checked."""
    require_tensors({"mask": mask}, image=image, target=target)
    if image.ndim < 1 or image.shape[-1] != 3 or not image.numel():
        raise InputError(f"image: expected shape [..., 3], got {list(image.shape)}")
    if target.shape != image.shape:
        raise InputError(
            f"target: expected the shape of image, {list(image.shape)}, got {list(target.shape)}"
        )
    if mask is not None and mask.shape != image.shape[:-1]:
        raise InputError(f"mask: expected shape {list(image.shape[:-1])}, got {list(mask.shape)}")
    if mask is not None and not bool((mask != 0).any()):
        raise InputError("mask: expected a pixel that is not 0, got none")
    return _unit("image", image), _unit("target", target)


def _unit(name: str, image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image.double() / 255
    if image.is_floating_point():
        return image.detach().double().clamp(0, 1)
    raise InputError(f"{name}: expected uint8 or a floating dtype, got {image.dtype}")
