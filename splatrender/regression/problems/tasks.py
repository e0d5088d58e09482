"""Named problems: data to fit, the true function, and a dense clean grid to measure errors on.

All inputs are in a box, all numbers are float64, and the seed determines all random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from splatrender.errors import InputError
from splatrender.regression.problems.etdrk4 import solve_allen_cahn

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

INTERFACE = 0.1  # epsilon of the steady Allen-Cahn equation
CHIRP_RATE = 20 * np.pi
JUMP = 0.377  # place of the jump of chirp-rough; on no dyadic grid
BUMP, BUMP_WIDTH = 0.7123, 0.003  # its sharp bump
OCTAVES = 6  # scales of a rough Lipschitz function


@dataclass(frozen=True)
class Dataset:
    """Samples to fit.

    Attributes:
        x: [n, d] inputs.
        y: [n] targets, noise included.
    """

    x: Array
    y: Array


@dataclass(frozen=True)
class Task:
    """Problem with a known answer.

    Attributes:
        name: name on the command line.
        title: formula or description, for people.
        box: [d, 2] lower and upper end of each input.
        truth: [m, d] -> [m], without noise; None where the answer is a table.
        splats: default number of splats.
        samples: default number of samples; 0 for a differential equation.
        noise: standard deviation of the noise added to the targets.
        inputs: names of the inputs.
        is_pde: fitted to an equation instead of samples.
    """

    name: str
    title: str
    box: tuple[tuple[float, float], ...]
    truth: Function | None
    splats: int
    samples: int = 0
    noise: float = 0.0
    inputs: tuple[str, ...] = field(default=("x",))
    is_pde: bool = False

    @property
    def dimensions(self) -> int:
        """Number of inputs."""
        return len(self.box)

    def data(self, seed: int, samples: int | None = None) -> Dataset:
        """Draw uniform inputs and noisy targets.

        Args:
            seed: seed of inputs and noise.
            samples: number of samples, None for the task's own.

        Returns:
            The samples.

        Raises:
            InputError: the task is a differential equation, or the number is not positive.
        """
        count = self.samples if samples is None else samples
        if self.truth is None or self.is_pde:
            raise InputError(f"{self.name}: expected a task with samples, got an equation")
        if count < 1:
            raise InputError(f"samples: expected at least 1, got {count}")
        random = np.random.default_rng([seed, count])
        low, high = np.array(self.box).T
        x = low + (high - low) * random.random((count, self.dimensions))
        y = self.truth(x) + self.noise * random.standard_normal(count)
        return Dataset(x, y)

    def grid(self) -> Dataset:
        """Return a dense grid with clean values: cell centres, or the reference's own grid."""
        if self.truth is None:
            return _allen_cahn_grid()
        x = cell_centres(self.box, {1: 10_000, 2: 200, 3: 40}[self.dimensions])
        return Dataset(x, self.truth(x))


def cell_centres(box: tuple[tuple[float, float], ...], count: int) -> Array:
    """Return the centres of the count^d cells of a box, the last input running fastest.

    Args:
        box: [d, 2] lower and upper ends.
        count: cells along each side.

    Returns:
        [count^d, d] points.
    """
    axes = [low + (high - low) * (np.arange(count) + 0.5) / count for low, high in box]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)


