"""Photos: every kind of file becomes 8-bit RGB, resized and undistorted, or is refused by name."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.colmap import MODEL_NAMES, random_params, smooth_photo
from PIL import Image

from splatrender.errors import InputError
from splatrender.scenes.distortion import Lens
from splatrender.scenes.photos import Job, Reading, read_all, read_photo, wanted_size

FAITHFUL: Any = {"quality": 100, "subsampling": 0}  # a JPEG that differs by a level or two
PINHOLE = Lens(40.0, 41.0, 24.0, 16.0, 48, 32)


def read(
    file: Path, lens: Lens = PINHOLE, resolution: int = 1, mask: Path | None = None
) -> Reading:
    return read_photo(Job(file, mask, lens, resolution))


def save(folder: Path, pixels: np.ndarray, name: str = "a.png", **options: Any) -> Path:
    Image.fromarray(pixels).save(folder / name, **options)
    return folder / name


def largest_difference(one: torch.Tensor | np.ndarray, other: np.ndarray) -> float:
    assert tuple(one.shape) == other.shape
    return float(np.abs(np.asarray(one).astype(float) - other.astype(float)).max())


def mean_difference(one: torch.Tensor, other: np.ndarray) -> float:
    return float(np.abs(one.numpy().astype(float) - other).mean())


# ---- kinds of files


def test_rgb_is_untouched(tmp_path: Path) -> None:
    pixels = smooth_photo(48, 32)
    result = read(save(tmp_path, pixels))
    assert result.photo.dtype == torch.uint8 and result.mask is None and result.lens == PINHOLE
    np.testing.assert_array_equal(result.photo, pixels)


@pytest.mark.parametrize("kind", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK"])
def test_other_kinds_become_rgb(tmp_path: Path, kind: str) -> None:
    pixels = smooth_photo(48, 32)
    grey = pixels[..., 0]
    name, expected = "a.png", np.repeat(grey[..., None], 3, axis=2)
    if kind == "L":
        image = Image.fromarray(grey)
    elif kind == "I;16":  # 257 v is what v/255 is of 65535
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif kind == "1":
        image, expected = Image.fromarray(grey > 128), np.where(expected > 128, 255, 0)
    elif kind == "LA":
        image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(255 - grey)])
    elif kind == "RGBA":
        alpha = np.zeros_like(grey)
        image, expected = Image.fromarray(np.dstack([pixels, alpha])), pixels
    elif kind == "P":
        image = Image.fromarray(pixels).quantize(64)
        expected = np.array(image.convert("RGB"))
    else:
        image, name = Image.fromarray(pixels).convert("CMYK"), "a.tif"
        expected = np.array(image.convert("RGB"))
    assert image.mode == kind
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name).photo, expected)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    pixels = smooth_photo(48, 32)
    file = save(tmp_path, pixels, "a.jpg", exif=exif, **FAITHFUL)
    assert largest_difference(read(file).photo, pixels) < 8


def save_turned(folder: Path, pixels: np.ndarray, orientation: int, name: str) -> Path:
    """Save a file that shows `pixels` when it is turned as its EXIF orientation says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    undo |= {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.TRANSPOSE}
    stored = Image.fromarray(pixels)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    stored.save(folder / name, exif=exif, **FAITHFUL)
    return folder / name


@pytest.mark.parametrize("orientation", [5, 6, 8])
@pytest.mark.parametrize("resolution", [1, 2])
def test_photo_that_fits_only_when_turned_is_turned(
    tmp_path: Path, orientation: int, resolution: int
) -> None:
    pixels = smooth_photo(48, 32)
    upright = read(save(tmp_path, pixels, "plain.jpg", **FAITHFUL), resolution=resolution)
    result = read(save_turned(tmp_path, pixels, orientation, "a.jpg"), resolution=resolution)
    assert result.upright and result.orientation == orientation
    assert result.lens == upright.lens
    assert largest_difference(result.photo, upright.photo.numpy()) <= 6
    square = np.repeat(pixels[:, :32], 1, axis=1)
    lens = Lens(40.0, 40.0, 16.0, 16.0, 32, 32)
    assert not read(save_turned(tmp_path, square, orientation, "b.jpg"), lens).upright


def test_where_one_photo_must_be_turned_all_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = smooth_photo(48, 32)
    files = [save_turned(tmp_path, pixels, n, f"{n}.jpg") for n in (1, 3, 6)]
    alone = read_all([Job(file, None, PINHOLE, 1) for file in files[:2]])
    assert not any(result.upright for result in alone) and not caplog.records
    together = read_all([Job(file, None, PINHOLE, 1) for file in files])
    assert [result.upright for result in together] == [False, True, True]
    for result in together:
        assert largest_difference(result.photo, pixels) <= 6
    assert "6.jpg: its camera has the size of the photo as its EXIF" in caplog.text


def test_photo_of_turned_proportions_is_pointed_at(tmp_path: Path) -> None:
    file = save(tmp_path, smooth_photo(32, 48))
    with pytest.raises(InputError, match=r"48x32, got 32x48; turned by 90 degrees it would fit"):
        read(file)


