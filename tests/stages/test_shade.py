"""Stage `shade`: the basis, closed forms, reference, gradients, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import World, random_world
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

from splatrender import reference

INPUTS = {"means": 0, "sh": 1, "viewmats": 2}
DEGREES = (0, 1, 2, 3)


def shade_args(world: World, degree: int, coefficients: int = 16) -> list[Any]:
    """Arguments of `shade`, in order; every third splat is culled in the first camera."""
    extents = torch.ones(len(world.viewmats), len(world.means), 2, dtype=world.means.dtype)
    extents[0, ::3] = 0
    return [world.means, world.sh[:, :coefficients], world.viewmats, extents, degree]


def legendre(order: int, degree: int, z: Tensor) -> Tensor:
    """Associated Legendre function P_l^m(z), m >= 0, without the sign (-1)^m, by recurrence."""
    value = torch.ones_like(z)
    for k in range(1, order + 1):
        value = value * (2 * k - 1) * (1 - z * z).sqrt()
    if degree == order:
        return value
    below, value = value, (2 * order + 1) * z * value
    for n in range(order + 2, degree + 1):
        following = ((2 * n - 1) * z * value - (n + order - 1) * below) / (n - order)
        below, value = value, following
    return value


def orthonormal_basis(theta: Tensor, phi: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics from their definition in angles, [...,(degree+1)²].

    The signs are those of 3DGS files: both cos mφ and sin mφ carry (-1)^m.
    """
    columns = []
    for n in range(degree + 1):
        for m in range(-n, n + 1):
            k = abs(m)
            scale = math.sqrt(
                (2 * n + 1) / (4 * math.pi) * math.factorial(n - k) / math.factorial(n + k)
            )
            wave = torch.sin(k * phi) if m < 0 else torch.cos(k * phi)
            factor = math.sqrt(2) * (-1) ** k if m else 1.0
            columns.append(scale * factor * wave * legendre(k, n, theta.cos()))
    return torch.stack(columns, dim=-1)


def basis_of(backend: Backend, directions: Tensor, degree: int) -> Tensor:
    """Basis values [R,(degree+1)²] seen through `shade`: one coefficient at a time."""
    count = (degree + 1) ** 2
    means = directions.repeat_interleave(count, dim=0)
    sh = torch.eye(count, dtype=directions.dtype).repeat(len(directions), 1)
    # ±0.1 keeps 1/2 + Y inside the positive part.
    sh = 0.1 * sh[:, :, None].expand(-1, -1, 3).contiguous()
    viewmats = torch.eye(4, dtype=directions.dtype)[None]
    emission = backend.shade(means, sh, viewmats, torch.ones(1, len(means), 2).to(means), degree)
    values: Tensor = ((emission[0, :, 0] - 0.5) / 0.1).reshape(len(directions), count)
    return values


# --- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", DEGREES)
def test_basis_follows_its_definition_in_angles(backend: Backend, degree: int) -> None:
    theta = math.pi * torch.rand(50, dtype=torch.float64)
    phi = 2 * math.pi * torch.rand(50, dtype=torch.float64)
    ring = theta.sin()
    directions = torch.stack((ring * phi.cos(), ring * phi.sin(), theta.cos()), dim=1)
    found = basis_of(backend, 1.7 * directions, degree)  # the distance says nothing
    expected = orthonormal_basis(theta, phi, degree)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_basis_has_the_signs_of_3dgs_files(backend: Backend) -> None:
    # Band 1 of a 3DGS file is -C1 y, C1 z, -C1 x; band 2 begins with +C2 xy, -C2 yz.
    direction = torch.tensor([[0.6, 0.48, 0.64]], dtype=torch.float64)
    found = basis_of(backend, direction, 2)[0]
    c1, c2 = 0.4886025119029199, 1.0925484305920792
    expected = [-c1 * 0.48, c1 * 0.64, -c1 * 0.6, c2 * 0.6 * 0.48, -c2 * 0.48 * 0.64]
    torch.testing.assert_close(found[1:6], torch.tensor(expected, dtype=torch.float64))


def test_basis_is_orthonormal(backend: Backend) -> None:
    # Midpoints in z, equidistant angles: ∫ over the sphere of polynomials of degree 6.
    z = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    phi = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    z, phi = (v.flatten() for v in torch.meshgrid(z, phi, indexing="ij"))
    ring = (1 - z * z).sqrt()
    basis = basis_of(backend, torch.stack((ring * phi.cos(), ring * phi.sin(), z), dim=1), 3)
    gram = 4 * math.pi / len(z) * basis.T @ basis
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-4)


def test_degree_zero_is_one_colour_from_everywhere(backend: Backend) -> None:
    world = random_world(20, cameras=3)
    args = shade_args(world, 0)
    emission = backend.shade(*args)
    expected = (0.5 + 0.28209479177387814 * world.sh[:, 0]).clamp(min=0)
    seen = args[3][..., :1] > 0
    torch.testing.assert_close(emission, torch.where(seen, expected.expand(3, -1, -1), 0))


