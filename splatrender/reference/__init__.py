"""The stages of the renderer in pure torch: slow, short, any floating dtype, gradients by autograd.

Every function has the signature of the operator of the same name; one test body runs on both. The
reference is independent of the operators and of the compiled extension.
"""

from splatrender.reference.bin import bin
from splatrender.reference.blend import blend, blend_dense
from splatrender.reference.flow_statistics import flow_statistics
from splatrender.reference.project import project
from splatrender.reference.render import rasterize
from splatrender.reference.shade import shade

__all__ = ["bin", "blend", "blend_dense", "flow_statistics", "project", "rasterize", "shade"]
