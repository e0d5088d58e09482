"""Births and deaths by exact exchange: sweep over views, probe, exchange.

Legend: F squared error, N splats, M probes, λ price of a splat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow.birth_death import Exchange, ExchangeLimits, Prices, exchange
from splatrender.flow.line_search import line_search
from splatrender.flow.state import TrainState
from splatrender.flow.strategies.base import STRATEGIES, StepReport, Strategy
from splatrender.flow.strategies.mcmc import MCMC, diffuse, regularise
from splatrender.flow.views.footprints import picture_of, residual_of, see
from splatrender.flow.views.neighbourhood import apart
from splatrender.flow.views.probes import KINDS, Probes, anywhere, children, on_rays
from splatrender.flow.views.sweep import Sweep, logits_of_depths, sweep
from splatrender.model import Splats
from splatrender.model.draws import draw_distinct
from splatrender.model.splitting import split_splats
from splatrender.model.view import View
from splatrender.operators.flow_statistics import MASSES
from splatrender.operators.render import RenderOptions
from splatrender.runtime.devices import read

UNIFORM_VIEWS = 4  # from which the few uniform probes look
WORTH = "wfr/worth"  # what the removal of a splat would cost, see `common_worth`
THINNINGS = 3  # times the masses of the newborn are halved before their number is
LOOK_AHEAD = 4  # times the exchanges that may happen are looked at for neighbours


@dataclass(frozen=True)
class Scheme:
    """The numbers of the scheme: compute, and which pieces take part.

    Attributes:
        sweeps: how many, evenly spaced over the part `last` of the run.
        rest: iterations for each sweep, at least, so that sweeps do not take most of a short run.
        last: part of the run after which nothing is born: what is new needs time to settle.
        views: swept each time, at most.
        probes: for each splat.
        shares: parts of the probes that are children, on rays, anywhere.
        ray_views: views from which rays are drawn.
        masses: peak optical depths at which probes are tried.
        turnover: exchanges of a sweep, at most, as a part of N.
        growth: births of a sweep beyond deaths, as a part of N, while the budget has room.
        twins: whether twins fill what births leave of the growth.
        significance: least held-out gain of a view over its standard error. What a single view
            gains alone has 1 exactly.
        neighbourhood: side of the cell in which one birth and one death is allowed, in standard
            deviations of the footprint; 0 allows all.
        mass: price of a splat of opacity 1, in values of a photo (three for each pixel) that are
            wrong by their whole range.
        noise: of means, in that of 3DGS-MCMC.
    """

    sweeps: int = 20
    rest: int = 200
    last: float = 0.85
    views: int = 24
    probes: float = 1.0
    shares: tuple[float, float, float] = (0.5, 0.45, 0.05)
    ray_views: int = 16
    masses: tuple[float, ...] = MASSES
    turnover: float = 0.1
    growth: float = 0.15
    twins: bool = True
    significance: float = 1.0
    neighbourhood: float = 3.0
    mass: float = 0.1
    noise: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What bounds an exchange.

    Attributes:
        max_splats: number of splats never to exceed.
        price: of a splat, in units of F of all swept views; None for a balanced flow.
    """

    max_splats: int
    price: float | None


def descend(
    state: TrainState, found: Sweep, chosen: Exchange, rules: Rules
) -> tuple[Sweep, Exchange, float, int]:
    """Return the longest part of an exchange, by halving, that lowers F + λ N.

    Args:
        state: what there is; not changed.
        found: the sweep that the exchange comes from.
        chosen: rows of splats that are to die, and of probes that are to be born.
        rules: see `Rules`.

    Returns:
        The sweep with the masses that were taken, the part, its realised change of F over the
        swept views, and how many parts were tried.
    """
    before, price = float(found.error.sum()), rules.price or 0.0

    def cost(chosen: Exchange) -> float:
        return price * (len(chosen.births) - len(chosen.deaths))

    def value(attempt: tuple[Sweep, Exchange]) -> float:
        tried = exchanged(state.splats, *attempt)
        return error_of(tried, found.views, state.background, state.options) + cost(attempt[1])

    attempts = _attempts(found, chosen, len(state), rules)
    outcome = line_search(attempts, value, before, ties=True)
    if outcome.attempt is None:
        none = chosen.births[:0]
        return found, Exchange(none, none, 0.0), 0.0, outcome.trials
    found, chosen = outcome.attempt
    return found, chosen, outcome.value - cost(chosen) - before, outcome.trials


