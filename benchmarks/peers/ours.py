"""Splats as one more method of the table."""

from __future__ import annotations

from peers.problem import Fitted, Method, Problem
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.pde import Marching, fit_evolving, fit_steady

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
