"""The flow of a measure of splats: transport, reaction, births and deaths."""

from splatrender._moved import renamed
from splatrender.flow.memory import Moments, TransportMemory
from splatrender.flow.state import SeenFootprints, TrainState
from splatrender.flow.strategies.adc import ADC, AbsADC
from splatrender.flow.strategies.base import (
    STRATEGIES,
    NoStrategy,
    StepReport,
    Strategy,
    create_strategy,
)
from splatrender.flow.strategies.exchange import ExchangeConfig, ExchangeStrategy
from splatrender.flow.strategies.mcmc import MCMC
from splatrender.flow.strategies.report import ExchangeReport

__all__ = [
    "ADC",
    "MCMC",
    "STRATEGIES",
    "AbsADC",
    "ExchangeConfig",
    "ExchangeReport",
    "ExchangeStrategy",
    "Moments",
    "NoStrategy",
    "SeenFootprints",
    "StepReport",
    "Strategy",
    "TrainState",
    "TransportMemory",
    "create_strategy",
]

__getattr__ = renamed(
    __name__,
    {
        "Scheme": "splatrender.flow.strategies.exchange.ExchangeConfig",
        "TrainingView": "splatrender.model.view.View",
        "WFR": "splatrender.flow.strategies.exchange.ExchangeStrategy",
    },
)