def test_photos_of_any_size_are_read_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read photos above Pillow's limits: it warns at 89 megapixels, and refuses at 179."""
    photo, mask = save(tmp_path, smooth_photo(48, 32)), tmp_path / "m.png"
    Image.new("L", (48, 32), 255).save(mask)
    for limit in (1000, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        monkeypatch.setattr("splatrender.scenes.image_files.LARGE", limit)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert read(photo, mask=mask).photo.shape == (32, 48, 3)
        assert not caught
        assert limit == Image.MAX_IMAGE_PIXELS  # other users of Pillow keep its limit


@pytest.mark.parametrize("kind", ["palette", "exif"])
def test_odd_files_give_no_python_warnings(tmp_path: Path, kind: str) -> None:
    image, file = Image.fromarray(smooth_photo(48, 32)), tmp_path / "a.img"
    if kind == "palette":
        image.quantize(32).save(file, "PNG", transparency=bytes([0, 128] + [255] * 30))
    else:
        broken = b"Exif\0\0" + b"II*\0\xff\xff\xff\xff" + bytes(range(40))
        image.save(file, "JPEG", exif=broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (result,) = read_all([Job(file, None, PINHOLE, 1)])
    assert not caught and result.orientation == 1


@pytest.mark.parametrize("what", ["empty", "text", "cut", "float", "32 bit"])
def test_unreadable_photos_are_refused(tmp_path: Path, what: str) -> None:
    file = tmp_path / "a.jpg"
    message = "expected a readable photo"
    if what == "empty":
        file.write_bytes(b"")
    elif what == "text":
        file.write_text("not a photo")
    elif what == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
        save(tmp_path, noise, "a.jpg")
        file.write_bytes(file.read_bytes()[:1500])
    elif what == "float":
        file, message = tmp_path / "a.tif", "expected 8 or 16 bits a channel, got floating"
        Image.fromarray(np.zeros((32, 48), np.float32)).save(file)
    else:
        file, message = tmp_path / "a.tif", "expected 8 or 16 bits a channel, got values up to"
        Image.fromarray(np.full((32, 48), 70_000, np.int32)).save(file)
    with pytest.raises(InputError, match=f"a.(jpg|tif): {message}"):
        read(file)


# ---- sizes


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((1600, 1201), 1, (1600, 1201)),
        ((1601, 1201), 2, (800, 600)),
        ((1600, 1200), 8, (200, 150)),
        ((1600, 1200), 320, (320, 240)),
        ((200, 100), 320, (200, 100)),
        ((1600, 1200), -1, (800, 600)),
        ((1200, 1600), -1, (600, 800)),
        ((640, 480), -1, (640, 480)),
        ((3, 900), 8, (1, 112)),
    ],
)
def test_wanted_size(size: tuple[int, int], resolution: int, expected: tuple[int, int]) -> None:
    width, height = size
    assert wanted_size(width, height, resolution) == expected


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("resolution", [2, 4, 8, 300, -1])
def test_downscaling_keeps_the_image_in_place(tmp_path: Path, name: str, resolution: int) -> None:
    lens = Lens(1000.0, 1000.0, 613.0, 401.0, 1221, 803)
    file = save(tmp_path, smooth_photo(1221, 803), name, **FAITHFUL if name == "a.jpg" else {})
    result = read(file, lens, resolution)
    width, height = wanted_size(1221, 803, resolution)
    assert (result.lens.width, result.lens.height) == (width, height)
    assert result.lens.cx / width == pytest.approx(613 / 1221)
    assert result.lens.fy / height == pytest.approx(1000 / 803)
    # The waves change by up to 4 levels a pixel at 153 px width; a JPEG adds its own noise.
    expected = smooth_photo(width, height)
    assert largest_difference(result.photo, expected) <= (4 if name == "a.jpg" else 2)
    assert mean_difference(result.photo, expected) < 0.6


def test_downscaling_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((160, 320, 3), np.uint8)
    stripes[:, ::2] = 200
    result = read(save(tmp_path, stripes), Lens(100.0, 100.0, 160.0, 80.0, 320, 160), 4)
    assert largest_difference(result.photo, np.full((40, 80, 3), 100)) <= 12  # the rims


def test_photo_of_another_size_than_its_camera(tmp_path: Path) -> None:
    lens = Lens(400.0, 410.0, 240.0, 160.0, 481, 321)
    result = read(save(tmp_path, smooth_photo(160, 107)), lens)
    assert (result.lens.width, result.lens.height) == (160, 107)
    assert result.lens.fx == pytest.approx(400 * 160 / 481)
    assert result.lens.cy == pytest.approx(160 * 107 / 321)
    turned = save(tmp_path, smooth_photo(321, 481), "b.png")
    with pytest.raises(InputError, match=r"b.png: .* its camera, 481x321, got 321x481"):
        read(turned, lens)


# ---- undistortion


