"""PSNR and SSIM: closed forms, masks, dtypes, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.backends import require_extension
from torch import Tensor

from splatrender.errors import InputError
from splatrender.metrics import psnr, ssim
from splatrender.reference.loss import similarity


@pytest.fixture(autouse=True)
def extension() -> None:
    require_extension()


def pair(height: int = 20, width: int = 24) -> tuple[Tensor, Tensor]:
    target = torch.rand(height, width, 3)
    return (target + 0.1 * torch.randn(height, width, 3)).clamp(0, 1), target


def test_psnr_of_an_even_difference() -> None:
    black = torch.zeros(5, 4, 3)
    assert psnr(black + 0.1, black) == pytest.approx(20, abs=1e-5)
    assert psnr(torch.ones(5, 4, 3), black) == pytest.approx(0)
    assert psnr(black.byte() + 51, black.byte()) == pytest.approx(-20 * math.log10(0.2))


def test_equal_images() -> None:
    image, _ = pair()
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == 1


def test_psnr_takes_any_list_of_pixels() -> None:
    image, target = pair()
    assert psnr(image.reshape(-1, 3), target.reshape(-1, 3)) == pytest.approx(psnr(image, target))


def test_psnr_counts_the_pixels_of_the_mask() -> None:
    image, target = pair()
    mask = torch.rand(20, 24) > 0.5
    expected = psnr(image[mask], target[mask])
    assert psnr(image, target, mask) == pytest.approx(expected)
    assert psnr(image, target, mask.byte()) == pytest.approx(expected)


def test_ssim_is_the_mean_similarity() -> None:
    image, target = pair()
    expected = float(similarity(image.double(), target.double()).mean())
    assert ssim(image, target) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_ssim_is_symmetric_and_falls_with_noise() -> None:
    image, target = pair()
    assert ssim(image, target) == pytest.approx(ssim(target, image), abs=1e-12)
    assert ssim(target + 0.3 * torch.randn_like(target), target) < ssim(image, target)


def test_ssim_of_a_rectangle() -> None:
    image, target = pair()
    mask = torch.zeros(20, 24, dtype=torch.uint8)
    mask[3:17, 5:20] = 1
    assert ssim(image, target, mask) == pytest.approx(ssim(image[3:17, 5:20], target[3:17, 5:20]))
    assert ssim(image, target, mask.bool()) == ssim(image, target, mask)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bytes_and_floats_agree(metric: Any) -> None:
    image = torch.randint(0, 256, (12, 13, 3), dtype=torch.uint8)
    target = torch.randint(0, 256, (12, 13, 3), dtype=torch.uint8)
    expected = metric(image.double() / 255, target.double() / 255)
    assert metric(image, target) == pytest.approx(expected, abs=1e-12)
    assert metric(image.float() / 255, target) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_are_clamped(metric: Any) -> None:
    image, target = pair()
    wild = 3 * image - 1
    assert metric(wild, target) == pytest.approx(metric(wild.clamp(0, 1), target), abs=1e-12)


def test_gradients_are_not_kept() -> None:
    image, target = pair()
    assert isinstance(psnr(image.requires_grad_(), target), float)
    assert isinstance(ssim(image, target), float)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("image", "target", "mask", "message"),
    [
        (torch.zeros(4, 5), None, None, r"image: expected shape \[..., 3\], got \[4, 5\]"),
        (torch.zeros(0, 5, 3), None, None, r"image: expected shape .*, got \[0, 5, 3\]"),
        (torch.zeros(4, 5, 3).int(), None, None, "image: expected uint8 or a floating dtype"),
        (None, torch.zeros(4, 5, 3).long(), None, "target: expected uint8 or a floating dtype"),
        (None, torch.zeros(4, 6, 3), None, r"target: expected the shape .*, got \[4, 6, 3\]"),
        (None, None, torch.ones(5, 4), r"mask: expected shape \[4, 5\], got \[5, 4\]"),
        (None, None, torch.zeros(4, 5), "mask: expected a pixel that is not 0, got none"),
    ],
)
def test_refuses(
    metric: Any, image: Tensor | None, target: Tensor | None, mask: Tensor | None, message: str
) -> None:
    good = torch.zeros(4, 5, 3)
    image = good if image is None else image
    target = (good if image.shape == good.shape else image) if target is None else target
    with pytest.raises(InputError, match=message):
        metric(image, target, mask)


def test_ssim_needs_rows_and_columns() -> None:
    with pytest.raises(InputError, match=r"image: expected shape \[H, W, 3\], got \[7, 3\]"):
        ssim(torch.zeros(7, 3), torch.zeros(7, 3))
