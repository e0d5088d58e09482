"""Images for people: photos and renderings, depth in colours, panels side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write

SUFFIXES = (".png", ".jpg", ".jpeg")
CAPTION_HEIGHT = 18  # px: a line of Pillow's default font with a margin

# A rainbow from dark blue over green to dark red whose brightness rises and falls smoothly, so that
# equal steps of value look about equal. RGB at evenly spaced values.
RAINBOW = (
    (48, 18, 59),
    (69, 91, 205),
    (62, 155, 254),
    (24, 214, 203),
    (70, 247, 131),
    (162, 252, 60),
    (225, 220, 55),
    (253, 165, 49),
    (239, 90, 17),
    (196, 37, 3),
    (122, 4, 2),
)
# From black over red to pale yellow: black where there is no error.
HEAT = ((0, 0, 0), (87, 15, 109), (187, 55, 84), (249, 142, 8), (252, 255, 164))


def to_uint8(image: Tensor) -> Tensor:
    """Return pixels as bytes: round(255 clamp(x, 0, 1)); bytes stay as they are.

    Args:
        image: [..., 3] uint8, or floating point with white at 1.

    Returns:
        uint8 of the same shape, on the CPU, outside autograd; NaN becomes 0.
    """
    image = image.detach()
    if image.dtype != torch.uint8:  # rounded on its device: bytes travel four times as fast
        image = image.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return image.cpu()


def write_image(path: str | os.PathLike[str], image: Tensor, quality: int = 95) -> None:
    """Write a PNG or JPEG file, by the suffix of its name, atomically.

    Args:
        path: file to write: .png, .jpg or .jpeg.
        image: [H, W, 3] uint8, or floating point with white at 1.
        quality: quality of a JPEG, 1 to 100.

    Raises:
        InputError: the suffix or the shape is another one, or the file cannot be made.

    Example:
        >>> write_image("grey.png", torch.full((48, 64, 3), 0.5))  # doctest: +SKIP
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: expected a name ending in {', '.join(SUFFIXES)}, got {path.suffix!r}"
        )
    if image.dim() != 3 or image.shape[2] != 3:
        raise InputError(f"image: expected shape (H, W, 3), got {tuple(image.shape)}")
    options: dict[str, Any] = {"compress_level": 3} if suffix == ".png" else {"quality": quality}
    pixels = to_uint8(image).numpy()
    with atomic_write(path) as temporary:
        iio.imwrite(
            temporary,
            pixels,
            plugin="pillow",
            extension=suffix,
            mode="RGB",
            is_batch=False,
            **options,
        )


def colormap(values: Tensor, stops: Sequence[tuple[int, int, int]] = RAINBOW) -> Tensor:
    """Return colours for numbers in [0, 1], interpolated between evenly spaced stops.

    Args:
        values: [...] floating point, clamped to [0, 1]; NaN counts as 0.
        stops: RGB bytes from 0 to 1, at least two.

    Returns:
        [..., 3] uint8.

    Example:
        >>> colormap(torch.tensor([0.0, 1.0])).tolist()
        [[48, 18, 59], [122, 4, 2]]
    """
    table = torch.tensor(stops, dtype=torch.float32)
    place = values.detach().cpu().float().nan_to_num(0.0).clamp(0, 1) * (len(table) - 1)
    low = place.long().clamp(max=len(table) - 2)
    colors = torch.lerp(table[low], table[low + 1], (place - low)[..., None])
    return colors.round().to(torch.uint8)


def depth_range(depth: Tensor, alpha: Tensor | None = None) -> tuple[float, float]:
    """Return near and far of a depth map: its 2nd and 98th percentile over visible splats.

    Args:
        depth: [H, W] camera z, in scene units; only finite values > 0 count.
        alpha: [H, W] opacity of the rendering; where it is below 1/2, the depth does not count.

    Returns:
        near < far; (0, 1) when no splat is visible.
    """
    visible = depth.detach()[_visible(depth, alpha)].float().cpu()
    if len(visible) == 0:
        return 0.0, 1.0
    near, far = np.percentile(visible.numpy(), (2, 98))
    return float(near), float(max(far, near * (1 + 1e-3)))


