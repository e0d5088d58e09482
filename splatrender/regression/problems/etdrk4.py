"""Spectral reference solutions by exponential time differencing, Runge–Kutta of fourth order.

For u_t = L u + N(u) on a periodic interval, with L diagonal in Fourier space.

Source: Cox & Matthews, J. Comput. Phys. 176 (2002); the coefficients are means over a circle in the
complex plane, as in Kassam & Trefethen, SIAM J. Sci. Comput. 26 (2005).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splatrender.errors import InputError

Array = NDArray[np.float64]
CONTOUR_POINTS = 32  # on the half circle; the means are exact to rounding then
DIFFUSION = 1e-4  # coefficient of the Allen-Cahn equation below
REACTION = 5.0


@dataclass(frozen=True)
class SpaceTimeSolution:
    """Function of space and time on a grid.

    Attributes:
        times: [T], increasing.
        points: [X], increasing, without the right end, which is identified with the left one.
        values: [T, X] u(t, x).
        refinement: relative L2 change from half the modes and twice the time step.
    """

    times: Array
    points: Array
    values: Array
    refinement: float


def etdrk4(
    initial: Array,
    linear: Array,
    nonlinear: Callable[[Array], Array],
    step: float,
    steps: int,
    every: int = 1,
) -> Array:
    """Integrate u_t = L u + N(u) from `initial` over `steps` steps.

    Args:
        initial: [n] real values on an equidistant periodic grid, n even.
        linear: [n // 2 + 1] eigenvalues of L for the modes of a real FFT.
        nonlinear: N, pointwise.
        step: time step.
        steps: number of steps.
        every: steps between kept values; divides `steps`.

    Returns:
        [steps // every + 1, n] values, the initial ones first.

    Raises:
        InputError: shapes or numbers of steps do not match.

    Example:
        >>> rate = np.zeros(9)
        >>> u = etdrk4(np.full(16, 0.1), rate, lambda u: u - u**3, step=0.1, steps=10)
        >>> round(float(u[-1, 0]), 4)  # the logistic curve 0.1 e / sqrt(0.99 + 0.01 e^2)
        0.2635
    """
    n = len(initial)
    if n % 2 or linear.shape != (n // 2 + 1,):
        raise InputError(
            f"linear: expected n // 2 + 1 eigenvalues for an even n = {n}, got {linear.shape}"
        )
    if every < 1 or steps % every:
        raise InputError(f"every: expected a divisor of steps = {steps}, got {every}")
    exponential, half = np.exp(step * linear), np.exp(step * linear / 2)
    q, f1, f2, f3 = _coefficients(step * linear, step)

    def term(u_hat: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return np.fft.rfft(nonlinear(np.fft.irfft(u_hat, n)))

    u_hat = np.fft.rfft(initial)
    kept = [np.asarray(initial, dtype=np.float64)]
    for index in range(1, steps + 1):
        n_u = term(u_hat)
        a = half * u_hat + q * n_u
        n_a = term(a)
        n_b = term(half * u_hat + q * n_a)
        n_c = term(half * a + q * (2 * n_b - n_u))
        u_hat = exponential * u_hat + f1 * n_u + 2 * f2 * (n_a + n_b) + f3 * n_c
        if index % every == 0:
            kept.append(np.fft.irfft(u_hat, n))
    return np.stack(kept)


def allen_cahn_initial(x: Array) -> Array:
    """Return u₀ = x² cos(πx), whose periodic continuation has a kink at x = ±1."""
    return x**2 * np.cos(np.pi * x)


def solve_allen_cahn(
    modes: int = 8192, steps: int = 400, snapshots: int = 200, columns: int = 512
) -> SpaceTimeSolution:
    """Solve u_t = 1e-4 u_xx + 5u - 5u³ on [-1, 1], periodic, t in [0, 1], u(0, x) = x² cos(πx).

    Because of the initial value's kink the error falls only as a power of the number of modes.
    Therefore a coarser solution is computed, too, and the difference is part of the result.

    Args:
        modes: grid points of the solver.
        steps: its time steps.
        snapshots: time intervals of the result; divides steps / 2.
        columns: grid points of the result, x = -1 + 2 i / columns; divides modes / 2.

    Returns:
        The solution at snapshots + 1 times and `columns` points.

    Raises:
        InputError: the numbers do not divide each other as stated.
    """
    if modes % (2 * columns) or steps % (2 * snapshots):
        raise InputError(
            "columns and snapshots: expected divisors of modes / 2 and steps / 2, "
            f"got {columns}, {snapshots} for {modes}, {steps}"
        )
    fine = _allen_cahn(modes, steps, snapshots)[:, :: modes // columns]
    coarse = _allen_cahn(modes // 2, steps // 2, snapshots)[:, :: modes // 2 // columns]
    change = float(np.linalg.norm(fine - coarse) / np.linalg.norm(fine))
    points = -1 + 2 * np.arange(columns) / columns
    return SpaceTimeSolution(np.linspace(0, 1, snapshots + 1), points, fine, change)


def _allen_cahn(modes: int, steps: int, snapshots: int) -> Array:
    x = -1 + 2 * np.arange(modes) / modes
    wavenumber = np.pi * np.arange(modes // 2 + 1)
    return etdrk4(
        allen_cahn_initial(x),
        np.asarray(-DIFFUSION * wavenumber**2, dtype=np.float64),
        lambda u: REACTION * (u - u**3),
        1 / steps,
        steps,
        every=steps // snapshots,
    )


def _coefficients(z: Array, step: float) -> tuple[Array, Array, Array, Array]:
    """Return Cox and Matthews' coefficients, free of cancellation for small |z| (z = step · L)."""
    circle = np.exp(1j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
    r = z[:, None] + circle[None, :]
    e = np.exp(r)
    terms = (
        (np.exp(r / 2) - 1) / r,
        (-4 - r + e * (4 - 3 * r + r**2)) / r**3,
        (2 + r + e * (r - 2)) / r**3,
        (-4 - 3 * r - r**2 + e * (4 - r)) / r**3,
    )
    q, f1, f2, f3 = (step * np.real(t.mean(axis=1)) for t in terms)
    return q, f1, f2, f3
