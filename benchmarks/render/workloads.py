"""The synthetic scenes that are timed: random splats in a unit cube before one camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

SH_C0 = 0.28209479177387814  # the constant spherical harmonic
SIZES = {
    "W0b": (10_000, -4.0, (800, 600)),
    "W1": (100_000, -4.0, (800, 600)),
    "W2": (100_000, -5.5, (800, 600)),
    "W3": (1_000_000, -5.5, (1920, 1080)),
}
"""Number of splats, mean of the logarithm of their scales, and picture [px], by name."""
TOY = 40  # a toy has so many times fewer splats, on a picture of a quarter of the width and height


@dataclass(frozen=True, eq=False)
class Workload:
    """Splats, activated, and the camera that sees them; float32.

    Attributes:
        name: of the workload.
        means: [N,3]; quats: [N,4]; scales: [N,3]; opacities: [N]; sh: [N,16,3].
        viewmats: [1,4,4] world-to-camera; intrinsics: [1,4] fx, fy, cx, cy [px].
        width, height: of the picture [px].
        grad_radiance: [1,H,W,3], random: what the backward pass begins with.
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

    def to(self, device: torch.device) -> Workload:
        """The same on another device."""
        tensors = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def make_workload(name: str, *, toy: bool = False, seed: int = 0) -> Workload:
    """Make a workload; the same name and seed give the same numbers on every machine.

    Centres fill the unit cube around the origin, seen from -z at a distance of 2 with a focal
    length of as many pixels as the picture is wide. Scales are log-normal, opacities the logistic
    function of normal numbers, colours random with weak harmonics of degree 1 to 3.

    Args:
        name: in `SIZES`.
        toy: a small one, for tests.
        seed: of the random numbers.

    Returns:
        The workload.
    """
    count, log_scale, (width, height) = SIZES[name]
    if toy:
        return scatter(name, count // TOY, log_scale, (width // 4, height // 4), seed)
    return scatter(name, count, log_scale, (width, height), seed)


def scatter(
    name: str, count: int, log_scale: float, size: tuple[int, int], seed: int = 0
) -> Workload:
    """A workload of any size, made as `make_workload` says.

    Args:
        name: of the workload.
        count: number of splats.
        log_scale: mean of the logarithm of their scales.
        size: width and height of the picture [px].
        seed: of the random numbers.

    Returns:
        The workload.
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


def _float32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
