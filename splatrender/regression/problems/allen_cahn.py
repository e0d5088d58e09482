"""Physics-informed fitting of the two Allen-Cahn problems.

Steady:    ε²Δu + u - u³ = 0 on [0, 1]², boundary values from the exact tanh((x + y - 1) / (2ε)).
Evolving:  u_t = 1e-4 u_xx + 5u - 5u³ on [-1, 1] × [0, 1], periodic, u(x, 0) = x² cos(πx).

No solution inside the domain is given to the solver. The evolving one marches through windows of
time, each with splats of its own whose initial values are the end of the window before. Equation
and initial values have the period 2 and do not change if x is turned round, so the solution has
both symmetries, too: splats are summed over their images at ±x + 2j, and half of the period is
fitted. Widths along x are bounded, and of the sum only what a splat of amplitude 1 is at a distance
of 5 is left out, less than 1e-6.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SplatMeasure
from splatrender.operators.differential import (
    Condition,
    LinearOperator,
    identity,
    laplacian,
    operator_rows,
    partial,
)
from splatrender.regression.linearise import loss_of, residuals_of
from splatrender.regression.lm import LevenbergOptions, levenberg_marquardt
from splatrender.regression.prior import Prior
from splatrender.regression.problems.etdrk4 import DIFFUSION, REACTION, allen_cahn_initial
from splatrender.regression.problems.tasks import INTERFACE, Array, steady_profile
from splatrender.regression.solver import Round, SolverOptions, fit
from splatrender.regression.starts import initial_measure
from splatrender.regression.storage import read_content, write_content

FORMAT = "splatrender-pde-1"
MIRROR = (-1.0, 1.0)  # signs of (x, t)
PERIOD = (2.0, 0.0)
IMAGES = 2  # on each side of the nearest
WIDEST = 0.9  # standard deviation along x, by which the images that are left out are nothing
LONGEST = 4.0  # standard deviation along t, in windows
NARROWEST = 3e-3  # standard deviation along any direction: collocation points are 1e-2 apart
FIRST_SPLATS = 10  # growth begins here: few splats find their places sooner
STARTS = 6  # random ones, of which the best grows
STEADY_ROUNDS = 20  # of births and deaths
STEADY_WIDEST = 2.0  # standard deviation; without a bound some splats end as constants
STEADY_NARROWEST = 0.02  # collocation points are 0.03 apart: nothing smaller is seen between them
STEADY_CELLS = (40, 30)  # with a collocation point each, about four for each parameter
STEADY_FRESH = (30, 20)
STEADY_HARD = 600
BOUNDARY_POINTS = 101  # along every side
BOUNDARY_WEIGHT = 100.0  # against the equation's mean square residual
INITIAL_POINTS = 512  # of a window: 2e-3 apart, the kink of u(x, 0) is smoothed over 1e-2
COLUMNS, SLICES = 100, 12  # cells in x and t of a window, with a random collocation point in each
HARD_POINTS = 400  # more, drawn by squared residual
TRIAL_POINTS = 4000  # among which these are drawn
STAGES = 3  # of the last descent in a window
TEST_POINTS = 8000  # where its stages are compared
BLUR = 1e-4  # added to u² in the weights, for the diffusion that they leave out
CAUTION = 0.75  # power of the weights

Progress = Callable[[Round, int, SplatMeasure], "bool | None"]


def with_images(measure: SplatMeasure) -> SplatMeasure:
    """The evolving solution's splats where they are seen: in one period, and mirrored."""
    signs, (length, _) = torch.tensor(MIRROR, dtype=measure.dtype), PERIOD
    mirrored = replace(
        measure, means=signs * measure.means, factors=signs[:, None] * measure.factors
    )
    both = SplatMeasure.cat([measure, mirrored])
    turns = torch.stack([(both.means[:, 0] / length).round(), 0 * both.means[:, 1]], dim=1)
    return replace(both, means=both.means - length * turns)


def symmetric(operator: LinearOperator) -> LinearOperator:
    """An operator on the sum over all images of the evolving solution's symmetries."""
    return operator.mirrored(MIRROR).periodised(PERIOD, IMAGES)


@dataclass(frozen=True, eq=False)
class Window:
    """A solution between two times (or everywhere).

    Attributes:
        start: first time; -inf where time plays no role.
        stop: last time.
        measure: splats over (x, t).
    """

    start: float
    stop: float
    measure: SplatMeasure


