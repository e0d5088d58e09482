"""How the measure of splats moves: births, deaths and noise between the optimizer's steps."""

from splatrender.flow.mcmc import MCMC
from splatrender.flow.state import Moments, TrainingView, TrainState
from splatrender.flow.strategy import STRATEGIES, NoStrategy, StepReport, Strategy, create_strategy

__all__ = [
    "MCMC",
    "STRATEGIES",
    "Moments",
    "NoStrategy",
    "StepReport",
    "Strategy",
    "TrainState",
    "TrainingView",
    "create_strategy",
]
