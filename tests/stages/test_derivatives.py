"""Derivatives that no operator has are refused in one sentence, not dropped in silence."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import flat, random_prints, random_world, truths
from helpers.backends import require_extension
from test_flow_statistics import flow_args
from torch import Tensor
from torch.autograd import forward_ad

Function = Callable[[Tensor], Tensor]

FORWARD = "has no forward-mode derivative"
SECOND = "is differentiated once only"
REVERSE = "is not differentiated by torch.func"
VMAP = "does not run under torch.vmap"


@pytest.fixture(autouse=True)
def extension() -> None:
    require_extension()


def _called(stage: str, first: int, args: list[Any], output: int) -> tuple[Function, Tensor]:
    """Return a stage as a function of one argument."""
    module = {"photometric_loss": "loss"}.get(stage, stage)
    call = getattr(importlib.import_module(f"splatrender.operators.{module}"), stage)
    if stage in ("project", "blend"):
        call = getattr(flat, stage)(call)

    def function(x: Tensor) -> Tensor:
        result = call(*args[:first], x, *args[first + 1 :])
        if stage == "photometric_loss":
            result = result.loss
        value: Tensor = result if isinstance(result, Tensor) else result[output]
        return value

    return function, args[first]


def operator(name: str) -> tuple[Function, Tensor]:
    """Return an operator as a differentiable function of its first tensor, and a place."""
    world, prints = random_world(20, cameras=1), random_prints(20)
    if name == "project":
        return _called(name, 0, world.project_args(), 0)
    if name == "shade":
        extents = torch.ones(1, 20, 2, dtype=torch.float64)
        return _called(name, 0, [world.means, world.sh, world.viewmats, extents, 3], 0)
    if name == "blend":
        return _called(name, 0, prints.blend_args(truths.bin(*prints.bin_args())), 0)
    if name == "photometric_loss":
        return _called(name, 0, [torch.rand(12, 14, 3), torch.rand(12, 14, 3)], 0)
    from splatrender.operators.render import rasterize

    splats = (world.quats, world.scales, world.opacities, world.sh)
    view = (world.viewmats, world.intrinsics, world.width, world.height)
    return lambda means: rasterize(means, *splats, *view, sh_degree=3).radiance, world.means


DIFFERENTIABLE = ("project", "shade", "blend", "photometric_loss", "rasterize")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode_is_refused(name: str) -> None:
    function, x = operator(name)
    match = "project" if name == "rasterize" else name
    for transform in (
        lambda: torch.func.jvp(function, (x,), (torch.ones_like(x),)),
        lambda: torch.func.jacfwd(function)(x),
        lambda: torch.func.vmap(lambda t: torch.func.jvp(function, (x,), (t,)))(x[None]),
        lambda: torch.func.linearize(function, x),
    ):
        with pytest.raises(NotImplementedError, match=f"{match} {FORWARD}"):
            transform()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_duals_are_refused(name: str, requires_grad: bool) -> None:
    function, x = operator(name)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=FORWARD):
        function(forward_ad.make_dual(x.clone().requires_grad_(requires_grad), torch.ones_like(x)))


@pytest.mark.parametrize("outer", ["linear", "square"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_derivatives_are_refused(name: str, outer: str) -> None:
    """Also where other terms have some, and would make a number of what is left."""
    function, x = operator(name)
    x = x.clone().requires_grad_()
    value = function(x).sum() if outer == "linear" else function(x).square().sum()
    (gradient,) = torch.autograd.grad(value + x.pow(3).sum(), x, create_graph=True)
    assert bool(gradient.isfinite().all())
    with pytest.raises(NotImplementedError, match=SECOND):
        torch.autograd.grad(gradient.square().sum(), x)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_graph_that_is_not_used_changes_no_gradient(name: str) -> None:
    function, x = operator(name)
    x = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(function(x).square().sum(), x)
    (kept,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    assert torch.equal(plain, kept.detach())


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_torch_func_are_refused(name: str) -> None:
    function, x = operator(name)
    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacrev):
        with pytest.raises(NotImplementedError, match=f"({REVERSE}|{FORWARD})"):
            transform(lambda x: function(x).sum())(x)


@pytest.mark.filterwarnings("ignore:.*batching rule")
@pytest.mark.parametrize("name", ["project", "shade", "blend", "photometric_loss"])
def test_vmap_is_a_loop(name: str) -> None:
    function, x = operator(name)
    batch = torch.stack((x, 1.01 * x))
    expected = torch.stack([function(one) for one in batch])
    assert torch.equal(torch.func.vmap(function)(batch), expected)


def test_lists_do_not_run_under_vmap() -> None:
    function, x = operator("rasterize")
    with pytest.raises(NotImplementedError, match=f"bin {VMAP}"):
        torch.func.vmap(function)(x[None])


def test_statistics_have_no_derivative() -> None:
    first, *rest = flow_args(random_prints(20), 0)

    def statistics(means2d: Tensor) -> Tensor:
        error: Tensor = torch.ops.splatrender.flow_statistics(means2d, *rest)[0]
        return error

    with pytest.raises(NotImplementedError, match=f"flow_statistics {FORWARD}"):
        torch.func.jvp(statistics, (first,), (first,))
    with pytest.raises(NotImplementedError, match="flow_statistics has no gradient"):
        statistics(first.clone().requires_grad_()).sum().backward()
    with pytest.raises(NotImplementedError, match=f"flow_statistics {VMAP}"):
        torch.func.vmap(statistics)(first[None])


def test_a_step_of_adam_has_no_derivative() -> None:
    from splatrender.operators.adam import adam_step

    gradient, m, v = torch.ones(3, 2), torch.zeros(3, 2), torch.zeros(3, 2)

    def step(param: Tensor) -> Tensor:
        moved = param.clone()
        adam_step(moved, gradient, m, v, torch.zeros(3, dtype=torch.int32), None, 0.1)
        return moved

    with pytest.raises(NotImplementedError, match=f"adam_step {FORWARD}"):
        torch.func.jvp(step, (torch.ones(3, 2),), (torch.ones(3, 2),))


def test_lists_are_integers_with_no_derivative() -> None:
    from splatrender.operators.bin import bin

    first, *rest = random_prints(20).bin_args()
    lists = flat.bin(bin)(first.clone().requires_grad_(), *rest)
    assert all(not part.is_floating_point() and not part.requires_grad for part in lists)
