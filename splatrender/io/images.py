"""Pictures to look at: photos and renderings, depth in colours, panels side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
CAPTION_HEIGHT = 18  # px: a line of Pillow's default font with a little air

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
# From black over red to pale yellow: nothing to see where there is no error.
HEAT = ((0, 0, 0), (87, 15, 109), (187, 55, 84), (249, 142, 8), (252, 255, 164))


def to_uint8(picture: Tensor) -> Tensor:
    """Pixels as bytes: round(255 clamp(x, 0, 1)); bytes stay as they are.

    Args:
        picture: [..., 3] uint8, or floating point with white at 1.

    Returns:
        uint8 of the same shape, on the CPU, outside autograd; NaN becomes 0.
    """
    picture = picture.detach()
    if picture.dtype != torch.uint8:  # rounded where it is: bytes travel four times as fast
        picture = picture.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return picture.cpu()


def write_image(path: str | os.PathLike[str], picture: Tensor, quality: int = 95) -> None:
    """Write a PNG or JPEG file, by the suffix of its name, atomically.

    Args:
        path: file to write: .png, .jpg or .jpeg.
        picture: [H, W, 3] uint8, or floating point with white at 1.
        quality: of JPEG, 1 to 100.

    Raises:
        InputError: the suffix or the shape is another one, or the file cannot be made.

    Example:
        >>> write_image("grey.png", torch.full((48, 64, 3), 0.5))  # doctest: +SKIP
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path}: expected a name ending in {', '.join(FORMATS)}, got {path.suffix!r}"
        )
    if picture.dim() != 3 or picture.shape[2] != 3:
        raise InputError(f"picture: expected shape (H, W, 3), got {tuple(picture.shape)}")
    options: dict[str, int] = {"quality": quality} if kind == "JPEG" else {"compress_level": 3}
    with atomic_write(path) as temporary:
        Image.fromarray(to_uint8(picture).numpy()).save(temporary, format=kind, **options)


def colormap(values: Tensor, stops: Sequence[tuple[int, int, int]] = RAINBOW) -> Tensor:
    """Colours for numbers in [0, 1], interpolated between evenly spaced stops.

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
    """Near and far of a depth map: its 2nd and 98th percentile where something is seen.

    Args:
        depth: [H, W] camera z, in scene units; what is not finite or not positive does not count.
        alpha: [H, W] opacity of the rendering; where it is below 1/2, depth does not count.

    Returns:
        near < far; (0, 1) when nothing is seen.
    """
    seen = depth.detach()[_seen(depth, alpha)].float().cpu()
    if len(seen) == 0:
        return 0.0, 1.0
    near, far = np.percentile(seen.numpy(), (2, 98))
    return float(near), float(max(far, near * (1 + 1e-3)))


def depth_picture(
    depth: Tensor, alpha: Tensor | None = None, limits: tuple[float, float] | None = None
) -> Tensor:
    """Depth in colours, near in red and far in blue, evenly in 1/depth; black where nothing is.

    Args:
        depth: [H, W] camera z, in scene units.
        alpha: [H, W] opacity of the rendering, to tell where nothing is.
        limits: near and far, 0 < near < far; by default those of `depth_range`.

    Returns:
        [H, W, 3] uint8.
    """
    near, far = limits or depth_range(depth, alpha)
    near = max(near, 1e-6 * far)
    seen = _seen(depth, alpha)
    value = (1 / depth.clamp(min=near) - 1 / far) / (1 / near - 1 / far)
    return torch.where(seen[..., None].cpu(), colormap(value), torch.zeros(3, dtype=torch.uint8))


def error_picture(photo: Tensor, rendering: Tensor, worst: float = 0.25) -> Tensor:
    """Mean absolute difference over the channels in colours, black for none.

    Args:
        photo, rendering: [H, W, 3], uint8 or floating point with white at 1.
        worst: the difference shown in the brightest colour.

    Returns:
        [H, W, 3] uint8.
    """
    difference = (to_uint8(photo).float() - to_uint8(rendering).float()).abs().mean(dim=-1)
    return colormap(difference / (255 * worst), HEAT)


def panel(pictures: Sequence[Tensor], captions: Sequence[str]) -> Tensor:
    """Pictures side by side, each with a caption above it.

    Args:
        pictures: [H_i, W_i, 3] each, uint8 or floating point with white at 1.
        captions: one line for each picture; cut off where the picture ends.

    Returns:
        [max H + caption, sum W + gaps, 3] uint8.

    Raises:
        InputError: there are no pictures, or not as many captions.
    """
    if not pictures or len(pictures) != len(captions):
        raise InputError(
            f"panel: expected pictures with a caption each, got {len(pictures)} pictures "
            f"and {len(captions)} captions"
        )
    gap = 4
    height = CAPTION_HEIGHT + max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), (24, 24, 24))
    font = ImageFont.load_default()
    left = 0
    for picture, caption in zip(pictures, captions, strict=True):
        line = Image.new("RGB", (picture.shape[1], CAPTION_HEIGHT), (24, 24, 24))
        try:
            ImageDraw.Draw(line).text((4, 3), caption, fill=(235, 235, 235), font=font)
        except UnicodeEncodeError:  # the default font of a Pillow without FreeType
            known = caption.encode("latin-1", "replace").decode("latin-1")
            ImageDraw.Draw(line).text((4, 3), known, fill=(235, 235, 235), font=font)
        canvas.paste(line, (left, 0))
        canvas.paste(Image.fromarray(to_uint8(picture).numpy()), (left, CAPTION_HEIGHT))
        left += picture.shape[1] + gap
    return torch.from_numpy(np.array(canvas))


def comparison(photo: Tensor, rendering: Tensor, caption: str = "rendering") -> Tensor:
    """Photo, rendering and their difference side by side.

    Args:
        photo, rendering: [H, W, 3], uint8 or floating point with white at 1.
        caption: what to write above the rendering, for instance its PSNR.

    Returns:
        [H + caption, 3 W + gaps, 3] uint8.
    """
    pictures = [photo, rendering, error_picture(photo, rendering)]
    return panel(pictures, ["photo", caption, "difference (bright: 25 % or more)"])


def stack(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures below each other, filled up on the right with dark grey.

    Args:
        pictures: [H_i, W_i, 3] uint8 each, at least one.

    Returns:
        [sum H, max W, 3] uint8.
    """
    width = max(picture.shape[1] for picture in pictures)
    result = torch.full((sum(len(p) for p in pictures), width, 3), 24, dtype=torch.uint8)
    top = 0
    for picture in pictures:
        result[top : top + len(picture), : picture.shape[1]] = picture
        top += len(picture)
    return result


def _seen(depth: Tensor, alpha: Tensor | None) -> Tensor:
    seen = depth.isfinite() & (depth > 0)
    return seen if alpha is None else seen & (alpha >= 0.5)
