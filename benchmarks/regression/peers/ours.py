"""Splats as a method of the table."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.regression.peers.problem import Array, Fitted, Method, Problem
from splatrender.model import SplatMeasure, evaluate
from splatrender.operators.sampling import observations
from splatrender.regression.descent import DescentOptions, fit_first_order
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.problems import Marching, fit_evolving, fit_steady
from splatrender.regression.problems.steady import ROUNDS

QUICK_ROUNDS = 8


def splats(count: int | str, **settings: object) -> Method:
    """Return `SplatRegressor` with its own defaults, on the same samples as all methods."""

    def fit(problem: Problem) -> Fitted:
        options = dict(settings)
        if problem.quick:
            options["max_rounds"] = QUICK_ROUNDS
        model = SplatRegressor(count, random_state=problem.seed, **options)  # type: ignore[arg-type]
        model.fit(problem.samples.x, problem.samples.y)
        measure = model.measure_
        curve = [(entry.seconds, 2 * entry.loss) for entry in model.history_]
        return Fitted(model.predict, measure.parameters, f"{len(measure)} splats", curve)

    return fit


def oracle(counts: tuple[int, ...]) -> Method:
    """Return splats in the number that is best on the clean grid, unknown in practice."""

    def fit(problem: Problem) -> Fitted:
        fits = [splats(count, selection=0.0)(problem) for count in counts]
        return min(fits, key=lambda fitted: problem.rmse(fitted.predict))

    return fit


def papers_route(count: int, method: str, rate: float, steps: int = 20_000) -> Method:
    """Return the paper's public configuration in 1-D: densities at Chebyshev nodes, first order.

    Splats begin with weight zero and half the distance to the nearest neighbour as their width.
    The paper's loss is the mean square, twice ours: our step is twice its learning rate.
    """

    def fit(problem: Problem) -> Fitted:
        nodes = (1 - np.cos(np.pi * (np.arange(count) + 0.5) / count)) / 2
        gaps = np.diff(np.concatenate([[-1], nodes, [2]]))
        widths = torch.from_numpy(0.5 * np.minimum(gaps[:-1], gaps[1:]))
        one = torch.ones(count, dtype=torch.float64)
        means = torch.from_numpy(nodes)[:, None]
        start = SplatMeasure(one, 0 * means, means, widths[:, None, None], normalised=True)
        x, y = torch.from_numpy(problem.samples.x), torch.from_numpy(problem.samples.y)
        quick = 200 if problem.quick else steps
        rate_of_ours = rate if method == "adam" else 2 * rate  # Adam's step does not depend on that
        options = DescentOptions(method, quick, rate_of_ours, every=20)
        solution = fit_first_order([observations(x, y[:, None])], start, options)
        curve = [(entry.seconds, 2 * entry.loss) for entry in solution.history]

        def predict(points: Array) -> Array:
            with torch.no_grad():
                field = evaluate(solution.measure, torch.from_numpy(points))
            values: Array = field.value[:, 0].numpy()
            return values

        return Fitted(predict, solution.measure.parameters, f"{quick} steps of {rate:g}", curve)

    return fit


def steady(count: int) -> Method:
    """Return the fit of the steady equation."""

    def fit(problem: Problem) -> Fitted:
        fitted = fit_steady(count, problem.seed, 2 if problem.quick else ROUNDS)
        return Fitted(fitted.predict, fitted.parameters)

    return fit


def evolving(count: int) -> Method:
    """Return the fit of the evolving equation."""

    def fit(problem: Problem) -> Fitted:
        quick = Marching(rounds=1, later=1, iterations=5, polish=1)
        fitted = fit_evolving(count, problem.seed, quick if problem.quick else None)
        windows = f"{len(fitted.windows)} windows of time"
        return Fitted(fitted.predict, fitted.parameters, windows)

    return fit
