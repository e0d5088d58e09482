"""The Wasserstein–Fisher–Rao flow: theorem 1, dissipation, conservation, order in the step size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.measures import F64, difference_quotient, make_measure, uniform
from torch import Tensor

from splatrender.flow.reaction import (
    dissipation,
    entropy_potential,
    fisher_rao_step,
    mean_potential,
)
from splatrender.flow.step import WFROptions, gradients, wfr_step
from splatrender.flow.transports.velocity import (
    bures_wasserstein_retraction,
    entropic_noise,
    euclidean_retraction,
    splitting_matrix,
)
from splatrender.model import SplatMeasure, evaluate
from splatrender.model.geometry import integrals

POINTS = uniform(60)
TARGET = torch.stack([(5 * POINTS[:, 0]).sin(), POINTS[:, 1].square()], dim=1)


def loss(measure: SplatMeasure) -> Tensor:
    """Return a least-squares loss; the flow sees only its value and gradient."""
    return 0.5 * (evaluate(measure, POINTS).value - TARGET).square().mean(dim=0).sum()


def first_variation(measure: SplatMeasure) -> Tensor:
    """[n, p] δF at the sample points."""
    return (evaluate(measure, POINTS).value - TARGET) / len(POINTS)


def energy_of(field: str, measure: SplatMeasure) -> Callable[[Tensor], float]:
    def energy(tensor: Tensor) -> float:
        change: dict[str, Any] = {field: tensor}
        return float(loss(replace(measure, **change)))

    return energy


@pytest.fixture(params=[False, True], ids=["peaks", "densities"])
def measure(request: pytest.FixtureRequest) -> SplatMeasure:
    return make_measure(5, 2, 2, normalised=request.param)


def test_gradients_match_finite_differences(measure: SplatMeasure) -> None:
    found = gradients(measure, loss)
    v = found.velocity
    mass = measure.mass
    expected = {
        "mass": found.potentials,
        "weights": -mass[:, None] * v.weights,
        "means": -mass[:, None] * v.means,
        "factors": -mass[:, None, None] * v.factors,
    }
    for field, gradient in expected.items():
        quotient = difference_quotient(energy_of(field, measure), getattr(measure, field))
        torch.testing.assert_close(gradient, quotient, rtol=1e-6, atol=1e-9)


def test_gradients_are_those_of_theorem_1() -> None:
    """V = Σ_j ρ(x_j) ⟨δF_j, v⟩ and, by parts, ḃ = −A⁻ᵀ E[φ z], Ȧ = −A⁻ᵀ E[φ (z zᵀ − I)]."""
    measure = make_measure(5, 2, 2, normalised=True)
    found = gradients(measure, loss)
    inverse = measure.inverse_factors()
    z = torch.einsum("kij,nkj->nki", inverse, POINTS[:, None] - measure.means)
    density = measure.norms * measure.parent.value(z)  # [n, k]
    variation = first_variation(measure)
    phi = density * (variation @ measure.weights.T)
    torch.testing.assert_close(found.potentials, phi.sum(0))
    torch.testing.assert_close(found.velocity.weights, -density.T @ variation)
    means = -torch.einsum("kji,nk,nkj->ki", inverse, phi, z)
    torch.testing.assert_close(found.velocity.means, means)
    outer = z[..., :, None] * z[..., None, :] - torch.eye(2, dtype=F64)
    factors = -torch.einsum("kji,nk,nkjl->kil", inverse, phi, outer)
    torch.testing.assert_close(found.velocity.factors, factors)


def test_stein_identity_by_sampling() -> None:
    """E[∇φ ξᵀ] = E[∇²φ] A for a smooth φ, X = A ξ + b."""
    measure = make_measure(1, 2, seed=4)
    factor, mean = measure.factors[0], measure.means[0]
    xi = measure.parent.sample(400_000, 2, torch.Generator().manual_seed(0))
    xi = torch.cat([xi, -xi])  # antithetic: half the variance
    x = (xi @ factor.T + mean).requires_grad_()
    phi = (2 * x[:, 0] + x[:, 1].square()).sin()
    (slope,) = torch.autograd.grad(phi.sum(), x, create_graph=True)
    rows = [torch.autograd.grad(slope[:, j].sum(), x, retain_graph=True)[0] for j in range(2)]
    left = slope.detach().T @ xi / len(xi)
    right = torch.stack(rows, dim=1).mean(0) @ factor
    torch.testing.assert_close(left, right, rtol=0, atol=5e-3)
    assert float(left.norm()) > 0.3


def test_splitting_matrix_is_twice_the_covariance_gradient() -> None:
    measure = make_measure(3, 2, 2, normalised=True)
    matrix = splitting_matrix(measure.factors, gradients(measure, loss).velocity.factors)

    def by_covariance(covariances: Tensor) -> float:
        symmetric = (covariances + covariances.mT) / 2
        return float(loss(replace(measure, factors=torch.linalg.cholesky(symmetric))))

    quotient = difference_quotient(by_covariance, measure.covariances)
    expected = 2 * quotient / measure.mass[:, None, None]
    torch.testing.assert_close(matrix, expected, rtol=1e-5, atol=1e-8)
    # and it is the mean Hessian of the potential: moving the splat tells the same at second order
    single = measure.index(torch.tensor([0]))
    variation = first_variation(measure)

    def potential(mean: Tensor) -> Tensor:
        field = evaluate(replace(single, mass=torch.ones(1, dtype=F64), means=mean[None]), POINTS)
        return (field.value * variation).sum()

    hessian = torch.autograd.functional.hessian(potential, single.means[0])
    torch.testing.assert_close(matrix[0], hessian)


def test_retractions_agree_to_first_order_and_one_keeps_factors_invertible() -> None:
    measure = make_measure(4, 2, 2)
    velocity = gradients(measure, loss).velocity.factors
    matrix = splitting_matrix(measure.factors, velocity)
    torch.testing.assert_close(-matrix @ measure.factors, velocity)
    for step, order in ((1e-2, 2), (5e-3, 2)):
        straight = euclidean_retraction(measure.factors, velocity, step)
        curved = bures_wasserstein_retraction(measure.factors, matrix, step)
        linear = bures_wasserstein_retraction(measure.factors, matrix, step, exponential=False)
        torch.testing.assert_close(straight, linear)
        half = bures_wasserstein_retraction(measure.factors, matrix, step / 2)
        straight_half = euclidean_retraction(measure.factors, velocity, step / 2)
        ratio = (curved - straight).norm() / (half - straight_half).norm()
        assert math.log2(float(ratio)) == pytest.approx(order, abs=0.05)
    far = bures_wasserstein_retraction(measure.factors, matrix, 5.0)
    sign = torch.linalg.det(far).sign()
    assert torch.equal(sign, torch.linalg.det(measure.factors).sign())


def test_fisher_rao_descends_at_the_variance_of_the_potential(measure: SplatMeasure) -> None:
    found = gradients(measure, loss)
    for balanced in (True, False):
        rate = float(dissipation(measure.mass, found.potentials, balanced))
        if balanced:
            excess = found.potentials - mean_potential(measure.mass, found.potentials)
            assert rate == pytest.approx(float((measure.mass * excess**2).sum()))
        errors = []
        for step in (1e-2, 1e-3):
            mass = fisher_rao_step(measure.mass, found.potentials, step, balanced)
            slope = (float(loss(replace(measure, mass=mass))) - found.loss) / step
            assert slope < 0
            errors.append(abs(slope + rate))
        assert errors[1] < 0.2 * errors[0]  # dF/dt = −Var_m(V), up to O(step)
        assert errors[1] < 0.05 * rate


def test_transport_descends_at_its_power(measure: SplatMeasure) -> None:
    found = gradients(measure, loss)
    power = float(found.velocity.power(measure.mass))
    for curved in (True, False):
        options = WFROptions(transport=1e-4, weights=1e-4, bures_wasserstein=curved)
        _, report = wfr_step(measure, loss, options)
        assert (report.loss_after - report.loss_before) / 1e-4 == pytest.approx(-power, rel=0.01)


def test_pure_flows_keep_what_they_must(measure: SplatMeasure) -> None:
    transport = WFROptions(transport=1e-2, weights=1e-2)
    moved, report = wfr_step(measure, loss, transport)
    assert torch.equal(moved.mass, measure.mass) and report.mass_moved == 0
    assert not torch.equal(moved.means, measure.means)
    reaction = WFROptions(transport=0, weights=0, reaction=0.1)
    reacted, report = wfr_step(measure, loss, reaction)
    for field in ("weights", "means", "factors"):
        assert torch.equal(getattr(reacted, field), getattr(measure, field))
    assert report.mass_moved > 0
    assert float(reacted.mass.sum()) == pytest.approx(float(measure.mass.sum()), rel=1e-13)
    grown, _ = wfr_step(measure, loss, replace(reaction, balanced=False))
    assert abs(float(grown.mass.sum() - measure.mass.sum())) > 1e-4


def test_total_mass_stays_through_births_and_deaths() -> None:
    measure = make_measure(30, 2, 2, normalised=True)
    options = WFROptions(transport=1e-3, reaction=0.1, birth_death=300.0)
    total = float(measure.mass.sum())
    exchanged = 0
    for seed in range(5):
        measure, report = wfr_step(measure, loss, options, torch.Generator().manual_seed(seed))
        assert report.births == report.deaths
        exchanged += report.births
        assert len(measure) == 30
        assert float(integrals(measure).sum()) == pytest.approx(total, rel=1e-12)
    assert exchanged > 0


def test_the_step_converges_at_first_order_to_the_flow() -> None:
    """Euler steps of transport and reaction: halving the step halves the distance to the flow."""
    start = make_measure(4, 2, 2, seed=6)

    def run(steps: int) -> SplatMeasure:
        step = 0.1 / steps
        options = WFROptions(transport=step, weights=step, reaction=step)
        measure = start
        for _ in range(steps):
            measure, _ = wfr_step(measure, loss, options)
        return measure

    ends = [run(steps) for steps in (8, 16, 32, 64)]
    gaps = [
        math.sqrt(sum(float((getattr(a, f) - getattr(b, f)).square().sum()) for f, _ in a.items()))
        for a, b in itertools.pairwise(ends)
    ]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert orders == pytest.approx([1, 1], abs=0.15)


def test_loss_falls_for_small_steps(measure: SplatMeasure) -> None:
    options = WFROptions(transport=0.02, weights=0.02, reaction=0.02, balanced=False)
    losses = []
    for _ in range(40):
        measure, report = wfr_step(measure, loss, options)
        losses.append(report.loss_after)
    assert all(b < a for a, b in itertools.pairwise(losses))


def test_long_reaction_steps_do_not_overflow() -> None:
    mass = fisher_rao_step(torch.ones(3, dtype=F64), torch.tensor([0.0, 1, -1e6], dtype=F64), 1e4)
    torch.testing.assert_close(mass, torch.tensor([0.0, 0, 3], dtype=F64))


def test_entropy_potential_is_the_derivative_of_entropy() -> None:
    mass = torch.tensor([0.5, 1.0, 2.5], dtype=F64).requires_grad_()
    share = mass / mass.sum()
    (share * share.log()).sum().backward()
    torch.testing.assert_close(entropy_potential(mass.detach()), mass.grad)


def test_entropic_noise_has_its_temperature() -> None:
    means = torch.zeros(100_000, 2, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    noisy = entropic_noise(means, step=0.02, temperature=3.0, generator=generator)
    torch.testing.assert_close(noisy.T.cov(), 0.12 * torch.eye(2, dtype=F64), rtol=0.02, atol=0.002)
    factor = make_measure(1).factors
    shaped = entropic_noise(means, 0.02, 3.0, generator, factor.expand(len(means), 2, 2))
    torch.testing.assert_close(shaped.T.cov(), 0.12 * (factor @ factor.mT)[0], rtol=0.05, atol=5e-4)
    assert entropic_noise(means, 0.02, 0.0) is means
