"""The evolving Allen-Cahn equation, from its residual and its initial values.

    u_t = 1e-4 u_xx + 5u − 5u³ on [−1, 1] × [0, 1], periodic,      u(x, 0) = x² cos(πx)

The fit marches through windows of time. Each has splats of its own, whose initial values are the
end of the window before. The solution's symmetries (`solution.py`) leave half of the period to fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, identity, partial
from splatrender.regression.linearise import loss_of
from splatrender.regression.lm import LMOptions, levenberg_marquardt
from splatrender.regression.prior import Prior
from splatrender.regression.problems.collocation import TRIAL_POINTS, hard_points, stratified
from splatrender.regression.problems.etdrk4 import DIFFUSION, REACTION, allen_cahn_initial
from splatrender.regression.problems.solution import (
    PdeFit,
    Window,
    WindowProgress,
    field_values,
    progress_of_window,
    symmetric,
)
from splatrender.regression.report import Round
from splatrender.regression.solver import SolverOptions, fit

WIDEST = 0.9  # standard deviation along x; images that are left out are below 1e-6 then
LONGEST = 4.0  # standard deviation along t, in windows
NARROWEST = 3e-3  # standard deviation along any direction: collocation points are 1e-2 apart
FIRST_SPLATS = 10  # growth begins here: few splats find their places sooner
LEAST_SPLATS = 4  # minimum in a window
INITIAL_POINTS = 512  # points of a window: 2e-3 apart, the kink of u(x, 0) is smoothed over 1e-2
COLUMNS, SLICES = 100, 12  # cells in x and t of a window, with a random collocation point in each
HARD_POINTS = 400  # additional ones, drawn by squared residual
STAGES = 3  # parts of the last descent in a window
TEST_POINTS = 8000  # points at which its stages are compared
BLUR = 1e-4  # added to u² in the weights, for the diffusion that they leave out
CAUTION = 0.75  # power of the weights


@dataclass(frozen=True)
class Marching:
    """Division of time, and length of the search in each window.

    Attributes:
        windows: number of windows, equally long.
        rounds: rounds of births and deaths in the first window, whose error grows most later.
        later: rounds in each of the others.
        iterations: Levenberg–Marquardt steps in a round.
        polish: Levenberg–Marquardt steps at the end of a window, in stages.
        until: time to reach; the fit stops at the end of the window that contains it.
    """

    windows: int = 10
    rounds: int = 16
    later: int = 4
    iterations: int = 60
    polish: int = 100
    until: float = 1.0

    @property
    def count(self) -> int:
        """Number of windows until the end."""
        return math.ceil(self.until * self.windows - 1e-9)

    @property
    def total(self) -> int:
        """Rounds of all windows, with the first and the last descent of each."""
        return self.rounds + self.later * (self.count - 1) + 2 * self.count

    @property
    def length(self) -> float:
        """Length of a window in time."""
        return 1 / self.windows

    def solver_options(self, number: int, n_splats: int) -> SolverOptions:
        """Return the options of the solver in a window."""
        return SolverOptions(
            n_splats=n_splats,
            rounds=self.later if number else self.rounds,
            iterations=self.iterations,
            patience=100,
            shrinkage=0,
            polish=0,
        )


def fit_evolving(
    n_splats: int = 400,
    seed: int = 0,
    marching: Marching | None = None,
    progress: WindowProgress | None = None,
) -> PdeFit:
    """Solve the evolving equation, window after window.

    Args:
        n_splats: number of splats in all windows, divided equally.
        seed: seed of points and births.
        marching: division of time.
        progress: called after each round with its report, the window's number and the window's
            best measure so far; returning True ends the window.

    Returns:
        The solution.

    Raises:
        InputError: there are fewer than four splats for a window.
    """
    marching = marching or Marching()
    if n_splats < LEAST_SPLATS * marching.windows:
        raise InputError(
            f"splats: expected at least {LEAST_SPLATS * marching.windows}, four for each of "
            f"{marching.windows} windows of time, got {n_splats}"
        )
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, INITIAL_POINTS + 1, dtype=torch.float64)
    initial = torch.from_numpy(allen_cahn_initial(x.numpy()))
    value = symmetric(identity())
    counts = np.diff(np.linspace(0, n_splats, marching.windows + 1).astype(int)).tolist()
    windows: list[Window] = []
    history: list[tuple[int, Round]] = []
    for number, count in enumerate(counts[: marching.count]):
        start, length = number * marching.length, marching.length
        problem = _WindowProblem(start, length, x, initial, generator)
        if windows:
            guess = problem.continued(windows[-1].measure)
        else:
            guess = problem.frozen(min(FIRST_SPLATS, count))
        solution = fit(
            problem.conditions(torch.cat([problem.draw(), problem.anywhere(HARD_POINTS)])),
            guess,
            marching.solver_options(number, count),
            generator,
            problem.prior,
            progress=progress_of_window(progress, number),
            resample=problem.resample,
        )
        stop = (number + 1) * length
        measure = problem.polished(solution.measure, marching.polish)
        windows.append(Window(start, stop, measure))
        history += [(number, r) for r in solution.history]
        end = torch.stack([x, torch.full_like(x, stop)], dim=1)
        initial = field_values(value, measure, end)
    return PdeFit(tuple(windows), value, history)


class _WindowProblem:
    """Conditions of the evolving equation in one window of time.

    Residuals are weighted by their effect on the mean square error until the end. Without
    diffusion, the factor by which a change of u has grown after a time τ is known, and so is the
    integral of its square over the remaining time T:

        g(τ) = e^{rτ} / (1 + u² (e^{2rτ} − 1))^{3/2},
        w = ∫_0^T g² dτ = m (2 + q) / (4 r (1 + q)²),    m = e^{2rT} − 1,  q = m u²,  r = 5.

    Fronts and the well at x = 0, where u is small, weigh up to 10⁴ times as much as places where
    the solution rests at ±1. The loss takes a power of w, because diffusion reduces the growth, and
    the equation's residual is multiplied by the window's length, over which it accumulates.

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
        """Return the mean over a condition's points, weighted by the window's initial values."""
        x = condition.points[:, 0].numpy()
        u = torch.from_numpy(np.interp(x, self.x.numpy(), self.values.numpy()))
        growth = math.expm1(2 * REACTION * (1 - self.start))
        q = growth * (u.square() + BLUR)
        weights = growth / (4 * REACTION) * (2 + q) / (1 + q).square()
        return replace(condition, weights=weights**CAUTION).mean(factor)

    def data(self, share: float) -> Condition:
        """Return the initial values as a condition at a share of the window."""
        time = torch.full_like(self.x, self.start + share * self.length)
        points = torch.stack([self.x, time], dim=1)
        return Condition(points, self.operators[1:], self.values[:, None], name="initial")

    def conditions(self, points: Tensor) -> list[Condition]:
        """Return the equation at points, and the initial values."""

        def residual(_: Tensor, heat: Tensor, u: Tensor) -> Tensor:
            return heat - REACTION * (u - u**3)

        equation = Condition(points, self.operators, residual=residual, name="equation")
        return [self.weighted(equation, self.length**2), self.initial]

    def draw(self) -> Tensor:
        """Draw collocation points, one in each cell of a grid."""
        return self.placed(stratified(COLUMNS, SLICES, self.generator))

    def anywhere(self, count: int) -> Tensor:
        """Draw uniform points of the window."""
        points = torch.rand(count, 2, generator=self.generator, dtype=torch.float64)
        return self.placed(points)

    def placed(self, points: Tensor) -> Tensor:
        """Return the points of the window that belong to points of the unit square."""
        return points * points.new_tensor([1.0, self.length]) + points.new_tensor([0.0, self.start])

    def resample(self, measure: SplatMeasure, _: int) -> list[Condition]:
        """Return conditions at fresh points, and at more where the equation is violated."""
        trial = self.anywhere(TRIAL_POINTS)
        hard = hard_points(trial, self.conditions, measure, HARD_POINTS, self.generator)
        return self.conditions(torch.cat([self.draw(), hard]))

    def polished(self, measure: SplatMeasure, iterations: int) -> SplatMeasure:
        """Descend in stages on fresh points each, and return the stage that does best on others."""
        test = self.conditions(self.anywhere(TEST_POINTS))
        stages = [(loss_of(measure, test), measure)]
        options = LMOptions(iterations // STAGES, tolerance=1e-6)
        for stage in range(STAGES):
            conditions = self.resample(measure, stage)
            measure = levenberg_marquardt(measure, conditions, self.prior, options).measure
            stages.append((loss_of(measure, test), measure))
        return min(stages, key=lambda pair: pair[0])[1]

    def continued(self, measure: SplatMeasure) -> SplatMeasure:
        """Return the splats of the window before, moved by a window's length in time."""
        ahead = torch.tensor([0.0, self.length], dtype=torch.float64)
        return replace(measure, means=measure.means + ahead)

    def frozen(self, count: int) -> SplatMeasure:
        """Return splats that keep the initial values for all time, as a first guess."""
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
        return levenberg_marquardt(guess, everywhere, self.prior, LMOptions(30)).measure
