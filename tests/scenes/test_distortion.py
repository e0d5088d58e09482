"""Lenses: forward against COLMAP, inverse against forward, the pinhole against the photo."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from helpers.colmap import LENS_TERMS, MODEL_NAMES, random_params

from splatrender.errors import InputError
from splatrender.scenes.camera_models import CAMERA_MODELS
from splatrender.scenes.distortion import MAX_TANGENT, Lens

EVERY_MODEL = pytest.mark.parametrize("model", range(len(MODEL_NAMES)), ids=MODEL_NAMES)
SIZE = np.array([640, 480])


def random_lens(model: int, rng: np.random.Generator) -> Lens:
    return Lens.from_colmap(model, 640, 480, random_params(model, rng))


def rays_ahead(rng: np.random.Generator, count: int = 300) -> np.ndarray:
    plane = rng.uniform(-1, 1, (count, 2)) * (0.7, 0.55)
    return np.concatenate([plane, np.ones((count, 1))], axis=1) * rng.uniform(0.3, 5, (count, 1))


def test_models_are_those_of_colmap() -> None:
    names = [CAMERA_MODELS[index][0] for index in range(len(CAMERA_MODELS))]
    assert names == [*MODEL_NAMES, "EQUIRECTANGULAR"]
    for terms, (_, keys) in zip(LENS_TERMS, CAMERA_MODELS.values(), strict=False):
        assert len(keys) == (3 if keys[0] == "f" else 4) + terms


def test_models_are_those_of_pycolmap() -> None:
    """Compare ids, names, and the names of the numbers where they are the same in both."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is the oracle")
    members = {m.name: m for m in pycolmap.CameraModelId.__members__.values()}
    members.pop("INVALID")
    if "EQUIRECTANGULAR" not in members:
        pytest.skip("this pycolmap is older than the newest models")
    assert members.keys() == {name for name, _ in CAMERA_MODELS.values()}
    for index, (name, keys) in CAMERA_MODELS.items():
        camera = pycolmap.Camera.create_from_model_id(1, members[name], 500, 640, 480)
        assert pycolmap.CameraModelId(index) == members[name]
        assert len(camera.params) == len(keys)


@EVERY_MODEL
def test_forward_and_inverse_equal_pycolmap(model: int) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is the oracle")
    rng = np.random.default_rng(model)
    for _ in range(10):
        params = random_params(model, rng)
        ours = Lens.from_colmap(model, 640, 480, params)
        theirs = pycolmap.Camera(model=MODEL_NAMES[model], width=640, height=480, params=params)
        rays = rays_ahead(rng)
        np.testing.assert_allclose(
            ours.img_from_cam(rays), theirs.img_from_cam(rays), rtol=0, atol=1e-9
        )
        pixels = rng.uniform(0, 1, (300, 2)) * SIZE
        seen = ours.cam_from_img(pixels)
        # Theirs stops iterating earlier: 2.5e-10 was the largest difference measured.
        np.testing.assert_allclose(
            seen[:, :2] / seen[:, 2:], theirs.cam_from_img(pixels), rtol=0, atol=1e-8
        )


@EVERY_MODEL
def test_inverse_is_exact(model: int) -> None:
    rng = np.random.default_rng(100 + model)
    for _ in range(10):
        lens = random_lens(model, rng)
        pixels = np.concatenate([rng.uniform(0, 1, (300, 2)) * SIZE, [[lens.cx, lens.cy], [0, 0]]])
        rays = lens.cam_from_img(pixels)
        np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1, atol=1e-14)
        np.testing.assert_allclose(lens.img_from_cam(rays), pixels, rtol=0, atol=2e-10)


@EVERY_MODEL
def test_jacobian_equals_differences(model: int) -> None:
    rng = np.random.default_rng(200 + model)
    lens = random_lens(model, rng)
    plane, step = rng.uniform(-0.6, 0.6, (50, 2)), 1e-6
    for axis in range(2):
        moved = np.eye(2)[axis] * step
        slope = (lens._bend(plane + moved) - lens._bend(plane - moved)) / (2 * step)
        np.testing.assert_allclose(lens._jacobian(plane)[:, :, axis], slope, atol=1e-8)


