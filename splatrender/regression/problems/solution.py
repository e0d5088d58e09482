"""Solutions of differential equations as splats: windows of time, symmetries, files.

The evolving equation and its initial values have the period 2 in x and are even in x, and so is its
solution: splats are summed over their images at ±x + 2j. Widths along x are bounded, and the sum
leaves out only images at a distance of at least 5, each below 1e-6 of its amplitude.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.model import SplatMeasure
from splatrender.operators.differential import LinearOperator, identity, operator_rows
from splatrender.regression.problems.tasks import Array
from splatrender.regression.report import Progress, Round
from splatrender.regression.storage import read_content, write_content

FORMAT = "splatrender-pde-1"
MIRROR = (-1.0, 1.0)  # signs of (x, t)
PERIOD = (2.0, 0.0)
IMAGES = 2  # on each side of the nearest
POINTS = 1 << 14  # evaluated at a time

WindowProgress = Callable[[Round, int, SplatMeasure], "bool | None"]


def symmetric(operator: LinearOperator) -> LinearOperator:
    """Return the operator on the sum over all images of the evolving solution's symmetries."""
    return operator.mirrored(MIRROR).periodised(PERIOD, IMAGES)


def with_images(measure: SplatMeasure) -> SplatMeasure:
    """Return the evolving solution's splats and their mirror images, all within one period."""
    signs, (length, _) = torch.tensor(MIRROR, dtype=measure.dtype), PERIOD
    mirrored = replace(
        measure, means=signs * measure.means, factors=signs[:, None] * measure.factors
    )
    both = SplatMeasure.cat([measure, mirrored])
    turns = torch.stack([(both.means[:, 0] / length).round(), 0 * both.means[:, 1]], dim=1)
    return replace(both, means=both.means - length * turns)


def field_values(value: LinearOperator, measure: SplatMeasure, points: Tensor) -> Tensor:
    """Return [n] values of a function of one output through the operator that evaluates it."""
    return (operator_rows(value, measure, points).value @ measure.weights)[:, 0]


@dataclass(frozen=True, eq=False)
class Window:
    """Solution between two times, or of a steady equation.

    Attributes:
        start: first time; −∞ for a steady equation.
        stop: last time; ∞ for a steady equation.
        measure: splats over (x, t), or over (x, y).
    """

    start: float
    stop: float
    measure: SplatMeasure


@dataclass(frozen=True, eq=False)
class PdeFit:
    """Fitted solution.

    Attributes:
        windows: windows in the order of time.
        value: operator that evaluates the solution: the identity, or its periodic sum.
        history: rounds of all windows, each with the window's number.
    """

    windows: tuple[Window, ...]
    value: LinearOperator
    history: list[tuple[int, Round]]

    @property
    def splats(self) -> int:
        """Number of splats in all windows."""
        return sum(len(w.measure) for w in self.windows)

    @property
    def parameters(self) -> int:
        """Number of free parameters in all windows."""
        return sum(w.measure.parameters for w in self.windows)

    def predict(self, points: Array) -> Array:
        """Return the solution's values at points.

        Args:
            points: [n, d].

        Returns:
            [n] values, NaN outside of all windows; a time that two windows share belongs to the
            earlier one.
        """
        x = torch.as_tensor(points, dtype=torch.float64)
        out = torch.full((len(x),), torch.nan, dtype=x.dtype)
        for window in reversed(self.windows):
            rows = (x[:, -1] >= window.start - 1e-12) & (x[:, -1] <= window.stop + 1e-12)
            for part in torch.split(rows.nonzero()[:, 0], POINTS):
                out[part] = field_values(self.value, window.measure, x[part])
        return out.numpy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the windows to a file, atomically."""
        content = {
            "format": FORMAT,
            "periodic": len(self.value.terms) > 1,
            "windows": [
                {"start": w.start, "stop": w.stop, **dict(w.measure.items())} for w in self.windows
            ],
        }
        write_content(path, content)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> PdeFit:
        """Read a file that `save` wrote; the history is not in it.

        Raises:
            InputError: the file is missing or holds something else.
        """
        content = read_content(path, FORMAT, "a fitted solution")
        value = symmetric(identity()) if content["periodic"] else identity()
        windows = [
            Window(w.pop("start"), w.pop("stop"), SplatMeasure(**w)) for w in content["windows"]
        ]
        return PdeFit(tuple(windows), value, [])


def progress_of_window(progress: WindowProgress | None, number: int) -> Progress | None:
    """Return the solver's callback for one window."""
    if progress is None:
        return None
    return lambda report, measure: progress(report, number, measure)
