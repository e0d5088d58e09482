"""One acceptance: try, shrink, and take the first attempt that lowers the objective.

The changes by single births and deaths are exact, their sum is not: changes of overlapping splats
do not add up. A quadratic model of transport is exact only nearby. So a step is tried before it is
made, and made smaller while it does not lower F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[A]):
    """Result of a line search.

    Attributes:
        attempt: the accepted attempt, None if all were rejected.
        value: objective after it; that before where none was accepted.
        trials: number of attempts that were evaluated.
    """

    attempt: A | None
    value: float
    trials: int


def line_search(
    attempts: Iterable[A], value: Callable[[A], float], before: float, ties: bool = False
) -> Outcome[A]:
    """Return the first attempt that lowers the objective.

    Args:
        attempts: steps from the boldest to the most careful. An iterator makes each of them only
            after the one before was rejected.
        value: objective after an attempt, with all prices in it; never accepted if it is NaN.
        before: objective before.
        ties: accept an attempt that leaves the objective as it is, too: for objectives that are
            computed in float32, where a change may be below rounding.

    Returns:
        The accepted attempt.

    Example:
        >>> halvings = (0.5**i for i in range(9))  # steps down the slope of x² from 1
        >>> line_search(halvings, lambda step: (1 - 8 * step) ** 2, before=1.0)
        Outcome(attempt=0.125, value=0.0, trials=4)
    """
    trials = 0
    for attempt in attempts:
        after = value(attempt)
        trials += 1
        if after < before or (ties and after == before):
            return Outcome(attempt, after, trials)
    return Outcome(None, before, trials)
