"""Quadrature of the transfer equation against closed forms, refinement and finite differences."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.media import F64, SH_C0, axis_ray, ball, make_medium, make_rays, plain_colors
from torch import Tensor

import splatrender.reference.march as marching
from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.fields import ExtinctionField
from splatrender.model.medium import KINDS, Medium
from splatrender.reference.march import camera_rays, march, march_image

RGB = torch.tensor([[0.9, 0.4, 0.1], [0.1, 0.7, 0.8]], dtype=F64)
TOLERANCES = (1e-3, 1e-6, 1e-9)


def pair(peaks: tuple[float, float], places: tuple[float, float], size: float = 0.5) -> Medium:
    """Two round splats of two colours on the z axis."""
    balls = [ball(k, z, size) for k, z in zip(peaks, places, strict=True)]
    return Medium(ExtinctionField.cat(balls), plain_colors(RGB))


def holds(medium: Medium, expected: Tensor, tolerance: float) -> None:
    """Check that the reported error is within the tolerance, and the true one within it."""
    found = march(medium, *axis_ray(), tolerance=tolerance)
    assert float(found.error) <= tolerance
    assert float((found.radiance[0] - expected).abs().max()) <= float(found.error)


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("peak", [1e-4, 0.1, 3.0, 100.0, 1e5])
def test_one_splat(peak: float, tolerance: float) -> None:
    depth = peak * math.sqrt(2 * math.pi) * 0.5 * 0.5 * (1 + math.erf(6 / math.sqrt(2)))
    holds(Medium(ball(peak), plain_colors(RGB[:1])), RGB[0] * -math.expm1(-depth), tolerance)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_a_splat_that_only_emits(tolerance: float) -> None:
    rate = 0.7
    harmonics = torch.full((1, 1, 3), rate / SH_C0, dtype=F64)
    length = math.sqrt(2 * math.pi) * 0.5 * 0.5 * (1 + math.erf(6 / math.sqrt(2)))
    for peak in (0.0, 2.0):
        tau = peak * length
        phi = -math.expm1(-tau) / tau if tau else 1.0
        expected = torch.full((3,), rate * length * phi, dtype=F64)
        holds(Medium(ball(peak), harmonics, "emissive"), expected, tolerance)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_two_splats_far_apart(tolerance: float) -> None:
    medium = pair((1.0, 2.0), (6.0, 20.0))
    tau = [k * math.sqrt(2 * math.pi) * 0.5 for k in (1.0, 2.0)]
    expected = -RGB[0] * math.expm1(-tau[0]) - RGB[1] * math.exp(-tau[0]) * math.expm1(-tau[1])
    holds(medium, expected, tolerance)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_two_splats_that_coincide(tolerance: float) -> None:
    tau = [k * math.sqrt(2 * math.pi) * 0.5 for k in (1.0, 2.0)]
    mixed = (RGB[0] * tau[0] + RGB[1] * tau[1]) / sum(tau)
    holds(pair((1.0, 2.0), (6.0, 6.0)), mixed * -math.expm1(-sum(tau)), tolerance)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_a_slab_of_a_very_wide_splat(tolerance: float) -> None:
    medium = Medium(ball(0.5, 0.0, 1e5), plain_colors(RGB[:1]))
    found = march(medium, *axis_ray(), t_near=1.0, t_far=4.0, tolerance=tolerance)
    expected = RGB[0] * -math.expm1(-0.5 * 3)
    assert float(found.error) <= tolerance
    assert float((found.radiance[0] - expected).abs().max()) <= float(found.error) + 1e-9
    assert float(found.transmittance) == pytest.approx(math.exp(-1.5), rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_reported_errors_hold_against_refinement(kind: str) -> None:
    rays = make_rays(20)
    for size in (0.05, 0.3):
        medium = make_medium(kind, 12, size=size)
        medium = medium.with_tensors({"splats.peaks": 3 * medium.splats.peaks / size})
        exact = march(medium, *rays, tolerance=1e-11)
        for tolerance in TOLERANCES:
            found = march(medium, *rays, tolerance=tolerance)
            assert float(found.error.max()) <= tolerance
            difference = (found.radiance - exact.radiance).abs().amax(1)
            assert bool((difference <= found.error + exact.error).all())


def test_a_constant_source_shows_itself_behind_any_overlap() -> None:
    medium = make_medium("shared", 12, degree=0)
    medium = replace(medium, harmonics=plain_colors(RGB[:1]).expand(12, -1, -1))
    background = torch.tensor([0.2, 0.3, 0.4], dtype=F64)
    rays = make_rays(10)
    found = march(medium, *rays, background=background)
    through = torch.exp(-medium.optical_depth(*rays))[:, None]
    torch.testing.assert_close(found.transmittance, through[:, 0])
    expected = RGB[0] * (1 - through) + background * through
    assert float((found.radiance - expected).abs().max()) < 1e-6


def test_segments_compose() -> None:
    medium, rays = make_medium(), make_rays(10)
    whole = march(medium, *rays, tolerance=1e-10)
    front = march(medium, *rays, t_far=3.1, tolerance=1e-10)
    back = march(medium, *rays, t_near=3.1, tolerance=1e-10)
    composed = front.radiance + front.transmittance[:, None] * back.radiance
    torch.testing.assert_close(composed, whole.radiance, rtol=0, atol=3e-10)
    torch.testing.assert_close(
        front.transmittance * back.transmittance, whole.transmittance, rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind: str) -> None:
    medium, (origins, directions) = make_medium(kind, 4), make_rays(3)
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.rand(3, 3, dtype=F64, generator=generator)
    names = [name for name, _ in medium.items()]
    inputs = [*(tensor for _, tensor in medium.items()), origins]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]

    def light(*args: Tensor) -> Tensor:
        there = medium.with_tensors(dict(zip(names, args, strict=False)))
        found = march(there, args[-1], directions, tolerance=1e-11)
        return (found.radiance * cotangent).sum() + found.transmittance.sum()

    gradients = torch.autograd.grad(light(*inputs), inputs)
    steps = [torch.randn(t.shape, dtype=F64, generator=generator) for t in inputs]
    for which, (gradient, step) in enumerate(zip(gradients, steps, strict=True)):
        values = []
        for sign in (1e-4, -1e-4):
            moved = [
                t.detach() + sign * step if i == which else t.detach() for i, t in enumerate(inputs)
            ]
            values.append(float(light(*moved)))
        slope = (values[0] - values[1]) / 2e-4
        assert float((gradient * step).sum()) == pytest.approx(slope, rel=2e-5, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_alone_gets_its_gradient(kind: str) -> None:
    medium, (origins, directions) = make_medium(kind, 4), make_rays(3)
    for name, tensor in medium.items():
        leaf = tensor.clone().requires_grad_()
        march(medium.with_tensors({name: leaf}), origins, directions).radiance.sum().backward()
        assert leaf.grad is not None and float(leaf.grad.abs().max()) > 0
    for which in (0, 1):
        rays = [origins.clone(), directions.clone()]
        leaf = rays[which].requires_grad_()
        march(medium, rays[0], rays[1]).radiance.sum().backward()
        assert leaf.grad is not None and float(leaf.grad.abs().max()) > 0


def test_a_medium_without_splats_is_empty_space() -> None:
    medium, rays = make_medium(), make_rays(3)
    none = torch.zeros(6, dtype=torch.bool)
    empty = Medium(medium.splats.index(none), medium.harmonics[none])
    assert march(empty, *rays).radiance.eq(0).all()
    assert march(empty, *rays).transmittance.eq(1).all()


def test_single_precision_is_marched_in_double() -> None:
    medium, (origins, directions) = make_medium(), make_rays(3)
    found = march(medium.to(torch.float32), origins.float(), directions.float())
    assert found.radiance.dtype == F64
    expected = march(medium, origins, directions).radiance
    torch.testing.assert_close(found.radiance, expected, rtol=0, atol=2e-6)


def test_rays_that_meet_nothing_show_the_background() -> None:
    medium, (origins, directions) = make_medium(), make_rays(3, distance=9.0)
    found = march(medium, origins, -directions, background=torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(found.radiance[0], torch.tensor([0.1, 0.2, 0.3]).double())
    assert found.transmittance.eq(1).all() and found.error.max() < 1e-13
    assert march(medium, origins[:0], directions[:0]).radiance.shape == (0, 3)


def test_an_image_is_its_rays() -> None:
    camera = Camera.look_at((0.5, 0.5, -2), (0.5, 0.5, 0.5), width=9, height=7)
    medium = make_medium()
    image = march_image(medium, camera)
    assert image.radiance.shape == (7, 9, 3) and image.transmittance.shape == (7, 9)
    origins, directions = camera_rays(camera)
    ray = 3 * 9 + 5
    points = origins[ray] + 2.5 * directions[ray]
    local = camera.viewmat[:3, :3] @ points + camera.viewmat[:3, 3]
    x = camera.fx * local[0] / local[2] + camera.cx
    y = camera.fy * local[1] / local[2] + camera.cy
    assert (float(x), float(y)) == pytest.approx((5.5, 3.5))
    alone = march(medium, origins[ray : ray + 1], directions[ray : ray + 1])
    torch.testing.assert_close(image.radiance[3, 5], alone.radiance[0])


def test_march_refuses_bad_input() -> None:
    medium, rays = make_medium(), make_rays(2)
    with pytest.raises(InputError, match=r"tolerance: expected .* got 0"):
        march(medium, *rays, tolerance=0)
    with pytest.raises(InputError, match="medium: expected a Medium, got"):
        march(medium.splats, *rays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="background: expected 3 numbers"):
        march(medium, *rays, background=torch.zeros(4))
    with pytest.raises(InputError, match="directions: expected vectors of length 1"):
        march(medium, rays[0], 2 * rays[1])


@pytest.mark.parametrize("name", ["march", "approximations"])
def test_the_reference_imports_no_operator(name: str) -> None:
    source = Path(marching.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    modules = [n.module or "" for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)]
    assert modules and not any("operators" in m or "_extension" in m for m in modules)
