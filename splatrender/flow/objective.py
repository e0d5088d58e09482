"""The objective of a fit, as births and deaths see it.

Legend: F objective, μ measure of k splats, m candidates.

The theory needs three answers from F, for any forward operator: its value, the cost of the death of
a splat, and the gain of the birth of a candidate. Photos answer them by one sweep over views,
conditions at points by least squares. `birth_death.exchange` decides from the answers,
`line_search` accepts, and `step.Flow` composes both with transport.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from splatrender.model.record import Record

M = TypeVar("M", bound=Record)


@dataclass(frozen=True, eq=False)
class Removals:
    """Costs of deaths.

    Attributes:
        costs: [k] change of F when one splat is removed alone; below zero where that is a gain.
    """

    costs: Tensor


@dataclass(frozen=True, eq=False)
class Insertions(Generic[M]):
    """Gains of births.

    Attributes:
        newborn: [m] the candidates as they would be born: at their best mass and output.
        gains: [m] decrease of F when one candidate is inserted.
    """

    newborn: M
    gains: Tensor


class Objective(Protocol[M]):
    """Function F(μ) that a flow minimises.

    A subclass may return subclasses of `Removals` and `Insertions` that know more, such as which
    views a splat matters in. Answers are exact for each splat alone where F allows that.

    Example:
        >>> def total(objective: Objective[M], measure: M) -> float:
        ...     return objective.value(measure) + float(objective.removals(measure).costs.sum())
    """

    def value(self, measure: M) -> float:
        """Return F at a measure."""

    def removals(self, measure: M) -> Removals:
        """Return the cost of the death of each splat of a measure."""

    def insertions(self, measure: M, candidates: M) -> Insertions[M]:
        """Return the gain of the birth of each candidate beside a measure."""
