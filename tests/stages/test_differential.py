"""Linear operators on splats, their Jacobians, and conditions made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.measures import F64, difference_quotient, make_measure, uniform

from splatrender.errors import InputError
from splatrender.model import SplatMeasure, evaluate
from splatrender.operators.differential import (
    Condition,
    LinearOperator,
    identity,
    laplacian,
    operator_rows,
    pack,
    partial,
    unpack,
)
from splatrender.operators.sampling import observations
from splatrender.regression.amplitudes import as_peaks
from splatrender.regression.linearise import (
    design_of,
    jacobian_rows,
    loss_of,
    moved,
    normal_equations,
)
from splatrender.regression.lm import LMOptions, levenberg_marquardt
from splatrender.regression.prior import Prior
from splatrender.regression.starts import initial_measure


def first(points: torch.Tensor) -> torch.Tensor:
    return points[:, 0]


def general(dims: int) -> LinearOperator:
    """Every order, a variable coefficient and a shift."""
    return (
        0.3 * identity()
        + 0.7 * partial(0, dims=dims)
        - 0.2 * laplacian(dims)
        + partial(0, dims - 1, dims=dims).scaled_by(first)
        + identity().shifted([0.1] * dims)
    )


@pytest.mark.parametrize("parent", ["gaussian", "bump", "student-t", "mexican-hat"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_operators_match_derivatives_of_f(parent: str, dims: int) -> None:
    measure = as_peaks(make_measure(5, dims, 2, parent=parent))
    points = uniform(20, dims)
    found = operator_rows(general(dims), measure, points).value @ measure.weights
    f, shifted = evaluate(measure, points, 2), evaluate(measure, points + 0.1)
    assert f.gradient is not None and f.hessian is not None
    mixed = points[:, :1] * f.hessian[..., 0, dims - 1]
    expected = 0.3 * f.value + 0.7 * f.gradient[..., 0] - 0.2 * f.laplacian + mixed + shifted.value
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("parent", ["gaussian", "bump", "student-t", "mexican-hat"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_jacobian_of_operators_matches_autograd(parent: str, dims: int) -> None:
    measure = as_peaks(make_measure(4, dims, parent=parent))
    points, operator = uniform(6, dims), general(dims)
    rows = operator_rows(operator, measure, points, jacobian=True)
    assert rows.shift is not None and rows.strain is not None
    size = dims + dims * (dims + 1) // 2
    step = torch.zeros(4 * (1 + size), dtype=F64).requires_grad_()
    value = operator_rows(operator, moved(measure, step), points).value
    for n in range(6):
        for k in range(4):
            (gradient,) = torch.autograd.grad(value[n, k], step, retain_graph=True)
            _, shift, strain = gradient.split([4, 4 * dims, 4 * (size - dims)])
            torch.testing.assert_close(
                shift.reshape(4, -1)[k], rows.shift[n, k], atol=1e-9, rtol=1e-8
            )
            torch.testing.assert_close(
                strain.reshape(4, -1)[k], rows.strain[n, k], atol=1e-9, rtol=1e-8
            )


def test_periodised_operators_repeat() -> None:
    measure = as_peaks(make_measure(5, 2))
    period, points = torch.tensor([3.0, 0.5], dtype=F64), uniform(10)
    constant = LinearOperator(tuple(t for t in general(2).terms if t.factor is None))
    operator = constant.periodised(period.tolist(), images=3)
    here = operator_rows(operator, measure, points).value
    for turns in (-1, 2):
        there = operator_rows(operator, measure, points + turns * period).value
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)
    summed = sum(
        operator_rows(constant, measure, points + j * period).value for j in range(-4, 5)
    )  # the images written out
    torch.testing.assert_close(here, summed, rtol=1e-6, atol=1e-8)


def test_far_images_of_narrow_splats_are_left_out_without_a_trace() -> None:
    measure = as_peaks(make_measure(6, 2))
    factors = measure.factors.clone()
    factors[:3] *= 0.1
    measure, points = replace(measure, factors=factors), uniform(10)
    found = operator_rows(identity().periodised((2.0, 0.0)), measure, points).value
    images = [identity().shifted((2.0 * j, 0.0)) for j in range(-4, 5)]
    summed = sum((operator_rows(x, measure, points).value for x in images), torch.zeros(()))
    torch.testing.assert_close(found[:, :3], summed[:, :3], rtol=0, atol=1e-15)
    torch.testing.assert_close(found, summed, rtol=0, atol=1e-6)


def test_mirrored_operators_are_even() -> None:
    measure, signs = as_peaks(make_measure(5, 2)), torch.tensor([-1.0, 1.0], dtype=F64)
    points = uniform(10)

    def function(x: torch.Tensor) -> torch.Tensor:
        values = operator_rows(identity().mirrored(signs.tolist()), measure, x).value
        return values @ measure.weights

    torch.testing.assert_close(function(points), function(points * signs))
    step = 1e-4
    ends = [function(points + torch.tensor([s, 0.0], dtype=F64)) for s in (-step, step)]
    slope = operator_rows(partial(0, dims=2).mirrored(signs.tolist()), measure, points).value
    torch.testing.assert_close(
        slope @ measure.weights, (ends[1] - ends[0]) / (2 * step), rtol=1e-5, atol=1e-6
    )


def test_jacobian_of_symmetric_operators_matches_autograd() -> None:
    measure, points = as_peaks(make_measure(3, 2)), uniform(4)
    operator = general(2).mirrored((-1.0, 1.0)).periodised((2.0, 0.0))
    rows = operator_rows(operator, measure, points, jacobian=True)
    assert rows.shift is not None and rows.strain is not None
    step = torch.zeros(18, dtype=F64).requires_grad_()
    value = operator_rows(operator, moved(measure, step), points).value
    for n in range(4):
        for k in range(3):
            (gradient,) = torch.autograd.grad(value[n, k], step, retain_graph=True)
            _, shift, strain = gradient.split([3, 6, 9])
            torch.testing.assert_close(shift.reshape(3, -1)[k], rows.shift[n, k])
            torch.testing.assert_close(strain.reshape(3, -1)[k], rows.strain[n, k])


def test_algebra_of_operators() -> None:
    joined = partial(1, dims=2) - 0.1 * partial(0, 0, dims=2)
    (term,) = joined.terms
    assert term.gradient == (0.0, 1.0) and term.hessian is not None
    assert term.hessian[0][0] == -0.1
    mixed = partial(0, 1, dims=2).terms[0].hessian
    assert mixed == ((0.0, 0.5), (0.5, 0.0))
    with pytest.raises(InputError, match="axes: expected one or two in 0"):
        partial(2, dims=2)
    with pytest.raises(InputError, match="constant coefficients"):
        identity().scaled_by(first).scaled_by(first)


def test_pack_and_unpack_are_dual() -> None:
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(4, 6, generator=generator, dtype=F64)
    matrix = torch.randn(4, 3, 3, generator=generator, dtype=F64)
    left = (unpack(packed, 3) * matrix).sum()
    assert float(left) == pytest.approx(float((packed * pack(matrix)).sum()))


def reaction(x: torch.Tensor, lap: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return 0.01 * lap + u - u**3 + x[:, :1]


def problem(outputs: int, nonlinear: bool) -> list[Condition]:
    x = uniform(40)
    data = observations(
        x, torch.randn(40, outputs, generator=torch.Generator().manual_seed(1)).double()
    )
    if not nonlinear:
        return [data]
    equation = Condition(uniform(30, seed=5), (laplacian(2), identity()), residual=reaction)
    return [data, equation.mean(2.0)]


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("roughness", [0.0, 0.7])
def test_normal_equations_are_the_gradient(outputs: int, nonlinear: bool, roughness: float) -> None:
    measure = as_peaks(make_measure(4, 2, outputs))
    conditions, prior = problem(outputs, nonlinear), Prior(ridge=0.1, roughness=roughness)
    system = normal_equations(measure, conditions)
    prior.add_to(system, measure)

    def objective(step: torch.Tensor) -> float:
        there = moved(measure, step)
        return loss_of(there, conditions) + prior.penalty(there)

    quotient = difference_quotient(objective, torch.zeros(measure.parameters, dtype=F64))
    torch.testing.assert_close(system.gradient, quotient, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(system.hessian, system.hessian.T)
    assert float(torch.linalg.eigvalsh(system.hessian).min()) > -1e-12


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("nonlinear", [False, True])
def test_designs_are_the_jacobian_by_amplitudes(outputs: int, nonlinear: bool) -> None:
    measure, conditions = as_peaks(make_measure(4, 2, outputs)), problem(outputs, nonlinear)
    design = design_of(measure, conditions)
    rows = [jacobian_rows(measure, condition) for condition in conditions]
    residual = torch.cat([r for r, _ in rows])
    jacobian = torch.cat([j for _, j in rows])[:, : 4 * outputs]
    torch.testing.assert_close(design.residual.reshape(-1), residual)
    if nonlinear:
        torch.testing.assert_close(design.flat, jacobian)
    else:  # one column a splat stands for all outputs
        expected = torch.einsum("nk,pm->nmkp", design.flat, torch.eye(outputs, dtype=F64))
        torch.testing.assert_close(expected.reshape(jacobian.shape), jacobian)
    energies = design.at_points(conditions)
    assert len(energies) == sum(len(c) for c in conditions)
    assert float(energies.sum()) == pytest.approx(2 * loss_of(measure, conditions))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from splatrender.regression import linearise

    measure, conditions = as_peaks(make_measure(4)), problem(1, True)
    whole = normal_equations(measure, conditions)
    monkeypatch.setattr(linearise, "CHUNK", 4 * 17)
    parts = normal_equations(measure, conditions)
    torch.testing.assert_close(whole.hessian, parts.hessian)
    torch.testing.assert_close(whole.gradient, parts.gradient)


def test_weights_act_like_repetitions() -> None:
    x, y = uniform(10), uniform(10, 1)
    weights = torch.tensor([1.0, 2, 3] + [1] * 7, dtype=F64)
    ids = torch.repeat_interleave(torch.arange(10), weights.long())
    measure = as_peaks(make_measure(3))
    weighted = loss_of(measure, [observations(x, y, weights)])
    assert weighted == pytest.approx(loss_of(measure, [observations(x[ids], y[ids])]))


def test_descents_go_on_along_the_bounds_of_the_widths() -> None:
    x = uniform(200) * 2 - 1
    y = torch.exp(-0.5 * (x / torch.tensor([2.0, 0.5], dtype=F64)).square().sum(1, keepdim=True))
    start = initial_measure(x, 4, 1, torch.Generator().manual_seed(3))
    prior, options = Prior(extents=(0.5, 9.0)), LMOptions(200, tolerance=1e-8)
    found = levenberg_marquardt(start, [observations(x, y)], prior, options)
    assert float(found.measure.factors[:, 0].norm(dim=1).max()) < 0.5 + 1e-12
    assert found.loss < 1e-6  # 2e-5 if widths are merely cut, which spoils the step of all others


def test_bad_conditions_are_refused() -> None:
    with pytest.raises(InputError, match="points"):
        Condition(torch.zeros(0, 2), (identity(),))
    with pytest.raises(InputError, match="target: expected 4 rows"):
        Condition(uniform(4), (identity(),), target=uniform(3, 1))
    with pytest.raises(InputError, match="operators: expected one"):
        Condition(uniform(4), (identity(), laplacian(2)))


def test_measures_of_the_equation_keep_their_type() -> None:
    assert isinstance(moved(as_peaks(make_measure()), torch.zeros(30, dtype=F64)), SplatMeasure)
