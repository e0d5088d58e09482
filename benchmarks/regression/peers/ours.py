"""Splats as one more method of the table."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.regression.peers.problem import Array, Fitted, Method, Problem
from splatrender.model import SplatMeasure, evaluate
from splatrender.operators.sampling import observations
from splatrender.regression.descent import DescentOptions, fit_first_order
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.problems import Marching, fit_evolving, fit_steady

QUICK_ROUNDS = 8


def splats(count: int | str, **settings: object) -> Method:
    """`SplatRegressor` with its own defaults, on the same samples as everybody."""

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
    """The number of splats that is best on the clean grid, which nobody knows."""

    def fit(problem: Problem) -> Fitted:
        tried = [splats(count, selection=0.0)(problem) for count in counts]
        return min(tried, key=lambda fitted: problem.rmse(fitted.predict))

    return fit


def papers_route(count: int, method: str, rate: float, steps: int = 20_000) -> Method:
    """The paper's public configuration in 1-D: densities at Chebyshev nodes, a first-order method.

    Splats begin with weight zero and half the distance to the nearest neighbour as their width.
    Its loss is the mean square, twice ours: a gradient's step is twice its learning rate.
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
        rate_of_ours = rate if method == "adam" else 2 * rate  # Adam's step has no such scale
        options = DescentOptions(method, quick, rate_of_ours, every=20)
        found = fit_first_order([observations(x, y[:, None])], start, options)
        curve = [(entry.seconds, 2 * entry.loss) for entry in found.history]

        def predict(points: Array) -> Array:
            with torch.no_grad():
                return evaluate(found.measure, torch.from_numpy(points)).value[:, 0].numpy()

        return Fitted(predict, found.measure.parameters, f"{quick} steps of {rate:g}", curve)

    return fit


def steady(count: int) -> Method:
    """Physics-informed fitting of the steady equation."""

    def fit(problem: Problem) -> Fitted:
        rounds = {"rounds": 2} if problem.quick else {}
        found = fit_steady(count, problem.seed, **rounds)
        return Fitted(found.predict, found.parameters)

    return fit


def evolving(count: int) -> Method:
    """Physics-informed fitting of the evolving equation."""

    def fit(problem: Problem) -> Fitted:
        quick = Marching(rounds=1, later=1, iterations=5, polish=1)
        found = fit_evolving(count, problem.seed, quick if problem.quick else None)
        windows = f"{len(found.windows)} windows of time"
        return Fitted(found.predict, found.parameters, windows)

    return fit