@dataclass(frozen=True, eq=False)
class PdeFit:
    """A fitted solution.

    Attributes:
        windows: by time.
        value: the operator that evaluates it: identity, or its periodic sum.
        history: rounds of all windows, each with the window's number.
    """

    windows: tuple[Window, ...]
    value: LinearOperator
    history: list[tuple[int, Round]]

    @property
    def splats(self) -> int:
        """Splats of all windows."""
        return sum(len(w.measure) for w in self.windows)

    @property
    def parameters(self) -> int:
        """Free numbers of all windows."""
        return sum(w.measure.parameters for w in self.windows)

    def predict(self, points: Array) -> Array:
        """Values at points.

        Args:
            points: [n, d].

        Returns:
            [n] values; a time that two windows share belongs to the earlier one.
        """
        x = torch.as_tensor(points, dtype=torch.float64)
        out = torch.full((len(x),), torch.nan, dtype=x.dtype)
        for window in reversed(self.windows):
            rows = (x[:, -1] >= window.start - 1e-12) & (x[:, -1] <= window.stop + 1e-12)
            ids = rows.nonzero()[:, 0]
            for part in ids.split(1 << 14):
                out[part] = _values(self.value, window.measure, x[part])
        return out.numpy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the windows to a file, atomically."""
        content = {
            "format": FORMAT,
            "periodic": len(self.value.terms) > 1,
            "windows": [
                {"start": w.start, "stop": w.stop, **dict(w.measure.items())} for w in self.windows
            ],
        }
        write_content(path, content)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> PdeFit:
        """Read what `save` wrote, without its history.

        Raises:
            InputError: the file is missing or is something else.
        """
        content = read_content(path, FORMAT, "a fitted solution")
        value = symmetric(identity()) if content["periodic"] else identity()
        windows = [
            Window(w.pop("start"), w.pop("stop"), SplatMeasure(**w)) for w in content["windows"]
        ]
        return PdeFit(tuple(windows), value, [])


def fit_steady(
    n_splats: int = 50, seed: int = 0, rounds: int = STEADY_ROUNDS, progress: Progress | None = None
) -> PdeFit:
    """Solve the steady equation.

    Args:
        n_splats: how many.
        seed: of points, start and births.
        rounds: of births and deaths.
        progress: called after each round with its report, the window's number, here 0, and the
            best measure so far; returning True ends the fit.

    Returns:
        The solution.

    Raises:
        InputError: there are no splats to fit.

    Source:
        The exact profile solves ε²u'' + u - u³ = 0 across its front of width 2ε.
    """
    if n_splats < 1:
        raise InputError(f"splats: expected at least 1, got {n_splats}")
    generator = torch.Generator().manual_seed(seed)
    side = torch.linspace(0, 1, BOUNDARY_POINTS, dtype=torch.float64)
    low, high = torch.zeros_like(side), torch.ones_like(side)
    border = torch.cat(
        [torch.stack(p, 1) for p in ((side, low), (side, high), (low, side), (high, side))]
    )
    values = torch.from_numpy(steady_profile(border.numpy()))[:, None]
    boundary = Condition(border, (identity(),), values, name="boundary").mean(BOUNDARY_WEIGHT)

    def residual(_: Tensor, lap: Tensor, u: Tensor) -> Tensor:
        return INTERFACE**2 * lap + u - u**3

    def conditions(points: Tensor) -> list[Condition]:
        operators = (laplacian(2), identity())
        return [Condition(points, operators, residual=residual, name="equation").mean(), boundary]

    def resample(measure: SplatMeasure, index: int) -> list[Condition] | None:
        if index % 5:
            return None
        hard = _harder(anywhere, conditions, measure, generator, STEADY_HARD)
        return conditions(torch.cat([stratified(*STEADY_FRESH, generator), hard]))

    def anywhere(count: int) -> Tensor:
        return torch.rand(count, 2, generator=generator, dtype=torch.float64)

    prior = Prior(smallest=STEADY_NARROWEST, extents=(STEADY_WIDEST, STEADY_WIDEST))
    points = stratified(*STEADY_CELLS, generator)
    first = min(FIRST_SPLATS, n_splats)
    problem = conditions(points)
    starts = [
        levenberg_marquardt(
            initial_measure(torch.cat([points, border]), first, 1, generator),
            problem, prior, LevenbergOptions(60, tolerance=1e-3),
        )
        for _ in range(STARTS)
    ]  # fmt: skip
    start = min(starts, key=lambda minimum: minimum.loss).measure
    options = SolverOptions(
        n_splats=n_splats, rounds=rounds, iterations=60, patience=rounds, shrinkage=0, polish=150
    )
    solution = fit(
        problem, start, options, generator, prior,
        progress=_numbered(progress, 0), resample=resample,
    )  # fmt: skip
    window = Window(-np.inf, np.inf, solution.measure)
    return PdeFit((window,), identity(), [(0, r) for r in solution.history])


@dataclass(frozen=True)
class Marching:
    """How the evolving equation is marched through.

    Attributes:
        windows: of time, equally long.
        rounds: of births and deaths in the first window, whose error grows most on the way.
        later: rounds in the others.
        iterations: Levenberg-Marquardt steps of a round.
        polish: those at the end of a window, in stages.
        until: when to stop; the end of the window in which it lies.
    """

    windows: int = 10
    rounds: int = 16
    later: int = 4
    iterations: int = 60
    polish: int = 100
    until: float = 1.0

    @property
    def count(self) -> int:
        """Windows until the end."""
        return math.ceil(self.until * self.windows - 1e-9)

    @property
    def total(self) -> int:
        """Rounds of all windows, with the first and the last descent of each."""
        return self.rounds + self.later * (self.count - 1) + 2 * self.count


def fit_evolving(
    n_splats: int = 400,
    seed: int = 0,
    marching: Marching | None = None,
    progress: Progress | None = None,
) -> PdeFit:
    """Solve the evolving equation, window after window.

    Args:
        n_splats: how many over all windows.
        seed: of points and births.
        marching: how.
        progress: called after each round with its report, the window's number and the window's
            best measure so far; returning True ends the window.

    Returns:
        The solution; splats are shared out equally.

    Raises:
        InputError: there are fewer than four splats for a window.
    """
    marching = marching or Marching()
    if n_splats < 4 * marching.windows:
        raise InputError(
            f"splats: expected at least {4 * marching.windows}, four for each of "
            f"{marching.windows} windows of time, got {n_splats}"
        )
    generator = torch.Generator().manual_seed(seed)
    length = 1 / marching.windows
    x = torch.linspace(0, 1, INITIAL_POINTS + 1, dtype=torch.float64)
    value = symmetric(identity())
    initial = torch.from_numpy(allen_cahn_initial(x.numpy()))
    counts = np.diff(np.linspace(0, n_splats, marching.windows + 1).astype(int))
    windows: list[Window] = []
    history: list[tuple[int, Round]] = []
    for number, count in enumerate(counts[: marching.count]):
        problem = _WindowProblem(number * length, length, x, initial, generator)
        if windows:
            ahead = torch.tensor([0.0, length], dtype=torch.float64)
            last = windows[-1].measure
            start = replace(last, means=last.means + ahead)
        else:
            start = problem.frozen(min(FIRST_SPLATS, int(count)))
        options = SolverOptions(
            n_splats=int(count), rounds=marching.later if windows else marching.rounds,
            iterations=marching.iterations, patience=100, shrinkage=0, polish=0,
        )  # fmt: skip
        solution = fit(
            problem.conditions(torch.cat([problem.draw(), problem.anywhere(HARD_POINTS)])),
            start, options, generator, problem.prior,
            progress=_numbered(progress, number), resample=problem.resample,
        )  # fmt: skip
        stop = (number + 1) * length
        measure = problem.polished(solution.measure, marching.polish)
        windows.append(Window(number * length, stop, measure))
        history += [(number, r) for r in solution.history]
        end = torch.stack([x, torch.full_like(x, stop)], dim=1)
        initial = _values(value, measure, end)
    return PdeFit(tuple(windows), value, history)


class _WindowProblem:
    """Conditions of the evolving equation in one window of time.

    Residuals are weighted by what they do to the mean square error until the end. Without
    diffusion, the factor by which a change of u has grown after a time τ is known, and so is the
    integral of its square over the time T that is left:

        g(τ) = e^{rτ} / (1 + u² (e^{2rτ} − 1))^{3/2},
        w = ∫_0^T g² dτ = m (2 + q) / (4 r (1 + q)²),    m = e^{2rT} − 1,  q = m u²,  r = 5.

    Fronts and the well at x = 0, where u is small, weigh up to 10⁴ times as much as what rests at
    ±1. The loss takes a power of w, for diffusion tempers it, and the equation's residual is
    multiplied by the window's length, within which it adds up.

    Source:
        Weights of residuals by their consequences: Becker and Rannacher, Acta Numerica 10 (2001).
    """

    def __init__(
        self, start: float, length: float, x: Tensor, initial: Tensor, generator: torch.Generator
    ) -> None:
        self.start, self.length, self.generator = start, length, generator
        self.prior = Prior(smallest=NARROWEST, extents=(WIDEST, LONGEST * length))
        heat = partial(1, dims=2) - DIFFUSION * partial(0, 0, dims=2)
        self.operators = (symmetric(heat), symmetric(identity()))
        self.x, self.values = x, initial
        self.initial = self.weighted(self.data(0.0))

    def weighted(self, condition: Condition, factor: float = 1.0) -> Condition:
        """A mean over the condition's points, with the weights of the window's initial values."""
        x = condition.points[:, 0].numpy()
        u = torch.from_numpy(np.interp(x, self.x.numpy(), self.values.numpy()))
        growth = math.expm1(2 * REACTION * (1 - self.start))
        q = growth * (u.square() + BLUR)
        weights = growth / (4 * REACTION) * (2 + q) / (1 + q).square()
        return replace(condition, weights=weights**CAUTION).mean(factor)

    def data(self, share: float) -> Condition:
        """The initial values, asked for at a share of the window."""
        time = torch.full_like(self.x, self.start + share * self.length)
        points = torch.stack([self.x, time], dim=1)
        return Condition(points, self.operators[1:], self.values[:, None], name="initial")

    def conditions(self, points: Tensor) -> list[Condition]:
        """The equation at points, and the initial values."""

        def residual(_: Tensor, heat: Tensor, u: Tensor) -> Tensor:
            return heat - REACTION * (u - u**3)

        equation = Condition(points, self.operators, residual=residual, name="equation")
        return [self.weighted(equation, self.length**2), self.initial]

    def draw(self) -> Tensor:
        """Collocation points, one at random in every cell of a grid."""
        return self.placed(stratified(COLUMNS, SLICES, self.generator))

    def placed(self, points: Tensor) -> Tensor:
        """Points of the unit square in the window."""
        return points * points.new_tensor([1.0, self.length]) + points.new_tensor([0.0, self.start])

    def anywhere(self, count: int) -> Tensor:
        """Uniform points of the window."""
        points = torch.rand(count, 2, generator=self.generator, dtype=torch.float64)
        return self.placed(points)

    def polished(self, measure: SplatMeasure, iterations: int) -> SplatMeasure:
        """Descents on fresh points each, of which that is kept which does best on many others."""
        test = self.conditions(self.anywhere(TEST_POINTS))
        tried = [(loss_of(measure, test), measure)]
        for stage in range(STAGES):
            options = LevenbergOptions(iterations // STAGES, tolerance=1e-6)
            measure = levenberg_marquardt(
                measure, self.resample(measure, stage), self.prior, options
            ).measure
            tried.append((loss_of(measure, test), measure))
        return min(tried, key=lambda pair: pair[0])[1]

    def resample(self, measure: SplatMeasure, _: int) -> list[Condition]:
        """Fresh points, and more where the equation is violated."""
        hard = _harder(self.anywhere, self.conditions, measure, self.generator, HARD_POINTS)
        return self.conditions(torch.cat([self.draw(), hard]))

    def frozen(self, count: int) -> SplatMeasure:
        """The initial values for all time, as a first guess."""
        places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        jitter = torch.rand(count, generator=self.generator, dtype=torch.float64)
        times = self.start + self.length * jitter
        size = torch.tensor([1 / count, 1.5 * self.length], dtype=torch.float64)
        guess = SplatMeasure(
            mass=torch.ones_like(places),
            weights=torch.zeros_like(places)[:, None],
            means=torch.stack([places, times], dim=1),
            factors=torch.diag(size).repeat(count, 1, 1),
        )
        everywhere = [self.data(share).mean() for share in (0, 0.33, 0.67, 1)]
        return levenberg_marquardt(guess, everywhere, self.prior, LevenbergOptions(30)).measure


def stratified(columns: int, rows: int, generator: torch.Generator) -> Tensor:
    """[columns · rows, 2] points of the unit square, one at random in every cell of a grid."""
    cells = torch.cartesian_prod(torch.arange(columns), torch.arange(rows))
    jitter = torch.rand(cells.shape, generator=generator, dtype=torch.float64)
    return (cells + jitter) / torch.tensor([columns, rows])


def _harder(
    draw: Callable[[int], Tensor],
    conditions: Callable[[Tensor], Sequence[Condition]],
    measure: SplatMeasure,
    generator: torch.Generator,
    count: int,
) -> Tensor:
    """`count` points drawn by squared residual of the first condition."""
    trial = draw(TRIAL_POINTS)
    equation = conditions(trial)[0]
    energy = residuals_of(measure, equation).square().sum(dim=1)
    odds = energy + 1e-3 * energy.mean() + torch.finfo(energy.dtype).tiny
    return trial[torch.multinomial(odds, count, generator=generator)]


def _values(value: LinearOperator, measure: SplatMeasure, points: Tensor) -> Tensor:
    return (operator_rows(value, measure, points).value @ measure.weights)[:, 0]


def _numbered(
    progress: Progress | None, number: int
) -> Callable[[Round, SplatMeasure], bool | None] | None:
    if progress is None:
        return None
    return lambda report, measure: progress(report, number, measure)
