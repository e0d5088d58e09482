"""Synthetic scenes to be timed: random splats in a unit cube in front of one camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEAR, EPS2D = 0.01, 0.3
"""Near plane and low-pass filter of every rasterizer that is timed."""
SH_C0 = 0.28209479177387814  # the constant spherical harmonic
SIZES = {
    "W0b": (10_000, -4.0, (800, 600)),
    "W1": (100_000, -4.0, (800, 600)),
    "W2": (100_000, -5.5, (800, 600)),
    "W3": (1_000_000, -5.5, (1920, 1080)),
}
"""Number of splats, mean of the logarithm of their scales, and image size [px], by name."""
TOY = 40  # a toy has this many times fewer splats, in an image of a quarter of width and height


@dataclass(frozen=True, eq=False)
class Workload:
    """Activated splats and the camera that sees them; float32.

    Attributes:
        name: Key in `SIZES`.
        means: [N,3]; quats: [N,4]; scales: [N,3]; opacities: [N]; sh: [N,16,3].
        viewmats: [1,4,4] world-to-camera; intrinsics: [1,4] fx, fy, cx, cy [px].
        width, height: Image size [px].
        grad_radiance: [1,H,W,3], random gradient with which the backward pass begins.
    """

    name: str
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor
    viewmats: Tensor
    intrinsics: Tensor
    width: int
    height: int
    grad_radiance: Tensor

    def __len__(self) -> int:
        return len(self.means)

    def to(self, target: torch.device | torch.dtype) -> Workload:
        """Return the workload on another device or in another precision."""
        tensors: dict[str, Any] = {
            name: value.to(target)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def make_workload(name: str, *, toy: bool = False, seed: int = 0) -> Workload:
    """Make a workload; the same name and seed give the same numbers on every machine.

    Centres fill the unit cube around the origin. The camera is at a distance of 2 on -z, with a
    focal length equal to the image width. Scales are log-normal, opacities the logistic function
    of normal numbers, colours random with weak harmonics of degree 1 to 3.

    Args:
        name: Key in `SIZES`.
        toy: Return a small workload, for tests.
        seed: Random seed.
    """
    count, log_scale, (width, height) = SIZES[name]
    if toy:
        return scatter(name, count // TOY, log_scale, (width // 4, height // 4), seed)
    return scatter(name, count, log_scale, (width, height), seed)


def scatter(
    name: str, count: int, log_scale: float, size: tuple[int, int], seed: int = 0
) -> Workload:
    """Make a workload of any size by the rules of `make_workload`.

    Args:
        name: Name of the workload.
        count: Number of splats.
        log_scale: Mean of the logarithm of their scales.
        size: Image width and height [px].
        seed: Random seed.
    """
    width, height = size
    random = np.random.default_rng(seed)
    means = random.random((count, 3)) - 0.5
    quats = random.standard_normal((count, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    log_scales = log_scale + 0.5 * random.standard_normal((count, 3))
    opacity_logits = random.standard_normal(count)
    sh = np.zeros((count, 16, 3))
    sh[:, 0] = (random.random((count, 3)) - 0.5) / SH_C0
    sh[:, 1:] = 0.05 * random.standard_normal((count, 15, 3))
    grad_radiance = random.standard_normal((1, height, width, 3))
    viewmat = torch.eye(4)
    viewmat[2, 3] = 2.0
    return Workload(
        name=name,
        means=_float32(means),
        quats=_float32(quats),
        scales=_float32(log_scales).exp(),
        opacities=_float32(opacity_logits).sigmoid(),
        sh=_float32(sh),
        viewmats=viewmat[None],
        intrinsics=torch.tensor([[width, width, width / 2, height / 2]], dtype=torch.float32),
        width=width,
        height=height,
        grad_radiance=_float32(grad_radiance),
    )


def _float32(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
