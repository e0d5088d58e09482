"""First-order fits: the plain Wasserstein–Fisher–Rao flow, and Adam on the same gradients.

The paper fits this way. These routes serve comparisons, and losses that are not sums of squares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow.step import Flow, Loss, WFROptions, wfr_step
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.regression.linearise import residuals_of
from splatrender.regression.report import Progress, Round, Solution

METHODS = ("wfr", "wasserstein", "adam")


@dataclass(frozen=True)
class DescentOptions:
    """Method and step sizes of a first-order fit.

    Attributes:
        method: `wfr` (transport and reaction), `wasserstein` (transport alone) or `adam`.
        steps: number of steps.
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
    """Return ½ Σ |r|² of all conditions as a scalar that autograd differentiates in the measure."""
    total = measure.means.new_zeros(())
    for condition in conditions:
        total = total + 0.5 * residuals_of(measure, condition).square().sum()
    return total


def fit_first_order(
    conditions: Sequence[Condition],
    start: SplatMeasure,
    options: DescentOptions | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Solution:
    """Follow the gradient from a start, with a fixed number of splats.

    Args:
        conditions: the problem.
        start: first splats, of any normalisation.
        options: method and step sizes.
        generator: source of randomness.
        progress: called every `options.every` steps; returning True ends the fit.

    Returns:
        The measure at the end.
    """
    options = options or DescentOptions()
    began = time.perf_counter()
    history: list[Round] = []
    measure = start.detach()

    def loss(candidate: SplatMeasure) -> Tensor:
        return condition_loss(candidate, conditions)

    step = _step(measure, loss, options, generator)
    for index in range(options.steps):
        measure = step(measure)
        if index % options.every == options.every - 1 or index == options.steps - 1:
            value = float(loss(measure))
            seconds = time.perf_counter() - began
            history.append(Round(len(history), seconds, value, len(measure)))
            if progress and progress(history[-1], measure):
                break
    return Solution(measure, float(loss(measure)), history)


def _step(
    start: SplatMeasure, loss: Loss, options: DescentOptions, generator: torch.Generator | None
) -> Callable[[SplatMeasure], SplatMeasure]:
    """Return the step of a flow: transport by Adam, or the paper's transport and reaction."""
    if options.method == "adam":
        return Flow(_AdamTransport(start, loss, options.rate)).step
    flow = WFROptions(
        transport=options.rate,
        weights=options.rate,
        reaction=options.rate * options.reaction if options.method == "wfr" else 0.0,
        entropy=options.entropy,
        balanced=False,
    )
    return lambda measure: wfr_step(measure, loss, flow, generator)[0]


class _AdamTransport:
    """Transport of weights, means and factors by Adam, which keeps the measure it began with."""

    def __init__(self, start: SplatMeasure, loss: Loss, rate: float) -> None:
        names = ("weights", "means", "factors")
        self.leaves = {name: getattr(start, name).clone().requires_grad_() for name in names}
        self.optimizer = torch.optim.Adam(list(self.leaves.values()), lr=rate)
        self.loss = loss

    def __call__(self, measure: SplatMeasure) -> SplatMeasure:
        """Return the measure after a step."""
        self.optimizer.zero_grad()
        torch.autograd.backward(self.loss(measure.with_tensors(self.leaves)))
        self.optimizer.step()
        return measure.with_tensors({name: leaf.detach() for name, leaf in self.leaves.items()})
