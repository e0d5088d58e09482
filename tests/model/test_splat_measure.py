"""Parents, splat measures, and the functions that they stand for."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.measures import F64, make_measure, uniform

from splatrender.errors import InputError
from splatrender.model import PARENTS, SplatMeasure, Splats, create_parent, evaluate
from splatrender.model.parents import StudentT

CASES = [
    (name, dims)
    for name in PARENTS
    for dims in (1, 2, 3)
    if dims == 1 or name not in ("box", "hat")
]
SMOOTH = [case for case in CASES if case[0] not in ("box", "hat")]


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_profile_derivatives_match_autograd(name: str, dims: int) -> None:
    parent = create_parent(name)
    s = torch.linspace(0.013, 8, 200, dtype=F64).requires_grad_()  # off every kink
    derivatives = parent.profile(s, dims, 3)
    for lower, higher in itertools.pairwise(derivatives):
        if not lower.requires_grad:
            continue
        (slope,) = torch.autograd.grad(lower.sum(), s, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(slope, higher.detach(), rtol=1e-9, atol=1e-12)
        assert len(slope) == 200


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_parent_has_peak_one_and_its_integral(name: str, dims: int) -> None:
    parent = create_parent(name)
    assert float(parent.value(torch.zeros(1, dims, dtype=F64))) == pytest.approx(1, abs=1e-7)
    if not parent.is_density:
        with pytest.raises(InputError, match="density"):
            parent.sample(3, dims)
        return
    # ∫ρ by radial quadrature: area of the unit sphere times ∫ φ(r²/2) r^{d−1} dr
    r = torch.linspace(0, min(parent.radius(dims, 1e-12), 2e4), 2_000_001, dtype=F64)
    area = 2 * math.pi ** (dims / 2) / math.gamma(dims / 2)
    shells = parent.profile(r.square() / 2, dims, 0)[0] * r ** (dims - 1)
    assert area * float(torch.trapezoid(shells, r)) == pytest.approx(
        parent.integral(dims), rel=1e-4
    )


@pytest.mark.parametrize(("name", "dims"), [c for c in CASES if c[0] != "mexican-hat"])
def test_samples_have_identity_covariance_and_the_densitys_second_moment(
    name: str, dims: int
) -> None:
    parent = create_parent(name) if name != "student-t" else StudentT(degrees=12)
    z = parent.sample(200_000, dims, torch.Generator().manual_seed(1))
    covariance = z.T @ z / len(z)
    torch.testing.assert_close(covariance, torch.eye(dims, dtype=F64), rtol=0, atol=0.02)
    assert float(z.mean(dim=0).abs().max()) < 0.01
    # the law itself, not only two moments: E ρ(z) = ∫ρ²/∫ρ
    r = torch.linspace(0, min(parent.radius(dims, 1e-12), 200), 400_001, dtype=F64)
    area = 2 * math.pi ** (dims / 2) / math.gamma(dims / 2)
    squares = parent.profile(r.square() / 2, dims, 0)[0].square() * r ** (dims - 1)
    expected = area * float(torch.trapezoid(squares, r)) / parent.integral(dims)
    assert float(parent.value(z).mean()) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("name", "dims"), SMOOTH)
@pytest.mark.parametrize("normalised", [False, True])
def test_derivatives_match_autograd(name: str, dims: int, normalised: bool) -> None:
    measure = make_measure(4, dims, 2, parent=name, normalised=normalised)
    points = uniform(30, dims).requires_grad_()
    field = evaluate(measure, points, order=2)
    assert field.gradient is not None and field.hessian is not None
    for p in range(2):
        (gradient,) = torch.autograd.grad(field.value[:, p].sum(), points, create_graph=True)
        torch.testing.assert_close(gradient, field.gradient[:, p], rtol=1e-10, atol=1e-10)
        for j in range(dims):
            (row,) = torch.autograd.grad(gradient[:, j].sum(), points, retain_graph=True)
            torch.testing.assert_close(row, field.hessian[:, p, j], rtol=1e-9, atol=1e-8)
    trace = field.hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(field.laplacian, trace)


@pytest.mark.parametrize("parent", ["gaussian", "bump", "student-t"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_sparse_evaluation_equals_the_sum_over_all_pairs(parent: str, dtype: torch.dtype) -> None:
    measure = make_measure(300, 2, 2, parent=parent)
    measure = replace(measure, factors=measure.factors / 20).to(dtype)
    points = uniform(3000).to(dtype)
    wide, z = measure.to(F64), None
    z = torch.einsum("kij,nkj->nki", wide.inverse_factors(), points.double()[:, None] - wide.means)
    dense = measure.parent.value(z) @ wide.amplitudes
    tolerance = 1e-12 if dtype == F64 else 2e-5
    for pairs in (5000, 1 << 20):
        value = evaluate(measure, points, pairs=pairs).value
        assert value.dtype == dtype
        torch.testing.assert_close(value.double(), dense, rtol=0, atol=tolerance * 10)


def test_sparse_evaluation_looks_at_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from splatrender.model import evaluation

    measure = make_measure(300, 2)
    measure = replace(measure, factors=measure.factors / 40)
    seen = []
    original = evaluation._pair_terms

    def counting(x, *rest):  # type: ignore[no-untyped-def]
        seen.append(x.shape[0] * x.shape[1])
        return original(x, *rest)

    monkeypatch.setattr(evaluation, "_pair_terms", counting)
    evaluate(measure, uniform(20_000), pairs=1 << 16)
    assert max(seen) <= 1 << 16
    assert sum(seen) < 0.2 * 300 * 20_000


def test_autograd_reaches_measure_and_points_through_sparse_evaluation() -> None:
    measure = make_measure(300, 2)
    measure = replace(measure, factors=measure.factors / 20).map(Tensor_requires_grad)
    value = evaluate(measure, uniform(3000), pairs=1 << 16).value
    grads = torch.autograd.grad(value.square().sum(), [t for _, t in measure.items()])
    dense = evaluate(measure, uniform(3000)[:200], pairs=1 << 30).value
    assert dense.requires_grad
    assert all(bool((g.reshape(300, -1) != 0).any(dim=1).all()) for g in grads)


def Tensor_requires_grad(tensor: torch.Tensor) -> torch.Tensor:  # noqa: N802
    return tensor.clone().requires_grad_()


def test_density_integrates_to_its_mass() -> None:
    measure = make_measure(3, 2, 1, normalised=True)
    grid = torch.linspace(-3, 4, 701, dtype=F64)
    values = evaluate(measure, torch.cartesian_prod(grid, grid)).value
    total = float(values.sum()) * 0.01**2
    assert total == pytest.approx(float(measure.mass @ measure.weights[:, 0]), rel=1e-6)


def test_a_negative_determinant_does_not_turn_a_splat_negative() -> None:
    measure = make_measure(1, 2, normalised=True)
    flipped = replace(measure, factors=measure.factors * torch.tensor([1.0, -1.0], dtype=F64))
    assert float(torch.linalg.det(flipped.factors)) < 0 < float(torch.linalg.det(measure.factors))
    points = uniform(20)
    torch.testing.assert_close(evaluate(flipped, points).value, evaluate(measure, points).value)


def test_amplitudes_make_the_same_function() -> None:
    measure = make_measure(5, 2, 3, normalised=True)
    for normalised in (False, True):
        same = SplatMeasure.from_amplitudes(
            measure.amplitudes, measure.means, measure.factors, normalised=normalised
        )
        assert float((same.weights.norm(dim=1) - 1).abs().max()) < 1e-12
        points = uniform(50)
        torch.testing.assert_close(evaluate(same, points).value, evaluate(measure, points).value)


def test_counts_and_indexing() -> None:
    measure = make_measure(6, 2, 1)
    assert measure.parameters == 36
    both = SplatMeasure.cat([measure.index(torch.tensor([0])), measure])
    assert len(both) == 7 and torch.equal(both.means[0], both.means[1])
    assert Splats.__name__ == "Splats"  # the renderer's splats are found where they were


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass": torch.ones(2, dtype=F64)}, r"mass: expected shape \(5,\), got \(2,\)"),
        ({"weights": torch.ones(5, dtype=F64)}, "weights: expected shape"),
        ({"factors": torch.ones(5, 2, dtype=F64)}, "factors: expected shape"),
        ({"means": torch.ones(5, 2)}, "expected dtype"),
        ({"means": torch.ones(5, 0, dtype=F64)}, r"means: expected shape \(k, d\)"),
        ({"mass": torch.ones(5, dtype=torch.int64)}, "mass: expected a floating-point"),
        ({"parent": create_parent("hat")}, "hat exists in 1 dimension, got 2"),
    ],
)
def test_bad_measures_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(make_measure(), **change)


def test_singular_factors_and_bad_points_are_refused() -> None:
    measure = make_measure()
    singular = measure.factors.clone()
    singular[3] = 1.0
    with pytest.raises(InputError, match="singular one at splat 3"):
        evaluate(replace(measure, factors=singular), uniform(4))
    with pytest.raises(InputError, match=r"points: expected torch.float64 of shape \(n, 2\)"):
        evaluate(measure, uniform(4, 3))
    with pytest.raises(InputError, match="order"):
        evaluate(measure, uniform(4), order=3)
    with pytest.raises(InputError, match="parent: expected one of gaussian"):
        create_parent("wavelet")
