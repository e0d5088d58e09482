"""Left-out places may hold anything: poison in every culled place changes no value, no gradient.

A culled splat's numbers are garbage by right (a point at a camera's centre has no direction). A
product with a zero is no way to leave it out, because 0 · NaN is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers import GAUSSIAN, RESPONSES, cast, random_prints, random_world
from helpers.backends import Backend
from helpers.compare import Stage, outputs_of
from test_adam import copies, state
from test_flow_statistics import NAMES as FLOW_NAMES
from test_flow_statistics import flow_args, flow_on
from torch import Tensor

POISONS = (math.nan, math.inf, -math.inf)
DTYPES = (torch.float32, torch.float64)
COUNT = 37  # no multiple of any pack


def poisoned(value: Tensor, rows: Tensor, poison: float) -> Tensor:
    """Return a copy of `value` whose `rows`, a mask of its first axes, hold `poison`."""
    return value.masked_fill(rows.reshape(rows.shape + (1,) * (value.dim() - rows.dim())), poison)


def results(
    stage: Stage, args: Sequence[Any], wrt: Sequence[int], incoming: Mapping[int, Tensor]
) -> list[Tensor]:
    """Return outputs and gradients for incoming gradients {output: gradient}."""
    args = list(args)
    for position in wrt:
        args[position] = args[position].detach().clone().requires_grad_()
    outputs = outputs_of(stage, args)
    chosen = [outputs[i] for i in incoming]
    found = torch.autograd.grad(
        chosen, [args[i] for i in wrt], list(incoming.values()), materialize_grads=True
    )
    return [value.detach() for value in (*outputs, *found)]


def assert_ignores(
    stage: Stage,
    args: Sequence[Any],
    culled: Mapping[int, Tensor],
    wrt: Sequence[int],
    outgoing: Mapping[int, Tensor],
) -> None:
    """Poison where `culled` holds gives the bits of clean numbers.

    Args:
        culled: position of an argument -> mask of its rows.
        outgoing: position of an output -> mask of the rows whose incoming gradient is poisoned too.
    """
    outputs = outputs_of(stage, args)
    flowing = {i: torch.linspace(-1, 1, outputs[i].numel()).to(outputs[i]) for i in outgoing}
    flowing = {i: values.reshape(outputs[i].shape) for i, values in flowing.items()}
    clean = results(stage, args, wrt, flowing)
    assert all(bool(value.isfinite().all()) for value in clean)
    for poison in POISONS:
        bad = list(args)
        for position, rows in culled.items():
            bad[position] = poisoned(args[position], rows, poison)
        into = {i: poisoned(flowing[i], rows, poison) for i, rows in outgoing.items()}
        for position, (one, two) in enumerate(
            zip(clean, results(stage, bad, wrt, into), strict=True)
        ):
            assert torch.equal(one, two), f"{poison} in what is culled changes result {position}"


@pytest.mark.parametrize("with_factors", [False, True])
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_project(backend: Backend, dtype: torch.dtype, response: int, with_factors: bool) -> None:
    world = random_world(COUNT, cameras=2)
    far = torch.arange(COUNT) % 5 == 2
    world.means[far] *= 1e4  # beyond the far plane of both cameras
    args = cast(world.project_args(response, with_factors=with_factors, antialiased=True), dtype)
    culled = backend.project(*args)[4][..., 0] == 0
    gone = culled.all(dim=0)
    assert bool(gone[far].all()) and not bool(gone.all())
    shape = [3] if with_factors else [1, 2]
    wrt, rows = [0, *shape, 4, 5, 6], dict.fromkeys([0, *shape, 4], gone)
    assert_ignores(backend.project, args, rows, wrt, dict.fromkeys(range(4), culled))
    del rows[0]  # still far away, with numbers that no formula can take
    assert_ignores(backend.project, args, rows, wrt, dict.fromkeys(range(4), culled))


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("dtype", DTYPES)
def test_shade(backend: Backend, dtype: torch.dtype, degree: int) -> None:
    world = random_world(COUNT, cameras=2)
    extents = torch.ones(2, COUNT, 2, dtype=torch.float64)
    extents[0, ::3] = 0
    extents[:, 1::3] = 0
    culled = extents[..., 0] == 0
    args = cast([world.means, world.sh, world.viewmats, extents, degree], dtype)
    rows = dict.fromkeys((0, 1), culled.all(dim=0))
    assert_ignores(backend.shade, args, rows, [0, 1, 2], {0: culled})


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_splat_at_a_camera_has_no_gradient_of_its_colour(
    backend: Backend, dtype: torch.dtype
) -> None:
    world = random_world(COUNT, cameras=2).to(dtype)
    world.means[5] = torch.linalg.inv(world.viewmats[0])[:3, 3]
    extents = torch.ones(2, COUNT, 2, dtype=dtype)
    extents[:, 5] = 0
    args = [world.means, world.sh, world.viewmats, extents, 3]
    *_, means, sh, _ = results(
        backend.shade, args, [0, 1, 2], {0: torch.ones(2, COUNT, 3, dtype=dtype)}
    )
    assert bool(sh.isfinite().all()) and not bool(sh[5].any())
    assert bool(means.isfinite().all()) and not bool(means[5].any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_bin(backend: Backend, dtype: torch.dtype) -> None:
    prints = random_prints(COUNT).to(dtype)
    clean = backend.bin(*prints.bin_args())
    culled = prints.extents[..., 0] == 0
    for poison in POISONS:
        *bad, extents, width, height = prints.bin_args()
        bad = [poisoned(value, culled, poison) for value in bad]
        for one, two in zip(clean, backend.bin(*bad, extents, width, height), strict=True):
            assert torch.equal(one, two), f"{poison} in what is culled changes the lists"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_blend(backend: Backend, dtype: torch.dtype, response: int, channels: int) -> None:
    prints = random_prints(COUNT, channels=channels, response=response).to(dtype)
    culled = prints.extents[..., 0] == 0
    args = prints.blend_args(backend.bin(*prints.bin_args()), response)
    none = torch.zeros(0, dtype=torch.bool)
    outgoing = {0: none.new_zeros(2), 1: none.new_zeros(2)}  # images have no culled pixels
    assert_ignores(backend.blend, args, dict.fromkeys(range(4), culled), [0, 1, 2, 3, 4], outgoing)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_flow_statistics(backend: Backend, dtype: torch.dtype, response: int) -> None:
    prints, statistics = random_prints(COUNT, response=response), flow_on(backend)
    masks = (torch.arange(2 * 37 * 43).reshape(2, 37, 43) % 4 != 1).to(torch.uint8)
    args = cast(flow_args(prints, response, masks=masks), dtype)
    culled, clean = prints.extents[..., 0] == 0, statistics(*args)
    for poison in POISONS:
        bad = [poisoned(value, culled, poison) for value in args[:4]] + args[4:]
        bad[9] = poisoned(args[9], masks == 0, poison)
        for name, one, two in zip(FLOW_NAMES, clean, statistics(*bad), strict=True):
            assert bool(one.isfinite().all())
            assert torch.equal(one, two), f"{poison} in what is left out changes {name}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_photometric_loss(backend: Backend, dtype: torch.dtype) -> None:
    make = torch.Generator().manual_seed(0)
    radiance, photo = torch.rand(2, 23, 31, 3, generator=make, dtype=torch.float64).to(dtype)
    mask = torch.rand(23, 31, generator=make) > 0.3

    def loss(image: Tensor, target: Tensor) -> Tensor:
        value: Tensor = backend.photometric_loss(image, target, mask).loss
        return value

    rows = dict.fromkeys((0, 1), ~mask)
    assert_ignores(loss, [radiance, photo], rows, [0], {0: torch.zeros((), dtype=torch.bool)})


@pytest.mark.parametrize("shape", [(37,), (37, 3), (37, 16, 3)])
def test_adam_step(backend: Backend, shape: tuple[int, ...]) -> None:
    moved = torch.arange(shape[0]) % 3 != 1
    clean = state(shape)
    backend.adam_step(*clean, moved, 0.1)
    for poison in POISONS:
        *bad, steps = copies(state(shape))
        bad = [poisoned(value, ~moved, poison) for value in bad]
        before = bad[0].clone()
        backend.adam_step(*bad, steps, moved, 0.1)
        torch.testing.assert_close(bad[0][~moved], before[~moved], rtol=0, atol=0, equal_nan=True)
        for one, two in zip(clean[:4], bad, strict=True):
            assert torch.equal(one[moved], two[moved])


@pytest.mark.parametrize("response", RESPONSES)
def test_rasterize(backend: Backend, response: int) -> None:
    """All stages in a row: only the broken splats are missing."""
    world = random_world(COUNT, cameras=2).to(torch.float32)
    broken = torch.arange(COUNT) % 6 == 1
    fields = [world.means, world.quats, world.scales, world.amplitudes(response), world.sh]
    view = (world.viewmats, world.intrinsics, world.width, world.height)

    def image(splats: Sequence[Tensor]) -> Tensor:
        radiance: Tensor
        if backend.name == "reference":
            radiance = backend.rasterize(*splats, *view, sh_degree=3, response=response)[0]
            return radiance
        from splatrender.operators.options import RenderOptions  # needs the extension

        name = "gaussian" if response == GAUSSIAN else "beer_lambert"
        options = RenderOptions(response=name)
        radiance = backend.rasterize(*splats, *view, sh_degree=3, options=options).radiance
        return radiance

    good = [value[~broken].clone().requires_grad_() for value in fields]
    expected = image(good)
    gradients = torch.autograd.grad(expected.square().sum(), good)
    for poison in POISONS:
        # A poisoned colour alone would be seen: it is the geometry that culls.
        bad = [poisoned(value, broken, poison).requires_grad_() for value in fields]
        found = image(bad)
        torch.testing.assert_close(found, expected)
        for one, two in zip(gradients, torch.autograd.grad(found.square().sum(), bad), strict=True):
            assert not bool(two[broken].any()) and bool(two.isfinite().all())
            torch.testing.assert_close(two[~broken], one, rtol=1e-4, atol=1e-5)
