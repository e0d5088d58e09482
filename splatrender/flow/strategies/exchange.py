"""Births and deaths by exact exchange: propose, score, select, exchange, search, apply.

Legend: F squared error, N splats, M probes, λ price of a splat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow.birth_death import Exchange, ExchangeLimits, Prices, exchange
from splatrender.flow.line_search import Outcome, line_search
from splatrender.flow.state import TrainState
from splatrender.flow.strategies.base import STRATEGIES, Strategy
from splatrender.flow.strategies.mcmc import MCMC, diffuse, regularise
from splatrender.flow.strategies.report import ExchangeReport, change_of, exchange_report
from splatrender.flow.views.neighbourhood import non_overlapping
from splatrender.flow.views.objective import PhotoObjective
from splatrender.flow.views.probes import Probes, anywhere, children, on_rays
from splatrender.flow.views.sweep import Placement, Sweep, logits_of_depths
from splatrender.model import Splats
from splatrender.model.draws import draw_distinct
from splatrender.model.splitting import split_splats
from splatrender.model.view import View
from splatrender.operators.flow_statistics import MASSES

UNIFORM_VIEWS = 4  # number of views from which the few uniform probes are drawn
THINNINGS = 3  # times the masses of the newborn are halved before their number is
LOOK_AHEAD = 4  # times the maximum number of exchanges is examined for neighbours


@dataclass(frozen=True)
class ExchangeConfig:
    """Numbers of the exchange strategy: compute, and the pieces that take part.

    Attributes:
        sweeps: number of sweeps, evenly spaced over the part `last` of the run.
        rest: minimum number of iterations for each sweep: sweeps must not take most of a short run.
        last: part of the run after which nothing is born: new splats need time to settle.
        views: maximum number of views of a sweep.
        probes: number of probes for each splat.
        shares: fractions of the probes that are children, on rays, anywhere.
        ray_views: number of views from which rays are drawn.
        masses: peak optical depths at which probes are tried.
        turnover: maximum number of exchanges of a sweep, as a fraction of N.
        growth: maximum number of births beyond deaths in a sweep, as a fraction of N, while the
            budget has room.
        twins: use the growth that births leave for twins.
        significance: minimum ratio of the mean held-out gain of a view to its standard error. A
            gain of a single view alone has exactly 1.
        neighbourhood: side of the cell in which one birth and one death is allowed, in standard
            deviations of the footprint; 0 allows all.
        mass: price of a splat of opacity 1, in values of a photo (three for each pixel) that are
            wrong by their whole range.
        noise: noise of means relative to that of 3DGS-MCMC.
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


@dataclass(frozen=True, eq=False)
class Attempt:
    """Part of an exchange, as it is tried.

    Attributes:
        exchange: rows of splats that die and of candidates that are born.
        newborn: the births, at the masses that are tried.
    """

    exchange: Exchange
    newborn: Splats

    @property
    def growth(self) -> int:
        """Number of births beyond deaths."""
        return len(self.exchange.births) - len(self.exchange.deaths)


