"""The solver: Levenberg–Marquardt transport in turn with births and deaths.

Transport converges to a local minimum; births and deaths leave it. A round is one step of a flow:
it removes splats whose removal costs least (amplitudes refitted), inserts the atoms that gain most,
and moves all of them to the next minimum. It is kept only if the score falls:

    score = ln(loss + prior) + penalty(parameters)

Without a penalty the number of splats grows to the budget; with one the score selects it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from splatrender.flow.birth_death import (
    ExchangeLimits,
    Prices,
    exchange,
    perturbed_log_costs,
)
from splatrender.flow.line_search import line_search
from splatrender.flow.step import Flow
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition
from splatrender.regression.amplitudes import as_peaks, fit_amplitudes
from splatrender.regression.candidates import random_atoms
from splatrender.regression.linearise import loss_of
from splatrender.regression.lm import LMOptions, Minimum, levenberg_marquardt
from splatrender.regression.objective import PointObjective
from splatrender.regression.prior import Prior
from splatrender.regression.report import Progress, Round, Solution
from splatrender.regression.shrinkage import Shrinkage, under_prior

__all__ = ["Progress", "Resample", "Round", "Solution", "SolverOptions", "fit"]

PLATEAU = 8  # births beyond twice the best number before growth is given up
LIKE_NOISE = (0.1, 2.0)  # residuals over the noise's bound: beyond, minima differ a lot
START_SHARE = 0.3  # share of the rounds after which no new start begins
LOST = 0.25  # share of a birth's support below which a splat is removed
EXPLORING = Prices(death=math.inf, birth=0.0)  # the score after transport decides, not the costs
PROGRESS = 1e-3  # fall of the score that counts as progress

Resample = Callable[[SplatMeasure, int], "Sequence[Condition] | None"]


@dataclass(frozen=True)
class SolverOptions:
    """Length and manner of a search.

    Attributes:
        n_splats: maximum number of splats.
        rounds: maximum number of rounds of births and deaths.
        seconds: wall-clock time after which no round begins.
        patience: rounds without progress after which the search ends.
        iterations: Levenberg–Marquardt steps in a round.
        polish: Levenberg–Marquardt steps at the end.
        growth: fraction of new splats in a round while there is room.
        candidates: number of atoms that compete for a birth.
        support: Σ |ρ(x)| over the points that a new splat must hold; a splat that comes to hold
            less than a quarter of it is removed.
        penalty: cost of the number of parameters, added to the logarithm of the objective.
        shrinkage: prior standard deviation of amplitudes over their present root mean square; the
            ridge follows the loss, ρ = (noise / deviation)² / rows. 0 keeps the prior as given.
        signal: standard deviation of the data, where it is known; amplitudes are expected to be
            between it and a hundred times as large.
        noise: bound of the noise's standard deviation, where one is known: residuals beyond it
            are not fitted yet and must not make the prior stronger.
        racing: end a trial's descent early if it is not about to beat the best measure.
    """

    n_splats: int = 50
    rounds: int = 200
    seconds: float = math.inf
    patience: int = 30
    iterations: int = 40
    polish: int = 300
    growth: float = 0.25
    candidates: int = 100
    support: float = 0.0
    penalty: Callable[[int], float] | None = None
    shrinkage: float = 3.0
    signal: float = 0.0
    noise: float = math.inf
    racing: bool = False


@dataclass(frozen=True, eq=False)
class _State:
    """Search from one start.

    Attributes:
        best: the measure with the lowest score.
        current: the measure that the next round changes: beyond `best` on a plateau of growth.
        prior: prior with the ridge that belongs to them.
        score: score of the best.
        rounds: rounds of this search, its start included.
        idle: rounds without progress.
        stalled: True if growth was given up before the budget was reached.
    """

    best: Minimum
    current: Minimum
    prior: Prior
    score: float
    rounds: int = 1
    idle: int = 0
    stalled: bool = False


@dataclass(frozen=True, eq=False)
class _Trial:
    """Round in progress, or at its end.

    Attributes:
        measure: the measure after the parts so far.
        births: splats born.
        deaths: splats removed.
        predicted: change of the loss by them, before transport.
        mass_moved: Σ |c| of the removed splats, and of the born ones after transport.
        minimum: end of the transport.
    """

    measure: SplatMeasure
    births: int = 0
    deaths: int = 0
    predicted: float = 0.0
    mass_moved: float = 0.0
    minimum: Minimum | None = None


class _Search:
    """Run: its problem, the prior that follows the noise, and the reports so far."""

    def __init__(
        self,
        conditions: Sequence[Condition],
        options: SolverOptions,
        prior: Prior,
        generator: torch.Generator,
        progress: Progress | None = None,
        resample: Resample | None = None,
    ) -> None:
        self.conditions, self.options, self.prior = list(conditions), options, prior
        self.generator, self.progress, self.resample = generator, progress, resample
        self.given_prior = prior
        rows = sum(len(condition) for condition in conditions)
        self.shrinkage = Shrinkage(options.shrinkage, options.signal, options.noise, rows)
        self.history: list[Round] = []
        self.stopped = False
        self.start = time.perf_counter()

    @property
    def objective(self) -> PointObjective:
        """Objective at present: conditions and prior change on the way."""
        return PointObjective(self.conditions, self.prior, self.options.support)

    # Searches

    def begin(self, start: SplatMeasure, rival: _State | None) -> _State:
        """Descend from a start for the first time."""
        loss = loss_of(start, self.conditions)
        relative = float(self.given_prior.relative(start).median())
        self.prior = self.shrinkage.first(self.given_prior, loss, relative)
        end = self.transported(start, self.options.iterations, 1e-3)
        best = self.adapt_prior(end, growing=True)
        state = _State(best, best, self.prior, self.score(best))
        self.report(Round(0, 0, 0, 0), state, rival)
        return state

    def growing(self, state: _State) -> bool:
        """Return whether the next round only adds splats."""
        return len(state.current.measure) < self.options.n_splats and not state.stalled

    def continues(self, state: _State) -> bool:
        """Return whether there is another round."""
        return not (
            self.stopped
            or state.rounds > self.options.rounds
            or self.seconds() > self.options.seconds
            or state.idle >= self.options.patience
        )

    def deserves_another(self, best: _State) -> bool:
        """Return whether another start may lead to a much better minimum, and time is left for one.

        Residuals about as large as the noise's bound leave nothing to find.
        """
        early = len(self.history) <= START_SHARE * self.options.rounds
        residual = math.sqrt(2 * best.best.loss) / self.options.noise
        return early and not LIKE_NOISE[0] <= residual <= LIKE_NOISE[1]

    def finish(self, state: _State) -> Minimum:
        """Descend for the last time."""
        best = state.best
        final = self.transported(best.measure, self.options.polish, 1e-6)
        if final.objective <= best.objective:
            best = final
        self.report(Round(0, 0, 0, 0), replace(state, best=best))
        return best

    # Rounds

    def round(self, state: _State, rival: _State | None = None) -> _State:
        """Run one round of births, deaths and transport, and report the better of two searches."""
        growing, state = self.growing(state), self.resampled(state)
        best, previous = state.best, self.score(state.best)
        racing = self.options.racing and not growing
        limits = self.limits(state, growing)
        trial = self.trial(state.current.measure, limits, previous if racing else math.inf)
        assert trial.minimum is not None
        end = trial.minimum
        entry = self.entry(trial, state.current.measure)
        search = line_search([end], self.score, previous)
        if search.attempt is not None:
            best = self.adapt_prior(end, growing)
        idle = 0 if search.value < previous - PROGRESS else state.idle + 1
        kept, current, stalled = search.attempt is not None, best, state.stalled
        if growing and not kept:
            room = min(2 * len(best.measure) + PLATEAU, self.options.n_splats) - len(end.measure)
            if room > 0 and trial.births:
                current = end  # a plateau: the next births may lead across
            elif not stalled:  # now the prior follows the data
                stalled = True
                last = self.transported(best.measure, self.options.iterations, 1e-3)
                best = current = self.adapt_prior(last)
        score, rounds = self.score(best), state.rounds + 1
        state = _State(best, current, self.prior, score, rounds, idle, stalled)
        self.report(replace(entry, kept=kept), state, rival)
        return state

    def resampled(self, state: _State) -> _State:
        """Return the state on fresh conditions, if there are any for this round."""
        if self.resample is None:
            return state
        fresh = self.resample(state.best.measure, len(self.history))
        if fresh is None:
            return state
        self.conditions = list(fresh)
        best = self.adapt_prior(self.transported(state.best.measure, 3, 0.0))
        return replace(state, best=best, current=best)

    def limits(self, state: _State, growing: bool) -> ExchangeLimits:
        """Return the numbers of deaths and births of a round.

        They are equal, or one of them is 0 where a penalty decides on the number of splats.
        """
        options = self.options
        if growing:
            count = len(state.current.measure)
            births = max(1, int(options.growth * count))
            return ExchangeLimits(0, min(births, options.n_splats - count), prices=EXPLORING)
        count = len(state.best.measure)
        most = max(1, count // 10)
        size = int(torch.randint(1, most + 1, (1,), generator=self.generator))
        kind = 0
        if options.penalty is not None:
            kind = int(torch.randint(3, (1,), generator=self.generator))
        deaths = min(size, count - 1) if kind != 1 else 0
        births = min(size, options.n_splats - count + deaths) if kind != 2 else 0
        return ExchangeLimits(deaths, births, prices=EXPLORING)

    def trial(self, measure: SplatMeasure, limits: ExchangeLimits, score: float) -> _Trial:
        """Take one step of the flow: deaths, births, transport.

        Args:
            measure: k splats.
            limits: numbers of deaths and births.
            score: transport gives up if the trial is not about to fall below this score.
        """

        def birth_death(state: _Trial) -> _Trial:
            return self.with_births(self.without_deaths(state, limits), limits)

        def transport(state: _Trial) -> _Trial:
            measure = state.measure
            target = score if math.isinf(score) else math.exp(score - self.penalty(measure))
            end = self.transported(measure, self.options.iterations, 1e-3, target)
            born = end.measure.weights[len(measure) - state.births :]
            mass = state.mass_moved + float(born.abs().sum())
            return replace(state, measure=end.measure, minimum=end, mass_moved=mass)

        flow = Flow(transport, birth_death=birth_death, births_first=True)
        return flow.step(_Trial(measure))

    def without_deaths(self, state: _Trial, limits: ExchangeLimits) -> _Trial:
        """Remove splats that cost little, and refit the amplitudes of the others."""
        if not limits.deaths:
            return state
        measure = state.measure
        costs = self.objective.removals(measure).costs
        order = perturbed_log_costs(costs, self.generator)
        deaths = exchange(order, costs[:0], limits).deaths
        keep = torch.ones(len(measure), dtype=torch.bool)
        keep[deaths] = False
        rest, _ = fit_amplitudes(measure.index(keep), self.conditions, self.prior)
        return replace(
            state,
            measure=rest,
            deaths=len(deaths),
            predicted=state.predicted + float(costs[deaths].sum()),
            mass_moved=state.mass_moved + float(measure.weights[deaths].abs().sum()),
        )

    def with_births(self, state: _Trial, limits: ExchangeLimits) -> _Trial:
        """Insert the atoms that gain most among random candidates where residuals are large."""
        if not limits.births:
            return state
        measure, count = state.measure, limits.births
        atoms = random_atoms(
            measure, self.conditions, self.options.candidates + 4 * count, self.generator
        )
        best = self.objective.selection(measure, self.prior.limited(atoms), count)
        births = exchange(best.gains[:0], best.gains, limits).births.sort().values
        newborn = best.newborn.index(births)
        return replace(
            state,
            measure=SplatMeasure.cat([measure, newborn]),
            births=len(newborn),
            predicted=state.predicted - float(best.gains[births].sum()),
        )

    def transported(
        self, measure: SplatMeasure, iterations: int, tolerance: float, target: float = math.inf
    ) -> Minimum:
        """Move splats to the next minimum, or give up if `target` is out of reach."""
        options = LMOptions(iterations=iterations, tolerance=tolerance, target=target)
        minimum = levenberg_marquardt(measure, self.conditions, self.prior, options)
        if not self.options.support:
            return minimum
        kept = self.objective.support(minimum.measure) >= LOST * self.options.support
        if bool(kept.all()) or not bool(kept.any()):
            return minimum
        rest = minimum.measure.index(kept)  # no data hold the others
        return levenberg_marquardt(rest, self.conditions, self.prior, options)

    # Scores and reports

    def score(self, minimum: Minimum) -> float:
        """Return ln of the objective, plus the penalty of the parameters."""
        return math.log(max(minimum.objective, 1e-300)) + self.penalty(minimum.measure)

    def penalty(self, measure: SplatMeasure) -> float:
        """Return the cost of the parameters."""
        return self.options.penalty(measure.parameters) if self.options.penalty else 0.0

    def adapt_prior(self, minimum: Minimum, growing: bool = False) -> Minimum:
        """Let the ridge follow the noise level and the spread of the amplitudes."""
        self.prior = self.shrinkage.adapted(self.prior, minimum, growing)
        return under_prior(minimum, self.prior)

    def entry(self, trial: _Trial, before: SplatMeasure) -> Round:
        """Return the report of a trial; its loss is that of the trial."""
        assert trial.minimum is not None
        loss = trial.minimum.loss
        return Round(
            round=len(self.history),
            seconds=self.seconds(),
            loss=loss,
            splats=len(trial.measure),
            births=trial.births,
            deaths=trial.deaths,
            mass_moved=trial.mass_moved,
            predicted=trial.predicted,
            realised=loss - loss_of(before, self.conditions),
        )

    def report(self, entry: Round, state: _State, rival: _State | None = None) -> None:
        """Add a round to the history, with the best measure so far."""
        if rival is not None and rival.score < state.score:
            state = rival
        best = state.best
        entry = replace(
            entry,
            round=len(self.history),
            seconds=self.seconds(),
            loss=best.loss,
            splats=len(best.measure),
        )
        self.history.append(entry)
        if self.progress and self.progress(entry, best.measure):
            self.stopped = True

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.start


def fit(
    conditions: Sequence[Condition],
    start: SplatMeasure | Sequence[SplatMeasure],
    options: SolverOptions | None = None,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    progress: Progress | None = None,
    resample: Resample | None = None,
) -> Solution:
    """Fit a splat measure to conditions by rounds of deaths, births and transport.

    Args:
        conditions: the problem, float64; weights should make each a mean over its points.
        start: first splats; fewer than `options.n_splats` leave room for births. Of several
            starts the next one grows, too, while residuals are far from `options.noise`: minima
            differ by orders of magnitude then, and the one with the lowest score is kept.
        options: length and manner of the search.
        generator: source of randomness.
        prior: regularisation; its ridge is adapted unless `options.shrinkage` is 0.
        progress: called after each round with its report and the best measure so far; returning
            True ends the search.
        resample: called before each round with the best measure and the round's number; may
            return new conditions (residual-adaptive collocation).

    Returns:
        The best measure of the search.
    """
    options = options or SolverOptions()
    generator = generator or torch.Generator().manual_seed(0)
    search = _Search(conditions, options, prior or Prior(), generator, progress, resample)
    best: _State | None = None
    for first in [start] if isinstance(start, SplatMeasure) else start:
        if best is not None and not (search.continues(best) and search.deserves_another(best)):
            break
        state = search.begin(as_peaks(first.detach()), best)
        while search.growing(state) and search.continues(state):
            state = search.round(state, best)
        if best is None or state.score < best.score:
            best = state
    assert best is not None
    search.prior = best.prior
    while search.continues(best):
        best = search.round(best)
    final = search.finish(best)
    return Solution(final.measure, final.loss, search.history)
