"""The model: a measure made of Gaussian splats."""

from splatrender.model.splats import SH_C0, Splats

__all__ = ["SH_C0", "Splats"]
