"""Problems to fit: tasks with a known answer, tables, and the two Allen-Cahn equations."""

from splatrender.regression.problems.evolving import Marching, fit_evolving
from splatrender.regression.problems.solution import PdeFit, Window
from splatrender.regression.problems.steady import fit_steady
from splatrender.regression.problems.tasks import TASKS, Dataset, Task, task

__all__ = [
    "TASKS",
    "Dataset",
    "Marching",
    "PdeFit",
    "Task",
    "Window",
    "fit_evolving",
    "fit_steady",
    "task",
]
