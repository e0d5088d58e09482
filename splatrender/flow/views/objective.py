"""The objective of photos: the squared error of renderings, as births and deaths see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from splatrender.flow.objective import Objective
from splatrender.flow.views.sweep import (
    PhotoInsertions,
    PhotoRemovals,
    Sweep,
    squared_error,
    sweep,
)
from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.operators.flow_statistics import MASSES
from splatrender.operators.stages import Look


class PhotoObjective(Objective[Splats]):
    """F = ½ Σ |radiance − photo|² over the pixels of some views.

    Costs and gains come from one pass over the views: `insertions` runs it, and `removals` of
    the same measure answers from it. So ask for insertions first, and make a new
    objective when views or splats change.

    Args:
        views: at least one.
        look: background and options of the rendering.
        masses: peak optical depths at which candidates are tried, increasing.
    """

    def __init__(self, views: Sequence[View], look: Look, masses: Sequence[float] = MASSES) -> None:
        self.views, self.look, self.masses = views, look, masses
        self._latest: tuple[Splats, Sweep] | None = None

    def value(self, measure: Splats) -> float:
        """Return F of splats that may be others than those of the sweep."""
        return squared_error(measure, self.views, self.look)

    def removals(self, measure: Splats) -> PhotoRemovals:
        """Return the cost of each death, exact for each alone."""
        return self.sweep(measure).removals

    def insertions(self, measure: Splats, candidates: Splats) -> PhotoInsertions:
        """Return the gain of each birth, exact for each alone, at its best mass and colour."""
        self._latest = measure, sweep(measure, candidates, self.views, self.look, self.masses)
        return self._latest[1].insertions

    def sweep(self, measure: Splats) -> Sweep:
        """Return the sweep that `insertions` ran, or one without candidates."""
        if self._latest is None or self._latest[0] is not measure:
            nothing = torch.zeros(0, dtype=torch.int64, device=measure.device)
            self.insertions(measure, measure.detach().with_degree(0).index(nothing))
        assert self._latest is not None
        return self._latest[1]
