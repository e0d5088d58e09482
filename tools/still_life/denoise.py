"""Removal of the Monte Carlo noise that is left after a few dozen samples per pixel.

Joint non-local means on the demodulated picture (radiance over albedo, so that textures survive):
pixels are averaged with neighbours that lie on the same surface and whose small patches agree
within the noise. The noise is known from independent passes; each half of the passes is filtered
with weights of the other half, so that noise does not steer its own removal.

Source: Rousselle, Manzi, Zwicker, "Robust Denoising using Feature and Color Information", 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
_ALBEDO_FLOOR = 0.04


@dataclass(frozen=True)
class Features:
    """Per pixel: albedo, unit normal and world position [H, W, 3], depth [H, W]."""

    albedo: Image
    normal: Image
    position: Image
    depth: Image


def _box(image: Image) -> Image:
    """Mean over 3 x 3 px, edges repeated."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9))


def _same_surface(f: Features, here: tuple[slice, slice], there: tuple[slice, slice]) -> Image:
    """Weight of pixel pairs from their normals and from their distance to each other's plane."""
    n0, n1 = f.normal[here], f.normal[there]
    apart = f.position[there] - f.position[here]
    plane = np.maximum(np.abs((apart * n0).sum(-1)), np.abs((apart * n1).sum(-1)))
    scale = np.float32(0.003) * np.minimum(f.depth[here], f.depth[there]) + np.float32(1e-4)
    turn = ((n0 - n1) ** 2).sum(-1)
    hue = ((f.albedo[here] - f.albedo[there]) ** 2).sum(-1)
    return np.asarray(
        np.exp(-((plane / scale) ** 2) - turn / np.float32(0.04) - hue / np.float32(0.08))
    )


def denoise(passes: Image, features: Features, radius: int = 8, strength: float = 0.55) -> Image:
    """Return filtered radiance [H, W, 3].

    Args:
        passes: [K, H, W, 3] independent renderings, K even and at least 4.
        features: of the same pixels, averaged over all passes.
        radius: of the search window, px.
        strength: patches differing by `strength` standard deviations still count as alike.
    """
    base = features.albedo + np.float32(_ALBEDO_FLOOR)
    light = (passes / base).astype(np.float32)
    half = len(light) // 2
    halves = [light[:half].mean(0), light[half:].mean(0)]
    grey = [h.mean(-1) for h in halves]
    variance = []
    for part in (light[:half], light[half:]):
        variance.append(
            _box(_box(part.mean(-1).var(0, ddof=1) / np.float32(half))) + np.float32(1e-7)
        )
    height, width = features.depth.shape
    total = [h.copy() for h in halves]
    weight = [np.ones((height, width), np.float32) for _ in halves]
    for dy in range(0, radius + 1):
        for dx in range(-radius, radius + 1):
            if (dy == 0 and dx <= 0) or dx * dx + dy * dy > radius * radius:
                continue
            here = slice(0, height - dy), slice(max(0, -dx), width - max(0, dx))
            there = slice(dy, height), slice(max(0, dx), width + min(0, dx))
            surface = _same_surface(features, here, there)
            for k in (0, 1):
                other = 1 - k
                v0, v1 = variance[other][here], variance[other][there]
                gap = (grey[other][here] - grey[other][there]) ** 2 - (v0 + np.minimum(v0, v1))
                alike = np.exp(-np.maximum(_box(gap / (np.float32(strength**2) * (v0 + v1))), 0))
                w = surface * alike
                total[k][here] += w[..., None] * halves[k][there]
                total[k][there] += w[..., None] * halves[k][here]
                weight[k][here] += w
                weight[k][there] += w
    mean = (total[0] / weight[0][..., None] + total[1] / weight[1][..., None]) / 2
    return np.asarray(mean * base)
