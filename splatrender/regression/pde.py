"""Physics-informed fitting of the two Allen-Cahn problems.

Steady:    ε²Δu + u - u³ = 0 on [0, 1]², boundary values from the exact tanh((x + y - 1) / (2ε)).
Evolving:  u_t = 1e-4 u_xx + 5u - 5u³ on [-1, 1] × [0, 1], periodic, u(x, 0) = x² cos(πx).

No solution inside the domain is given to the solver. The evolving one marches through windows of
time, each with splats of its own whose initial values are the end of the window before; splats are
summed over their images at x ± 2, which makes every window periodic but for what the
widest splats still are at a distance of 3: that shows as a seam of up to 5e-3 at x = ±1.
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
from splatrender.regression.etdrk4 import DIFFUSION, REACTION, allen_cahn_initial
from splatrender.regression.levenberg import LevenbergOptions, levenberg_marquardt
from splatrender.regression.solver import Round, SolverOptions, fit, initial_measure
from splatrender.regression.storage import read_content, write_content
from splatrender.regression.tasks import INTERFACE, Array, steady_profile

FORMAT = "splatrender-pde-1"
PERIOD = (2.0, 0.0)  # of the inputs (x, t)
FIRST_SPLATS = 10  # growth begins here: few splats find their places sooner
STARTS = 6  # random ones, of which the best grows
STEADY_ROUNDS = 30  # of births and deaths
STEADY_POINTS = 1200  # of collocation; the equation has about four for each parameter
BOUNDARY_POINTS = 101  # along every side
BOUNDARY_WEIGHT = 100.0  # against the equation's mean square residual
INITIAL_POINTS = 1024  # of a window: 2e-3 apart, the kink of u(x, 0) is smoothed over 1e-2
SLICES = 8  # of time in a window, at Gauss-Legendre nodes
COLUMNS = 160  # collocation points of a slice, one at random in each of as many cells
HARD_POINTS = 600  # more, drawn by squared residual
TRIAL_POINTS = 4000  # among which these are drawn

Progress = Callable[[Round, int], "bool | None"]


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
        value = identity().periodised(PERIOD) if content["periodic"] else identity()
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
        progress: called after each round with its report and the window's number, here 0;
            returning True ends the fit.

    Returns:
        The solution.

    Raises:
        InputError: there are no splats to fit.

    Source:
        The exact profile solves ε²u'' + u - u³ = 0 across its front of width 2ε.
    """
    if n_splats < 1:
        raise InputError(f"splats: expected at least 1, found {n_splats}")
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
        return conditions(_harder(draw, conditions, measure, generator))

    def draw(count: int) -> Tensor:
        return torch.rand(count, 2, generator=generator, dtype=torch.float64)

    points = draw(STEADY_POINTS)
    first = min(FIRST_SPLATS, n_splats)
    problem = conditions(points)
    starts = [
        levenberg_marquardt(
            initial_measure(torch.cat([points, border]), first, 1, generator),
            problem, None, LevenbergOptions(60, tolerance=1e-3),
        )
        for _ in range(STARTS)
    ]  # fmt: skip
    start = min(starts, key=lambda minimum: minimum.loss).measure
    options = SolverOptions(
        n_splats=n_splats, rounds=rounds, iterations=60, patience=rounds, shrinkage=0, polish=150
    )
    solution = fit(
        problem, start, options, generator,
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
        polish: those at the end of a window.
        until: when to stop; the end of the window in which it lies.
    """

    windows: int = 8
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
        progress: called after each round with its report and the window's number; returning True
            ends the window.

    Returns:
        The solution; splats are shared out equally.

    Raises:
        InputError: there are fewer than four splats for a window.
    """
    marching = marching or Marching()
    if n_splats < 4 * marching.windows:
        raise InputError(
            f"splats: expected at least {4 * marching.windows}, four for each of "
            f"{marching.windows} windows of time, found {n_splats}"
        )
    generator = torch.Generator().manual_seed(seed)
    length = 1 / marching.windows
    x = torch.linspace(-1, 1, INITIAL_POINTS + 1, dtype=torch.float64)
    value = identity().periodised(PERIOD)
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
            iterations=marching.iterations, patience=100, shrinkage=0, polish=marching.polish,
        )  # fmt: skip
        solution = fit(
            problem.conditions(torch.cat([problem.draw(), problem.anywhere(HARD_POINTS)])),
            start, options, generator,
            progress=_numbered(progress, number), resample=problem.resample,
        )  # fmt: skip
        stop = (number + 1) * length
        windows.append(Window(number * length, stop, solution.measure))
        history += [(number, r) for r in solution.history]
        end = torch.stack([x, torch.full_like(x, stop)], dim=1)
        initial = _values(value, solution.measure, end)
    return PdeFit(tuple(windows), value, history)


