"""Comparison of results; the numbers are in tolerances.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import ALPHA_MAX, BEER_LAMBERT, CUTOFF, T_MIN, Prints, cast, rounded, tolerances
from helpers.backends import there
from splatrender.errors import InputError

Stage = Callable[..., Any]


def outputs_of(stage: Stage, args: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return the outputs of a stage as a tuple."""
    result = stage(*args)
    return (result,) if isinstance(result, Tensor) else tuple(result)


def gradients(
    stage: Stage, args: Sequence[Any], wrt: Sequence[int], weights: Mapping[int, Tensor]
) -> list[Tensor]:
    """Return the gradients of Σ weights · outputs in the arguments `wrt`; zeros where unused.

    Args:
        weights: Output position -> tensor of its shape.
    """
    args = list(args)
    for position in wrt:
        args[position] = args[position].detach().clone().requires_grad_()
    results = outputs_of(stage, args)
    parts = [(results[i] * w.to(results[i])).sum() for i, w in weights.items()]
    sources = [args[position] for position in wrt]
    found = torch.autograd.grad(torch.stack(parts).sum(), sources, allow_unused=True)
    return [torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True)]


def random_weights(results: Sequence[Tensor], positions: Sequence[int]) -> dict[int, Tensor]:
    """Draw seeded normal weights for the outputs at `positions`."""
    make = torch.Generator().manual_seed(7)
    return {
        i: torch.randn(results[i].shape, generator=make, dtype=torch.float64).to(results[i].device)
        for i in positions
    }


SCALARS = ("depths", "peaks", "amplitudes", "transmittance", "visibility")
"""Names of tensors whose last axis is not a vector: each number is a row of its own."""


def rows_of(values: Tensor, name: str) -> Tensor:
    """Return one row per splat, pixel or camera, in float64; a row has one error."""
    width = 1 if name.split()[-1] in SCALARS else values.shape[-1]
    return values.double().reshape(-1, width)


def row_errors(found: Tensor, truth: Tensor, name: str) -> Tensor:
    """Return each row's error relative to its size, floored by a hundredth of the usual size."""
    exact = rows_of(truth, name)
    sizes = exact.norm(dim=1)
    usual = sizes.square().mean().sqrt()
    errors: Tensor = (rows_of(found, name) - exact).norm(dim=1) / (sizes + 0.01 * usual + 1e-30)
    return errors


def assert_double(found: Tensor, truth: Tensor, name: str) -> None:
    """Check that a float64 kernel equals the float64 reference."""
    assert found.shape == truth.shape, f"{name}: shape {found.shape}, expected {truth.shape}"
    assert found.dtype == torch.float64, f"{name}: {found.dtype} from float64 input"
    if truth.numel():
        worst = float(row_errors(found, truth, name).max())
        assert worst <= tolerances.FLOAT64_KERNEL, f"{name}: off by {worst:.2e} of a row"


def assert_single(
    found: Tensor,
    single: Tensor,
    truth: Tensor,
    name: str,
    floor: float = tolerances.FLOAT32_FLOOR,
) -> None:
    """Check a float32 result to be as good as the float32 reference, by the float64 reference."""
    assert found.shape == truth.shape, f"{name}: shape {found.shape}, expected {truth.shape}"
    assert found.dtype == torch.float32, f"{name}: {found.dtype} from float32 input"
    if not truth.numel():
        return
    size = truth.double().norm() + 1e-30
    whole = [float((v.double() - truth).norm() / size) for v in (found, single)]
    rows = [row_errors(v, truth, name) for v in (found, single)]
    for kind, (error, own), factor, least in (
        ("as a whole", whole, tolerances.FLOAT32_FACTOR, floor),
        ("per row", [float(r.mean()) for r in rows], tolerances.FLOAT32_FACTOR, floor),
        (
            "in the worst row",
            [float(r.max()) for r in rows],
            tolerances.WORST_ROW_FACTOR,
            tolerances.WORST_ROW_FACTOR * floor,
        ),
    ):
        limit = factor * own + least
        assert error <= limit, f"{name} {kind}: off by {error:.2e}, the reference by {own:.2e}"


