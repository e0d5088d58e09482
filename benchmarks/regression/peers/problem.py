"""Input and output of all methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splatrender.regression.problems.tasks import Dataset, Task

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Task with its samples drawn.

    Attributes:
        task: the problem.
        data: samples to fit; None for a differential equation.
        grid: points and clean values to measure errors on.
        seed: random seed of a method.
        seconds: CPU time of one run of one optimiser.
        quick: a rough result is sufficient.
    """

    task: Task
    data: Dataset | None
    grid: Dataset
    seed: int
    seconds: float
    quick: bool = False

    @property
    def samples(self) -> Dataset:
        assert self.data is not None, f"{self.task.name} has no samples"
        return self.data

    def scaled(self, x: Array) -> Array:
        """Map inputs from the task's box to [−1, 1]^d."""
        low, high = np.array(self.task.box).T
        scaled: Array = 2 * (x - low) / (high - low) - 1
        return scaled

    def rmse(self, predict: Callable[[Array], Array]) -> float:
        """Return the root mean square error on the clean grid."""
        return float(np.sqrt(np.mean((predict(self.grid.x) - self.grid.y) ** 2)))

    def best(self, candidates: Iterable[Fitted]) -> Fitted:
        """Return the candidate with the smallest error on the clean grid, the first of equals."""
        return min(candidates, key=lambda fitted: self.rmse(fitted.predict))


@dataclass(frozen=True)
class Fitted:
    """Fitted function.

    Attributes:
        predict: function from [m, d] inputs to [m] values.
        parameters: number of parameters.
        note: the best of its variants.
        curve: seconds and mean square residual during training, for the JSON.
    """

    predict: Callable[[Array], Array]
    parameters: int
    note: str = ""
    curve: list[tuple[float, float]] | None = None


Method = Callable[[Problem], Fitted]


class Deadline:
    """Remaining CPU time of this process."""

    def __init__(self, seconds: float) -> None:
        self._start, self._seconds = time.process_time(), seconds

    @property
    def share(self) -> float:
        """Share of the time that is spent, from 0 to 1 and beyond."""
        return (time.process_time() - self._start) / self._seconds

    @property
    def over(self) -> bool:
        return self.share >= 1
