"""Report of an exchange: counts, sums and histograms, as flow.jsonl keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from splatrender.flow.birth_death import Exchange
from splatrender.flow.state import TrainState
from splatrender.flow.strategies.base import StepReport
from splatrender.flow.views.probes import KINDS, Probes
from splatrender.flow.views.sweep import Sweep
from splatrender.runtime.devices import read


@dataclass(frozen=True)
class Histograms:
    """Numbers of deaths and of births by their mean change of F in a view.

    Attributes:
        log10: centres of the bins, log10 |ΔF|.
        costs: number of splats whose removal costs that.
        gains: number of candidates whose insertion gains that.
    """

    log10: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ExchangeReport(StepReport):
    """Changes by a sweep and its exchange.

    Attributes:
        births: number of births by kind of probe.
        probes: number of probes by kind.
        error: F before, over the swept views.
        mass: total optical mass before.
        cost: sum of the costs of the deaths.
        gain: sum of the gains of the births.
        views: number of swept views.
        predicted: cost less gain.
        histograms: distribution of costs and gains.
        realised: change of F by the exchange.
        trials: number of attempts of the line search.
        twins: number of splats that were split.
    """

    births: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[str, int] = field(default_factory=dict)
    error: float = 0.0
    mass: float = 0.0
    cost: float = 0.0
    gain: float = 0.0
    views: int = 1
    predicted: float = 0.0
    histograms: Histograms = field(default_factory=Histograms)
    realised: float = 0.0
    trials: int = 0
    twins: int = 0

    def with_twins(self, twins: int, splats: int) -> ExchangeReport:
        """Return the report after a number of splats were split, with the number of all."""
        return replace(self, born=self.born + twins, splats=splats, twins=twins)

    def as_json(self) -> dict[str, Any]:
        """Return the line of flow.jsonl."""
        kinds = {}
        for kind in self.births:
            kinds[f"born_{kind}"], kinds[f"probes_{kind}"] = self.births[kind], self.probes[kind]
        return {
            **super().as_json(),
            **kinds,
            "error": self.error,
            "mass": self.mass,
            "cost": self.cost,
            "gain": self.gain,
            "views": self.views,
            "predicted": self.predicted,
            "error_of_view": self.error / self.views,
            "log10": self.histograms.log10,
            "costs": self.histograms.costs,
            "gains": self.histograms.gains,
            "realised": self.realised,
            "trials": self.trials,
            "twins": self.twins,
        }


def exchange_report(
    state: TrainState, probes: Probes, sweep: Sweep, exchange: Exchange
) -> ExchangeReport:
    """Return the report of an exchange that is about to be applied.

    Args:
        state: the run before the exchange.
        probes: all candidates.
        sweep: costs and gains.
        exchange: deaths and births.
    """
    swaps = min(len(exchange.deaths), len(exchange.births))
    born, died = len(exchange.births) - swaps, len(exchange.deaths) - swaps
    kinds = [(probes.kinds == kind, name) for kind, name in enumerate(KINDS)]
    counts = {f"born_{name}": marks[exchange.births].sum() for marks, name in kinds}
    counts |= {f"probes_{name}": marks.sum() for marks, name in kinds}
    numbers = read(
        counts
        | {
            "error": sweep.error.sum(),
            "mass": state.splats.detach().optical_depths.sum(),
            "cost": sweep.removals.by_view[:, exchange.deaths].sum(),
            "gain": sweep.insertions.by_view[:, exchange.births].sum(),
        }
    )
    return ExchangeReport(
        state.iteration,
        len(state) + born - died,
        born=born,
        relocated=swaps,
        died=died,
        births={name: int(numbers[f"born_{name}"]) for name in KINDS},
        probes={name: int(numbers[f"probes_{name}"]) for name in KINDS},
        error=numbers["error"],
        mass=numbers["mass"],
        cost=numbers["cost"],
        gain=numbers["gain"],
        views=len(sweep.views),
        predicted=exchange.predicted,
        histograms=histograms(sweep),
    )


def change_of(sweep: Sweep, deaths: Tensor, births: Tensor) -> float:
    """Return the predicted change of F by deaths and births together."""
    costs, gains = sweep.removals.by_view, sweep.insertions.by_view
    return float(costs[:, deaths].sum() - gains[:, births].sum())


def histograms(sweep: Sweep) -> Histograms:
    """Return the distribution of costs and gains by log10 of a view's ΔF."""
    edges = torch.linspace(-8, 4, 49)
    counts = []
    for values in (sweep.removals.by_view, sweep.insertions.by_view):
        mean = values.mean(dim=0).cpu()
        logs = mean[mean > 0].log10().clamp(float(edges[0]), float(edges[-1]))
        counts.append(torch.histogram(logs.float(), edges).hist.tolist())
    return Histograms((0.5 * (edges[1:] + edges[:-1])).tolist(), *counts)
