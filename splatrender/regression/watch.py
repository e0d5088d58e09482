"""Observation of a fit: reports in the user's units, and the best measure on held-out data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.regression.amplitudes import as_peaks
from splatrender.regression.linearise import loss_of
from splatrender.regression.report import Progress, Round, Solution
from splatrender.regression.scaling import Scaling

PRINTED_EVERY = 10  # rounds


@dataclass(eq=False)
class Watch:
    """Follows the rounds of a fit, and ends it when held-out data no longer improve.

    Attributes:
        scaling: units of the user.
        patience: rounds without progress on held-out data after which the fit ends.
        validation: held-out data, if there are any.
        progress: callback of the user.
        verbose: print every tenth round.
        history: reports so far.
        best: measure that did best on held-out data, with its loss on the fitted data.
    """

    scaling: Scaling
    patience: int
    validation: Condition | None = None
    progress: Progress | None = None
    verbose: bool = False
    history: list[Round] = field(default_factory=list)
    best: tuple[SplatMeasure, float] | None = None
    _lowest: float = math.inf
    _idle: int = 0

    def __call__(self, entry: Round, measure: SplatMeasure) -> bool:
        """Report a round, and return whether the fit must end."""
        held = None
        if self.validation is not None:
            held = loss_of(as_peaks(measure), [self.validation])
            self._idle += 1
            if held < self._lowest:
                self._lowest, self.best, self._idle = held, (measure, entry.loss), 0
        entry = self.scaling.report(replace(entry, validation=held))
        self.history.append(entry)
        ended = False
        if self.progress:
            ended = bool(self.progress(entry, self.scaling.splats(measure)))
        if self.verbose and entry.round % PRINTED_EVERY == 0:
            rmse = math.sqrt(2 * entry.loss)
            print(f"round {entry.round}: {entry.splats} splats, residual {rmse:.3e}")
        return ended or (self.validation is not None and self._idle >= self.patience)

    def outcome(self, solution: Solution) -> Solution:
        """Return the solution, or the best one on held-out data, with the reports so far."""
        measure, loss = self.best or (solution.measure, solution.loss)
        return Solution(measure, loss, self.history)
