"""The stages of the renderer in pure torch: slow, short, any floating dtype, gradients by autograd.

Every function has the signature of the operator of the same name, so that one test body serves
both. It is the second of three truths: quadrature of the transfer equation, these formulas in
float64, the kernels.
"""

from splatrender.reference.bin import bin_splats
from splatrender.reference.blend import blend, blend_dense
from splatrender.reference.flow_statistics import flow_statistics
from splatrender.reference.project import project
from splatrender.reference.render import rasterize
from splatrender.reference.shade import shade

__all__ = ["bin_splats", "blend", "blend_dense", "flow_statistics", "project", "rasterize", "shade"]
