"""Thresholds of blending and the size of tiles, as compiled into the kernels.

`splatrender.reference.thresholds` has its own copy; tests/stages/test_thresholds.py compares both.
"""

from __future__ import annotations

import torch

CUTOFF: float
"""Smallest opacity or optical depth that is drawn: one grey level of an 8-bit image."""

ALPHA_MAX: float
"""Largest opacity of a splat in the gaussian response: 1 / (1 - α) stays bounded."""

T_MIN: float
"""Transmittance at which a pixel is full: later splats do not show in an 8-bit image."""

TILE: int
"""Side of a tile [px]."""

CUTOFF, ALPHA_MAX, T_MIN, TILE = torch.ops.splatrender.thresholds()
