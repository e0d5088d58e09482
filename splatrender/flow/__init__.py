"""How the measure of splats moves: births, deaths and noise between the optimizer's steps."""

from splatrender._moved import renamed
from splatrender.flow.state import Moments, SeenFootprints, TrainState
from splatrender.flow.strategies.adc import ADC, AbsADC
from splatrender.flow.strategies.base import (
    STRATEGIES,
    NoStrategy,
    StepReport,
    Strategy,
    create_strategy,
)
from splatrender.flow.strategies.exchange import WFR, Scheme
from splatrender.flow.strategies.mcmc import MCMC

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
    "create_strategy",
]

__getattr__ = renamed(__name__, {"TrainingView": "splatrender.model.view.View"})
