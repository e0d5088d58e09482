"""Blending on rays against quadrature: where it is exact, and how far off it is elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.media import (
    F64,
    SH_C0,
    axis_ray,
    ball,
    make_medium,
    make_rays,
    plain_colors,
    random_lines,
)
from torch import Tensor
from torch.autograd import gradcheck

from splatrender.errors import InputError
from splatrender.model.fields import ExtinctionField
from splatrender.model.medium import KINDS, Medium
from splatrender.reference.approximations import (
    Approximation,
    absorbed_share,
    absorption_depths,
    approximate,
)
from splatrender.reference.march import march

RGB = torch.tensor([[0.9, 0.4, 0.1], [0.1, 0.7, 0.8]], dtype=F64)
OVERLAPS = ("none", "exchange", "absorption")
BEER = [Approximation(overlap=overlap) for overlap in OVERLAPS]
ALL = [
    *BEER,
    Approximation("gaussian"),
    Approximation("gaussian", order="center", overlap="exchange"),
]


def pair(peaks: tuple[float, float], places: tuple[float, float]) -> Medium:
    balls = [ball(k, z) for k, z in zip(peaks, places, strict=True)]
    return Medium(ExtinctionField.cat(balls), plain_colors(RGB))


def error(medium: Medium, rays: tuple[Tensor, Tensor], approximation: Approximation) -> float:
    exact = march(medium, *rays, tolerance=1e-8).radiance
    return float((approximate(medium, *rays, approximation)[0] - exact).abs().mean())


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("order", ["center", "pixel"])
def test_splats_apart_are_exact(order: str, overlap: str) -> None:
    medium = pair((1.0, 2.0), (6.0, 20.0))
    approximation = Approximation(order=order, overlap=overlap)
    assert error(medium, axis_ray(), approximation) < 1e-8
    emissive = replace(medium, kind="emissive")
    assert error(emissive, axis_ray(), approximation) < 1e-8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("approximation", BEER)
def test_total_opacity_is_exact_for_any_overlap(kind: str, approximation: Approximation) -> None:
    medium, rays = make_medium(kind, 12), make_rays(10)
    found = approximate(medium, *rays, approximation, t_near=2.5)[1]
    exact = torch.exp(-medium.optical_depth(*rays, 2.5))
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=0)


@pytest.mark.parametrize("approximation", ALL)
def test_a_constant_colour_is_attributed_whole(approximation: Approximation) -> None:
    medium = make_medium(count=12, degree=0)
    medium = replace(medium, harmonics=plain_colors(RGB[:1]).expand(12, -1, -1))
    radiance, transmittance = approximate(medium, *make_rays(10), approximation)
    torch.testing.assert_close(radiance, RGB[0] * (1 - transmittance[:, None]))


@pytest.mark.parametrize("overlap", ["exchange", "absorption"])
def test_equal_splats_that_coincide_mix_exactly(overlap: str) -> None:
    for peak in (0.1, 2.0, 20.0):
        medium = pair((peak, peak), (6.0, 6.0))
        assert error(medium, axis_ray(), Approximation(overlap=overlap)) < 1e-8
    assert error(medium, axis_ray(), Approximation()) > 0.05


def test_a_swap_of_order_changes_nothing_within_the_window() -> None:
    """Equal splats at nearly one place: blending jumps, the exchange does not."""
    jumps = []
    for overlap in OVERLAPS:
        values = [
            approximate(
                pair((2.0, 2.0), (6.0, 6.0 + z)), *axis_ray(), Approximation(overlap=overlap)
            )
            for z in (-1e-9, 1e-9)
        ]
        jumps.append(float((values[0][0] - values[1][0]).abs().max()))
    assert jumps[0] > 0.1 and max(jumps[1:]) < 1e-7


def test_pairs_listed_in_reverse_are_put_right() -> None:
    """Order by centres may contradict the places on a ray; pairs use the places."""
    factors = torch.stack([torch.diag(torch.tensor([0.2, 0.2, 0.5])), 0.3 * torch.eye(3)]).to(F64)
    shear = torch.eye(3, dtype=F64)
    shear[2, 0] = 20.0  # the first splat leans away from the eye
    factors = torch.stack([shear @ factors[0], factors[1]])
    means = torch.tensor([[-0.3, 0, 6.0], [0.0, 0, 7.0]], dtype=F64)
    field = ExtinctionField(means, factors, torch.tensor([3.0, 3.0], dtype=F64))
    medium = Medium(field, plain_colors(RGB))
    plain = Approximation(order="center")
    wrong, right = error(medium, axis_ray(), plain), error(medium, axis_ray(), Approximation())
    paired = error(medium, axis_ray(), replace(plain, overlap="exchange"))
    same = approximate(medium, *axis_ray(), Approximation(overlap="exchange"))[0]
    found = approximate(medium, *axis_ray(), replace(plain, overlap="exchange"))[0]
    torch.testing.assert_close(found, same)  # with two splats the list does not matter at all
    assert right < 0.1 * wrong and paired < 0.1 * wrong


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((2, 0.1, 4.0), (1.4e-4, 7e-7, 7e-7, 7e-7)),
        ((4, 1.0, 4.0), (8.2e-3, 3.8e-3, 1.4e-3, 5.7e-4)),
        ((8, 1.0, 16.0), (3.1e-3, 1.3e-3, 5.1e-4, 1.9e-4)),
        ((16, 1.0, 16.0), (2.5e-3, 1.5e-3, 9.4e-4, 3.1e-4)),
        ((8, 10.0, 4.0), (9.1e-2, 5.9e-2, 4.3e-2, 3.9e-2)),
    ],
)
def test_errors_of_the_exchange_are_those_of_the_theory(
    row: tuple[int, float, float], expected: tuple[float, ...]
) -> None:
    """Mean errors over 60 random rays in order and with W = 1, 2, 4; other draws differ by half."""
    medium, origins, directions = random_lines(*row)
    rays = origins, directions
    exact = march(medium, *rays, tolerance=1e-8).radiance
    ways = [Approximation(), *(Approximation(overlap="exchange", window=w) for w in (1, 2, 4))]
    for way, value in zip(ways, expected, strict=True):
        found = float((approximate(medium, *rays, way)[0] - exact).abs().mean())
        assert value / 1.6 < found < value * 1.6


def test_faint_splats_take_no_place_in_the_window() -> None:
    """Twenty almost transparent splats between two that overlap: a window of 1 is enough."""
    balls = [ball(k, z) for k, z in ((2.0, 6.0), (2.0, 6.2))]
    balls += [ball(1e-9, 6.0 + 0.01 * i) for i in range(20)]
    medium = Medium(ExtinctionField.cat(balls), plain_colors(RGB[[0, 1] * 11]))
    narrow = Approximation(overlap="exchange", window=1)
    alone = error(pair((2.0, 2.0), (6.0, 6.2)), axis_ray(), narrow)
    assert error(medium, axis_ray(), narrow) > 3 * alone
    paired = error(medium, axis_ray(), replace(narrow, faintest=1e-6))
    assert paired == pytest.approx(alone, rel=1e-3)


def test_faint_splats_leave_the_gradients_of_opaque_pairs() -> None:
    """Check the depth before: little of a faint splat in front, much of an opaque one."""
    medium, rays = make_medium(count=12, size=0.12), make_rays(50)
    medium = medium.with_tensors({"splats.peaks": 200 * medium.splats.peaks})
    gradients = []
    for faintest in (0.0, 1e-3):
        peaks = medium.splats.peaks.clone().requires_grad_()
        way = Approximation(overlap="exchange", window=12, faintest=faintest)
        light = approximate(medium.with_tensors({"splats.peaks": peaks}), *rays, way)[0]
        gradients.append(torch.autograd.grad(light.sum(), peaks)[0])
    difference = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    assert difference < 0.05


def test_absorption_depths_halve_the_error_of_opaque_overlaps() -> None:
    medium, origins, directions = random_lines(4, 30.0, 1.0)
    errors = [error(medium, (origins, directions), way) for way in BEER]
    assert errors[2] < 0.6 * errors[1] < 0.6 * errors[0]


def test_absorption_depths_against_samples() -> None:
    """Places of absorption drawn from one splat: Φ(u) = -ln(1 - v (1 - e^{-τ}))/τ."""
    v = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    for tau in (0.01, 1.0, 30.0):
        front = -torch.log1p(v * math.expm1(-tau)) / tau
        u = torch.special.ndtri(front)
        mean, width = absorption_depths(torch.tensor([tau], dtype=F64))
        assert float(mean) == pytest.approx(float(u.mean()), abs=2e-3)
        assert float(width) == pytest.approx(float(u.std()), abs=2e-3)


def test_the_share_that_absorbs_has_exact_derivatives_at_zero() -> None:
    depths = torch.tensor(
        [0.0, 1e-9, 1e-3, 0.009999, 0.0100001, 2.0], dtype=F64, requires_grad=True
    )
    (slope,) = torch.autograd.grad(absorbed_share(depths).sum(), depths)
    assert float(slope[0]) == pytest.approx(-0.5, rel=1e-15)
    x = depths.detach()[2:]
    expected = (x * torch.exp(-x) + torch.expm1(-x)) / x.square()
    torch.testing.assert_close(slope[2:], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("approximation", ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str, approximation: Approximation) -> None:
    medium, rays = make_medium(kind, 4), make_rays(2)
    names = [name for name, _ in medium.items()]
    tensors = [tensor.clone().requires_grad_() for _, tensor in medium.items()]

    def light(*args: Tensor) -> tuple[Tensor, Tensor]:
        there = medium.with_tensors(dict(zip(names, args, strict=True)))
        return approximate(there, *rays, approximation)

    assert gradcheck(light, tensors, fast_mode=True, atol=1e-5)


def test_splats_that_only_emit_or_only_absorb() -> None:
    medium = replace(pair((0.0, 2.0), (6.0, 6.5)), kind="emissive")
    harmonics = torch.stack([RGB[:1] / SH_C0, 0 * RGB[:1]])
    medium = replace(medium, harmonics=harmonics)
    errors = [error(medium, axis_ray(), way) for way in BEER]
    assert max(errors[1:]) < 0.5 * errors[0]
    gaussian = approximate(medium, *axis_ray(), Approximation("gaussian"))[0]
    assert gaussian.isfinite().all() and bool((gaussian > 0).all())


def test_the_gaussian_response_is_3dgs() -> None:
    medium = pair((0.7, 3.0), (6.0, 20.0))
    origins, directions = axis_ray()
    origins = origins + torch.tensor([0.3, 0.2, 0.0], dtype=F64)
    footprint = math.exp(-0.5 * (0.3**2 + 0.2**2) / 0.25)
    opacity = -torch.expm1(-medium.splats.peaks * medium.splats.thickness)
    alpha = (opacity * footprint).clamp(max=0.99)
    expected = alpha[0] * RGB[0] + (1 - alpha[0]) * alpha[1] * RGB[1]
    found = approximate(medium, origins, directions, Approximation("gaussian"))
    torch.testing.assert_close(found[0][0], expected)
    torch.testing.assert_close(found[1][0], (1 - alpha).prod())


def test_rays_that_meet_nothing() -> None:
    medium, (origins, directions) = make_medium(), make_rays(2, distance=9.0)
    background = torch.tensor([0.1, 0.2, 0.3], dtype=F64)
    for way in ALL:
        radiance, through = approximate(
            medium, origins + 100, directions, way, background=background
        )
        assert torch.equal(radiance[0], background) and through.eq(1).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response", "ewa"),
        ("footprint", "ewa"),
        ("order", "depth"),
        ("overlap", 1),
        ("window", 0),
        ("faintest", -1.0),
    ],
)
def test_unknown_choices_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name}: expected .*, got"):
        Approximation(**{name: value})  # type: ignore[arg-type]


def test_approximate_refuses_bad_input() -> None:
    with pytest.raises(InputError, match="approximation: expected an Approximation, got 'ray'"):
        approximate(make_medium(), *make_rays(2), "ray")  # type: ignore[arg-type]
