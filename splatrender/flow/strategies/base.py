"""The interface of density control, and the choice of a strategy by name."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from splatrender._moved import renamed_attribute, renamed_method
from splatrender.errors import InputError
from splatrender.flow.state import TrainState

BASE = ("iteration", "splats", "born", "moved", "died")


@dataclass(frozen=True)
class StepReport:
    """Changes of the splats by a strategy in one iteration.

    A strategy may return a subclass with further fields; its `as_json` adds them to flow.jsonl.

    Attributes:
        iteration: the iteration.
        splats: number of splats after it.
        born: number of splats added.
        relocated: number of splats that died in one place and were born in another.
        died: number of splats removed.
    """

    iteration: int
    splats: int
    born: int = 0
    relocated: int = 0
    died: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the line of flow.jsonl."""
        return {
            "iteration": self.iteration,
            "splats": self.splats,
            "born": self.born,
            "moved": self.relocated,
            "died": self.died,
        }

    moved = renamed_attribute("StepReport.moved", "relocated")
    details = renamed_attribute(
        "StepReport.details",
        "as_json()",
        lambda report: {k: v for k, v in report.as_json().items() if k not in BASE},
    )


class Strategy(ABC):
    """Decisions where splats are born and where they die.

    In each iteration the trainer renders one view, runs the loss backwards, calls
    `after_backward` (the gradients are in `.grad` of the splats' tensors and may be added to),
    lets the transport move the visible splats, and calls `step`. A strategy that decides by a sweep
    over many views renders them in `step` with `state.render` and `state.views`.

    All randomness comes from `state.generator`. What must survive a restart is kept in
    `state.rows` (one row per splat), or returned by `state_dict` and read by `load_state_dict`.

    Args:
        iterations: length of the run.
        max_splats: maximum number of splats.
    """

    name: ClassVar[str]
    watches_footprints: ClassVar[bool] = False  # True: the trainer fills `state.footprints`
    absgrad: ClassVar[bool] = False  # and its absolute gradients, too

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let strategies that define `memory` and `recall` work under the new names."""
        super().__init_subclass__(**kwargs)
        renamed_method(cls, "memory", "state_dict")
        renamed_method(cls, "recall", "load_state_dict")

    def __init__(self, iterations: int, max_splats: int) -> None:
        self.iterations = iterations
        self.max_splats = max_splats

    def after_backward(self, state: TrainState) -> None:
        """Add the gradients of regularisers to those of this iteration.

        Args:
            state: the run; gradients are in `.grad` of `state.splats`.
        """
        return None

    def step(self, state: TrainState) -> StepReport | None:
        """Change the splats after the transport's step.

        Args:
            state: the run, to be changed in place.

        Returns:
            The changes, or None if there were none.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return further content of a checkpoint: tensors, numbers, strings and containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state_dict` of an earlier run.

        Args:
            state: as returned by `state_dict`.
        """
        return None

    memory = renamed_attribute("Strategy.memory", "state_dict")
    recall = renamed_attribute("Strategy.recall", "load_state_dict")


class NoStrategy(Strategy):
    """No births and no deaths: transport moves the splats of the start."""

    name = "none"


STRATEGIES: dict[str, Callable[..., Strategy]] = {NoStrategy.name: NoStrategy}


def create_strategy(
    name: str, iterations: int, max_splats: int, price: float | None = None
) -> Strategy:
    """Return a new strategy by its name.

    Args:
        name: a key of `STRATEGIES`.
        iterations: length of the run.
        max_splats: maximum number of splats.
        price: price of a splat, for `wfr`; None leaves the number of splats to the budget.

    Raises:
        InputError: no strategy has that name, or it has no price.

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