@lru_cache
def view_of(lens: Lens, factor: int = 1) -> np.ndarray:
    """Return a photo uint8 [H, W, 3] of a world whose colour depends on the direction.

    Args:
        lens: takes the photo.
        factor: samples per pixel along each axis.
    """
    fine = lens.resized(lens.width * factor, lens.height * factor)
    y, x = np.mgrid[0 : fine.height, 0 : fine.width] + 0.5
    rays = fine.cam_from_img(np.stack([x.ravel(), y.ravel()], axis=1))
    waves = np.array([[9.0, 2.0, 1.0], [-3.0, 8.0, 2.0], [5.0, 5.0, -4.0]])
    colors = (np.sin(rays @ waves.T) * 100 + 128).reshape(
        lens.height, factor, lens.width, factor, 3
    )
    pixels: np.ndarray = colors.mean(axis=(1, 3)).round().astype(np.uint8)
    return pixels


@pytest.mark.parametrize("model", range(2, len(MODEL_NAMES)), ids=MODEL_NAMES[2:])
@pytest.mark.parametrize("resolution", [1, 4, 200])
def test_undistorted_photo_shows_the_same_world(
    tmp_path: Path, model: int, resolution: int
) -> None:
    params = random_params(model, np.random.default_rng(model))
    lens = Lens.from_colmap(model, 640, 480, params).resized(320, 240)
    result = read(save(tmp_path, view_of(lens)), lens, resolution)
    whole = lens.pinhole()
    assert result.lens.is_pinhole
    expected_size = wanted_size(whole.width, whole.height, resolution)
    assert (result.lens.width, result.lens.height) == expected_size
    assert tuple(result.photo.shape) == (result.lens.height, result.lens.width, 3)
    expected = view_of(result.lens, 2)
    # The colours change by up to 14 levels a pixel at a quarter of the size. Measured: at full
    # size differences of 1 at most and 0.16 on average, reduced 2 and 0.32.
    assert largest_difference(result.photo, expected) <= (1 if resolution == 1 else 3)
    assert mean_difference(result.photo, expected) < (0.25 if resolution == 1 else 0.5)


def test_mask_is_undistorted_along(tmp_path: Path) -> None:
    lens = Lens.from_colmap(4, 320, 240, [250.0, 250.0, 160.0, 120.0, -0.2, 0.05, 0.003, 0.002])
    photo = view_of(lens)
    bright = np.where(photo[..., 0] > 128, 255, 0).astype(np.uint8)
    file, mask = save(tmp_path, photo), save(tmp_path, bright, "mask.png")
    for resolution in (1, 4):
        result = read(file, lens, resolution, mask)
        assert result.mask is not None and result.mask.dtype == torch.uint8
        assert result.mask.shape == result.photo.shape[:2]
        sure = (np.asarray(result.photo)[..., 0].astype(int) - 128).__abs__() > 20
        agree = np.asarray(result.mask) == (np.asarray(result.photo)[..., 0] > 128)
        assert sure.mean() > 0.5 and agree[sure].all()


def test_hopeless_lens_names_the_photo(tmp_path: Path) -> None:
    lens = Lens.from_colmap(2, 48, 32, [40.0, -9.0, 16.0, 0.1])
    with pytest.raises(InputError, match=r"a.png: SIMPLE_RADIAL camera: the principal point"):
        read(save(tmp_path, smooth_photo(48, 32)), lens)


# ---- masks


def test_mask_keeps_white(tmp_path: Path) -> None:
    grey = np.zeros((32, 48), np.uint8)
    grey[:, :10], grey[:, 10:20], grey[:, 20:30] = 255, 128, 127
    result = read(save(tmp_path, smooth_photo(48, 32)), mask=save(tmp_path, grey, "m.png"))
    assert result.mask is not None
    expected = np.zeros((32, 48))
    expected[:, :20] = 1
    np.testing.assert_array_equal(result.mask, expected)


def test_mask_is_resized_to_the_nearest(tmp_path: Path) -> None:
    grey = np.zeros((64, 96), np.uint8)  # of twice the photo's size, the photo is halved
    grey[:32, :48] = 255
    result = read(save(tmp_path, smooth_photo(48, 32)), PINHOLE, 2, save(tmp_path, grey, "m.png"))
    expected = np.zeros((16, 24))
    expected[:8, :12] = 1
    assert result.mask is not None
    np.testing.assert_array_equal(result.mask, expected)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((32, 48), np.uint8), "m.png: expected a mask that keeps some pixel"),
        (np.ones((48, 32), np.uint8), "m.png: expected the proportions of its photo, 48x32, got"),
        (None, "m.png: expected a readable mask"),
    ],
)
def test_bad_masks_are_refused(tmp_path: Path, pixels: np.ndarray | None, message: str) -> None:
    mask = tmp_path / "m.png"
    if pixels is None:
        mask.write_text("nothing")
    else:
        save(tmp_path, pixels, "m.png")
    with pytest.raises(InputError, match=message):
        read(save(tmp_path, smooth_photo(48, 32)), mask=mask)


def test_float_mask_is_refused(tmp_path: Path) -> None:
    mask = tmp_path / "m.tif"
    Image.fromarray(np.zeros((32, 48), np.float32)).save(mask)
    with pytest.raises(InputError, match=r"m.tif: expected 8 or 16 bits a channel"):
        read(save(tmp_path, smooth_photo(48, 32)), mask=mask)
