"""First-order fitting: the plain Wasserstein–Fisher–Rao flow, and Adam on the same gradients.

These are the paper's own routes, kept for comparison and for losses without least squares.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow.step import WFROptions, wfr_step
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.regression.linearise import residuals_of
from splatrender.regression.solver import Progress, Round, Solution

METHODS = ("wfr", "wasserstein", "adam")


@dataclass(frozen=True)
class DescentOptions:
    """How to descend.

    Attributes:
        method: `wfr` (transport and reaction), `wasserstein` (transport alone) or `adam`.
        steps: how many.
        rate: step size of transport and weights, or Adam's learning rate.
        reaction: step size of the masses for `wfr`, relative to `rate`.
        entropy: weight of Σ q ln q, q = m / Σ m.
        every: steps between entries of the history.
    """

    method: str = "wfr"
    steps: int = 2000
    rate: float = 1e-3
    reaction: float = 1.0
    entropy: float = 0.0
    every: int = 100

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")


def condition_loss(measure: SplatMeasure, conditions: Sequence[Condition]) -> Tensor:
    """½ Σ |r|² of all conditions as a scalar that autograd can differentiate in the measure."""
    total = measure.means.new_zeros(())
    for condition in conditions:
        total = total + 0.5 * residuals_of(measure, condition).square().sum()
    return total


def descend(
    conditions: Sequence[Condition],
    start: SplatMeasure,
    options: DescentOptions | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Solution:
    """Follow the gradient from a start, with the number of splats fixed.

    Args:
        conditions: the problem.
        start: the first splats, of any normalisation.
        options: method and step sizes.
        generator: source of randomness.
        progress: called every `options.every` steps; returning True ends the descent.

    Returns:
        The measure at the end.
    """
    options = options or DescentOptions()
    began = time.perf_counter()
    history: list[Round] = []
    measure = start.detach()

    def loss(candidate: SplatMeasure) -> Tensor:
        return condition_loss(candidate, conditions)

    step = _adam(measure, loss, options) if options.method == "adam" else None
    flow = WFROptions(
        transport=options.rate,
        weights=options.rate,
        reaction=options.rate * options.reaction if options.method == "wfr" else 0.0,
        entropy=options.entropy,
        balanced=False,
    )
    for index in range(options.steps):
        if step is not None:
            measure = step()
        else:
            measure, _ = wfr_step(measure, loss, flow, generator)
        if index % options.every == options.every - 1 or index == options.steps - 1:
            value = float(loss(measure))
            seconds = time.perf_counter() - began
            history.append(Round(len(history), seconds, value, len(measure)))
            if progress and progress(history[-1], measure):
                break
    return Solution(measure, float(loss(measure)), history)


def _adam(measure: SplatMeasure, loss, options: DescentOptions):  # type: ignore[no-untyped-def]
    """A function that takes one step of Adam on weights, means and factors."""
    names = ("weights", "means", "factors")
    leaves = {name: getattr(measure, name).clone().requires_grad_() for name in names}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=options.rate)

    def step() -> SplatMeasure:
        optimizer.zero_grad()
        loss(replace(measure, **leaves)).backward()
        optimizer.step()
        return replace(measure, **{name: leaf.detach() for name, leaf in leaves.items()})

    return step
