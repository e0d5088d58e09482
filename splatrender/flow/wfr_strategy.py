"""Births and deaths by exact exchange: sweep over views, probe, exchange.

Legend: F squared error, N splats, M probes, λ price of a splat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from splatrender.flow.birth_death import Exchange, exchange
from splatrender.flow.footprints import picture_of, see
from splatrender.flow.neighbourhood import apart
from splatrender.flow.probes import KINDS, Probes, anywhere, children, on_rays
from splatrender.flow.state import TrainingView, TrainState
from splatrender.flow.strategy import STRATEGIES, StepReport, Strategy
from splatrender.flow.sweep import Sweep, sweep
from splatrender.operators.flow_statistics import MASSES


@dataclass(frozen=True)
class Scheme:
    """The numbers of the scheme: compute, and which pieces take part.

    Attributes:
        sweeps: how many, evenly spaced over the first 85 % of the run.
        views: swept each time, at most.
        probes: for each splat.
        shares: parts of the probes that are children, on rays, anywhere.
        masses: peak optical depths at which probes are tried.
        turnover: exchanges and births of a sweep, at most, as a part of N.
        significance: least mean gain over its standard error.
        neighbourhood: side of the cube in which one birth and one death is allowed, in largest
            standard deviations; 0 allows all.
    """

    sweeps: int = 20
    views: int = 24
    probes: float = 1.0
    shares: tuple[float, float, float] = (0.5, 0.45, 0.05)
    masses: tuple[float, ...] = MASSES
    turnover: float = 0.1
    growth: float = 0.5
    significance: float = 1.0
    neighbourhood: float = 3.0
    ray_views: int = 16
    last: float = 0.85


class WFR(Strategy):
    """Sweep, probe, exchange."""

    name = "wfr"

    def __init__(
        self,
        iterations: int,
        max_splats: int,
        price: float | None = None,
        scheme: Scheme = Scheme(),
    ) -> None:
        super().__init__(iterations, max_splats)
        self.scheme, self.price = scheme, price
        self.interval = max(1, round(scheme.last * iterations / scheme.sweeps))

    @torch.no_grad()
    def step(self, state: TrainState) -> StepReport | None:
        """Sweep and exchange when it is time."""
        last = self.scheme.last * self.iterations
        if state.iteration % self.interval or state.iteration > last:
            return None
        views = _some(state.samples, self.scheme.views, state.generator)
        probes = self._propose(state)
        found = sweep(
            state.splats, probes, views, state.background, state.options, self.scheme.masses
        )
        chosen = self._choose(found, len(state), len(state.samples))
        report = self._report(state, probes, found, chosen)
        self._apply(state, found, chosen)
        every = views[::4]
        realised = self._error(state, every) - float(found.error[::4].sum())
        report.details["realised"] = realised * len(views) / len(every)
        return report

    def _propose(self, state: TrainState) -> Probes:
        scheme, splats, generator = self.scheme, state.splats.detach(), state.generator
        count = max(64, round(scheme.probes * len(splats)))
        child, ray, uniform = (round(share * count) for share in scheme.shares)
        views = _some(state.samples, scheme.ray_views, generator)
        look = (state.background, state.options, generator)
        parts = []
        if child:
            parts.append(children(splats, child, generator))
        if ray:
            parts.append(on_rays(splats, views, ray, *look))
        if uniform:
            parts.append(anywhere(splats, views, uniform, *look))
        return Probes.cat(parts)

    def _choose(self, found: Sweep, count: int, all_views: int) -> Exchange:
        scheme = self.scheme
        costs, gains = found.costs.sum(dim=0), found.births.gains.sum(dim=0)
        complete = len(found.views) == all_views
        known = torch.ones_like(found.seen, dtype=torch.bool) if complete else found.seen > 0
        deaths = known.nonzero()[:, 0]
        deaths = deaths[costs[deaths].argsort()]
        births = ((gains > 0) & (found.births.significance > scheme.significance)).nonzero()[:, 0]
        births = births[gains[births].argsort(descending=True)]
        factor, probes = scheme.neighbourhood, count + births
        deaths = deaths[
            apart(
                found.places[:, deaths],
                found.sizes[:, deaths],
                found.costs[:, deaths].abs(),
                factor,
            )
        ]
        births = births[
            apart(
                found.places[:, probes],
                found.sizes[:, probes],
                found.births.gains[:, births].abs(),
                factor,
            )
        ]
        limit = math.ceil(scheme.turnover * count)
        room = max(0, min(self.max_splats - count, math.ceil(scheme.growth * count)))
        result = exchange(costs[deaths], gains[births], limit, room, self.price)
        return Exchange(deaths[result.deaths], births[result.births], result.predicted)

    def _apply(self, state: TrainState, found: Sweep, chosen: Exchange) -> None:
        born = found.births.splats.index(chosen.births).with_degree(state.splats.degree)
        swaps = min(len(chosen.deaths), len(chosen.births))
        first = torch.arange(swaps)
        state.overwrite(chosen.deaths[:swaps], born.index(first))
        if swaps < len(chosen.births):
            state.append(born.index(torch.arange(swaps, len(chosen.births))))
        if swaps < len(chosen.deaths):
            kept = torch.ones(len(state), dtype=torch.bool)
            kept[chosen.deaths[swaps:]] = False
            state.select(kept.nonzero()[:, 0])

    def _error(self, state: TrainState, views: list[TrainingView]) -> float:
        """F of the splats as they are now."""
        total = 0.0
        for view in views:
            seen = see(state.splats, None, view.camera, state.background, state.options)
            residual = picture_of(seen) - view.photo.float() / 255
            if view.mask is not None:
                residual = residual * (view.mask != 0)[..., None]
            total += 0.5 * float(residual.square().sum())
        return total

    def _report(
        self, state: TrainState, probes: Probes, found: Sweep, chosen: Exchange
    ) -> StepReport:
        swaps = min(len(chosen.deaths), len(chosen.births))
        born, died = len(chosen.births) - swaps, len(chosen.deaths) - swaps
        details: dict[str, Any] = {
            "error": float(found.error.sum()),
            "views": len(found.views),
            "predicted": chosen.predicted,
        }
        for kind, name in enumerate(KINDS):
            details[f"born_{name}"] = int((probes.kinds[chosen.births] == kind).sum())
            details[f"probes_{name}"] = int((probes.kinds == kind).sum())
        details["cost"] = float(found.costs[:, chosen.deaths].sum())
        details["gain"] = float(found.births.gains[:, chosen.births].sum())
        return StepReport(
            state.iteration, len(state) + born - died, born=born, moved=swaps, died=died,
            details=details,
        )  # fmt: skip


def _some(views: Any, count: int, generator: torch.Generator) -> list[TrainingView]:
    """At most `count` views, drawn without replacement."""
    order = torch.randperm(len(views), generator=generator)[:count].sort().values.tolist()
    return [views[i] for i in order]


STRATEGIES[WFR.name] = WFR