def depth_image(
    depth: Tensor, alpha: Tensor | None = None, limits: tuple[float, float] | None = None
) -> Tensor:
    """Return depth in colours, evenly in 1/depth: near is red, far is blue, empty pixels are black.

    Args:
        depth: [H, W] camera z, in scene units.
        alpha: [H, W] opacity of the rendering; pixels below 1/2 are empty.
        limits: near and far, 0 < near < far; by default those of `depth_range`.

    Returns:
        [H, W, 3] uint8.
    """
    near, far = limits or depth_range(depth, alpha)
    near = max(near, 1e-6 * far)
    visible = _visible(depth, alpha)
    value = (1 / depth.clamp(min=near) - 1 / far) / (1 / near - 1 / far)
    return torch.where(visible[..., None].cpu(), colormap(value), torch.zeros(3, dtype=torch.uint8))


def error_image(photo: Tensor, rendering: Tensor, worst: float = 0.25) -> Tensor:
    """Return the mean absolute difference over the channels in colours, black for none.

    Args:
        photo, rendering: [H, W, 3], uint8 or floating point with white at 1.
        worst: difference that has the brightest colour.

    Returns:
        [H, W, 3] uint8.
    """
    difference = (to_uint8(photo).float() - to_uint8(rendering).float()).abs().mean(dim=-1)
    return colormap(difference / (255 * worst), HEAT)


def panel(images: Sequence[Tensor], captions: Sequence[str]) -> Tensor:
    """Arrange images side by side, each with a caption above it.

    Args:
        images: [H_i, W_i, 3] each, uint8 or floating point with white at 1.
        captions: one line for each image; cut off where the image ends.

    Returns:
        [max H + caption, sum W + gaps, 3] uint8.

    Raises:
        InputError: there are no images, or not as many captions.
    """
    if not images or len(images) != len(captions):
        raise InputError(
            f"panel: expected images with a caption each, got {len(images)} images "
            f"and {len(captions)} captions"
        )
    gap = 4
    height = CAPTION_HEIGHT + max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    canvas = Image.new("RGB", (width, height), (24, 24, 24))
    font = ImageFont.load_default()
    left = 0
    for image, caption in zip(images, captions, strict=True):
        line = Image.new("RGB", (image.shape[1], CAPTION_HEIGHT), (24, 24, 24))
        try:
            ImageDraw.Draw(line).text((4, 3), caption, fill=(235, 235, 235), font=font)
        except UnicodeEncodeError:  # the default font of a Pillow without FreeType
            known = caption.encode("latin-1", "replace").decode("latin-1")
            ImageDraw.Draw(line).text((4, 3), known, fill=(235, 235, 235), font=font)
        canvas.paste(line, (left, 0))
        canvas.paste(Image.fromarray(to_uint8(image).numpy()), (left, CAPTION_HEIGHT))
        left += image.shape[1] + gap
    return torch.from_numpy(np.array(canvas))


def comparison(photo: Tensor, rendering: Tensor, caption: str = "rendering") -> Tensor:
    """Arrange photo, rendering and their difference side by side.

    Args:
        photo, rendering: [H, W, 3], uint8 or floating point with white at 1.
        caption: text above the rendering, for instance its PSNR.

    Returns:
        [H + caption, 3 W + gaps, 3] uint8.
    """
    images = [photo, rendering, error_image(photo, rendering)]
    return panel(images, ["photo", caption, "difference (bright: 25 % or more)"])


def stack(images: Sequence[Tensor]) -> Tensor:
    """Arrange images below each other, filled up on the right with dark grey.

    Args:
        images: [H_i, W_i, 3] uint8 each, at least one.

    Returns:
        [sum H, max W, 3] uint8.
    """
    width = max(image.shape[1] for image in images)
    result = torch.full((sum(len(image) for image in images), width, 3), 24, dtype=torch.uint8)
    top = 0
    for image in images:
        result[top : top + len(image), : image.shape[1]] = image
        top += len(image)
    return result


def _visible(depth: Tensor, alpha: Tensor | None) -> Tensor:
    valid = depth.isfinite() & (depth > 0)
    return valid if alpha is None else valid & (alpha >= 0.5)
