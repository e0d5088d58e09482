"""Thresholds of blending and the size of tiles, independent of those of the kernels."""

CUTOFF = 1 / 255
"""Smallest opacity or optical depth that is drawn: one grey level of an 8-bit image."""

ALPHA_MAX = 0.99
"""Largest opacity of a splat in the gaussian response: transmittance never becomes 0."""

T_MIN = 1e-4
"""Transmittance at which a pixel is full."""

TILE = 16
"""Side of a tile [px]."""
