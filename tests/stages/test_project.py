"""Stage `project`: closed forms, reference, gradients, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import (
    BEER_LAMBERT,
    CUTOFF,
    EPS2D,
    FAR,
    GAUSSIAN,
    NEAR,
    RESPONSES,
    World,
    random_world,
    truths,
)
from helpers.backends import Backend
from helpers.compare import (
    assert_gradcheck,
    assert_opcheck,
    assert_refuses,
    assert_same_bits_for_any_threads,
    assert_stage_composes,
    assert_stage_equals_reference,
    assert_takes_any_strides,
    gradients,
)
from torch import Tensor

OUTPUTS = {"means2d": 0, "conics": 1, "depths": 2, "peaks": 3, "extents": 4}
DIFFERENTIABLE = {name: i for name, i in OUTPUTS.items() if name != "extents"}
COMMON = {"means": 0, "amplitudes": 4, "viewmats": 5, "intrinsics": 6}
BY_AXES = {**COMMON, "quats": 1, "scales": 2}
BY_FACTORS = {**COMMON, "factors": 3}


def steady(world: World, response: int, antialiased: bool) -> World:
    """Return the splats whose visibility no rounding can change, in any camera."""
    seen = []
    for factor in (0.999, 1.0, 1.001):
        args = world.project_args(response, antialiased=antialiased, near=NEAR * factor)
        args[4] = args[4] * factor
        seen.append((truths.project(*args)[4] > 0).any(dim=2))
    return world.take(((seen[0] == seen[1]) & (seen[1] == seen[2])).all(dim=0))


def one_splat(position: tuple[float, float, float], **changes: Any) -> list[Any]:
    """Return a camera at the origin, 40 x 30 px, and one isotropic splat of size 0.1; float64."""
    double = torch.float64
    args = dict(
        means=torch.tensor([position], dtype=double),
        quats=torch.tensor([[1.0, 0, 0, 0]], dtype=double),
        scales=torch.full((1, 3), 0.1, dtype=double),
        factors=None,
        amplitudes=torch.tensor([0.8], dtype=double),
        viewmats=torch.eye(4, dtype=double)[None],
        intrinsics=torch.tensor([[50.0, 60.0, 21.0, 14.0]], dtype=double),
        width=40,
        height=30,
        near=NEAR,
        far=FAR,
        eps2d=EPS2D,
        antialiased=False,
        response=GAUSSIAN,
    )
    assert set(changes) <= set(args)
    return list({**args, **changes}.values())


def pixel_of(points: Tensor, viewmat: Tensor, intrinsics: Tensor) -> Tensor:
    """Apply the pinhole map [...,3] -> [...,2]."""
    p = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    return intrinsics[:2] * p[..., :2] / p[..., 2:] + intrinsics[2:]


# --- closed forms -------------------------------------------------------------------------------


def test_isotropic_splat_on_the_axis(backend: Backend) -> None:
    means2d, conics, depths, peaks, extents = backend.project(*one_splat((0, 0, 2.0)))
    variance = torch.tensor([50 * 0.1 / 2, 60 * 0.1 / 2], dtype=torch.float64) ** 2 + EPS2D
    torch.testing.assert_close(means2d[0, 0], torch.tensor([21.0, 14.0], dtype=torch.float64))
    expected = torch.tensor([1 / variance[0], 0, 1 / variance[1]], dtype=torch.float64)
    torch.testing.assert_close(conics[0, 0], expected)
    assert float(depths) == 2.0 and float(peaks) == pytest.approx(0.8, abs=1e-15)
    torch.testing.assert_close(extents[0, 0], (2 * math.log(255 * 0.8) * variance).sqrt())


def test_footprint_is_the_shape_pushed_through_the_pinhole_map(backend: Backend) -> None:
    world = random_world(60, cameras=2, seed=3)
    means2d, conics, depths, _, extents = backend.project(*world.project_args())
    checked = 0
    for c, n in (extents[..., 0] > 0).nonzero().tolist():
        if not ((means2d[c, n] > 0) & (means2d[c, n] < torch.tensor([43, 37]))).all():
            continue  # outside the image the Jacobian is taken at a clamped place
        camera = world.viewmats[c], world.intrinsics[c]
        torch.testing.assert_close(means2d[c, n], pixel_of(world.means[n], *camera))
        jacobian = torch.autograd.functional.jacobian(
            lambda point, camera=camera: pixel_of(point, *camera), world.means[n]
        )
        image = jacobian @ world.factors[n]
        covariance = image @ image.T + EPS2D * torch.eye(2)
        xx, xy, yy = conics[c, n].tolist()
        inverse = torch.tensor([[xx, xy], [xy, yy]], dtype=torch.float64)
        torch.testing.assert_close(inverse @ covariance, torch.eye(2, dtype=torch.float64))
        depth = (world.viewmats[c] @ torch.cat((world.means[n], torch.ones(1))))[2]
        torch.testing.assert_close(depths[c, n], depth)
        checked += 1
    assert checked > 40


@pytest.mark.parametrize("side", [-1, 1])
def test_jacobian_is_clamped_outside_the_image(backend: Backend, side: int) -> None:
    # x/z = ±2 is past both limits: cx/fx + 0.15 W/fx = 0.54 and (W - cx)/fx + 0.15 W/fx = 0.5.
    args = one_splat((side * 4.0, 0, 2.0), scales=torch.full((1, 3), 2.0, dtype=torch.float64))
    means2d, conics, *_ = backend.project(*args)
    limit = 0.5 if side > 0 else -0.54
    row = 2.0 * 50 / 2 * torch.tensor([1, 0, -limit], dtype=torch.float64)
    assert float(means2d[0, 0, 0]) == pytest.approx(21 + side * 100)
    variance_x, variance_y = float(row @ row) + EPS2D, 60.0**2 + EPS2D
    torch.testing.assert_close(
        conics[0, 0], torch.tensor([1 / variance_x, 0, 1 / variance_y], dtype=torch.float64)
    )


def test_antialiasing_keeps_the_mass_of_small_splats(backend: Backend) -> None:
    small = torch.full((1, 3), 0.01, dtype=torch.float64)
    plain = backend.project(*one_splat((0, 0, 2.0), scales=small))[3]
    kept = backend.project(*one_splat((0, 0, 2.0), scales=small, antialiased=True))[3]
    sharp = [(focal * 0.01 / 2) ** 2 for focal in (50, 60)]
    ratio = math.sqrt(math.prod(v / (v + EPS2D) for v in sharp))
    assert float(kept / plain) == pytest.approx(ratio, rel=1e-9)
    speck = torch.full((1, 3), 1e-9, dtype=torch.float64)
    least = backend.project(*one_splat((0, 0, 2.0), scales=speck, antialiased=True))[3]
    assert float(least / plain) == pytest.approx(0.005, rel=1e-9)


def test_beer_lambert_peak_is_the_optical_depth_of_the_centre_ray(backend: Backend) -> None:
    world = random_world(40, cameras=1, seed=5)
    peaks = backend.project(*world.project_args(BEER_LAMBERT))[3][0]
    position = world.means @ world.viewmats[0, :3, :3].T + world.viewmats[0, :3, 3]
    rays = (position / position.norm(dim=1, keepdim=True)) @ world.viewmats[0, :3, :3]
    t = torch.linspace(-10, 10, 16001, dtype=torch.float64)  # in the largest scale
    for n in peaks.nonzero().flatten().tolist():
        reach = float(world.scales[n].max())
        points = torch.linalg.solve(world.factors[n], rays[n]) * (t * reach)[:, None]
        density = world.extinctions[n] * torch.exp(-0.5 * points.square().sum(dim=1))
        depth = torch.trapezoid(density, t * reach)
        torch.testing.assert_close(peaks[n], depth, rtol=1e-8, atol=0)


@pytest.mark.parametrize("response", RESPONSES)
def test_extents_touch_the_ellipse_of_the_cut_off(backend: Backend, response: int) -> None:
    _, conics, _, peaks, extents = backend.project(*random_world().project_args(response))
    seen = peaks > 0
    xx, xy, yy = conics[seen].unbind(dim=1)
    half = extents[seen]
    for along, across, mixed, side in ((xx, yy, xy, half[:, 0]), (yy, xx, xy, half[:, 1])):
        other = -mixed * side / across  # the ellipse's rightmost (lowest) point
        form = along * side**2 + 2 * mixed * side * other + across * other**2
        amount = peaks[seen] * torch.exp(-form / 2)
        torch.testing.assert_close(amount, torch.full_like(amount, CUTOFF), rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    "case",
    ["behind", "before near", "beyond far", "faint", "left", "right", "above", "below", "point"],
)
def test_culled_splats_are_zero_and_get_no_gradient(backend: Backend, case: str) -> None:
    point = torch.zeros(1, 3, dtype=torch.float64)  # with no blur: no footprint
    args = {
        "behind": one_splat((0, 0, -2.0)),
        "before near": one_splat((0, 0, NEAR * 0.9)),
        "beyond far": one_splat((0, 0, FAR * 1.1)),
        "faint": one_splat((0, 0, 2.0), amplitudes=torch.tensor([0.0039], dtype=torch.float64)),
        "left": one_splat((-2.0, 0, 2.0)),
        "right": one_splat((2.0, 0, 2.0)),
        "above": one_splat((0, -2.0, 2.0)),
        "below": one_splat((0, 2.0, 2.0)),
        "point": one_splat((0, 0, 2.0), scales=point, eps2d=0.0),
    }[case]
    results = backend.project(*args)
    assert all(not bool(value.any()) for value in results)
    weights = {i: torch.ones_like(results[i]) for i in DIFFERENTIABLE.values()}
    for gradient in gradients(backend.project, args, list(BY_AXES.values()), weights):
        assert not bool(gradient.any()), "a gradient (or NaN) reaches a culled splat"


def test_singular_shape_has_no_optical_depth(backend: Backend) -> None:
    disk = torch.tensor([[0.1, 0.1, 0.0]], dtype=torch.float64)
    args = one_splat((0, 0, 2.0), scales=disk, response=BEER_LAMBERT)
    assert not any(bool(value.any()) for value in backend.project(*args))


@pytest.mark.parametrize("response", RESPONSES)
def test_factors_say_the_same_as_axes(backend: Backend, response: int) -> None:
    world = random_world()
    by_axes = backend.project(*world.project_args(response))
    by_factors = backend.project(*world.project_args(response, with_factors=True))
    for one, two in zip(by_axes, by_factors, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_length_and_sign_of_a_quaternion_say_nothing(backend: Backend) -> None:
    world = random_world()
    scaled = replace(world, quats=-3.7 * world.quats)
    one, two = (backend.project(*w.project_args()) for w in (world, scaled))
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def test_no_splats_and_no_visible_splats(backend: Backend) -> None:
    empty = random_world().take(torch.arange(0))
    shapes = [tuple(v.shape) for v in backend.project(*empty.project_args())]
    assert shapes == [(2, 0, 2), (2, 0, 3), (2, 0), (2, 0), (2, 0, 2)]
    for value in backend.project(*random_world().project_args(near=100.0, far=200.0)):
        assert not bool(value.any())


# --- against the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("with_factors", [False, True], ids=["axes", "factors"])
@pytest.mark.parametrize("antialiased", [False, True], ids=["plain", "antialiased"])
@pytest.mark.parametrize("response", RESPONSES)
def test_equals_reference(
    kernel_in_any_order: Backend,
    response: int,
    antialiased: bool,
    with_factors: bool,
    dtype: torch.dtype,
) -> None:
    world = steady(random_world(301, cameras=3, seed=1), response, antialiased)
    assert_stage_equals_reference(
        kernel_in_any_order.project,
        truths.project,
        world.project_args(response, antialiased=antialiased, with_factors=with_factors),
        outputs=OUTPUTS,
        inputs=BY_FACTORS if with_factors else BY_AXES,
        dtype=dtype,
        constant=[OUTPUTS["extents"]],
    )


@pytest.mark.parametrize("with_factors", [False, True], ids=["axes", "factors"])
@pytest.mark.parametrize("antialiased", [False, True], ids=["plain", "antialiased"])
@pytest.mark.parametrize("response", RESPONSES)
def test_gradcheck(backend: Backend, response: int, antialiased: bool, with_factors: bool) -> None:
    world = steady(random_world(5, cameras=2, seed=2), response, antialiased)
    # One splat past each limit of the Jacobian, large enough to be seen.
    world.means[0] = world.means[1] * 2.5
    world.scales[0] = 1.5
    args = world.project_args(response, antialiased=antialiased, with_factors=with_factors)
    wrt = list((BY_FACTORS if with_factors else BY_AXES).values())
    assert_gradcheck(backend.project, args, wrt, list(DIFFERENTIABLE.values()))


@pytest.mark.parametrize("side", [-1, 1])
def test_gradcheck_past_the_border(backend: Backend, side: int) -> None:
    """Check a splat outside the image that still reaches in: J stays at the border of the view."""
    for position in ((side * 4.0, 0.1, 2.0), (0.1, side * 4.0, 2.0)):
        args = one_splat(position, scales=torch.full((1, 3), 2.0, dtype=torch.float64))
        assert float(truths.project(*args)[3]) > 0
        assert_gradcheck(backend.project, args, list(BY_AXES.values()), [0, 1, 2, 3])


# --- as an operator -----------------------------------------------------------------------------


@pytest.mark.parametrize("response", RESPONSES)
def test_same_bits_for_any_number_of_threads(
    cpu_kernel: Backend, response: int, restore_threads: None
) -> None:
    world = random_world(3000, cameras=3).to(torch.float32)
    args = world.project_args(response, antialiased=True)
    wrt, outputs = list(BY_AXES.values()), list(DIFFERENTIABLE.values())
    assert_same_bits_for_any_threads(cpu_kernel.project, args, wrt, outputs)


def test_composes_with_torch(kernel: Backend) -> None:
    args = random_world().to(torch.float32).project_args()
    wrt, outputs = list(BY_AXES.values()), list(DIFFERENTIABLE.values())
    assert_stage_composes(kernel.project, args, wrt, outputs, kernel.device)


@pytest.mark.parametrize("with_factors", [False, True], ids=["axes", "factors"])
def test_opcheck(kernel: Backend, with_factors: bool) -> None:
    world = random_world(7).to(torch.float32)
    args = world.project_args(with_factors=with_factors)
    extents = kernel.project(*args)[4]
    shapes = ((2, 7, 2), (2, 7, 3), (2, 7), (2, 7))
    grads = [torch.randn(shape) for shape in shapes]
    backward = [*args[:7], extents, *grads, *args[7:]]
    assert_opcheck("project_backward", backward, kernel.device)
    for position in (BY_FACTORS if with_factors else BY_AXES).values():
        args[position] = args[position].clone().requires_grad_()
    assert_opcheck("project", args, kernel.device)


def test_takes_any_strides(kernel: Backend) -> None:
    world = random_world().to(torch.float32)
    assert_takes_any_strides(kernel.project, world.project_args())
    assert_takes_any_strides(kernel.project, world.project_args(with_factors=True))


@pytest.mark.parametrize(
    "position, value, name, words",
    [
        (0, torch.zeros(8, 2), "means", ["3]", "[8, 2]"]),
        (0, torch.zeros(8, 3, dtype=torch.int64), "means", ["float32", "int64"]),
        (0, torch.zeros(8, 3, dtype=torch.float16), "means", ["float32", "float16"]),
        (1, torch.zeros(8, 3), "quats", ["[N=8, 4]", "[8, 3]"]),
        (1, torch.zeros(8, 4, dtype=torch.float64), "quats", ["float32", "float64"]),
        (1, None, "quats", ["factors"]),
        (2, torch.zeros(7, 3), "scales", ["[N=8, 3]", "[7, 3]"]),
        (3, torch.zeros(8, 3, 3), "factors", ["quats"]),
        (4, torch.zeros(8, 1), "amplitudes", ["[N=8]", "[8, 1]"]),
        (5, torch.zeros(2, 3, 4), "viewmats", ["4, 4]", "[2, 3, 4]"]),
        (6, torch.zeros(3, 4), "intrinsics", ["[C=2, 4]", "[3, 4]"]),
        (7, 0, "width", ["0"]),
        (8, -4, "height", ["-4"]),
        (9, -1.0, "near", ["-1"]),
        (11, -0.5, "eps2d", ["-0.5"]),
        (13, 7, "response", ["gaussian", "beer_lambert", "7"]),
    ],
)
def test_refuses(kernel: Backend, position: int, value: Any, name: str, words: list[str]) -> None:
    args = random_world(8).to(torch.float32).project_args()
    assert_refuses(kernel.project, args, {position: value}, name, *words)


def test_refuses_two_devices(kernel: Backend) -> None:
    args = random_world(8).to(torch.float32).project_args()
    assert_refuses(kernel.project, args, {2: args[2].to("meta")}, "scales", "device")
