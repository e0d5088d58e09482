"""The interface of density control, and the choice of a strategy by name."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from splatrender.errors import InputError
from splatrender.flow.state import TrainState


@dataclass(frozen=True)
class StepReport:
    """What a strategy did to the splats in one iteration.

    Attributes:
        iteration: when.
        splats: how many there are now.
        born: splats added.
        moved: splats that died in one place and were born in another.
        died: splats removed.
        details: further numbers of the strategy (predicted and realised changes, say).
    """

    iteration: int
    splats: int
    born: int = 0
    moved: int = 0
    died: int = 0
    details: dict[str, Any] = field(default_factory=dict)


class Strategy(ABC):
    """Decides where splats are born and where they die.

    In each iteration the trainer renders one view, runs the loss backwards, calls
    `after_backward` (the gradients are in `.grad` of the splats' tensors and may be added to),
    lets the optimizer move the visible splats, and calls `step`. A strategy that decides by a sweep
    over many views renders them in `step` with `state.render` and `state.views`.

    All randomness comes from `state.generator`. What must survive a restart is kept in
    `state.rows` (one row per splat) or told by `memory` and taken back by `recall`.

    Args:
        iterations: length of the run.
        max_splats: number of splats never to exceed.
    """

    name: ClassVar[str]
    watches_footprints: ClassVar[bool] = False  # whether `state.footprints` is to be filled
    absgrad: ClassVar[bool] = False  # and its `means2d.absgrad`, too

    def __init__(self, iterations: int, max_splats: int) -> None:
        self.iterations = iterations
        self.max_splats = max_splats

    def after_backward(self, state: TrainState) -> None:
        """Add to the gradients of this iteration: regularisers.

        Args:
            state: the run; gradients are in `.grad` of `state.splats`.
        """
        return None

    def step(self, state: TrainState) -> StepReport | None:
        """Change the splats after the optimizer's step.

        Args:
            state: the run, to be changed in place.

        Returns:
            What was done, or None if splats were neither born nor moved nor removed.
        """
        return None

    def memory(self) -> dict[str, Any]:
        """What else to save: tensors, numbers, strings and containers of them."""
        return {}

    def recall(self, memory: dict[str, Any]) -> None:
        """Take back what `memory` told before a restart.

        Args:
            memory: as returned by `memory`.
        """
        return None


class NoStrategy(Strategy):
    """Neither births nor deaths: the splats of the start are moved, and that is all."""

    name = "none"


STRATEGIES: dict[str, Callable[..., Strategy]] = {NoStrategy.name: NoStrategy}


def create_strategy(
    name: str, iterations: int, max_splats: int, price: float | None = None
) -> Strategy:
    """The strategy of that name.

    Args:
        name: a key of `STRATEGIES`.
        iterations: length of the run.
        max_splats: number of splats never to exceed.
        price: what a splat costs, for `wfr`; None leaves the number to the budget.

    Returns:
        A new strategy.

    Raises:
        InputError: there is none of that name, or it has no price.

    Example:
        >>> create_strategy("none", 7000, 50_000).name
        'none'
    """
    if name not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES))
        raise InputError(f"strategy: expected one of {known}; got {name!r}")
    if price is None:
        return STRATEGIES[name](iterations, max_splats)
    if name != "wfr":
        raise InputError(f"price: expected strategy wfr with it, got {name!r}")
    return STRATEGIES[name](iterations, max_splats, price=price)
