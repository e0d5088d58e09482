"""Regression and physics-informed fitting with splats."""

from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.lm import LevenbergOptions, levenberg_marquardt
from splatrender.regression.prior import Prior
from splatrender.regression.solver import (
    Round,
    Solution,
    SolverOptions,
    fit,
)
from splatrender.regression.starts import initial_measure

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