def _attempts(
    found: Sweep, chosen: Exchange, count: int, rules: Rules
) -> Iterator[tuple[Sweep, Exchange]]:
    """Yield smaller and smaller parts of an exchange.

    Where splats become more, the masses of the newborn are halved first: births of small mass
    always add up. Then births and deaths are halved in number; those of the largest gains and the
    smallest costs come first and stay.
    """
    trials = 0
    thinnings = THINNINGS if len(chosen.births) > len(chosen.deaths) else 0
    while len(chosen.births) + len(chosen.deaths):
        if 0 < trials <= thinnings:
            found = thinned(found)
        elif trials:
            chosen = _half(found, chosen, count, rules)
            if not len(chosen.births) + len(chosen.deaths):
                return
        yield found, chosen
        trials += 1


def thinned(found: Sweep) -> Sweep:
    """The same with births of half the mass."""
    born = found.births.splats
    logits = logits_of_depths(0.5 * born.optical_depths)
    born = replace(born, opacity_logits=logits)
    return replace(found, births=replace(found.births, splats=born))


def _half(found: Sweep, chosen: Exchange, count: int, rules: Rules) -> Exchange:
    births = chosen.births[: len(chosen.births) // 2]
    if rules.price is None:
        deaths = chosen.deaths[: max(0, len(births) + count - rules.max_splats)]
    else:
        deaths = chosen.deaths[: len(chosen.deaths) // 2]
    change = found.costs[:, deaths].sum() - found.births.gains[:, births].sum()
    return Exchange(deaths, births, float(change))


def error_of(
    splats: Splats, views: Sequence[View], background: Tensor, options: RenderOptions
) -> float:
    """F = 1/2 Σ |radiance - photo|² over the pixels of some views."""
    squares = []
    for view in views:
        picture = picture_of(see(splats, None, view.camera, background, options))
        squares.append(residual_of(picture, view).square().sum())
    return sum(0.5 * square for square in torch.stack(squares).tolist())


def exchanged(splats: Splats, found: Sweep, chosen: Exchange) -> Splats:
    """The splats without the dead, and the newborn behind them."""
    born = found.births.splats.index(chosen.births).with_degree(splats.degree)
    return Splats.cat([splats.detach().index(_others(len(splats), chosen.deaths)), born])


def carry_out(state: TrainState, found: Sweep, chosen: Exchange) -> None:
    """Let the chosen splats die and the chosen probes be born, in their rows while there are any.

    Args:
        state: changed in place; newborn splats have no moments.
        found: the sweep that the exchange comes from.
        chosen: rows of splats and of probes.
    """
    born = found.births.splats.index(chosen.births).with_degree(state.splats.degree)
    rows = torch.arange(len(born), device=born.device)
    swaps = min(len(chosen.deaths), len(born))
    state.overwrite(chosen.deaths[:swaps], born.index(rows[:swaps]))
    if swaps < len(born):
        state.append(born.index(rows[swaps:]))
    if swaps < len(chosen.deaths):
        state.select(_others(len(state), chosen.deaths[swaps:]))


def _others(count: int, rows: Tensor) -> Tensor:
    """All rows below `count` but these."""
    kept = torch.ones(count, dtype=torch.bool, device=rows.device)
    kept[rows] = False
    return kept.nonzero()[:, 0]  # once for all fields: to index by a mask is to wait for each


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
        if price is not None and not 0 <= price < math.inf:
            raise InputError(f"price: expected a number >= 0, got {price}")
        self.scheme, self.price = scheme, price
        self._values: float | None = None  # of a photo, once the views are known
        sweeps = max(1, min(scheme.sweeps, iterations // scheme.rest))
        self.interval = max(1, int(scheme.last * iterations / sweeps))
        self.growth = (1 + scheme.growth) ** (scheme.sweeps / sweeps) - 1  # of one of fewer sweeps

    def after_backward(self, state: TrainState) -> None:
        """Add the gradient of the price of mass."""
        if self.scheme.mass:
            if self._values is None:
                self._values = _values_of_a_photo(state)
            regularise(state, self.scheme.mass * len(state) / self._values, 0.0)

    @torch.no_grad()
    def step(self, state: TrainState) -> StepReport | None:
        """Sweep and exchange when it is time."""
        if self.scheme.noise > 0:
            diffuse(state, self.scheme.noise * MCMC.noise)
        last = self.scheme.last * self.iterations
        if state.iteration % self.interval or state.iteration > last:
            return None
        views = _some(state.samples, self.scheme.views, state.generator)
        probes = self.propose(state)
        found = self.judge(state, probes, views)
        price = None if self.price is None else self.price * _views_of_full_size(state, views)
        rules = Rules(self.max_splats, price)
        chosen = self._choose(state, found, rules)
        found, chosen, realised, trials = descend(state, found, chosen, rules)
        report = self._report(state, probes, found, chosen)
        before = len(state)
        state.rows[WORTH] = common_worth(found.costs, found.seen)  # a row: it follows its splat
        state.rows[WORTH][chosen.deaths] = 0
        carry_out(state, found, chosen)
        twins = self._divide(state, before)
        details = report.details | {"realised": realised, "trials": trials, "twins": twins}
        return replace(report, splats=len(state), born=report.born + twins, details=details)

    def _divide(self, state: TrainState, before: int) -> int:
        """Fill what births leave of the growth with twins of the splats that matter most."""
        worth = state.rows.pop(WORTH)
        if self.price is not None or not self.scheme.twins:
            return 0
        target = min(self.max_splats, math.ceil((1 + self.growth) * before))
        count = min(target - len(state), int((worth > 0).sum()))
        if count <= 0:
            return 0
        parents = draw_distinct(worth, count, state.generator)
        one, other = split_splats(state.splats.index(parents))
        state.overwrite(parents, one)
        state.append(other)
        return count

    def judge(self, state: TrainState, probes: Probes, views: Sequence[View]) -> Sweep:
        """What removals cost and insertions gain, over some views."""
        look = (state.background, state.options)
        return sweep(state.splats, probes, views, *look, self.scheme.masses)

    def propose(self, state: TrainState) -> Probes:
        """Probes that might pay: children of splats, on rays of large residuals, a few anywhere."""
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
            parts.append(anywhere(splats, views[:UNIFORM_VIEWS], uniform, *look))
        return Probes.cat(parts)

    def _choose(self, state: TrainState, found: Sweep, rules: Rules) -> Exchange:
        scheme, count = self.scheme, len(state)
        costs, gains = found.costs.sum(dim=0), found.births.held_out.sum(dim=0)
        complete = len(found.views) == len(state.samples)
        known = torch.ones_like(found.seen, dtype=torch.bool) if complete else found.seen > 0
        deaths = known.nonzero()[:, 0]
        deaths = deaths[costs[deaths].argsort()]
        births = ((gains > 0) & (found.births.significance > scheme.significance)).nonzero()[:, 0]
        births = births[gains[births].argsort(descending=True)]
        limit = math.ceil(scheme.turnover * count)
        room = max(0, min(self.max_splats - count, math.ceil(self.growth * count)))
        deaths, births = deaths[: LOOK_AHEAD * limit], births[: LOOK_AHEAD * (limit + room)]
        deaths = deaths[self._alone(found, deaths, found.costs[:, deaths])]
        births = births[self._alone(found, count + births, found.births.gains[:, births])]
        limits = ExchangeLimits(limit, limit + room, room)
        if rules.price is not None:
            prices = Prices(rules.price, rules.price)
            limits = replace(limits, growth=self.max_splats - count, prices=prices)
        result = exchange(costs[deaths], gains[births], limits)
        died, born = deaths[result.deaths], births[result.births]
        change = found.costs[:, died].sum() - found.births.gains[:, born].sum()
        return Exchange(died, born, float(change))

    def _alone(self, found: Sweep, rows: Tensor, changes: Tensor) -> Tensor:
        """Which of the rows, in order of preference, may be exchanged together."""
        sizes = [(view.camera.width, view.camera.height) for view in found.views]
        return apart(
            found.places[:, rows], found.sizes[:, rows], changes.abs(), torch.tensor(sizes),
            self.scheme.neighbourhood,
        )  # fmt: skip

    def _report(
        self, state: TrainState, probes: Probes, found: Sweep, chosen: Exchange
    ) -> StepReport:
        swaps = min(len(chosen.deaths), len(chosen.births))
        born, died = len(chosen.births) - swaps, len(chosen.deaths) - swaps
        counts = {}
        for kind, name in enumerate(KINDS):
            counts[f"born_{name}"] = (probes.kinds[chosen.births] == kind).sum()
            counts[f"probes_{name}"] = (probes.kinds == kind).sum()
        sums = {
            "error": found.error.sum(),
            "mass": state.splats.detach().optical_depths.sum(),
            "cost": found.costs[:, chosen.deaths].sum(),
            "gain": found.births.gains[:, chosen.births].sum(),
        }
        details: dict[str, Any] = read(counts | sums)
        details |= {name: int(details[name]) for name in counts}
        details |= {"views": len(found.views), "predicted": chosen.predicted}
        details["error_of_view"] = details["error"] / len(found.views)
        details |= histograms(found)
        return StepReport(
            state.iteration, len(state) + born - died, born=born, moved=swaps, died=died,
            details=details,
        )  # fmt: skip


def common_worth(costs: Tensor, seen: Tensor) -> Tensor:
    """What removals cost in all views but the one that wants a splat most: [V, N], [N] -> [N].

    A splat that one view alone wants has fitted what the others do not confirm: an error of that
    photo, or a place whose depth is not known. Dividing it would fit that better still. Where no
    other of the swept views sees a splat, nothing speaks against it: in a large scene most views
    see but a part, and a birth that is refused now is tried again, whereas a splat is there.

    Example:
        >>> costs = torch.tensor([[5.0, 1.0, 7.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
        >>> common_worth(costs, torch.tensor([3, 3, 1]))
        tensor([0., 2., 7.])
    """
    most = costs.amax(dim=0).masked_fill(seen < 2, 0)
    return (costs.sum(dim=0) - most).clamp(min=0)


def histograms(found: Sweep) -> dict[str, list[float]]:
    """How many removals cost, and how many births gain, how much: by log10 of a view's ΔF."""
    edges = torch.linspace(-8, 4, 49)
    counts = {"log10": (0.5 * (edges[1:] + edges[:-1])).tolist()}
    for name, values in (("costs", found.costs), ("gains", found.births.gains)):
        mean = values.mean(dim=0).cpu()
        logs = mean[mean > 0].log10().clamp(float(edges[0]), float(edges[-1]))
        counts[name] = torch.histogram(logs.float(), edges).hist.tolist()
    return counts


def _views_of_full_size(state: TrainState, views: Sequence[View]) -> float:
    """How many photos of full size have as many pixels as the views."""
    return sum(view.photo.numel() for view in views) / _values_of_a_photo(state)


def _values_of_a_photo(state: TrainState) -> float:
    """Mean number of values, three for each pixel, of the photos at full size."""
    return sum(view.photo.numel() for view in state.views) / len(state.views)


def _some(views: Any, count: int, generator: torch.Generator) -> list[View]:
    """At most `count` views, drawn without replacement."""
    order = torch.randperm(len(views), generator=generator, device=generator.device)
    return [views[i] for i in order[:count].sort().values.tolist()]


STRATEGIES[WFR.name] = WFR
