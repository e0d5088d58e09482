"""Adam on rows: torch's own Adam, closed forms, reference, row-wise corrections, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.backends import Backend
from helpers.compare import assert_opcheck
from torch import Tensor

from splatrender.errors import InputError
from splatrender.reference import adam as reference_adam

SHAPES = [(1,), (37,), (200, 3), (50, 4), (33, 16, 3), (19, 15, 3), (5, 7), (65, 16), (0, 3)]
SHAPES += [(4, 0), (17, 2)]
Step = Callable[..., None]
reference_step: Step = reference_adam.adam_step


@pytest.fixture
def step(backend: Backend) -> Step:
    return backend.adam_step


@pytest.fixture
def step_kernel(kernel: Backend) -> Step:
    return kernel.adam_step


def state(shape: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """param, grad, exp_avg, exp_avg_sq, steps; rows of all ages, gradients of all sizes."""
    make = torch.Generator().manual_seed(seed)
    param, grad, mean = (torch.randn(shape, generator=make) for _ in range(3))
    grad = grad * 10 ** (4 * torch.rand(shape, generator=make) - 6)
    square = 1e-8 * torch.rand(shape, generator=make)
    ages = torch.tensor([0, 1, 2, 5, 6, 7, 100, 499, 500, 501, 5000, 30000, 1000000])
    steps = ages[torch.arange(shape[0]) % len(ages)].to(torch.int32)
    mean = 1e-4 * mean.abs() * grad.sign()  # no cancellation: errors stay relative
    return [param, grad, mean, square, steps]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


# --- closed forms -------------------------------------------------------------------------------


def test_first_step_has_the_size_of_the_rate(step: Step) -> None:
    # m̂ = g and v̂ = g² after one step, whatever the betas.
    grad = torch.tensor([[3.0, -1e-6], [0.0, 1e3]])
    param, mean, square = (torch.zeros(2, 2) for _ in range(3))
    step(param, grad, mean, square, torch.zeros(2, dtype=torch.int32), None, 0.5)
    torch.testing.assert_close(param, -0.5 * grad.sign(), rtol=1e-6, atol=0)
    torch.testing.assert_close(mean, 0.1 * grad)
    torch.testing.assert_close(square, 1e-3 * grad.square(), rtol=1e-6, atol=0)


def test_steady_gradient_gives_steady_steps(step: Step) -> None:
    param, mean, square = (torch.zeros(5, 3) for _ in range(3))
    steps = torch.zeros(5, dtype=torch.int32)
    for _ in range(50):
        step(param, torch.full((5, 3), 1e-4), mean, square, steps, None, 0.01)
    torch.testing.assert_close(param, torch.full((5, 3), -0.5), rtol=2e-6, atol=0)
    assert steps.tolist() == [50] * 5


def test_no_gradient_no_move(step: Step) -> None:
    param, steps = torch.ones(3, 2), torch.zeros(3, dtype=torch.int32)
    step(param, torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2), steps, None, 1.0)
    assert torch.equal(param, torch.ones(3, 2))


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.0, 0.999), (0.5, 0.9)], ids=str)
def test_other_betas(step: Step, betas: tuple[float, float]) -> None:
    param, grad = torch.zeros(20), torch.linspace(-1, 1, 20)
    mean, square, steps = torch.zeros(20), torch.zeros(20), torch.zeros(20, dtype=torch.int32)
    theirs = torch.zeros(20, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=0.1, betas=betas, eps=1e-8)
    for _ in range(3):
        step(param, grad, mean, square, steps, None, 0.1, betas=betas, eps=1e-8)
        theirs.grad = grad.clone()
        adam.step()
    torch.testing.assert_close(param, theirs.detach(), rtol=1e-6, atol=1e-7)


# --- against torch's Adam -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_rows_equal_torch_adam(step: Step, shape: tuple[int, ...]) -> None:
    param = torch.randn(shape)
    mine, theirs = param.clone(), param.clone().requires_grad_()
    mean, square = torch.zeros(shape), torch.zeros(shape)
    steps = torch.zeros(shape[0], dtype=torch.int32)
    adam = torch.optim.Adam([theirs], lr=0.02, eps=1e-15)
    for _ in range(25):
        grad = 1e-3 * torch.randn(shape)
        step(mine, grad, mean, square, steps, None, 0.02)
        theirs.grad = grad
        adam.step()
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=2e-6)
    assert steps.tolist() == [25] * shape[0]


def test_every_row_counts_for_itself(step: Step) -> None:
    # A row that is seen now and then goes where it would go if only those steps had been.
    param = torch.randn(6, 3)
    mine, mean, square = param.clone(), torch.zeros(6, 3), torch.zeros(6, 3)
    steps = torch.zeros(6, dtype=torch.int32)
    lone = [row.clone().requires_grad_() for row in param]
    adams = [torch.optim.Adam([row], lr=0.05, eps=1e-15) for row in lone]
    for i in range(30):
        rows = torch.tensor([i % (n + 1) == 0 for n in range(6)])
        grad = torch.randn(6, 3)
        step(mine, grad, mean, square, steps, rows, 0.05)
        for n in rows.nonzero().flatten().tolist():
            lone[n].grad = grad[n].clone()
            adams[n].step()
    torch.testing.assert_close(mine, torch.stack(lone).detach(), rtol=1e-5, atol=2e-6)
    assert steps.tolist() == [30, 15, 10, 8, 6, 5]


# --- against the reference ----------------------------------------------------------------------


@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(kernel_in_any_order: Backend, shape: tuple[int, ...], some: bool) -> None:
    mine, exact = state(shape), [x.double() if x.is_floating_point() else x for x in state(shape)]
    before = copies(mine)
    rows = torch.arange(shape[0]) % 3 != 1 if some else None
    lr = 1e-3 * (1 + torch.arange(math.prod(shape[1:]), dtype=torch.float32))
    kernel_in_any_order.adam_step(*mine, rows, lr)
    reference_step(*exact, rows, lr)
    for found, expected in zip(mine[1:4], exact[1:4], strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    old, new = before[0].double(), exact[0]
    # a few roundings of the way, and one of the place
    allowed = 2e-6 * (new - old).abs() + 2**-23 * torch.maximum(old.abs(), new.abs())
    assert bool(((mine[0].double() - new).abs() <= allowed).all())
    assert torch.equal(mine[4], exact[4])
    if rows is not None:
        for found, old in zip(mine, before, strict=True):
            assert torch.equal(found[~rows], old[~rows])


@pytest.mark.parametrize("columns", [0, 1, 3, 12, 27, 48])
@pytest.mark.parametrize("shape", [(21, 16, 3), (21, 48), (40, 3)], ids=str)
def test_only_the_first_columns_move(
    step_kernel: Step, shape: tuple[int, ...], columns: int
) -> None:
    columns = min(columns, math.prod(shape[1:]))
    mine, exact = state(shape), state(shape)
    before = copies(mine)
    rows = torch.arange(shape[0]) % 4 != 2
    step_kernel(*mine, rows, 0.01, columns=columns)
    reference_step(*exact, rows, 0.01, columns=columns)
    for found, expected, old in zip(mine[:4], exact[:4], before[:4], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(found.flatten(1)[:, columns:], old.flatten(1)[:, columns:])


def test_steps_are_shared_by_parameters(step: Step) -> None:
    param, grad, mean, square, steps = state((30, 3))
    first = copies([param, grad, mean, square])
    second = copies(first)
    old, rows = steps.clone(), torch.arange(30) % 2 == 0
    step(*first, steps, rows, 0.1, advance=False)
    assert torch.equal(steps, old)
    step(*second, steps, rows, 0.1)
    assert torch.equal(steps, old + rows)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_rows_as_bytes(step: Step) -> None:
    one, two = state((20, 3)), state((20, 3))
    rows = torch.arange(20) % 3 == 0
    step(*one, rows, 0.1)
    step(*two, 255 * rows.to(torch.uint8), 0.1)
    for found, expected in zip(one, two, strict=True):
        assert torch.equal(found, expected)


def test_gradient_that_is_not_finite_stays_in_its_row(step: Step) -> None:
    tensors = state((40, 3))
    tensors[1][7] = math.nan
    step(*tensors, None, 0.1)
    finite = torch.isfinite(tensors[0]).all(dim=1)
    assert finite.sum() == 39 and not finite[7]


def test_gradient_of_any_strides(step: Step) -> None:
    one, two = state((20, 3)), state((20, 3))
    two[1] = two[1].T.contiguous().T
    step(*one, None, 0.1)
    step(*two, None, 0.1)
    assert torch.equal(one[0], two[0])


@pytest.mark.parametrize("shape", [(20011, 3), (3000, 16, 3)], ids=str)
def test_same_bits_for_any_threads(
    cpu_kernel: Backend, shape: tuple[int, ...], restore_threads: None
) -> None:
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        tensors = state(shape)
        cpu_kernel.adam_step(*tensors, torch.arange(shape[0]) % 3 != 0, 0.1)
        runs.append(tensors)
    for tensors in runs[1:]:
        for found, expected in zip(tensors, runs[0], strict=True):
            assert torch.equal(found, expected)


# --- with torch ---------------------------------------------------------------------------------


def test_op_passes_opcheck(kernel: Backend) -> None:
    rest = (torch.full((3,), 0.1), 0.9, 0.999, 1e-15, 3, True)
    rows = torch.arange(20) % 2 == 0
    assert_opcheck("adam_step", [*state((20, 3)), rows, *rest], kernel.device)
    assert_opcheck("adam_step", [*state((20, 3)), None, *rest], kernel.device)


def test_parameters_are_leaves_and_stale_graphs_are_refused(step: Step) -> None:
    param, grad, mean, square, steps = state((10, 3))
    param.requires_grad_()
    stale = (param * param).sum()
    step(param, grad, mean, square, steps, None, 0.1)
    assert param.is_leaf and param.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.zeros(()), r"param: expected shape \[N, \.\.\.\]"),
        (0, torch.zeros(6, 3).double(), "param: expected float32, got float64"),
        (0, torch.zeros(3, 6).T, "param: expected a contiguous tensor"),
        (1, torch.zeros(6, 2), r"grad: expected the shape of param, \[6, 3\], got .*\[6, 2\]"),
        (1, torch.zeros(6, 3).half(), "grad: expected float32, got float16"),
        (2, torch.zeros(6, 1, 3), "exp_avg: expected the shape of param"),
        (2, torch.zeros(3, 6).T, "exp_avg: expected a contiguous tensor"),
        (3, torch.zeros(5, 3), "exp_avg_sq: expected the shape of param"),
        (3, torch.zeros(3, 6).T, "exp_avg_sq: expected a contiguous tensor"),
        (4, torch.zeros(6), "steps: expected int32, got float32"),
        (4, torch.zeros(5).int(), r"steps: expected shape \[6\], got shape \[5\]"),
        (4, torch.zeros(12).int()[::2], "steps: expected a contiguous tensor"),
        (5, torch.zeros(6), "rows: expected uint8, got float32"),
        (5, torch.zeros(7).bool(), r"rows: expected shape \[6\], got shape \[7\]"),
        (6, torch.zeros(2), r"lr: expected shape \[3\], got shape \[2\]"),
        (6, torch.zeros(3).double(), "lr: expected float32, got float64"),
        ("columns", 4, "columns: expected 0 to 3, got 4"),
        ("columns", -1, "columns: expected 0 to 3, got -1"),
        ("betas", (1.0, 0.9), "beta1: expected a number from 0 to below 1"),
        ("betas", (0.9, -0.1), "beta2: expected a number from 0 to below 1"),
        ("eps", -1.0, "eps: expected a number >= 0"),
    ],
)
def test_refuses(step_kernel: Step, position: int | str, value: Any, message: str) -> None:
    args: list[Any] = [*(torch.zeros(6, 3) for _ in range(4)), torch.zeros(6).int(), None]
    args.append(torch.zeros(3))
    options: dict[str, Any] = {"columns": 3}
    step_kernel(*args, **options)
    if isinstance(position, int):
        args[position] = value
    else:
        options[position] = value
    with pytest.raises(InputError, match="adam_step: " + message):
        step_kernel(*args, **options)


@pytest.mark.parametrize("position", range(1, 6))
def test_refuses_another_device(step_kernel: Step, position: int) -> None:
    args: list[Any] = [*state((6, 3)), torch.ones(6).bool(), torch.zeros(3)]
    args[position] = args[position].to("meta")
    name = ("param", "grad", "exp_avg", "exp_avg_sq", "steps", "rows")[position]
    with pytest.raises(InputError, match=f"{name}: expected device .*, got device meta"):
        step_kernel(*args)
