"""The steady Allen-Cahn equation, from its residual and its boundary values.

    ε²Δu + u − u³ = 0 on [0, 1]²,      u = tanh((x + y − 1) / (2ε)) on the boundary,      ε = 0.1

The solver is given no solution inside of the domain.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, identity, laplacian
from splatrender.regression.lm import LMOptions, levenberg_marquardt
from splatrender.regression.prior import Prior
from splatrender.regression.problems.collocation import TRIAL_POINTS, hard_points, stratified
from splatrender.regression.problems.solution import (
    PdeFit,
    Window,
    WindowProgress,
    progress_of_window,
)
from splatrender.regression.problems.tasks import INTERFACE, steady_profile
from splatrender.regression.solver import SolverOptions, fit
from splatrender.regression.starts import initial_measure

FIRST_SPLATS = 10  # growth begins here: few splats find their places sooner
STARTS = 6  # random ones, of which the best grows
ROUNDS = 20  # rounds of births and deaths
WIDEST = 2.0  # standard deviation; without a bound some splats end as constants
NARROWEST = 0.02  # collocation points are 0.03 apart: nothing smaller is seen between them
CELLS = (40, 30)  # with a collocation point each, about four for each parameter
FRESH_CELLS = (30, 20)  # the same, when points are drawn anew
HARD_POINTS = 600  # additional ones, drawn by squared residual
FRESH_EVERY = 5  # rounds
BOUNDARY_POINTS = 101  # along each side
BOUNDARY_WEIGHT = 100.0  # relative to the equation's mean square residual


class _SteadyProblem:
    """Conditions of the equation at collocation points, and at the boundary."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.prior = Prior(smallest=NARROWEST, extents=(WIDEST, WIDEST))
        side = torch.linspace(0, 1, BOUNDARY_POINTS, dtype=torch.float64)
        low, high = torch.zeros_like(side), torch.ones_like(side)
        sides = ((side, low), (side, high), (low, side), (high, side))
        self.border = torch.cat([torch.stack(pair, 1) for pair in sides])
        values = torch.from_numpy(steady_profile(self.border.numpy()))[:, None]
        boundary = Condition(self.border, (identity(),), values, name="boundary")
        self.boundary = boundary.mean(BOUNDARY_WEIGHT)

    def conditions(self, points: Tensor) -> list[Condition]:
        """Return the equation at points, and the boundary values."""

        def residual(_: Tensor, lap: Tensor, u: Tensor) -> Tensor:
            return INTERFACE**2 * lap + u - u**3

        operators = (laplacian(2), identity())
        equation = Condition(points, operators, residual=residual, name="equation")
        return [equation.mean(), self.boundary]

    def resample(self, measure: SplatMeasure, round_number: int) -> list[Condition] | None:
        """Return conditions at fresh points, half of them hard ones, every fifth round."""
        if round_number % FRESH_EVERY:
            return None
        trial = torch.rand(TRIAL_POINTS, 2, generator=self.generator, dtype=torch.float64)
        hard = hard_points(trial, self.conditions, measure, HARD_POINTS, self.generator)
        return self.conditions(torch.cat([stratified(*FRESH_CELLS, self.generator), hard]))

    def best_start(self, points: Tensor, n_splats: int) -> SplatMeasure:
        """Return the end of the best of several descents from random splats."""
        places, problem = torch.cat([points, self.border]), self.conditions(points)
        options = LMOptions(60, tolerance=1e-3)
        ends = []
        for _ in range(STARTS):
            start = initial_measure(places, n_splats, 1, self.generator)
            ends.append(levenberg_marquardt(start, problem, self.prior, options))
        return min(ends, key=lambda minimum: minimum.loss).measure


def fit_steady(
    n_splats: int = 50, seed: int = 0, rounds: int = ROUNDS, progress: WindowProgress | None = None
) -> PdeFit:
    """Solve the steady equation.

    Args:
        n_splats: number of splats.
        seed: seed of points, starts and births.
        rounds: rounds of births and deaths.
        progress: called after each round with its report, the window's number, here 0, and the
            best measure so far; returning True ends the fit.

    Returns:
        The solution.

    Raises:
        InputError: there are no splats to fit.

    Source:
        The exact profile solves ε²u'' + u − u³ = 0 across its front of width 2ε.
    """
    if n_splats < 1:
        raise InputError(f"splats: expected at least 1, got {n_splats}")
    generator = torch.Generator().manual_seed(seed)
    problem = _SteadyProblem(generator)
    points = stratified(*CELLS, generator)
    options = SolverOptions(
        n_splats=n_splats, rounds=rounds, iterations=60, patience=rounds, shrinkage=0, polish=150
    )
    solution = fit(
        problem.conditions(points),
        problem.best_start(points, min(FIRST_SPLATS, n_splats)),
        options,
        generator,
        problem.prior,
        progress=progress_of_window(progress, 0),
        resample=problem.resample,
    )
    window = Window(-math.inf, math.inf, solution.measure)
    return PdeFit((window,), identity(), [(0, r) for r in solution.history])