def task(name: str) -> Task:
    """Return a task by its name.

    Args:
        name: name on the command line.

    Returns:
        The task.

    Raises:
        InputError: there is no task of that name.

    Example:
        >>> task("chirp").splats
        30
    """
    if name not in TASKS:
        raise InputError(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def chirp(x: Array) -> Array:
    """Return sin(20πx(2 − x)): ten periods of growing length."""
    t = x[:, 0]
    return np.sin(CHIRP_RATE * t * (2 - t))


def chirp_rough(x: Array) -> Array:
    """Return the chirp times a step, plus a sharp bump: series of smooth waves converge slowly."""
    t = x[:, 0]
    step = np.where(t < JUMP, 1.0, -0.4)
    return chirp(x) * step + np.exp(-(((t - BUMP) / BUMP_WIDTH) ** 2) / 2)


def wave(x: Array) -> Array:
    """Return sin(3π√x) cos(3πy), which is infinitely steep at x = 0."""
    return np.sin(3 * np.pi * np.sqrt(x[:, 0])) * np.cos(3 * np.pi * x[:, 1])


def multiscale(x: Array) -> Array:
    """Return a slow wave, a ring-shaped ridge, and a patch of fast slanted ripples."""
    u, v = x[:, 0], x[:, 1]
    slow = 0.6 * np.sin(np.pi * (2 * u + v))
    radius = np.hypot(u - 0.35, v - 0.6)
    ridge = np.exp(-(((radius - 0.22) / 0.03) ** 2) / 2)
    patch = np.exp(-((u - 0.75) ** 2 + (v - 0.25) ** 2) / (2 * 0.12**2))
    return slow + ridge + 0.8 * patch * np.sin(16 * np.pi * (u + 0.6 * v))


def steady_profile(x: Array) -> Array:
    """Return tanh((x + y − 1) / (2 ε)), which solves ε²Δu + u − u³ = 0."""
    return np.tanh((x[:, 0] + x[:, 1] - 1) / (2 * INTERFACE))


def rough_lipschitz(x: Array) -> Array:
    """Return cones on lattices in octaves: Σ_j 2^-j |t − round(t)| at t = 2^j R x + phase."""
    random = np.random.default_rng(7)  # one fixed function for each dimension
    total = np.zeros(len(x))
    for octave in range(OCTAVES):
        rotation, _ = np.linalg.qr(random.standard_normal((x.shape[1], x.shape[1])))
        t = 2.0**octave * x @ rotation + random.random(x.shape[1])
        total += 2.0**-octave * np.linalg.norm(t - np.round(t), axis=1)
    return total


def _allen_cahn_grid() -> Dataset:
    """Return inputs (x, t) and values of the reference solution."""
    reference = solve_allen_cahn()
    t, x = np.meshgrid(reference.times, reference.points, indexing="ij")
    return Dataset(np.stack([x.ravel(), t.ravel()], axis=1), reference.values.ravel())


def _rates(dims: int) -> Task:
    """Return the task of a rough function in some dimensions."""
    return Task(
        name=f"rates-{dims}d",
        title=f"a rough Lipschitz function in {dims}D",
        box=(UNIT,) * dims,
        truth=rough_lipschitz,
        splats=32,
        samples=4000 * dims,
        inputs=("x", "y", "z")[:dims],
    )


UNIT = (0.0, 1.0)
TASKS = {
    t.name: t
    for t in (
        Task("chirp", "sin(20πx(2 - x))", (UNIT,), chirp, splats=30, samples=1000),
        Task(
            name="chirp-rough",
            title="a chirp times a step, plus a sharp bump",
            box=(UNIT,),
            truth=chirp_rough,
            splats=30,
            samples=1000,
        ),
        Task(
            name="noisy2d",
            title="sin(3π√x) cos(3πy), noise 0.01",
            box=(UNIT, UNIT),
            truth=wave,
            splats=50,
            samples=1000,
            noise=0.01,
            inputs=("x", "y"),
        ),
        Task(
            name="noisy2d-big",
            title="slow wave, ring and ripples, noise 0.1",
            box=(UNIT, UNIT),
            truth=multiscale,
            splats=130,
            samples=4000,
            noise=0.1,
            inputs=("x", "y"),
        ),
        Task(
            name="allen-cahn-steady",
            title="ε²Δu + u - u³ = 0, ε = 0.1",
            box=(UNIT, UNIT),
            truth=steady_profile,
            splats=50,
            inputs=("x", "y"),
            is_pde=True,
        ),
        Task(
            name="allen-cahn",
            title="u_t = 1e-4 u_xx + 5u - 5u³",
            box=((-1.0, 1.0), UNIT),
            truth=None,
            splats=400,
            inputs=("x", "t"),
            is_pde=True,
        ),
        *(_rates(dims) for dims in (1, 2, 3)),
    )
}
