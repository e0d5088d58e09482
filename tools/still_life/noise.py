"""Band-shaped random fields and colour helpers for the procedural textures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def noise(
    shape: tuple[int, int],
    seed: int,
    power: float = 2.0,
    stretch: tuple[float, float] = (1.0, 1.0),
    low: float = 0.0,
    high: float = np.inf,
) -> Array:
    """Tileable Gaussian noise [H, W], zero mean and unit variance, spectrum |f|^-power.

    Args:
        shape: height and width in px.
        seed: of the random generator.
        power: 0 is white, 1 pink-like, 2 and above cloudy (amplitude exponent).
        stretch: features are this many times longer along y and x.
        low: frequencies below it (cycles per picture) are removed.
        high: frequencies above it are removed.
    """
    rng = np.random.default_rng(seed)
    fy = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None] * stretch[0]
    fx = np.fft.rfftfreq(shape[1], 1 / shape[1])[None, :] * stretch[1]
    f = np.hypot(fy, fx)
    f[0, 0] = 1.0
    gain = f**-power * ((f >= low) & (f <= high))
    gain[0, 0] = 0.0
    field = np.fft.irfft2(gain * np.fft.rfft2(rng.standard_normal(shape)), s=shape)
    return np.asarray((field - field.mean()) / (field.std() + 1e-12))


def step(x: ArrayLike, low: float, high: float) -> Array:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((np.asarray(x, float) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def mix(a: ArrayLike, b: ArrayLike, weight: ArrayLike) -> Array:
    """Colours a + weight (b - a); `weight` has no colour axis."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.asarray(a + np.asarray(weight)[..., None] * (b - a))


def ramp(x: ArrayLike, stops: Sequence[tuple[float, Sequence[float]]]) -> Array:
    """Piecewise linear colour map [..., 3] through (position, colour) stops."""
    at = [s[0] for s in stops]
    channels = [np.interp(np.asarray(x, float), at, [s[1][c] for s in stops]) for c in range(3)]
    return np.stack(channels, axis=-1)


def grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Texture coordinates (u, v) [H, W] of the pixel centres; v runs upwards as on a mesh."""
    v = 1 - (np.arange(shape[0]) + 0.5) / shape[0]
    u = (np.arange(shape[1]) + 0.5) / shape[1]
    return np.broadcast_to(u, shape), np.broadcast_to(v[:, None], shape)
