"""The forward operators: differentiable torch ops over compiled kernels, one module per stage."""

from splatrender import _extension

_extension.load()
