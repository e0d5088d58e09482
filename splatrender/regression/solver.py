"""The solver: Levenberg–Marquardt transport alternated with births and deaths.

Transport converges, births and deaths leave local minima. A round removes splats whose removal
costs least (amplitudes refitted), inserts the atoms that gain most, moves all of them to the next
minimum, and is kept only if the score has fallen:

    score = ln(loss + prior) + penalty(parameters)

Without a penalty the number of splats grows to the budget; with one it is chosen on the way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import choose_deaths, removal_cost_refitted, steepest_atoms
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, identity, operator_rows, unpack
from splatrender.regression.amplitudes import as_peaks, project
from splatrender.regression.linearise import Design, design_of, is_linear, loss_of
from splatrender.regression.lm import LevenbergOptions, Minimum, levenberg_marquardt
from splatrender.regression.prior import Prior

LARGEST = 100.0  # amplitudes over the signal's deviation: beyond, splats cancel each other
PLATEAU = 8  # births beyond twice the best number before growth is given up
UNFITTED = 1e-3  # of the signal's variance: what counts as noise at most while splats are born
LIKE_NOISE = (0.1, 2.0)  # residuals over the noise's bound: beyond, minima differ a lot
START_SHARE = 0.3  # of the rounds after which no new start begins
LOST = 0.25  # of the support that a birth needs, below which a splat is taken out
FAINTEST = 1e-6  # squared amplitudes relative to the noise's variance, below which all is noise

Resample = Callable[[SplatMeasure, int], "Sequence[Condition] | None"]


@dataclass(frozen=True)
class SolverOptions:
    """How long to search, and where.

    Attributes:
        n_splats: number of splats never to exceed.
        rounds: rounds of births and deaths at most.
        seconds: wall clock after which no round begins.
        patience: rounds without progress after which the search ends.
        iterations: Levenberg–Marquardt steps in a round.
        polish: Levenberg–Marquardt steps at the end.
        growth: fraction of new splats in a round while there is room.
        candidates: atoms that compete for a birth.
        support: a new splat must hold at least so many points, Σ |ρ(x)| >= support; one that comes
            to hold less than a quarter of that is taken out.
        penalty: of the number of parameters, added to the logarithm of the objective.
        shrinkage: prior standard deviation of amplitudes over their present root mean square; the
            ridge follows the loss, ρ = (noise / deviation)² / rows. 0 keeps the prior as given.
        signal: standard deviation of what is fitted, where it is known; amplitudes are expected
            to be between that and a hundred times as large.
        noise: bound of the noise's standard deviation, where one is known: residuals beyond it
            are not fitted yet and must not make the prior stronger.
        racing: give a trial's descent up as soon as it is not about to beat the best measure.
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


