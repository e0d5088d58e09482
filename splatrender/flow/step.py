"""The Wasserstein–Fisher–Rao step: transport, reaction, births and deaths, composed.

Legend: μ measure, F loss, V potential, S splitting matrix, η step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import duplicate_and_kill, splitting_direction
from splatrender.flow.reaction import entropy_potential, fisher_rao_step
from splatrender.flow.transports.velocity import (
    Velocity,
    bures_wasserstein_retraction,
    entropic_noise,
    euclidean_retraction,
    splitting_matrix,
    wasserstein_velocity,
)
from splatrender.model.geometry import integrals, split, with_integrals
from splatrender.model.measure import SplatMeasure

Loss = Callable[[SplatMeasure], Tensor]


@dataclass(frozen=True)
class WFROptions:
    """Step sizes and which parts of the flow are on.

    Attributes:
        transport: η of means and factors; 0 keeps places and shapes.
        weights: η of the weights v; 0 keeps them.
        reaction: η of the masses; 0 keeps them.
        birth_death: η of deaths and duplications; 0 for none.
        balanced: whether total mass is kept.
        bures_wasserstein: retraction exp(−η S) A instead of A + η Ȧ.
        temperature: τ of the noise on the means.
        entropy: weight of Σ q ln q in the masses.
        offset: how far twins are born apart, in standard deviations.
    """

    transport: float = 1e-3
    weights: float = 1e-3
    reaction: float = 0.0
    birth_death: float = 0.0
    balanced: bool = True
    bures_wasserstein: bool = True
    temperature: float = 0.0
    entropy: float = 0.0
    offset: float = 0.5


@dataclass(frozen=True, eq=False)
class WFRReport:
    """What a step did.

    Attributes:
        loss_before: F at the start.
        loss_after: F at the end.
        potentials: [k] V at the start.
        births: splats that got a twin.
        deaths: splats removed.
        mass_moved: Σ |Δm| of the reaction, and the mass of the dead.
    """

    loss_before: float
    loss_after: float
    potentials: Tensor
    births: int
    deaths: int
    mass_moved: float


@dataclass(frozen=True, eq=False)
class Gradients:
    """F and its derivatives at a measure.

    Attributes:
        loss: F.
        potentials: [k] V = ∂F/∂m.
        velocity: −∇V.
    """

    loss: float
    potentials: Tensor
    velocity: Velocity


def gradients(measure: SplatMeasure, loss: Loss) -> Gradients:
    """One backward pass: potentials and velocities of all splats.

    Args:
        measure: k splats.
        loss: F, differentiable by autograd, whatever its forward operator is.

    Returns:
        The gradients of theorem 1.
    """
    leaves = measure.map(lambda t: t.detach().clone().requires_grad_())
    value = loss(leaves)
    grads = torch.autograd.grad(value, [t for _, t in leaves.items()], materialize_grads=True)
    velocity = wasserstein_velocity(measure.mass.detach(), *grads[1:])
    return Gradients(float(value.detach()), grads[0], velocity)


def wfr_step(
    measure: SplatMeasure,
    loss: Loss,
    options: WFROptions | None = None,
    generator: torch.Generator | None = None,
) -> tuple[SplatMeasure, WFRReport]:
    """Transport, then reaction, then deaths and duplications.

    Potentials and velocities are those at the start, so that one backward pass serves a step of
    first order; `F` decreases for steps that are small enough and without noise.

    Args:
        measure: k splats.
        loss: F.
        options: step sizes.
        generator: source of randomness.

    Returns:
        The new measure and a report.

    Source:
        Splat Regression Models, ICLR 2026, theorem 1.
    """
    options = options or WFROptions()
    generator = generator or torch.Generator().manual_seed(0)
    found = gradients(measure, loss)
    moved = transported(measure.detach(), found.velocity, options, generator)
    potentials = found.potentials
    if options.entropy:
        potentials = potentials + options.entropy * entropy_potential(moved.mass)
    mass_moved = 0.0
    if options.reaction:
        mass = fisher_rao_step(moved.mass, potentials, options.reaction, options.balanced)
        mass_moved += float((mass - moved.mass).abs().sum())
        moved = replace(moved, mass=mass)
    births = deaths = 0
    if options.birth_death:
        killed, doubled = duplicate_and_kill(potentials, moved.mass, options.birth_death, generator)
        births, deaths = len(doubled), len(killed)
        mass_moved += float(moved.mass[killed].sum())
        matrix = splitting_matrix(measure.factors.detach(), found.velocity.factors)
        moved = _born_and_dead(moved, killed, doubled, matrix, options)
    with torch.no_grad():
        after = float(loss(moved))
    report = WFRReport(found.loss, after, found.potentials, births, deaths, mass_moved)
    return moved, report


def transported(
    measure: SplatMeasure, velocity: Velocity, options: WFROptions, generator: torch.Generator
) -> SplatMeasure:
    """Weights, means and factors moved along the velocity for one step, masses kept."""
    step = options.transport
    factors = measure.factors
    if step and options.bures_wasserstein:
        matrix = splitting_matrix(factors, velocity.factors)
        factors = bures_wasserstein_retraction(factors, matrix, step)
    elif step:
        factors = euclidean_retraction(factors, velocity.factors, step)
    means = measure.means + step * velocity.means
    return replace(
        measure,
        weights=measure.weights + options.weights * velocity.weights,
        means=entropic_noise(means, step, options.temperature, generator, measure.factors),
        factors=factors,
    )


def _born_and_dead(
    measure: SplatMeasure, killed: Tensor, doubled: Tensor, matrix: Tensor, options: WFROptions
) -> SplatMeasure:
    """Twins along their best directions in place of the dead; total integral as before."""
    if len(killed) == 0 and len(doubled) == 0:
        return measure
    total = integrals(measure).sum()
    alive = torch.ones(len(measure), dtype=torch.bool)
    alive[killed] = False
    places = alive.cumsum(dim=0) - 1
    _, direction = splitting_direction(matrix[doubled], measure.factors[doubled])
    measure = split(measure.index(alive), places[doubled], direction, options.offset)
    if not options.balanced:
        return measure
    masses = integrals(measure)
    return with_integrals(measure, masses * (total / masses.sum()))