def test_direction_runs_from_the_camera_to_the_splat(backend: Backend) -> None:
    world = random_world(20, cameras=3, seed=4)
    args = shade_args(world, 3)
    emission = backend.shade(*args)
    for c, viewmat in enumerate(world.viewmats):
        eye = torch.linalg.inv(viewmat)[:3, 3]
        moved = backend.shade(
            world.means - eye, args[1], torch.eye(4, dtype=torch.float64)[None], args[3][[c]], 3
        )
        torch.testing.assert_close(moved[0], emission[c], rtol=1e-9, atol=1e-9)


def test_negative_light_is_black_and_gets_no_gradient(backend: Backend) -> None:
    args = shade_args(random_world(9, cameras=1), 0)
    args[1] = torch.full_like(args[1], -10.0)
    emission = backend.shade(*args)
    assert not bool(emission.any())
    for gradient in gradients(backend.shade, args, list(INPUTS.values()), {0: emission + 1}):
        assert not bool(gradient.any())


def test_culled_rows_are_black_and_get_no_gradient(backend: Backend) -> None:
    args = shade_args(random_world(9, cameras=1), 3)
    emission = backend.shade(*args)
    assert not bool(emission[0, ::3].any()) and bool(emission[0, 1::3].any(dim=1).all())
    means, sh, _ = gradients(backend.shade, args, list(INPUTS.values()), {0: emission + 1})
    assert not bool(means[::3].any()) and not bool(sh[::3].any())


def test_higher_coefficients_are_not_read(backend: Backend) -> None:
    world = random_world(20)
    few, many = (backend.shade(*shade_args(world, 1, count)) for count in (4, 16))
    torch.testing.assert_close(few, many)


def test_no_splats(backend: Backend) -> None:
    empty = random_world().take(torch.arange(0))
    assert backend.shade(*shade_args(empty, 3)).shape == (2, 0, 3)


# --- against the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("degree", DEGREES)
def test_equals_reference(kernel_in_any_order: Backend, degree: int, dtype: torch.dtype) -> None:
    args = shade_args(random_world(301, cameras=3, seed=1), degree)
    clear = reference.shade(*args) > 1e-5  # the kink at 0 is a discontinuity
    assert_stage_equals_reference(
        kernel_in_any_order.shade,
        reference.shade,
        args,
        outputs={"emission": 0},
        inputs=INPUTS,
        dtype=dtype,
        masks={0: clear},
    )


@pytest.mark.parametrize("degree", DEGREES)
def test_gradcheck(backend: Backend, degree: int) -> None:
    args = shade_args(random_world(4, cameras=2, seed=2), degree)
    args[1] = 0.3 * args[1]
    assert (reference.shade(*args)[args[3][..., 0] > 0] > 1e-3).all(), "the scene meets the kink"
    assert_gradcheck(backend.shade, args, list(INPUTS.values()), [0])


# --- as an operator -----------------------------------------------------------------------------


def test_same_bits_for_any_number_of_threads(cpu_kernel: Backend, restore_threads: None) -> None:
    args = shade_args(random_world(3000, cameras=3).to(torch.float32), 3)
    assert_same_bits_for_any_threads(cpu_kernel.shade, args, list(INPUTS.values()), [0])


def test_composes_with_torch(kernel: Backend) -> None:
    args = shade_args(random_world().to(torch.float32), 2)
    assert_stage_composes(kernel.shade, args, list(INPUTS.values()), [0], kernel.device)


def test_opcheck(kernel: Backend) -> None:
    args = shade_args(random_world(7).to(torch.float32), 2)
    emission = kernel.shade(*args)
    gradient = torch.randn_like(emission)
    assert_opcheck("shade_backward", [*args[:4], emission, gradient, 2], kernel.device)
    for position in INPUTS.values():
        args[position] = args[position].clone().requires_grad_()
    assert_opcheck("shade", args, kernel.device)


def test_takes_any_strides(kernel: Backend) -> None:
    world = random_world().to(torch.float32)
    assert_takes_any_strides(kernel.shade, shade_args(world, 3))
    assert_takes_any_strides(kernel.shade, shade_args(world, 1, coefficients=9))


@pytest.mark.parametrize(
    "position, value, name, words",
    [
        (0, torch.zeros(3), "means", ["3]", "[3]"]),
        (0, torch.zeros(8, 3, dtype=torch.int32), "means", ["float32", "int32"]),
        (1, torch.zeros(8, 16), "sh", ["[N=8, K, 3]", "[8, 16]"]),
        (1, torch.zeros(8, 15, 3), "sh", ["16", "15"]),
        (1, torch.zeros(8, 25, 3), "sh", ["16", "25"]),
        (2, torch.zeros(4, 4), "viewmats", ["4, 4]", "[4, 4]"]),
        (3, torch.zeros(2, 8), "extents", ["[C=2, N=8, 2]", "[2, 8]"]),
        (3, torch.zeros(2, 8, 2, dtype=torch.float64), "extents", ["float32", "float64"]),
        (4, 4, "degree", ["0 to 3", "4"]),
    ],
)
def test_refuses(kernel: Backend, position: int, value: Any, name: str, words: list[str]) -> None:
    args = shade_args(random_world(8).to(torch.float32), 3)
    assert_refuses(kernel.shade, args, {position: value}, name, *words)


def test_refuses_two_devices(kernel: Backend) -> None:
    args = shade_args(random_world(8).to(torch.float32), 3)
    assert_refuses(kernel.shade, args, {1: args[1].to("meta")}, "sh", "device")