@dataclass(frozen=True)
class Round:
    """What a round did.

    Attributes:
        round: number, 0 is the first descent.
        seconds: since the start.
        loss: ½ Σ |r|² of the kept measure after the round.
        splats: how many it has.
        births: splats born in the trial.
        deaths: splats removed in the trial.
        kept: whether the trial was kept.
        mass_moved: Σ |c| of what was removed and inserted.
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
    """The fitted measure and how it came about.

    Attributes:
        measure: peak-normalised splats.
        loss: ½ Σ |r|² there.
        history: one entry for each round.
    """

    measure: SplatMeasure
    loss: float
    history: list[Round] = field(default_factory=list)


Progress = Callable[[Round, SplatMeasure], "bool | None"]


@dataclass(frozen=True, eq=False)
class _State:
    """Where a search from one start is.

    Attributes:
        best: the measure with the lowest score.
        current: the one that the next round changes: beyond `best` on a plateau of growth.
        prior: with the ridge that belongs to them.
        score: of the best.
        rounds: of this search, its start included.
        idle: rounds without progress.
        stalled: whether growth was given up before the budget was reached.
    """

    best: Minimum
    current: Minimum
    prior: Prior
    score: float
    rounds: int = 1
    idle: int = 0
    stalled: bool = False


class _Search:
    """A run: its problem, the prior that follows the noise, and what was reported."""

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
        self.asked = prior
        self.rows = sum(len(condition) for condition in conditions)
        self.history: list[Round] = []
        self.stopped = False
        self.start = time.perf_counter()

    def begin(self, start: SplatMeasure, rival: _State | None) -> _State:
        """The first descent from a start."""
        self.prior = self.asked
        self.first_prior(start)
        best = self.adapt_prior(self.descend(start, self.options.iterations, 1e-3), growing=True)
        state = _State(best, best, self.prior, self.score(best))
        self.report(Round(0, 0, 0, 0), state, rival)
        return state

    def growing(self, state: _State) -> bool:
        """Whether the next round only adds splats."""
        return len(state.current.measure) < self.options.n_splats and not state.stalled

    def goes_on(self, state: _State) -> bool:
        """Whether there is to be another round."""
        return not (
            self.stopped
            or state.rounds > self.options.rounds
            or self.seconds() > self.options.seconds
            or state.idle >= self.options.patience
        )

    def deserves_another(self, best: _State) -> bool:
        """Whether another start may lead to a much better minimum, and there is time for one.

        Residuals about as large as the noise's bound leave nothing to be found.
        """
        early = len(self.history) <= START_SHARE * self.options.rounds
        residual = math.sqrt(2 * best.best.loss) / self.options.noise
        return early and not LIKE_NOISE[0] <= residual <= LIKE_NOISE[1]

    def round(self, state: _State, rival: _State | None = None) -> _State:
        """One round of births, deaths and transport, reported with the better of two searches."""
        options = self.options
        fresh = None
        if self.resample:
            fresh = self.resample(state.best.measure, len(self.history))
        best, current, stalled = state.best, state.current, state.stalled
        if fresh is not None:
            self.conditions = list(fresh)
            best = current = self.adapt_prior(self.descend(best.measure, 3, 0.0))
        growing = self.growing(state)
        if growing:
            births = max(1, int(options.growth * len(current.measure)))
            deaths, births = 0, min(births, options.n_splats - len(current.measure))
        else:
            deaths, births = _exchange_sizes(options, len(best.measure), self.generator)
        previous = self.score(best)
        racing = options.racing and not growing
        trial, entry = self.trial(current.measure, deaths, births, previous if racing else math.inf)
        score = self.score(trial)
        kept = score < previous
        if kept:
            best = self.adapt_prior(trial, growing)
        idle = 0 if score < previous - 1e-3 else state.idle + 1
        room = min(2 * len(best.measure) + PLATEAU, options.n_splats) - len(trial.measure)
        if growing and not kept and room > 0 and entry.births:
            current = trial  # a plateau: the next births may lead across
        else:
            if growing and not kept and not stalled:  # now the prior is to be the data's
                stalled = True
                best = self.adapt_prior(self.descend(best.measure, options.iterations, 1e-3))
            current = best
        score, rounds = self.score(best), state.rounds + 1
        state = _State(best, current, self.prior, score, rounds, idle, stalled)
        self.report(replace(entry, kept=kept), state, rival)
        return state

    def finish(self, state: _State) -> Minimum:
        """The last descent."""
        best = state.best
        final = self.descend(best.measure, self.options.polish, 1e-6)
        if final.objective <= best.objective:
            best = final
        self.report(Round(0, 0, 0, 0), replace(state, best=best))
        return best

    def report(self, entry: Round, state: _State, rival: _State | None = None) -> None:
        """Add a round to the history, with the best measure there is after it."""
        if rival is not None and rival.score < state.score:
            state = rival
        best = state.best
        entry = replace(
            entry, round=len(self.history), seconds=self.seconds(), loss=best.loss,
            splats=len(best.measure),
        )  # fmt: skip
        self.history.append(entry)
        if self.progress and self.progress(entry, best.measure):
            self.stopped = True

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.start

    def descend(
        self, measure: SplatMeasure, iterations: int, tolerance: float, target: float = math.inf
    ) -> Minimum:
        """Transport to the next minimum, or give up if `target` is out of reach."""
        options = LevenbergOptions(iterations=iterations, tolerance=tolerance, target=target)
        minimum = levenberg_marquardt(measure, self.conditions, self.prior, options)
        seen = self.support(minimum.measure) >= LOST * self.options.support
        if bool(seen.all()) or not bool(seen.any()):
            return minimum
        rest = minimum.measure.index(seen)  # the lost ones are where no data hold them
        return levenberg_marquardt(rest, self.conditions, self.prior, options)

    def support(self, measure: SplatMeasure) -> Tensor:
        """[k] Σ |ρ(x)| over the points of the first condition: how many a splat holds."""
        if not self.options.support:
            return measure.mass
        return operator_rows(identity(), measure, self.conditions[0].points).value.abs().sum(dim=0)

    def score(self, minimum: Minimum) -> float:
        """ln of the objective, plus the penalty of the parameters."""
        return math.log(max(minimum.objective, 1e-300)) + self.penalty(minimum.measure)

    def penalty(self, measure: SplatMeasure) -> float:
        """What the parameters cost."""
        return self.options.penalty(measure.parameters) if self.options.penalty else 0.0

    def first_prior(self, start: SplatMeasure) -> None:
        """Bound the amplitudes of the first descent, where a bound is known."""
        if self.options.shrinkage and self.options.signal:
            energy = 2 * loss_of(start, self.conditions)
            bound = (LARGEST * self.options.signal) ** 2
            bound *= float(self.prior.relative(start).median())
            self.prior = replace(self.prior, ridge=energy / (self.rows * bound))

    def adapt_prior(self, minimum: Minimum, growing: bool = False) -> Minimum:
        """Let the ridge follow the noise level and the spread of the amplitudes."""
        if self.options.shrinkage:
            free = max(self.rows - minimum.measure.parameters, self.rows / 4)
            noise = 2 * minimum.loss * self.rows / free  # conditions are means over their points
            bound = self.options.noise**2  # what is not fitted yet is not noise
            if growing and self.options.signal:  # more of the prior leads to better minima here
                bound = UNFITTED * self.options.signal**2
            noise = min(noise, bound)
            relative = self.prior.relative(minimum.measure)
            squares = minimum.measure.weights.square().mean(dim=1)
            if self.options.signal:
                low, high = self.options.signal, LARGEST * self.options.signal
                squares = squares.clamp(low**2, high**2)
            # the median: a pair of large opposite amplitudes must not loosen its own bounds
            spread = float((squares * relative).median()) * self.options.shrinkage**2
            least = FAINTEST * noise * float(relative.median())
            ridge = noise / (self.rows * max(spread, least)) if least > 0 else 0.0
            self.prior = replace(self.prior, ridge=ridge)
        objective = minimum.loss + self.prior.penalty(minimum.measure)
        return replace(minimum, objective=objective)

    def trial(
        self, measure: SplatMeasure, deaths: int, births: int, score: float = math.inf
    ) -> tuple[Minimum, Round]:
        """Remove, insert and transport; the report's loss is that of the trial.

        The transport gives up if the trial is not about to get below a score.
        """
        before = measure
        predicted, mass = 0.0, 0.0
        if deaths:
            costs = self.removal_costs(measure)
            gone = choose_deaths(costs, deaths, self.generator)
            keep = torch.ones(len(measure), dtype=torch.bool)
            keep[gone] = False
            predicted += float(costs[gone].sum())
            mass += float(measure.weights[gone].abs().sum())
            measure = measure.index(keep)
            measure, _ = project(measure, self.conditions, self.prior)
        born = 0
        if births:
            atoms, gains = self.steepest(measure, births)
            born = len(atoms)
            predicted -= float(gains.sum())
            measure = SplatMeasure.cat([measure, atoms])
        target = score if math.isinf(score) else math.exp(score - self.penalty(measure))
        minimum = self.descend(measure, self.options.iterations, 1e-3, target)
        mass += float(minimum.measure.weights[len(measure) - born :].abs().sum())
        realised = minimum.loss - loss_of(before, self.conditions)
        report = Round(
            round=len(self.history),
            seconds=self.seconds(),
            loss=minimum.loss,
            splats=len(minimum.measure),
            births=born,
            deaths=deaths,
            mass_moved=mass,
            predicted=predicted,
            realised=realised,
        )
        return minimum, report

    def removal_costs(self, measure: SplatMeasure) -> Tensor:
        """[k] what the loss would rise by if a splat were removed and the rest refitted."""
        design = design_of(measure, self.conditions)
        gram = design.flat.T @ design.flat
        gram.diagonal().add_(self.prior.ridges(measure).mean())
        count, width = len(measure), design.columns.shape[2]
        return removal_cost_refitted(measure.weights.reshape(count, width, -1), gram)

    def steepest(self, measure: SplatMeasure, count: int) -> tuple[SplatMeasure, Tensor]:
        """The atoms that gain most among random candidates where the residual is large."""
        design = design_of(measure, self.conditions)
        atoms = self.candidates(measure, design, self.options.candidates + 4 * count)
        columns = design_of(measure, self.conditions, atoms).columns
        allowed = None
        if self.options.support:
            allowed = self.support(atoms) >= self.options.support
        ridge = float(self.prior.ridges(measure).mean())
        born = steepest_atoms(design.residual, design.flat, columns, count, ridge, allowed)
        chosen = atoms.index(born.ids)
        if not is_linear(self.conditions):
            chosen = self.fitted(measure, chosen, design.residual, columns[:, born.ids])
        return chosen, born.gains

    def fitted(
        self, measure: SplatMeasure, atoms: SplatMeasure, residual: Tensor, columns: Tensor
    ) -> SplatMeasure:
        """Atoms with their own least-squares amplitudes, for problems that are not linear."""
        flat = columns.flatten(1)
        gram = flat.T @ flat
        ridge = float(self.prior.ridges(measure).mean())
        gram.diagonal().add_(ridge + 1e-12 * float(gram.diagonal().max()))
        weights = -torch.linalg.solve(gram, flat.T @ residual[:, 0])
        return replace(atoms, weights=weights.reshape(len(atoms), -1))

    def candidates(self, measure: SplatMeasure, design: Design, count: int) -> SplatMeasure:
        """Random atoms at points drawn by squared residual, shaped like their neighbours.

        Their factors are those of the nearest splat, stretched by e^ε with a common stretch
        between e⁻² and e and a random strain.
        """
        points = torch.cat([condition.points for condition in self.conditions])
        energy = design.at_points(self.conditions)
        odds = (energy + 1e-3 * energy.mean() + torch.finfo(energy.dtype).tiny).double()
        means = points[torch.multinomial(odds, count, replacement=True, generator=self.generator)]
        gaps = torch.einsum(
            "kij,nkj->nki", measure.inverse_factors(), means[:, None] - measure.means
        )
        nearest = measure.index(gaps.square().sum(dim=2).argmin(dim=1))
        dims = measure.dims
        uniform = torch.rand(count, 1, 1, generator=self.generator, dtype=torch.float64)
        strain = torch.randn(
            count, dims * (dims + 1) // 2, generator=self.generator, dtype=torch.float64
        )
        stretch = (3 * uniform - 2) * torch.eye(dims, dtype=torch.float64)
        if dims > 1:
            stretch = stretch + 0.5 * unpack(strain, dims)
        factors = nearest.factors @ torch.linalg.matrix_exp(stretch.to(points))
        return self.prior.limited(
            replace(
                nearest, weights=torch.zeros_like(nearest.weights), means=means, factors=factors
            )
        )


def fit(
    conditions: Sequence[Condition],
    start: SplatMeasure | Sequence[SplatMeasure],
    options: SolverOptions | None = None,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    progress: Progress | None = None,
    resample: Resample | None = None,
) -> Solution:
    """Fit a splat measure to conditions: rounds of deaths, births and transport.

    Args:
        conditions: the problem, float64; weights should make each a mean over its points.
        start: the first splats; fewer than `options.n_splats` leave room for births. Of several
            starts the next one grows, too, while residuals are far from `options.noise`: there
            minima differ by orders of magnitude, and the one with the lowest score is kept.
        options: how long to search.
        generator: source of all randomness.
        prior: regularisation; its ridge is adapted unless `options.shrinkage` is 0.
        progress: called after every round with its report and the best measure so far; returning
            True ends the search.
        resample: called before every round with the best measure and the round's number; may
            return new conditions (residual-adaptive collocation).

    Returns:
        The best measure found.
    """
    options = options or SolverOptions()
    generator = generator or torch.Generator().manual_seed(0)
    search = _Search(conditions, options, prior or Prior(), generator, progress, resample)
    best: _State | None = None
    for first in [start] if isinstance(start, SplatMeasure) else start:
        if best is not None and not (search.goes_on(best) and search.deserves_another(best)):
            break
        state = search.begin(as_peaks(first.detach()), best)
        while search.growing(state) and search.goes_on(state):
            state = search.round(state, best)
        if best is None or state.score < best.score:
            best = state
    assert best is not None
    search.prior = best.prior
    while search.goes_on(best):
        best = search.round(best)
    final = search.finish(best)
    return Solution(final.measure, final.loss, search.history)


def _exchange_sizes(
    options: SolverOptions, count: int, generator: torch.Generator
) -> tuple[int, int]:
    """Deaths and births of a round: as many of either, or only one kind where numbers are free."""
    most = max(1, count // 10)
    size = int(torch.randint(1, most + 1, (1,), generator=generator))
    kind = 0 if options.penalty is None else int(torch.randint(3, (1,), generator=generator))
    deaths = min(size, count - 1) if kind != 1 else 0
    births = min(size, options.n_splats - count + deaths) if kind != 2 else 0
    return deaths, births
