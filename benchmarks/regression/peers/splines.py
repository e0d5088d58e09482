"""Splines and kernels, from scipy and scikit-learn."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from scipy.interpolate import (
    CubicSpline,
    LSQBivariateSpline,
    RBFInterpolator,
)
from scipy.optimize import least_squares

from benchmarks.regression.peers.problem import Array, Deadline, Fitted, Method, Problem


def cubic_spline(knots: int) -> Method:
    """Return interpolation at equidistant knots of the truth."""

    def fit(problem: Problem) -> Fitted:
        truth = problem.task.truth
        assert truth is not None
        t = np.linspace(0, 1, knots)
        spline = CubicSpline(t, truth(t[:, None]))
        return Fitted(lambda x: spline(x[:, 0]), knots, "values of the truth at its own knots")

    return fit


def free_knot_spline(parameters: int) -> Method:
    """Return a continuous, piecewise linear function with fitted knots and values, half each.

    Knots start at equal shares of the truth's total variation, the classical choice, or at equal
    distances. Values are solved for; least squares moves the gaps between knots.
    """

    def candidates(problem: Problem) -> Iterator[Fitted]:
        data, count = problem.samples, parameters // 2
        order = np.argsort(data.x[:, 0])
        x, y = data.x[order, 0], data.y[order]
        length = np.concatenate([[0], np.cumsum(np.abs(np.diff(y)))])
        equal = np.interp(np.linspace(0, length[-1], count), length, x)[1:-1]
        for start in (equal, np.linspace(0, 1, count)[1:-1]):
            knots = _move_knots(start, x, y, Deadline(problem.seconds))
            values = _hat_fit(knots, x, y)[0]
            full = np.concatenate([[0], knots, [1]])
            yield Fitted(_interpolant(full, values), parameters)

    return lambda problem: problem.best(candidates(problem))


def _interpolant(knots: Array, values: Array) -> Callable[[Array], Array]:
    """Return linear interpolation as a function of [m, 1] inputs."""
    return lambda x: np.interp(x[:, 0], knots, values)


def _hat_fit(knots: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return values at the knots by least squares, and the residual."""
    full = np.concatenate([[0], knots, [1]])
    cell = np.clip(np.searchsorted(full, x, side="right") - 1, 0, len(full) - 2)
    share = (x - full[cell]) / np.maximum(full[cell + 1] - full[cell], 1e-12)
    design = np.zeros((len(x), len(full)))
    rows = np.arange(len(x))
    design[rows, cell] = 1 - share
    design[rows, cell + 1] += share
    values: Array = np.linalg.lstsq(design, y, rcond=1e-10)[0].astype(np.float64)
    return values, design @ values - y


def _move_knots(start: Array, x: Array, y: Array, deadline: Deadline) -> Array:
    """Move the knots, a softmax of gaps, by trust-region least squares until the time is over."""
    gaps = np.diff(np.concatenate([[0], start, [1]]))
    logs = np.log(np.maximum(gaps, 1e-6))
    lowest, best = math.inf, start

    def knots_of(z: Array) -> Array:
        parts = np.exp(z - z.max())
        knots: Array = np.cumsum(parts / parts.sum())[:-1]
        return knots

    def residual(z: Array) -> Array:
        nonlocal lowest, best
        r = _hat_fit(knots_of(z), x, y)[1]
        loss = float(r @ r)
        if loss < lowest:
            lowest, best = loss, knots_of(z)
        if deadline.over:
            raise TimeoutError
        return r

    with contextlib.suppress(TimeoutError):
        least_squares(residual, logs, max_nfev=30)
    return best


def rbf_interpolation(centres: int) -> Method:
    """Return radial functions through equidistant values of the truth, the best of 7 kernels."""

    def candidates(problem: Problem) -> Iterator[Fitted]:
        truth = problem.task.truth
        assert truth is not None
        t = np.linspace(0, 1, centres)[:, None]
        kernels = [("cubic", 1.0), ("thin_plate_spline", 1.0), ("quintic", 1.0)]
        kernels += [("gaussian", centres / s) for s in (2.0, 3.0, 4.0, 6.0)]
        for kernel, scale in kernels:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    spline = RBFInterpolator(t, truth(t), kernel=kernel, epsilon=scale)
                except np.linalg.LinAlgError:
                    continue
            yield Fitted(spline, centres, f"{kernel}, best of 7 kernels, values of the truth")

    return lambda problem: problem.best(candidates(problem))


def _surface(spline: LSQBivariateSpline) -> Callable[[Array], Array]:
    """Return a spline as a function of [m, 2] inputs."""
    return lambda x: np.asarray(spline.ev(*x.T), dtype=np.float64)


def bivariate_spline(parameters: int) -> Method:
    """Return cubic tensor splines by least squares, with the best number of knots."""

    def candidates(problem: Problem) -> Iterator[Fitted]:
        data = problem.samples
        for side in range(5, int(np.sqrt(parameters)) + 1):
            inner = np.linspace(0, 1, side - 2)[1:-1]  # side = inner + 4 coefficients
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                spline = LSQBivariateSpline(
                    *data.x.T, data.y, inner, inner, bbox=[0, 1, 0, 1], kx=3, ky=3
                )
            yield Fitted(_surface(spline), side**2, f"{side} x {side}")

    return lambda problem: problem.best(candidates(problem))


def kernel_ridge(problem: Problem) -> Fitted:
    """Fit Gaussian kernel ridge regression, width and ridge by three-fold cross-validation."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV, KFold

    data = problem.samples
    folds = KFold(3, shuffle=True, random_state=problem.seed)
    grid = {
        "alpha": [1e-4, 1e-3, 1e-2, 1e-1],
        "gamma": [5.0, 20.0, 80.0, 200.0],
    }
    search = GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=folds).fit(data.x, data.y)
    note = ", ".join(f"{k} {v:g}" for k, v in search.best_params_.items())
    return Fitted(search.predict, len(data.x), note)
