"""Regression and physics-informed fitting with splats."""

from splatrender._moved import renamed
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.lm import LMOptions, levenberg_marquardt
from splatrender.regression.objective import PointObjective
from splatrender.regression.prior import Prior
from splatrender.regression.solver import Round, Solution, SolverOptions, fit
from splatrender.regression.starts import initial_measure

__all__ = [
    "LMOptions",
    "PointObjective",
    "Prior",
    "Round",
    "Solution",
    "SolverOptions",
    "SplatRegressor",
    "fit",
    "initial_measure",
    "levenberg_marquardt",
]

__getattr__ = renamed(__name__, {"LevenbergOptions": "splatrender.regression.lm.LMOptions"})
