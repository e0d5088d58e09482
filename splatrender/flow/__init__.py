"""How the measure of splats moves: births, deaths and noise between the optimizer's steps."""

from splatrender.flow.adc import ADC, AbsADC
from splatrender.flow.mcmc import MCMC
from splatrender.flow.state import Moments, SeenFootprints, TrainingView, TrainState
from splatrender.flow.strategy import STRATEGIES, NoStrategy, StepReport, Strategy, create_strategy
from splatrender.flow.wfr_strategy import WFR, Scheme

__all__ = [
    "ADC",
    "MCMC",
    "STRATEGIES",
    "WFR",
    "AbsADC",
    "Moments",
    "NoStrategy",
    "Scheme",
    "SeenFootprints",
    "StepReport",
    "Strategy",
    "TrainState",
    "TrainingView",
    "create_strategy",
]
