"""The model: measures made of splats, over any number of inputs or in a scene."""

from splatrender.model.evaluation import Field, evaluate
from splatrender.model.measure import SplatMeasure
from splatrender.model.parents import PARENTS, Gaussian, Parent, create_parent
from splatrender.model.splats import SH_C0, Splats

__all__ = [
    "PARENTS",
    "SH_C0",
    "Field",
    "Gaussian",
    "Parent",
    "SplatMeasure",
    "Splats",
    "create_parent",
    "evaluate",
]
