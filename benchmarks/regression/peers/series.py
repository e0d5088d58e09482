"""Linear methods with a fixed basis, which may evaluate the truth anywhere (no noise)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from benchmarks.regression.peers.problem import Array, Fitted, Method, Problem

CELLS = 1 << 16  # of the quadrature for Haar's coefficients: exact to a millionth


def _truth(problem: Problem) -> Callable[[Array], Array]:
    truth = problem.task.truth
    assert truth is not None
    return lambda t: truth(t[:, None])


def _polynomial(coefficients: Any) -> Callable[[Array], Array]:
    """Return a Chebyshev series over [0, 1] as a function of [m, 1] inputs."""

    def value(x: Array) -> Array:
        values: Array = chebyshev.chebval(2 * x[:, 0] - 1, coefficients)
        return values

    return value


def chebyshev_series(terms: int) -> Method:
    """Return interpolation at the Chebyshev nodes."""

    def fit(problem: Problem) -> Fitted:
        truth = _truth(problem)
        coefficients = chebyshev.chebinterpolate(  # type: ignore[type-var]
            lambda s: truth((s + 1) / 2), terms - 1
        )
        return Fitted(_polynomial(coefficients), terms, "values of the truth at its own nodes")

    return fit


def chebyshev_least_squares(terms: int) -> Method:
    """Return least squares on the samples, with the best number of terms up to `terms`."""

    def candidates(problem: Problem) -> Iterator[Fitted]:
        data = problem.samples
        design = chebyshev.chebvander(problem.scaled(data.x)[:, 0], terms - 1)
        for count in range(10, terms + 1, 5):
            c = np.linalg.lstsq(design[:, :count], data.y, rcond=None)[0]
            yield Fitted(_polynomial(c), count, f"{count} terms")

    return lambda problem: problem.best(candidates(problem))


def haar(levels: int) -> Method:
    """Return the projection on Haar wavelets up to a level: the means over 2^levels cells."""

    def fit(problem: Problem) -> Fitted:
        fine = _truth(problem)((np.arange(CELLS) + 0.5) / CELLS)
        cells = 2**levels
        means = fine.reshape(cells, -1).mean(axis=1)
        return Fitted(
            lambda x: means[np.minimum((x[:, 0] * cells).astype(int), cells - 1)],
            cells,
            "integrals of the truth",
        )

    return fit


def haar_best_terms(terms: int, levels: int = 12) -> Method:
    """Return the largest `terms` Haar coefficients of the truth, the best possible selection."""

    def fit(problem: Problem) -> Fitted:
        values = _truth(problem)((np.arange(CELLS) + 0.5) / CELLS)
        means = values.reshape(2**levels, -1).mean(axis=1)
        details = []
        while len(means) > 1:
            pairs = means.reshape(-1, 2)
            details.append((pairs[:, 0] - pairs[:, 1]) / 2)
            means = pairs.mean(axis=1)
        flat = np.concatenate([np.abs(d) / np.sqrt(len(d)) for d in details])
        weight = np.concatenate([np.full(len(d), len(d), float) for d in details])
        threshold = np.sort(np.abs(flat))[-(terms - 1)]
        out, start = means, 0
        kept = []
        for d in details:
            size = np.abs(flat[start : start + len(d)])
            kept.append(np.where(size >= threshold, d, 0))
            start += len(d)
        assert len(weight) == start
        for d in reversed(kept):
            out = np.stack([out + d, out - d], axis=1).ravel()
        cells = len(out)
        return Fitted(
            lambda x: out[np.minimum((x[:, 0] * cells).astype(int), cells - 1)],
            terms,
            "integrals of the truth, best terms",
        )

    return fit