class ExchangeStrategy(Strategy):
    """Exchange of cheap splats for gainful candidates, both scored by a sweep over views.

    On the command line it is `wfr`, as the exchange is the birth-death part of a
    Wasserstein–Fisher–Rao flow. Between sweeps the transport of the run moves splats.

    Args:
        iterations: length of the run.
        max_splats: maximum number of splats.
        price: minimum reduction of the squared error of a view at full size by which a splat is
            kept; None leaves the number of splats to `max_splats`.
        config: numbers of the strategy.

    Raises:
        InputError: the price is not a number >= 0.
    """

    name = "wfr"

    def __init__(
        self,
        iterations: int,
        max_splats: int,
        price: float | None = None,
        config: ExchangeConfig = ExchangeConfig(),
    ) -> None:
        super().__init__(iterations, max_splats)
        if price is not None and not 0 <= price < math.inf:
            raise InputError(f"price: expected a number >= 0, got {price}")
        self.config, self.price = config, price
        self._values: float | None = None  # mean number in a photo, once the views are known
        sweeps = max(1, min(config.sweeps, iterations // config.rest))
        self.interval = max(1, int(config.last * iterations / sweeps))
        of_fewer: float = (1 + config.growth) ** (config.sweeps / sweeps) - 1
        self.growth = of_fewer

    def after_backward(self, state: TrainState) -> None:
        """Add the gradient of the price of mass."""
        if self.config.mass:
            if self._values is None:
                self._values = _values_of_a_photo(state)
            regularise(state, self.config.mass * len(state) / self._values, 0.0)

    @torch.no_grad()
    def step(self, state: TrainState) -> ExchangeReport | None:
        """Sweep and exchange when it is time."""
        config = self.config
        if config.noise > 0:
            diffuse(state, config.noise * MCMC.noise)
        if state.iteration % self.interval or state.iteration > config.last * self.iterations:
            return None
        views = _some(state.samples, config.views, state.generator)
        probes = self.propose(state)
        objective = self.objective(state, views)
        objective.insertions(state.splats, probes.splats)
        sweep = objective.sweep(state.splats)
        price = None if self.price is None else self.price * _views_of_full_size(state, views)
        planned = self.select(state, sweep, price)
        outcome = self.search(state, objective, sweep, planned, price)
        attempt = outcome.attempt or _nothing(sweep)
        report = exchange_report(state, probes, sweep, attempt.exchange)
        realised = outcome.value - (price or 0) * attempt.growth - report.error
        report = replace(report, realised=realised, trials=outcome.trials)
        worth, before = common_worth(sweep.removals.by_view, sweep.removals.seen), len(state)
        rows = apply_exchange(state, attempt)
        worth = torch.where(rows < 0, 0, worth[rows])
        return report.with_twins(self._split(state, worth, before), len(state))

    def objective(self, state: TrainState, views: Sequence[View]) -> PhotoObjective:
        """Return the squared error over some views."""
        return PhotoObjective(views, state.look, self.config.masses)

    def propose(self, state: TrainState) -> Probes:
        """Return candidates: children of splats, on rays of large residuals, a few anywhere."""
        config, splats, generator = self.config, state.splats.detach(), state.generator
        count = max(64, round(config.probes * len(splats)))
        child, ray, uniform = (round(share * count) for share in config.shares)
        views = _some(state.samples, config.ray_views, generator)
        parts = []
        if child:
            parts.append(children(splats, child, generator))
        if ray:
            parts.append(on_rays(splats, views, ray, state.look, generator))
        if uniform:
            parts.append(anywhere(splats, views[:UNIFORM_VIEWS], uniform, state.look, generator))
        return Probes.cat(parts)

    def select(self, state: TrainState, sweep: Sweep, price: float | None) -> Exchange:
        """Return the exchange of significant births and known deaths that do not overlap.

        Args:
            state: the run.
            sweep: costs and gains.
            price: price of a splat over the swept views; None for a balanced exchange.
        """
        config, count = self.config, len(state)
        removals, insertions, views = sweep.removals, sweep.insertions, sweep.views
        costs, gains = removals.costs, insertions.held_out.sum(dim=0)
        complete = len(views) == len(state.samples)
        known = torch.ones_like(removals.seen, dtype=torch.bool) if complete else removals.seen > 0
        deaths = known.nonzero()[:, 0]
        deaths = deaths[costs[deaths].argsort()]
        births = ((gains > 0) & (insertions.significance > config.significance)).nonzero()[:, 0]
        births = births[gains[births].argsort(descending=True)]
        most = math.ceil(config.turnover * count)
        room = max(0, min(self.max_splats - count, math.ceil(self.growth * count)))
        deaths, births = deaths[: LOOK_AHEAD * most], births[: LOOK_AHEAD * (most + room)]
        deaths = deaths[self._alone(views, deaths, removals.placement, removals.by_view)]
        births = births[self._alone(views, births, insertions.placement, insertions.by_view)]
        limits = ExchangeLimits(most, most + room, room)
        if price is not None:
            limits = replace(limits, growth=self.max_splats - count, prices=Prices(price, price))
        result = exchange(costs[deaths], gains[births], limits)
        deaths, births = deaths[result.deaths], births[result.births]
        return Exchange(deaths, births, change_of(sweep, deaths, births))

    def search(
        self,
        state: TrainState,
        objective: PhotoObjective,
        sweep: Sweep,
        planned: Exchange,
        price: float | None,
    ) -> Outcome[Attempt]:
        """Return the longest part of an exchange that lowers F + λ N over the swept views."""

        def value(attempt: Attempt) -> float:
            return objective.value(exchanged(state.splats, attempt)) + (price or 0) * attempt.growth

        return line_search(
            attempts(sweep, planned, self.max_splats - len(state) if price is None else None),
            value,
            float(sweep.error.sum()),
            ties=True,
        )

    def _split(self, state: TrainState, worth: Tensor, before: int) -> int:
        """Use the growth that births leave for twins of the splats that matter most.

        Args:
            state: the run after the exchange.
            worth: [N] odds of each splat.
            before: number of splats before the exchange.

        Returns:
            The number of splats that were split.
        """
        if self.price is not None or not self.config.twins:
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

    def _alone(
        self, views: Sequence[View], rows: Tensor, placement: Placement, changes: Tensor
    ) -> Tensor:
        """Return which of the rows, in order of preference, may be exchanged together."""
        sizes = torch.tensor([(view.camera.width, view.camera.height) for view in views])
        weights = changes[:, rows].abs()
        return non_overlapping(placement.index(rows), weights, sizes, self.config.neighbourhood)


def attempts(sweep: Sweep, planned: Exchange, vacancies: int | None) -> Iterator[Attempt]:
    """Yield smaller and smaller parts of an exchange.

    Where splats become more, the masses of the newborn are halved first: births of small mass
    always add up. Then births and deaths are halved in number; those of the largest gains and the
    smallest costs come first and stay.

    Args:
        sweep: costs and gains.
        planned: the whole exchange.
        vacancies: free places, in a balanced exchange: only births beyond them need deaths; None
            for a priced exchange, whose deaths are halved like births.
    """
    attempt = Attempt(planned, sweep.insertions.newborn.index(planned.births))
    thinnings = THINNINGS if attempt.growth > 0 else 0
    while len(attempt.exchange.births) + len(attempt.exchange.deaths):
        yield attempt
        if thinnings:
            attempt = replace(attempt, newborn=thinned(attempt.newborn))
            thinnings -= 1
        else:
            attempt = _half(sweep, attempt, vacancies)


def thinned(splats: Splats) -> Splats:
    """Return splats of half the mass."""
    return replace(splats, opacity_logits=logits_of_depths(0.5 * splats.optical_depths))


def _half(sweep: Sweep, attempt: Attempt, vacancies: int | None) -> Attempt:
    deaths, births = attempt.exchange.deaths, attempt.exchange.births
    newborn = attempt.newborn.map(lambda tensor: tensor[: len(births) // 2])
    births = births[: len(births) // 2]
    needed = len(deaths) // 2 if vacancies is None else max(0, len(births) - vacancies)
    deaths = deaths[:needed]
    return Attempt(Exchange(deaths, births, change_of(sweep, deaths, births)), newborn)


def _nothing(sweep: Sweep) -> Attempt:
    """Return the exchange of no splats."""
    none = torch.zeros(0, dtype=torch.int64, device=sweep.removals.seen.device)
    return Attempt(Exchange(none, none, 0.0), sweep.insertions.newborn.index(none))


def exchanged(splats: Splats, attempt: Attempt) -> Splats:
    """Return the splats without the dead, and the newborn behind them."""
    born = attempt.newborn.with_degree(splats.degree)
    kept = _others(len(splats), attempt.exchange.deaths)
    return Splats.cat([splats.detach().index(kept), born])


def apply_exchange(state: TrainState, attempt: Attempt) -> Tensor:
    """Let splats die and candidates be born, in the rows of the dead while there are any.

    Args:
        state: changed in place; the transport remembers nothing of newborn splats.
        attempt: rows of splats that die, and the newborn.

    Returns:
        int64 [N] the row in which each splat was before; -1 for the newborn.
    """
    deaths, born = attempt.exchange.deaths, attempt.newborn.with_degree(state.splats.degree)
    swaps = min(len(deaths), len(born))
    rows = torch.arange(len(state), device=born.device)
    rows[deaths[:swaps]] = -1
    state.overwrite(deaths[:swaps], born.map(lambda tensor: tensor[:swaps]))
    if swaps < len(born):
        state.append(born.map(lambda tensor: tensor[swaps:]))
        rows = torch.cat([rows, rows.new_full((len(born) - swaps,), -1)])
    if swaps < len(deaths):
        kept = _others(len(state), deaths[swaps:])
        state.select(kept)
        rows = rows[kept]
    return rows


def common_worth(costs: Tensor, seen: Tensor) -> Tensor:
    """Return the cost of removals in all views but the one that needs a splat most.

    A splat that one view alone needs has fitted something that the others do not confirm: an error
    of that photo, or a place of unknown depth. Splitting it would fit that better still. A splat
    that only one swept view sees keeps its cost: in a large scene most views see a part of it. A
    rejected birth is tried again later, but a splat stays.

    Args:
        costs: [V, N] change of F in each view when a splat is removed.
        seen: [N] number of views that see a splat.

    Returns:
        [N] costs >= 0.

    Example:
        >>> costs = torch.tensor([[5.0, 1.0, 7.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
        >>> common_worth(costs, torch.tensor([3, 3, 1]))
        tensor([0., 2., 7.])
    """
    most = costs.amax(dim=0).masked_fill(seen < 2, 0)
    return (costs.sum(dim=0) - most).clamp(min=0)


def _others(count: int, rows: Tensor) -> Tensor:
    """Return all rows below `count` but these."""
    kept = torch.ones(count, dtype=torch.bool, device=rows.device)
    kept[rows] = False
    return kept.nonzero()[:, 0]  # once for all fields: to index by a mask is to wait for each


def _views_of_full_size(state: TrainState, views: Sequence[View]) -> float:
    """Return the number of photos of full size that have as many pixels as the views."""
    return sum(view.photo.numel() for view in views) / _values_of_a_photo(state)


def _values_of_a_photo(state: TrainState) -> float:
    """Return the mean number of values, three for each pixel, of the photos at full size."""
    return sum(view.photo.numel() for view in state.views) / len(state.views)


def _some(views: Sequence[View], count: int, generator: torch.Generator) -> list[View]:
    """Draw at most `count` views without replacement."""
    order = torch.randperm(len(views), generator=generator, device=generator.device)
    return [views[i] for i in order[:count].sort().values.tolist()]


STRATEGIES[ExchangeStrategy.name] = ExchangeStrategy
