"""Bures–Wasserstein geometry against closed forms and POT; merging, sampling."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.measures import F64, make_measure

from splatrender.errors import InputError
from splatrender.model import SplatMeasure
from splatrender.model.geometry import (
    aligned,
    barycentre,
    bures_wasserstein,
    geodesic,
    integrals,
    measure_distance,
    merge,
    sample,
)
from splatrender.model.transport_plan import transport_plan

ot = pytest.importorskip("ot")


def squared_distances(one: SplatMeasure, other: SplatMeasure) -> torch.Tensor:
    return bures_wasserstein(one.means, one.factors, other.means, other.factors)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_distance_matches_pot(dims: int) -> None:
    one, other = make_measure(6, dims, seed=1), make_measure(6, dims, seed=2)
    found = squared_distances(one, other)
    for i in range(6):
        expected = ot.gaussian.bures_wasserstein_distance(
            *(m.means[i].numpy() for m in (one, other)),
            *(m.covariances[i].numpy() for m in (one, other)),
        )
        assert math.sqrt(float(found[i])) == pytest.approx(float(expected), rel=1e-7)


def test_distance_closed_forms() -> None:
    scales = torch.tensor([[0.5, 2.0], [1.5, 1.0]], dtype=F64)
    factors = torch.diag_embed(scales)
    zero = torch.zeros(2, dtype=F64)
    found = float(bures_wasserstein(zero, factors[0], zero + 3, factors[1]))
    assert found == pytest.approx(18 + 1 + 1)  # commuting covariances: Σ (σ − σ')² + |b − s|²
    angle = torch.tensor(0.7, dtype=F64)
    c, s = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
    same = bures_wasserstein(zero, factors[0], zero, factors[0] @ rotation)
    assert float(same) == pytest.approx(0, abs=1e-12)  # A Q is the same splat


def test_geodesic_has_constant_speed_and_joins_its_ends() -> None:
    start, end = make_measure(4, 3, seed=1), make_measure(4, 3, seed=2)
    whole = squared_distances(start, end).sqrt()
    for time in (0.0, 0.25, 0.6, 1.0):
        middle = geodesic(start, end, time)
        torch.testing.assert_close(
            squared_distances(start, middle).sqrt(), time * whole, rtol=1e-6, atol=1e-7
        )
        torch.testing.assert_close(
            squared_distances(middle, end).sqrt(), (1 - time) * whole, rtol=1e-6, atol=1e-7
        )
    with pytest.raises(InputError, match="expected 4 splats"):
        geodesic(start, make_measure(3, 3), 0.5)


def test_alignment_keeps_the_splat() -> None:
    one, other = make_measure(4, 3, seed=1).factors, make_measure(4, 3, seed=2).factors
    turned = aligned(one, other)
    torch.testing.assert_close(turned @ turned.mT, other @ other.mT)
    # optimal alignment makes AᵀR symmetric and positive
    product = one.mT @ turned
    torch.testing.assert_close(product, product.mT)
    assert float(torch.linalg.eigvalsh(product).min()) > 0


def test_barycentre_matches_pot() -> None:
    measure = make_measure(5, 2, seed=3)
    shares = torch.tensor([1.0, 2, 3, 4, 5], dtype=F64)
    mean, factor = barycentre(measure.means, measure.factors, shares)
    expected_mean, expected = ot.gaussian.bures_wasserstein_barycenter(
        measure.means.numpy(),
        measure.covariances.numpy(),
        weights=(shares / shares.sum()).numpy(),
        num_iter=1000,
        eps=1e-12,
    )
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-10)
    np.testing.assert_allclose(factor @ factor.mT, expected, rtol=1e-7)


@pytest.mark.parametrize("sizes", [(1, 4), (7, 7), (15, 22)])
def test_transport_plan_is_optimal(sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        a, b = (random.dirichlet(np.ones(n)) for n in sizes)
        cost = random.random(sizes)
        plan = transport_plan(a, b, cost)
        np.testing.assert_allclose(plan.sum(1), a, atol=1e-12)
        np.testing.assert_allclose(plan.sum(0), b, atol=1e-12)
        assert plan.min() >= 0
        assert (plan * cost).sum() == pytest.approx(ot.emd2(a, b, cost), abs=1e-12)


def test_distance_of_measures_matches_pot_and_is_a_metric() -> None:
    one, other, third = (make_measure(n, 2, 2, seed=n) for n in (5, 8, 6))
    cost = bures_wasserstein(one.means[:, None], one.factors[:, None], other.means, other.factors)
    cost = cost + (one.weights[:, None] - other.weights).square().sum(-1)
    shares = [(m.mass / m.mass.sum()).numpy() for m in (one, other)]
    expected = math.sqrt(ot.emd2(*shares, cost.numpy()))
    assert measure_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert measure_distance(other, one) == pytest.approx(expected, rel=1e-9)
    assert measure_distance(one, one.index(torch.arange(4, -1, -1))) == pytest.approx(0, abs=1e-6)
    assert expected <= measure_distance(one, third) + measure_distance(third, other)
    with pytest.raises(InputError, match="expected 2 inputs"):
        measure_distance(one, make_measure(3, 1, 2))


@pytest.mark.parametrize("normalised", [False, True])
def test_merge_keeps_moments(normalised: bool) -> None:
    measure = make_measure(4, 2, 1, normalised=normalised)
    measure = replace(measure, weights=torch.ones(4, 1, dtype=F64))
    merged = merge(measure, torch.tensor([0, 0, 0, 1]))
    assert len(merged) == 2

    def moments(m: SplatMeasure) -> list[torch.Tensor]:
        w = integrals(m)
        second = m.covariances + m.means[:, :, None] * m.means[:, None, :]
        return [w.sum(), w @ m.means, torch.einsum("k,kij->ij", w, second)]

    for a, b in zip(moments(measure), moments(merged), strict=True):
        torch.testing.assert_close(a, b)


def test_samples_have_the_mixtures_moments() -> None:
    measure = make_measure(3, 2, normalised=True, parent="bump")
    points = sample(measure, 200_000, torch.Generator().manual_seed(0))
    shares = measure.mass / measure.mass.sum()
    mean = shares @ measure.means
    away = measure.means - mean
    spread = measure.covariances + away[:, :, None] * away[:, None, :]
    torch.testing.assert_close(points.mean(0), mean, rtol=0, atol=0.01)
    expected = torch.einsum("k,kij->ij", shares, spread)
    torch.testing.assert_close(points.T.cov(), expected, rtol=0.03, atol=0.003)