def assert_gradient(found: Tensor, truth: Tensor, name: str) -> None:
    """Check direction, bias and rows of a float32 gradient against the float64 reference."""
    found, truth = rows_of(found, name), rows_of(truth, name)
    if not bool(truth.any()):
        assert not bool(found.any()), f"{name}: expected a zero gradient"
        return
    cosine = float((found * truth).sum() / (found.norm() * truth.norm() + 1e-30))
    assert 1 - cosine <= tolerances.GRADIENT_COSINE, f"{name}: 1 - cosine is {1 - cosine:.2e}"
    bias = float((found - truth).sum().abs() / truth.abs().sum())
    assert bias <= tolerances.GRADIENT_BIAS, f"{name}: signed bias {bias:.2e}"
    sizes = truth.norm(dim=1)
    lost = (sizes > tolerances.ZERO_ROW * sizes.max()) & ~found.any(dim=1)
    assert not bool(lost.any()), f"{name}: rows {lost.nonzero().flatten().tolist()} lost to zero"


def assert_stage_equals_reference(  # noqa: PLR0913 - two stages, their call, and what to compare
    stage: Stage,
    reference: Stage,
    args: Sequence[Any],
    *,
    outputs: Mapping[str, int],
    inputs: Mapping[str, int],
    dtype: torch.dtype,
    constant: Sequence[int] = (),
    masks: Mapping[int, Tensor] | None = None,
    gradient_floor: float = tolerances.FLOAT32_FLOOR,
) -> None:
    """Check values and gradients of a kernel against the reference, in float64 or float32.

    Args:
        args: Arguments of the stage, float64; rounded to float32 first, to share one input.
        outputs, inputs: Tensors to compare, name -> position.
        constant: Positions of outputs that carry no gradient.
        masks: Output position -> mask of places away from discontinuities, bool, broadcast.
        gradient_floor: Error that a float32 gradient may always have.
    """
    args, wrt = rounded(args), list(inputs.values())
    truth = outputs_of(reference, args)
    steady = masks or {}
    weights = random_weights(truth, [i for i in outputs.values() if i not in constant])
    weights = {i: w * steady.get(i, 1) for i, w in weights.items()}
    found = outputs_of(stage, cast(args, dtype))
    grads = gradients(stage, cast(args, dtype), wrt, weights)
    truth_grads = gradients(reference, args, wrt, weights)
    double = dtype == torch.float64
    single = outputs_of(reference, cast(args, dtype))
    single_grads = truth_grads if double else gradients(reference, cast(args, dtype), wrt, weights)
    for name, i in outputs.items():
        kernel_value, own, exact = (v[i] * steady.get(i, 1) for v in (found, single, truth))
        if double:
            assert_double(kernel_value, exact, name)
        else:
            assert_single(kernel_value, own, exact, name)
    for (name, _), grad, mine, exact in zip(
        inputs.items(), grads, single_grads, truth_grads, strict=True
    ):
        if double:
            assert_double(grad, exact, f"gradient of {name}")
        else:
            assert_single(grad, mine, exact, f"gradient of {name}", gradient_floor)
            assert_gradient(grad, exact, f"gradient of {name}")


def assert_gradcheck(
    stage: Stage, args: Sequence[Any], wrt: Sequence[int], outputs: Sequence[int]
) -> None:
    """Run torch.autograd.gradcheck of `outputs` in the arguments `wrt`, float64."""

    def function(*variables: Tensor) -> tuple[Tensor, ...]:
        full = list(args)
        for position, variable in zip(wrt, variables, strict=True):
            full[position] = variable
        results = outputs_of(stage, full)
        return tuple(results[i] for i in outputs)

    variables = [args[position].detach().clone().requires_grad_() for position in wrt]
    assert torch.autograd.gradcheck(
        function, variables, eps=tolerances.FINITE_DIFFERENCE_STEP, atol=1e-6, rtol=1e-4
    )


def assert_same_bits_for_any_threads(
    stage: Stage, args: Sequence[Any], wrt: Sequence[int], positions: Sequence[int]
) -> None:
    """Check that the number of threads changes no bit of values and gradients."""
    weights = random_weights(outputs_of(stage, args), positions)
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs.append([*outputs_of(stage, args), *gradients(stage, args, wrt, weights)])
    for position, (one, two) in enumerate(zip(*runs, strict=True)):
        assert torch.equal(one, two), f"result {position} differs between 1 and 2 threads"