@pytest.mark.parametrize("model", [11, 12, 13, 16])
def test_strong_distortion_equals_pycolmap(model: int) -> None:
    """Use ten times the terms of `random_params`: COLMAP still calls them plausible."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is the oracle")
    rng = np.random.default_rng(600 + model)
    rays = rays_ahead(rng)
    for _ in range(10):
        params = random_params(model, rng)
        if model != 16:
            params[-LENS_TERMS[model] :] = [10 * term for term in params[-LENS_TERMS[model] :]]
        theirs = pycolmap.Camera(model=MODEL_NAMES[model], width=640, height=480, params=params)
        ours = Lens.from_colmap(model, 640, 480, params).img_from_cam(rays)
        expected = theirs.img_from_cam(rays)
        both = np.isfinite(ours) & np.isfinite(expected)
        assert both.mean() > 0.9
        np.testing.assert_allclose(ours[both], expected[both], rtol=0, atol=1e-8)


@pytest.mark.parametrize("radius", [0.0, 1e-9, 1e-4, 9.99e-3, 1.001e-2, 0.1])
def test_fov_is_smooth_at_the_axis(radius: float) -> None:
    lens = Lens.from_colmap(7, 640, 480, [500.0, 500.0, 320.0, 240.0, 1.0])
    gain = 2 * np.tan(0.5)
    expected = 320 + 500 * np.arctan(radius * gain) / 1.0
    assert lens.img_from_cam(np.array([[radius, 0.0, 1.0]]))[0, 0] == pytest.approx(expected, 1e-15)
    slope = gain / (1 + (radius * gain) ** 2)
    assert lens._jacobian(np.array([[radius, 0.0]]))[0, 0, 0] == pytest.approx(slope, rel=1e-12)


def test_fisheye_sees_behind_itself() -> None:
    lens = Lens.from_colmap(5, 800, 600, [200.0, 200.0, 400.0, 300.0, 0.0, 0.0, 0.0, 0.0])
    rays = lens.cam_from_img(np.array([[0.0, 300.0]]))
    np.testing.assert_allclose(rays, [[-np.sin(2), 0, np.cos(2)]], atol=1e-14)
    np.testing.assert_allclose(lens.img_from_cam(rays), [[0, 300]], atol=1e-10)


def test_perspective_does_not() -> None:
    lens = Lens.from_colmap(2, 640, 480, [500.0, 320.0, 240.0, 0.1])
    seen = lens.img_from_cam(np.array([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 2.0]]))
    assert np.isnan(seen[:2]).all() and seen[2].tolist() == [320, 240]


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (3, [500.0, 320.0, 240.0, -0.9, 0.0]),  # folds over at r = 0.61, before the corners
        (7, [200.0, 200.0, 320.0, 240.0, 1.4]),  # r' = 2 would need atan > 90 degrees
        (5, [200.0, 200.0, 320.0, 240.0, -0.2, 0.0, 0.0, 0.0]),
        (12, [200.0, 320.0, 240.0, -0.5]),  # infinitely far out at r' = √2
        (12, [200.0, 320.0, 240.0, 0.5]),  # the branch around the axis ends at r' = √2
        (16, [200.0, 200.0, 320.0, 240.0, 0.8, 1.0]),  # 90 degrees are at r' = 1.25
    ],
)
def test_unreachable_pixels_are_refused(model: int, params: list[float]) -> None:
    lens = Lens.from_colmap(model, 640, 480, params)
    lens.cam_from_img(np.array([[330.0, 250.0]]))
    with pytest.raises(InputError, match=r"1 of 2 pixels are seen from no direction.*\(0, 0\)"):
        lens.cam_from_img(np.array([[330.0, 250.0], [0.0, 0.0]]))


def border(lens: Lens, target: Lens, out: float = 0.0) -> dict[str, np.ndarray]:
    """Project the outermost pixel centres of a pinhole's four sides into the photo of a lens.

    Args:
        lens, target: the two.
        out: distance of the centres from the image [px].
    """
    x, y = np.arange(target.width) + 0.5, np.arange(target.height) + 0.5
    sides = {
        "left": (np.full_like(y, 0.5 - out), y),
        "right": (np.full_like(y, target.width - 0.5 + out), y),
        "top": (x, np.full_like(x, 0.5 - out)),
        "bottom": (x, np.full_like(x, target.height - 0.5 + out)),
    }
    seen = {}
    for name, (across, down) in sides.items():
        across, down = (across - target.cx) / target.fx, (down - target.cy) / target.fy
        seen[name] = lens.img_from_cam(np.stack([across, down, np.ones_like(across)], axis=1))
    return seen


def within(pixels: np.ndarray, margin: float) -> bool:
    return bool(((pixels >= margin) & (pixels <= SIZE - margin)).all())


@EVERY_MODEL
def test_pinhole_shows_no_border_and_no_less_than_it_can(model: int) -> None:
    rng = np.random.default_rng(300 + model)
    for _ in range(4):
        lens = random_lens(model, rng)
        target = lens.pinhole()
        assert target.is_pinhole and (target.fx, target.fy) == (lens.fx, lens.fy)
        assert target.width * target.height > 0.8 * 640 * 480
        for pixels in border(lens, target).values():
            assert within(pixels, 0.4)  # bilinear sampling needs 0.5, here less 0.05 px and slack
        if not lens.is_pinhole:
            for name, pixels in border(lens, target, out=2.0).items():
                assert not within(pixels, 0.5), f"the {name} side could be further out"


@EVERY_MODEL
def test_pinhole_is_about_as_large_as_that_of_pycolmap(model: int) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is the oracle")
    params = random_params(model, np.random.default_rng(400 + model))
    target = Lens.from_colmap(model, 640, 480, params).pinhole()
    options = pycolmap.UndistortCameraOptions()
    options.blank_pixels = 0.0
    camera = pycolmap.Camera(model=MODEL_NAMES[model], width=640, height=480, params=params)
    theirs = pycolmap.undistort_camera(options, camera)
    assert target.width * target.height > 0.98 * theirs.width * theirs.height


def test_sampling_map_goes_through_the_lens() -> None:
    lens = random_lens(10, np.random.default_rng(1))
    target = lens.pinhole()
    places = lens.sampling_map(target)
    assert places.shape == (target.height, target.width, 2)
    for row, column in ((0, 0), (target.height - 1, 3), (200, 317)):
        ray = [(column + 0.5 - target.cx) / target.fx, (row + 0.5 - target.cy) / target.fy, 1.0]
        expected = lens.img_from_cam(np.array([ray]))[0]
        np.testing.assert_allclose(places[row, column], expected, atol=1e-4)


@pytest.mark.parametrize("model", [4, 6, 10])
def test_no_distortion_is_no_change(model: int) -> None:
    params = [500.0, 501.0, 320.0, 240.0] + [0.0] * LENS_TERMS[model]
    lens = Lens.from_colmap(model, 640, 480, params)
    if model == 10:  # an equidistant fisheye is not a pinhole even without coefficients
        assert not lens.is_pinhole
    else:
        assert lens.is_pinhole and lens.pinhole() is lens


def test_tiny_distortion_keeps_the_size() -> None:
    target = Lens.from_colmap(2, 640, 480, [500.0, 320.0, 240.0, 1e-12]).pinhole()
    assert (target.width, target.height) == (640, 480)
    assert (target.cx, target.cy) == pytest.approx((320, 240), abs=1e-6)


@pytest.mark.parametrize("terms", [[0.0] * 4, [-0.03, 0.002, 0.001, 0.0], [0.05, 0.0, 0.0, 0.0]])
def test_wide_fisheye_stops_at_a_limit(terms: list[float]) -> None:
    lens = Lens.from_colmap(5, 1000, 1000, [250.0, 250.0, 500.0, 500.0, *terms])  # 229 degrees
    target = lens.pinhole()
    reach = (target.width - 1) / 2 / target.fx
    assert reach <= MAX_TANGENT and reach > 0.99 * MAX_TANGENT
    places = lens.sampling_map(target)
    assert (places >= 0.5).all() and (places <= 999.5).all()


def test_fold_limits_the_pinhole() -> None:
    lens = Lens.from_colmap(4, 800, 600, [500.0, 500.0, 400.0, 300.0, -0.4, 0.05, 0.0, 0.0])
    with pytest.raises(InputError, match="seen from no direction"):
        lens.cam_from_img(np.array([[0.0, 0.0]]))
    target = lens.pinhole()
    places = lens.sampling_map(target)
    # One-to-one: along each row and column the places go one way.
    assert (np.diff(places[..., 0], axis=1) > 0).all()
    assert (np.diff(places[..., 1], axis=0) > 0).all()


@EVERY_MODEL
def test_resized_scales_pixels(model: int) -> None:
    rng = np.random.default_rng(500 + model)
    lens, rays = random_lens(model, rng), rays_ahead(rng)
    small = lens.resized(320, 160)
    assert (small.width, small.height) == (320, 160)
    np.testing.assert_allclose(
        small.img_from_cam(rays), lens.img_from_cam(rays) * (1 / 2, 1 / 3), atol=1e-10
    )


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        (18, [1.0] * 16, "expected a camera model of SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL"),
        (17, [640.0, 480.0], "camera model EQUIRECTANGULAR: a panorama cannot be undistorted"),
        (16, [1.0, 1.0, 1.0, 1.0, 1.5, 1.0], "alpha must be from 0 to 1 and beta positive"),
        (16, [1.0, 1.0, 1.0, 1.0, 0.5, 0.0], "beta positive, got 0.5 and 0.0"),
        (1, [1.0] * 3, "PINHOLE takes 4 parameters (fx, fy, cx, cy), got 3"),
        (1, [1.0, 1.0, float("inf"), 1.0], "parameters must be finite"),
        (1, [1.0, -1.0, 1.0, 1.0], "must be positive, got fx 1.0, fy -1.0, 640x480"),
    ],
)
def test_bad_parameters_are_refused(model: int, params: list[float], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Lens.from_colmap(model, 640, 480, params)


def test_hopeless_lenses_are_refused() -> None:
    lens = Lens.from_colmap(2, 640, 480, [500.0, 320.0, 240.0, 0.1])
    with pytest.raises(InputError, match=r"principal point \(-5, 240\) is outside the 640x480"):
        dataclasses.replace(lens, cx=-5.0).pinhole()
    with pytest.raises(InputError, match="no rectangle of the 640x480 photo can be undistorted"):
        dataclasses.replace(lens, k1=-1e6).pinhole()
