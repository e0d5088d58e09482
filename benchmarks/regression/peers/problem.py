"""What every method gets, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splatrender.regression.problems.tasks import Dataset, Task

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A task with its samples drawn.

    Attributes:
        task: the problem.
        data: what to fit; None for a differential equation.
        grid: where the error is measured, against clean values.
        seed: of everything random in a method.
        seconds: CPU time of one run of one optimiser.
        quick: whether a rough answer is enough.
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
        """Inputs mapped from the task's box to [-1, 1]^d."""
        low, high = np.array(self.task.box).T
        return 2 * (x - low) / (high - low) - 1

    def rmse(self, predict: Callable[[Array], Array]) -> float:
        """Root mean square error on the clean grid."""
        return float(np.sqrt(np.mean((predict(self.grid.x) - self.grid.y) ** 2)))


@dataclass(frozen=True)
class Fitted:
    """A fitted function.

    Attributes:
        predict: from [m, d] inputs to [m] values.
        parameters: how many numbers describe it.
        note: which of its variants won.
        curve: seconds and mean square residual as training went on, for the JSON.
    """

    predict: Callable[[Array], Array]
    parameters: int
    note: str = ""
    curve: list[tuple[float, float]] | None = None


Method = Callable[[Problem], Fitted]


class Deadline:
    """CPU time of this process that may still be spent."""

    def __init__(self, seconds: float) -> None:
        self._start, self._seconds = time.process_time(), seconds

    @property
    def share(self) -> float:
        """How much is spent, 0 to 1 and beyond."""
        return (time.process_time() - self._start) / self._seconds

    @property
    def over(self) -> bool:
        return self.share >= 1
