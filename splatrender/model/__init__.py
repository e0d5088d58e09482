"""The model: measures made of splats, over any number of inputs or in a scene."""

from splatrender.model.evaluation import Field, evaluate
from splatrender.model.geometry import (
    aligned,
    barycentre,
    bures_wasserstein,
    geodesic,
    integrals,
    measure_distance,
    merge,
    sample,
    with_integrals,
)
from splatrender.model.measure import SplatMeasure
from splatrender.model.parents import PARENTS, Gaussian, Parent, create_parent
from splatrender.model.splats import SH_C0, Splats
from splatrender.model.splitting import split

__all__ = [
    "PARENTS",
    "SH_C0",
    "Field",
    "Gaussian",
    "Parent",
    "SplatMeasure",
    "Splats",
    "aligned",
    "barycentre",
    "bures_wasserstein",
    "create_parent",
    "evaluate",
    "geodesic",
    "integrals",
    "measure_distance",
    "merge",
    "sample",
    "split",
    "with_integrals",
]