class _WindowProblem:
    """Conditions of the evolving equation in one window of time.

    The initial values weigh 1 / length² more than the equation: a residual r left for that long
    changes u by r · length.
    """

    def __init__(
        self, start: float, length: float, x: Tensor, initial: Tensor, generator: torch.Generator
    ) -> None:
        self.start, self.length, self.generator = start, length, generator
        heat = partial(1, dims=2) - DIFFUSION * partial(0, 0, dims=2)
        self.operators = (heat.periodised(PERIOD), identity().periodised(PERIOD))
        self.x, self.values = x, initial
        self.initial = self.data(0.0).mean(1 / length**2)
        nodes = (np.polynomial.legendre.leggauss(SLICES)[0] + 1) / 2
        self.times = start + length * torch.from_numpy(nodes)

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
        return [equation.mean(), self.initial]

    def draw(self) -> Tensor:
        """Collocation points: strata in x on slices in t."""
        shape = (COLUMNS, SLICES)
        jitter = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        x = -1 + 2 * (torch.arange(COLUMNS)[:, None] + jitter) / COLUMNS
        return torch.stack([x, self.times.expand(shape)], dim=2).reshape(-1, 2)

    def anywhere(self, count: int) -> Tensor:
        """Uniform points of the window."""
        points = torch.rand(count, 2, generator=self.generator, dtype=torch.float64)
        size = points.new_tensor([2.0, self.length])
        return points * size + points.new_tensor([-1.0, self.start])

    def resample(self, measure: SplatMeasure, _: int) -> list[Condition]:
        """Fresh points, and more where the equation is violated."""
        hard = _harder(self.anywhere, self.conditions, measure, self.generator, HARD_POINTS, 0)
        return self.conditions(torch.cat([self.draw(), hard]))

    def frozen(self, count: int) -> SplatMeasure:
        """The initial values for all time, as a first guess."""
        places = -1 + 2 * (torch.arange(count, dtype=torch.float64) + 0.5) / count
        jitter = torch.rand(count, generator=self.generator, dtype=torch.float64)
        times = self.start + self.length * jitter
        size = torch.tensor([2 / count, 1.5 * self.length], dtype=torch.float64)
        guess = SplatMeasure(
            mass=torch.ones_like(places),
            weights=torch.zeros_like(places)[:, None],
            means=torch.stack([places, times], dim=1),
            factors=torch.diag(size).repeat(count, 1, 1),
        )
        everywhere = [self.data(share).mean() for share in (0, 0.33, 0.67, 1)]
        return levenberg_marquardt(guess, everywhere, None, LevenbergOptions(30)).measure


def _harder(
    draw: Callable[[int], Tensor],
    conditions: Callable[[Tensor], Sequence[Condition]],
    measure: SplatMeasure,
    generator: torch.Generator,
    count: int = STEADY_POINTS // 2,
    fresh: int = STEADY_POINTS // 2,
) -> Tensor:
    """`count` points drawn by squared residual of the first condition, and `fresh` uniform ones."""
    trial = draw(TRIAL_POINTS)
    equation = conditions(trial)[0]
    fields = [
        operator_rows(op, measure, trial).value @ measure.weights for op in equation.operators
    ]
    energy = equation.residuals(fields).square().sum(dim=1)
    odds = energy + 1e-3 * energy.mean() + torch.finfo(energy.dtype).tiny
    hard = trial[torch.multinomial(odds, count, generator=generator)]
    return torch.cat([draw(fresh), hard]) if fresh else hard


def _values(value: LinearOperator, measure: SplatMeasure, points: Tensor) -> Tensor:
    return (operator_rows(value, measure, points).value @ measure.weights)[:, 0]


def _numbered(
    progress: Progress | None, number: int
) -> Callable[[Round, SplatMeasure], bool | None] | None:
    if progress is None:
        return None
    return lambda report, _: progress(report, number)
