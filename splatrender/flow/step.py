"""One step of a flow: transport, reaction, births and deaths, composed; and the plain flow.

Legend: μ measure, F loss, V potential, S splitting matrix, η step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

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
from splatrender.model.geometry import integrals, with_integrals
from splatrender.model.measure import SplatMeasure
from splatrender.model.splitting import split

Loss = Callable[[SplatMeasure], Tensor]
S = TypeVar("S")


@dataclass(frozen=True)
class Flow(Generic[S]):
    """Composition of the parts of a flow: each changes the state, one after the other.

    Each part is a flow of its own, and one after the other they are the whole flow to first order
    in the step, in any order (Lie's splitting). A part maps a state to a state, the simplest
    interface that all compositions share: the plain flow carries a measure and one backward pass,
    the training of scenes the splats and the gradient of one view, the regression a measure and
    its converged loss. The parts of one flow agree on the rest of the state.

    Attributes:
        transport: change of places, shapes and outputs.
        reaction: change of masses; None if the transport changes them, or nothing does.
        birth_death: births and deaths; None for none.
        births_first: apply births and deaths before transport. They come first where a step is
            accepted or rejected as a whole: a birth then counts by the minimum it leads to.

    Example:
        >>> Flow(transport=lambda x: x + 1, birth_death=lambda x: 2 * x).step(3)
        8
        >>> Flow(lambda x: x + 1, None, lambda x: 2 * x, births_first=True).step(3)
        7
    """

    transport: Callable[[S], S]
    reaction: Callable[[S], S] | None = None
    birth_death: Callable[[S], S] | None = None
    births_first: bool = False

    def step(self, state: S) -> S:
        """Return the state after one step."""
        parts = [self.transport, self.reaction, self.birth_death]
        if self.births_first:
            parts = [self.birth_death, self.transport, self.reaction]
        for part in parts:
            if part is not None:
                state = part(state)
        return state


@dataclass(frozen=True)
class WFROptions:
    """Step sizes of the plain flow; those of 0 leave a part out.

    Attributes:
        transport: η of means and factors; 0 keeps places and shapes.
        weights: η of the weights v; 0 keeps them.
        reaction: η of the masses; 0 keeps them.
        birth_death: η of deaths and duplications; 0 for none.
        balanced: keep total mass.
        bures_wasserstein: retraction exp(−η S) A instead of A + η Ȧ.
        temperature: τ of the noise on the means.
        entropy: weight of Σ q ln q in the masses.
        offset: distance of twins from their parent, in standard deviations.
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
    """Changes of a step.

    Attributes:
        loss_before: F at the start.
        loss_after: F at the end.
        potentials: [k] V at the start.
        births: number of splats that got a twin.
        deaths: number of splats removed.
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
    """Return potentials and velocities of all splats, by one backward pass.

    Args:
        measure: k splats.
        loss: F, differentiable by autograd, with any forward operator.

    Returns:
        The gradients of theorem 1.
    """
    leaves = measure.map(lambda t: t.detach().clone().requires_grad_())
    value = loss(leaves)
    grads = torch.autograd.grad(value, [t for _, t in leaves.items()], materialize_grads=True)
    velocity = wasserstein_velocity(measure.mass.detach(), *grads[1:])
    return Gradients(float(value.detach()), grads[0], velocity)


@dataclass(frozen=True, eq=False)
class WFRState:
    """Measure within a step of the plain flow.

    Attributes:
        measure: the measure after the parts so far.
        potentials: [k] V at the start, with the entropy's.
        velocity: velocity at the start.
        factors: [k, d, d] A at the start, which the velocity belongs to.
        births: number of splats that got a twin.
        deaths: number of splats removed.
        mass_moved: mass changed by reaction and deaths.
    """

    measure: SplatMeasure
    potentials: Tensor
    velocity: Velocity
    factors: Tensor
    births: int = 0
    deaths: int = 0
    mass_moved: float = 0.0


def wfr_flow(options: WFROptions, generator: torch.Generator) -> Flow[WFRState]:
    """Return the plain flow of theorem 1.

    All parts use potentials and velocities at the start of a step: one backward pass serves a step
    of first order.

    Args:
        options: step sizes.
        generator: source of randomness.
    """

    def transport(state: WFRState) -> WFRState:
        moved = transported(state.measure, state.velocity, options, generator)
        return replace(state, measure=moved)

    def reaction(state: WFRState) -> WFRState:
        before = state.measure.mass
        mass = fisher_rao_step(before, state.potentials, options.reaction, options.balanced)
        moved = state.mass_moved + float((mass - before).abs().sum())
        return replace(state, measure=replace(state.measure, mass=mass), mass_moved=moved)

    def birth_death(state: WFRState) -> WFRState:
        measure, eta = state.measure, options.birth_death
        deaths, births = duplicate_and_kill(state.potentials, measure.mass, eta, generator)
        matrix = splitting_matrix(state.factors, state.velocity.factors)
        return replace(
            state,
            measure=_with_twins(measure, deaths, births, matrix, options),
            births=len(births),
            deaths=len(deaths),
            mass_moved=state.mass_moved + float(measure.mass[deaths].sum()),
        )

    return Flow(
        transport,
        reaction if options.reaction else None,
        birth_death if options.birth_death else None,
    )


def wfr_step(
    measure: SplatMeasure,
    loss: Loss,
    options: WFROptions | None = None,
    generator: torch.Generator | None = None,
) -> tuple[SplatMeasure, WFRReport]:
    """Take one step of the plain flow: transport, then reaction, then deaths and duplications.

    F decreases in steps that are small enough and have no noise.

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
    start = gradients(measure, loss)
    measure = measure.detach()
    potentials = start.potentials
    if options.entropy:
        potentials = potentials + options.entropy * entropy_potential(measure.mass)
    state = WFRState(measure, potentials, start.velocity, measure.factors)
    state = wfr_flow(options, generator).step(state)
    with torch.no_grad():
        after = float(loss(state.measure))
    changes = (state.births, state.deaths, state.mass_moved)
    return state.measure, WFRReport(start.loss, after, start.potentials, *changes)


def transported(
    measure: SplatMeasure, velocity: Velocity, options: WFROptions, generator: torch.Generator
) -> SplatMeasure:
    """Return the measure with weights, means and factors moved along a velocity; masses stay."""
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


def _with_twins(
    measure: SplatMeasure, deaths: Tensor, births: Tensor, matrix: Tensor, options: WFROptions
) -> SplatMeasure:
    """Put twins along their best directions in place of the dead, and keep the total integral."""
    if len(deaths) == 0 and len(births) == 0:
        return measure
    total = integrals(measure).sum()
    alive = torch.ones(len(measure), dtype=torch.bool)
    alive[deaths] = False
    places = alive.cumsum(dim=0) - 1
    _, direction = splitting_direction(matrix[births], measure.factors[births])
    measure = split(measure.index(alive), places[births], direction, options.offset)
    if not options.balanced:
        return measure
    masses = integrals(measure)
    return with_integrals(measure, masses * (total / masses.sum()))
