"""Regression and physics-informed fitting with splats."""

from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.levenberg import LevenbergOptions, Prior, levenberg_marquardt
from splatrender.regression.solver import (
    Round,
    Solution,
    SolverOptions,
    fit,
    initial_measure,
)

__all__ = [
    "LevenbergOptions",
    "Prior",
    "Round",
    "Solution",
    "SolverOptions",
    "SplatRegressor",
    "fit",
    "initial_measure",
    "levenberg_marquardt",
]
