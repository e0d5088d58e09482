"""Reports of a fit: its rounds, and its solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from splatrender.model import SplatMeasure


@dataclass(frozen=True)
class Round:
    """Report of a round.

    Attributes:
        round: number; 0 is the first descent.
        seconds: time since the start.
        loss: ½ Σ |r|² of the kept measure after the round.
        splats: number of its splats.
        births: splats born in the trial.
        deaths: splats removed in the trial.
        kept: True if the trial was kept.
        mass_moved: Σ |c| of removed and inserted splats.
        predicted: change of the loss by deaths and births, before transport.
        realised: change of the loss by the whole round.
        validation: loss on the validation conditions, if there are any.
    """

    round: int
    seconds: float
    loss: float
    splats: int
    births: int = 0
    deaths: int = 0
    kept: bool = True
    mass_moved: float = 0.0
    predicted: float = 0.0
    realised: float = 0.0
    validation: float | None = None


@dataclass(frozen=True, eq=False)
class Solution:
    """Fitted measure and the way to it.

    Attributes:
        measure: peak-normalised splats.
        loss: ½ Σ |r|² at the measure.
        history: one entry for each round.
    """

    measure: SplatMeasure
    loss: float
    history: list[Round] = field(default_factory=list)


Progress = Callable[[Round, SplatMeasure], "bool | None"]
