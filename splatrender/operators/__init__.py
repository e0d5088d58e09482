"""The forward operators: differentiable torch ops over the compiled kernels, one module a stage."""

from splatrender import _extension

_extension.load()
