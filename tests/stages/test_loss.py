"""The photometric loss: closed forms, masks, reference, gradients, refusals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.backends import EMULATED, Backend, there
from helpers.compare import (
    assert_gradcheck,
    assert_opcheck,
    assert_same_bits_for_any_threads,
    assert_stage_composes,
    assert_stage_equals_reference,
)
from helpers.emulation import in_place_of_cpu_kernels
from torch import Tensor
from torch.nn import functional

from splatrender.errors import InputError
from splatrender.interfaces import PhotometricLoss
from splatrender.operators import loss as operators_loss
from splatrender.reference import loss as reference_loss

SIZES = [(1, 1), (3, 700), (11, 11), (37, 4), (40, 53), (70, 1100)]


class Loss:
    """A backend's loss as a stage: a tuple of three tensors."""

    def __init__(self, function: Callable[..., PhotometricLoss]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        found = self.function(*args)
        return found.loss, found.l1, found.ssim

    def gradient(self, radiance: Tensor, *args: Any) -> Tensor:
        radiance = radiance.detach().clone().requires_grad_()
        self(radiance, *args)[0].backward()
        assert radiance.grad is not None
        return radiance.grad


@pytest.fixture
def loss(backend: Backend) -> Loss:
    return Loss(backend.photometric_loss)


@pytest.fixture
def loss_kernel(kernel: Backend) -> Loss:
    return Loss(kernel.photometric_loss)


def images(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return an image [H,W,3] float64, a uint8 photo that resembles it, and a mask of blobs."""
    make = torch.Generator().manual_seed(seed)
    photo = torch.randint(0, 256, (height, width, 3), generator=make, dtype=torch.uint8)
    noise = torch.rand(height, width, 3, generator=make, dtype=torch.float64)
    mask = (torch.rand(height, width, generator=make) > 0.3).to(torch.uint8)
    mask[: height // 3, : width // 2] = 0
    mask[height // 2] = 1
    return 0.7 * photo.double() / 255 + 0.35 * noise, photo, mask


# --- closed forms -------------------------------------------------------------------------------


def test_l1_alone(loss: Loss) -> None:
    radiance = torch.tensor([[[0.5, 0.25, 1.5]]], dtype=torch.float64)
    photo = torch.tensor([[[0, 255, 255]]], dtype=torch.uint8)
    value, l1, _ = loss(radiance, photo, None, 0.0)
    assert float(value) == float(l1) == pytest.approx((0.5 + 0.75 + 0.5) / 3)
    expected = torch.tensor([[[1.0, -1.0, 1.0]]], dtype=torch.float64) / 3
    torch.testing.assert_close(loss.gradient(radiance, photo, None, 0.0), expected)


def test_one_pixel(loss: Loss) -> None:
    # Only the middle of the window is in the image: every moment is its weight times x, x², ...
    weights = [math.exp(-k * k / 4.5) for k in range(-5, 6)]
    w = (weights[5] / sum(weights)) ** 2
    x = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.4, 0.2, 0.9], dtype=torch.float64)
    light = (2 * w * w * x * y + 1e-4) / (w * w * (x * x + y * y) + 1e-4)
    spread = w - w * w
    similarity = light * (2 * spread * x * y + 9e-4) / (spread * (x * x + y * y) + 9e-4)
    expected = 0.8 * (x - y).abs().mean() + 0.2 * (1 - similarity.mean())
    expected.backward()
    values = loss(x.detach()[None, None], y[None, None])
    torch.testing.assert_close(values[0], expected.detach())
    torch.testing.assert_close(values[2], similarity.mean().detach())
    gradient = loss.gradient(x.detach()[None, None], y[None, None])
    torch.testing.assert_close(gradient[0, 0], x.grad)


def test_similarity_follows_its_definition(loss: Loss) -> None:
    # Straight from the definition: a window of 121 weights around every pixel.
    image, photo, _ = images(14, 17)
    target = photo.double() / 255
    k = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(k[:, None] ** 2 + k[None] ** 2) / (2 * 1.5**2)).flatten()
    window = window / window.sum()

    def patches(x: Tensor) -> Tensor:
        return functional.unfold(x.permute(2, 0, 1)[:, None], 11, padding=5)  # [3,121,H*W]

    x, y = patches(image), patches(target)
    mx, my = (torch.einsum("cwp,w->cp", v, window) for v in (x, y))
    dx, dy = x - mx[:, None], y - my[:, None]
    vx, vy, cov = (
        torch.einsum("cwp,w->cp", v, window) for v in (dx.square(), dy.square(), dx * dy)
    )
    s = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    torch.testing.assert_close(loss(image, photo)[2], s.mean())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_equal_images(loss: Loss, dtype: torch.dtype) -> None:
    photo = images(20, 30)[1]
    image = photo.to(dtype) / 255
    value, l1, ssim = loss(image, photo)
    assert float(l1) == 0 and abs(float(value)) < 1e-6 and abs(1 - float(ssim)) < 1e-6
    assert float(loss.gradient(image, photo).abs().max()) < 1e-6


def test_kernel_is_exact_for_equal_images(loss_kernel: Loss) -> None:
    photo = images(20, 30)[1]
    image = photo.float() / 255
    assert [float(v) for v in loss_kernel(image, photo)] == [0, 0, 1]
    assert not bool(loss_kernel.gradient(image, photo).any())


def test_default_weight_is_that_of_3dgs(loss: Loss) -> None:
    image, photo, _ = images(12, 12)
    value, l1, ssim = loss(image, photo)
    torch.testing.assert_close(value, 0.8 * l1 + 0.2 * (1 - ssim))


def test_bright_flat_images_stay_finite(loss_kernel: Loss) -> None:
    # float32 variances of a flat image at 1000 are rounding alone, of either sign.
    image = torch.full((30, 30, 3), 1000.0) + 1e-3 * torch.rand(30, 30, 3)
    photo = torch.full((30, 30, 3), 255, dtype=torch.uint8)
    assert all(bool(torch.isfinite(v)) for v in loss_kernel(image, photo))
    assert bool(torch.isfinite(loss_kernel.gradient(image, photo)).all())


def test_nan_is_not_hidden(loss: Loss) -> None:
    image, photo, _ = images(20, 20)
    image[10, 10, 1] = math.nan
    assert math.isnan(float(loss(image, photo)[0]))


# --- masks --------------------------------------------------------------------------------------


def test_mask_of_ones_is_no_mask(loss: Loss) -> None:
    image, photo, mask = images(20, 30)
    ones = torch.ones_like(mask)
    for found, expected in zip(loss(image, photo, ones), loss(image, photo), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(loss.gradient(image, photo, ones), loss.gradient(image, photo))


def test_mask_of_zeros_gives_nothing(loss: Loss) -> None:
    image, photo, mask = images(20, 30)
    assert [float(v) for v in loss(image, photo, 0 * mask)] == [0, 0, 1]
    assert not bool(loss.gradient(image, photo, 0 * mask).any())


def test_masked_pixels_have_no_say(loss: Loss) -> None:
    image, photo, mask = images(30, 40)
    out = mask == 0
    expected, gradient = loss(image, photo, mask), loss.gradient(image, photo, mask)
    assert not bool(gradient[out].any()) and bool(gradient[~out].any(dim=1).all())
    image[out], photo[out] = math.nan, 77
    for found, value in zip(loss(image, photo, mask), expected, strict=True):
        assert torch.equal(found, value)
    assert torch.equal(loss.gradient(image, photo, mask), gradient)


def test_mask_of_a_rectangle_crops(loss: Loss) -> None:
    image, photo, mask = images(30, 40)
    mask.zero_()
    mask[4:21, 7:33] = 1
    whole, part = loss(image, photo, mask), loss(image[4:21, 7:33], photo[4:21, 7:33])
    for found, expected in zip(whole, part, strict=True):
        torch.testing.assert_close(found, expected)
    found = loss.gradient(image, photo, mask)[4:21, 7:33]
    torch.testing.assert_close(found, loss.gradient(image[4:21, 7:33], photo[4:21, 7:33]))


def test_any_number_but_0_keeps_a_pixel(loss: Loss) -> None:
    image, photo, mask = images(20, 30)
    expected = loss(image, photo, mask)
    for other in (255 * mask, mask.bool()):
        for found, value in zip(loss(image, photo, other), expected, strict=True):
            assert torch.equal(found, value)


# --- against the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_reference(
    kernel_in_any_order: Backend, size: tuple[int, int], masked: bool, dtype: torch.dtype
) -> None:
    image, photo, mask = images(*size)
    found, exact = (
        Loss(module.photometric_loss) for module in (kernel_in_any_order, reference_loss)
    )
    assert_stage_equals_reference(
        lambda *args: torch.stack(found(*args)),
        lambda *args: torch.stack(exact(*args)),
        [image, photo, mask if masked else None, 0.2],
        outputs={"values": 0},
        inputs={"radiance": 0},
        dtype=dtype,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_photo_of_floats(loss_kernel: Loss, dtype: torch.dtype) -> None:
    image, photo, mask = images(20, 30)
    args = (mask, 0.2)
    for found, expected in zip(
        loss_kernel(image.to(dtype), photo.to(dtype) / 255, *args),
        loss_kernel(image.to(dtype), photo, *args),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_any_strides(loss_kernel: Loss) -> None:
    image, photo, mask = images(20, 30)
    turned = (image.transpose(0, 1).contiguous(), photo.transpose(0, 1).contiguous(), mask.T)
    values = loss_kernel(turned[0].transpose(0, 1), turned[1].transpose(0, 1), turned[2].T)
    for found, expected in zip(values, loss_kernel(image, photo, mask), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_gradcheck(loss: Loss, masked: bool) -> None:
    image, photo, mask = images(7, 6)
    assert ((image - photo.double() / 255).abs() > 1e-4).all(), "the image meets the kink of |x|"
    assert_gradcheck(loss, [image, photo, mask if masked else None, 0.4], [0], [0])


def test_op_passes_opcheck(kernel: Backend) -> None:
    image, photo, mask = images(9, 8)
    radiance = image.clone().requires_grad_()
    assert_opcheck("photometric_loss", [radiance, photo, mask, 0.2, True], kernel.device)
    assert_opcheck("photometric_loss", [image.float(), photo, None, 0.2, False], kernel.device)


@pytest.mark.parametrize("size", [(3, 700), (90, 40), (130, 1100)], ids=str)
def test_same_bits_for_any_threads(
    cpu_kernel: Backend, size: tuple[int, int], restore_threads: None
) -> None:
    image, photo, mask = images(*size)
    args = [image.float(), photo, mask, 0.2]
    stage = Loss(cpu_kernel.photometric_loss)
    assert_same_bits_for_any_threads(stage, args, [0], [0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_same_bits_on_gpus_of_any_size(dtype: torch.dtype) -> None:
    """Check that rows per block depend on the number of multiprocessors, and no result does."""
    image, photo, mask = images(70, 150)
    stage, found = Loss(operators_loss.photometric_loss), []
    with in_place_of_cpu_kernels(EMULATED) as emulation:
        for multiprocessors in (1, 3, 132):
            emulation.set_multiprocessors(multiprocessors)
            args = (image.to(dtype), photo, mask, 0.2)
            found.append(torch.cat([torch.stack(stage(*args)), stage.gradient(*args).flatten()]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_composes_with_torch(kernel: Backend) -> None:
    image, photo, mask = images(12, 13)
    stage = Loss(inspect.unwrap(kernel.photometric_loss))
    args = [image.float(), photo, mask, 0.2]
    assert_stage_composes(stage, args, [0], [0], kernel.device)


# --- what carries gradients ---------------------------------------------------------------------


def test_only_the_loss_carries_a_gradient(loss: Loss) -> None:
    image, photo, _ = images(8, 8)
    value, l1, ssim = loss(image.requires_grad_(), photo)
    assert value.requires_grad and not l1.requires_grad and not ssim.requires_grad


def test_gradient_is_only_made_where_it_is_wanted(kernel: Backend) -> None:
    image, photo = (there(value, kernel.device) for value in images(8, 8)[:2])
    op = torch.ops.splatrender.photometric_loss
    assert op(image, photo, None, 0.2, False)[3].numel() == 0
    assert op(image, photo, None, 0.2, True)[3].shape == image.shape
    with pytest.raises(RuntimeError, match="with_grad: expected True for a gradient"):
        op(image.requires_grad_(), photo, None, 0.2, False)[0].backward()


def test_second_derivatives_are_refused(loss_kernel: Loss) -> None:
    image, photo, _ = images(8, 8)
    image.requires_grad_()
    outers: tuple[Callable[[Tensor], Tensor], ...] = (lambda value: value, torch.square)
    for outer in outers:
        value = outer(loss_kernel(image, photo)[0])
        (gradient,) = torch.autograd.grad(value, image, create_graph=True)
        with pytest.raises(NotImplementedError, match="photometric_loss is differentiated once"):
            gradient.sum().backward()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: torch.zeros(4, 5)}, r"radiance: expected shape \[H, W, 3\], got shape \[4, 5\]"),
        ({0: torch.zeros(4, 5, 3).int()}, "radiance: expected float32 or float64, got int32"),
        ({0: torch.zeros(0, 5, 3), 1: torch.zeros(0, 5, 3)}, "height: expected 1 to 65535"),
        ({1: torch.zeros(4, 6, 3)}, r"photo: expected shape \[H=4, W=5, 3\], got .*\[4, 6, 3\]"),
        ({1: torch.zeros(4, 5, 3).double()}, "photo: expected float32, got float64"),
        ({2: torch.zeros(4, 5)}, "mask: expected uint8, got float32"),
        ({2: torch.zeros(5, 4).byte()}, r"mask: expected shape \[H=4, W=5\]"),
        ({3: 1.5}, "ssim_weight: expected a number from 0 to 1, got 1.5"),
        ({3: math.nan}, "ssim_weight: expected a number from 0 to 1, got nan"),
    ],
)
def test_refuses(loss_kernel: Loss, changes: dict[int, Any], message: str) -> None:
    args: list[Any] = [torch.zeros(4, 5, 3), torch.zeros(4, 5, 3).byte(), None, 0.2]
    loss_kernel(*args)
    for position, value in changes.items():
        args[position] = value
    with pytest.raises(InputError, match="photometric_loss: " + message):
        loss_kernel(*args)


@pytest.mark.parametrize("position", [1, 2])
def test_refuses_another_device(kernel: Backend, position: int) -> None:
    args: list[Any] = [torch.zeros(4, 5, 3), torch.zeros(4, 5, 3).byte(), torch.ones(4, 5).byte()]
    args[position] = args[position].to("meta")
    name = ("radiance", "photo", "mask")[position]
    with pytest.raises(InputError, match=f"{name}: expected device .*, got device meta"):
        kernel.photometric_loss(*args)


def test_gradient_without_autograd_is_that_of_autograd() -> None:
    radiance = torch.rand(20, 30, 3, requires_grad=True)
    photo = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8)
    mask = torch.rand(20, 30) > 0.3
    expected = operators_loss.photometric_loss(radiance, photo, mask)
    expected.loss.backward()
    loss, gradient = operators_loss.photometric_gradient(radiance, photo, mask)
    assert radiance.grad is not None
    assert torch.equal(loss, expected.loss) and torch.equal(gradient, radiance.grad)
    assert not loss.requires_grad and not gradient.requires_grad
