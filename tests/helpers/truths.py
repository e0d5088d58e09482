"""The stages of the reference with flat arguments, see `helpers.flat`."""

from __future__ import annotations

from helpers import flat
from splatrender import reference
from splatrender.reference import rasterize, shade

project = flat.project(reference.project)
bin = flat.bin(reference.bin)
blend = flat.blend(reference.blend)
blend_dense = flat.blend_dense(reference.blend_dense)
flow_statistics = flat.flow_statistics(reference.flow_statistics)

__all__ = [
    "bin",
    "blend",
    "blend_dense",
    "flow_statistics",
    "project",
    "rasterize",
    "shade",
]
