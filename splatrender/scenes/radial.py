"""Radial functions m of lenses: q' = m(r²) q, their slopes, and where they stop growing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

Array = np.ndarray


class Radial(Protocol):
    """A function m(s) of s = r²; `fold` is the radius r at which r m(r²) stops growing."""

    fold: float

    def __call__(self, s: Array) -> tuple[Array, Array]:
        """Return m and dm/ds, each [N]."""

    def guess(self, bent: Array) -> Array:
        """Return a start of Newton's method for q [N, 2] with m q = bent [N, 2]."""


class Rational:
    """m(s) = A(s) / B(s) with A = 1 + k1 s + k2 s² + ... and B = 1 + d1 s + d2 s² + ...

    Args:
        above: k1, k2, ...
        below: d1, d2, ...
    """

    def __init__(self, above: Sequence[float], below: Sequence[float]) -> None:
        self._above = np.array([1.0, *above])
        self._below = np.array([1.0, *below])
        self.fold = self._find_fold()

    def __call__(self, s: Array) -> tuple[Array, Array]:
        """Return m and dm/ds, each [N]."""
        above, above_slope = _polynomial(self._above, s)
        if not self._below[1:].any():
            return above, above_slope
        below, below_slope = _polynomial(self._below, s)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = above / below
            return factor, (above_slope - factor * below_slope) / below

    def guess(self, bent: Array) -> Array:
        """Return a copy of `bent`: most lenses bend little."""
        start: Array = bent.copy()
        return start

    def _find_fold(self) -> float:
        """Return the least positive root of B and of B² d(r m)/dr = (A + 2sA') B - 2s A B'."""
        above, below = self._above, self._below
        # 2 s d/ds multiplies the coefficient of s^n by 2n
        growth = np.convolve(above * (1 + 2 * np.arange(len(above))), below)
        growth -= np.convolve(above, below * (2 * np.arange(len(below))))
        roots = np.concatenate([np.roots(growth[::-1]), np.roots(below[::-1])])
        real = roots[np.abs(roots.imag) <= 1e-9 * np.abs(roots)].real
        return math.sqrt(np.min(real[real > 0], initial=math.inf))


def _polynomial(coefficients: Array, s: Array) -> tuple[Array, Array]:
    """Evaluate p(s) = c0 + c1 s + ... and dp/ds, by Horner's rule."""
    value, slope = np.zeros_like(s), np.zeros_like(s)
    for power in range(len(coefficients) - 1, -1, -1):
        value = coefficients[power] + s * value
        if power:
            slope = power * coefficients[power] + s * slope
    return value, slope


class FieldOfView:
    """m = (a/ω) atan(x)/x with x = a r and a = 2 tan(ω/2), after Devernay and Faugeras.

    COLMAP replaces this by a series where r² or ω² is below 1e-4, with the ω series of its
    inverse; here the formula itself holds everywhere. They differ by less than 1e-5 r.

    Args:
        omega: ω [rad], not 0.
    """

    fold = math.inf  # the arc tangent grows for ever

    def __init__(self, omega: float) -> None:
        self._omega = omega

    def __call__(self, s: Array) -> tuple[Array, Array]:
        """Return m and dm/ds, each [N]."""
        gain = 2 * math.tan(self._omega / 2)
        x2 = gain * gain * s
        x = np.sqrt(x2)
        small = x < 1e-2  # there the series is exact to the last bit
        safe = np.where(small, 1.0, x)
        arc = np.where(small, 1 - x2 / 3 + x2**2 / 5 - x2**3 / 7, np.arctan(safe) / safe)
        # d(atan(x)/x)/d(x²) = (1/(1+x²) - atan(x)/x) / (2x²)
        exact = (1 / (1 + safe**2) - arc) / (2 * safe**2)
        slope = np.where(small, -1 / 3 + 2 * x2 / 5 - 3 * x2**2 / 7, exact)
        return gain / self._omega * arc, gain**3 / self._omega * slope

    def guess(self, bent: Array) -> Array:
        """Return a copy of `bent`."""
        start: Array = bent.copy()
        return start


class Division:
    """The division model q = q' / (1 + k r'²), solved for q': m(s) = 2 / (1 + √(1 - 4 k s)).

    Args:
        k: the coefficient.

    Source:
        Fitzgibbon, Simultaneous linear estimation of multiple view geometry and lens distortion,
        2001.
    """

    def __init__(self, k: float) -> None:
        self._k = k
        self.fold = 1 / (2 * math.sqrt(k)) if k > 0 else math.inf

    def __call__(self, s: Array) -> tuple[Array, Array]:
        """Return m and dm/ds, each [N]; NaN beyond the fold."""
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(1 - 4 * self._k * s)
            factor = 2 / (1 + root)
            return factor, self._k * factor * factor / root

    def guess(self, bent: Array) -> Array:
        """Return the solution; NaN where there is none."""
        below = 1 + self._k * (bent**2).sum(axis=1, keepdims=True)
        return bent / np.where(below > 0, below, np.nan)


class Unified:
    """The enhanced unified camera model at depth 1: m(s) = 1 / (α √(β s + 1) + 1 - α).

    Args:
        alpha: α, from 0 to 1.
        beta: β, > 0.

    Source:
        Khomutenko, Garcia and Martinet, An enhanced unified camera model, 2016.
    """

    fold = math.inf  # d(r m)/dr has the sign of α / √(β s + 1) + 1 - α

    def __init__(self, alpha: float, beta: float) -> None:
        self._alpha, self._beta = alpha, beta

    def __call__(self, s: Array) -> tuple[Array, Array]:
        """Return m and dm/ds, each [N]."""
        root = np.sqrt(self._beta * s + 1)
        factor = 1 / (self._alpha * root + 1 - self._alpha)
        return factor, -0.5 * self._alpha * self._beta * factor * factor / root

    def guess(self, bent: Array) -> Array:
        """Return the solution; NaN where there is none, or none ahead of the camera."""
        alpha, square = self._alpha, self._beta * (bent**2).sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            root = np.sqrt(1 - (2 * alpha - 1) * square)
            depth = (1 - alpha * alpha * square) / (alpha * root + 1 - alpha)
            return bent / np.where(depth > 0, depth, np.nan)
