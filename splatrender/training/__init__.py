"""From a scene folder to trained splats: `train(TrainOptions(source, model))`."""

from splatrender.runtime.interruption import Interrupted
from splatrender.training.loop import train
from splatrender.training.options import TrainOptions
from splatrender.training.report import TrainResult
from splatrender.training.run import TrainingDeviceFault, TrainingDiverged, TrainingOutOfMemory

__all__ = [
    "Interrupted",
    "TrainOptions",
    "TrainResult",
    "TrainingDeviceFault",
    "TrainingDiverged",
    "TrainingOutOfMemory",
    "train",
]