def assert_stage_composes(
    stage: Stage, args: Sequence[Any], wrt: Sequence[int], positions: Sequence[int], device: str
) -> None:
    """Check that a stage gives the same under no_grad and torch.compile without graph breaks.

    The stage is compiled without the wrappers of its backend, for tensors on `device`.
    """
    stage, args = inspect.unwrap(stage), [there(value, device) for value in args]
    weights = random_weights(outputs_of(stage, args), positions)
    plain, plain_grads = outputs_of(stage, args), gradients(stage, args, wrt, weights)
    with torch.no_grad():
        silent = outputs_of(stage, args)
    assert not any(value.requires_grad for value in silent)
    torch.compiler.reset()
    compiled = torch.compile(stage, fullgraph=True, backend="aot_eager")
    others = [silent, outputs_of(compiled, args)]
    for values in others:
        for position, (one, two) in enumerate(zip(plain, values, strict=True)):
            assert torch.equal(one, two), f"output {position} differs"
    for one, two in zip(plain_grads, gradients(compiled, args, wrt, weights), strict=True):
        assert torch.equal(one, two)


def stable_pixels(prints: Prints, response: int) -> Tensor:
    """Return the pixels [C,H,W] where no splat is within a band of a threshold of `blend`."""
    y, x = torch.meshgrid(torch.arange(prints.height), torch.arange(prints.width), indexing="ij")
    centers = (torch.stack((x, y), dim=-1) + 0.5).double()
    order = torch.argsort(prints.depths, dim=1, stable=True)
    stable = torch.ones(len(order), prints.height, prints.width, dtype=torch.bool)

    def near(values: Tensor, threshold: float) -> Tensor:
        return (values / threshold - 1).abs() < tolerances.CUTOFF_BAND

    for camera, ids in enumerate(order):
        transmittance = torch.ones(prints.height, prints.width, dtype=torch.float64)
        for n in ids:
            d = centers - prints.means2d[camera, n]
            xx, xy, yy = prints.conics[camera, n]
            form = xx * d[..., 0] ** 2 + 2 * xy * d[..., 0] * d[..., 1] + yy * d[..., 1] ** 2
            amount = prints.peaks[camera, n] * torch.exp(-form / 2)
            soft = response == BEER_LAMBERT
            alpha = 1 - torch.exp(-amount) if soft else amount.clamp(max=ALPHA_MAX)
            open_pixel = transmittance > T_MIN * (1 - tolerances.CUTOFF_BAND)
            edge = near(amount, CUTOFF) if soft else near(amount, CUTOFF) | near(amount, ALPHA_MAX)
            stable[camera] &= ~(open_pixel & (edge | near(transmittance, T_MIN)))
            counted = (amount >= CUTOFF) & (transmittance > T_MIN)
            transmittance = torch.where(counted, transmittance * (1 - alpha), transmittance)
    return stable


def assert_refuses(
    stage: Stage, args: Sequence[Any], changes: Mapping[int, Any], name: str, *words: str
) -> None:
    """Check that a refusal names the argument, the expected value and the actual one."""
    changed = [changes.get(position, value) for position, value in enumerate(args)]
    with pytest.raises(InputError) as caught:
        stage(*changed)
    message = str(caught.value).splitlines()[0]
    for word in (name, "expected", "got", *words):
        assert word in message, f"{word!r} is missing in {message!r}"


def assert_takes_any_strides(stage: Stage, args: Sequence[Any]) -> None:
    """Check that tensors that are not contiguous give the bits of contiguous ones."""

    def strided(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        wide = value.new_zeros(*value.shape[:-1], 2 * value.shape[-1])
        wide[..., ::2] = value
        return wide[..., ::2]

    spread = [strided(value) for value in args]
    assert any(isinstance(v, Tensor) and not v.is_contiguous() for v in spread)
    for one, two in zip(outputs_of(stage, args), outputs_of(stage, spread), strict=True):
        assert torch.equal(one, two)


def assert_opcheck(name: str, args: Sequence[Any], device: str) -> None:
    """Run torch.library.opcheck of an operator: schema, fake tensors, autograd."""
    leaves = [
        there(value.detach(), device).requires_grad_(value.requires_grad)
        if isinstance(value, Tensor)
        else value
        for value in args
    ]
    torch.library.opcheck(getattr(torch.ops.splatrender, name).default, tuple(leaves))
