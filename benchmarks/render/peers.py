"""Whole calls of splatrender and gsplat, and the check that two rasterizers do equal work."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.render.kernels import DEGREE
from benchmarks.render.timing import Laps, Rasterizer
from benchmarks.render.workloads import EPS2D, NEAR, Workload
from splatrender.operators.options import RenderOptions
from splatrender.operators.render import rasterize

LEAVES = ("means", "quats", "scales", "opacities", "sh")
MAX_DIFFERENT = 2e-5  # part of the image's numbers that may differ: responses on the cut-off
SMALLEST_COSINE = 0.999  # of gsplat's gradients: it stops blending a full pixel one splat apart


class Ours:
    """splatrender's `rasterize` on a workload, as a user calls it.

    Attributes:
        radiance: [H,W,3] of the last pass, without a graph.
        gradients: Gradients of the last pass, by the names in `LEAVES`.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        leaves = {name: getattr(workload, name).clone().requires_grad_() for name in LEAVES}
        self.leaves: dict[str, Tensor] = leaves
        self.radiance = torch.empty(0)
        self.gradients: dict[str, Tensor] = {}

    def render(self) -> Tensor:
        """Return radiance [1,H,W,3]."""
        w = self.workload
        means, quats, scales, opacities, sh = self.leaves.values()
        result = rasterize(
            means,
            quats,
            scales,
            opacities,
            sh,
            w.viewmats,
            w.intrinsics,
            w.width,
            w.height,
            sh_degree=DEGREE,
            options=RenderOptions(near=NEAR, eps2d=EPS2D),
        )
        return result.radiance

    def run(self, laps: Laps) -> None:
        """Run a forward pass, then a forward and a backward one."""
        with torch.no_grad():
            laps.measure("forward", self.render)
        self.forget_gradients()
        laps.measure("forward + backward", self._both)
        self.gradients = {
            name: leaf.grad for name, leaf in self.leaves.items() if leaf.grad is not None
        }

    def forget_gradients(self) -> None:
        """Release the memory of all gradients."""
        self.gradients = {}
        for leaf in self.leaves.values():
            leaf.grad = None

    def _both(self) -> None:
        radiance = self.render()
        radiance.backward(self.workload.grad_radiance)
        self.radiance = radiance.detach()[0]


class Gsplat(Ours):
    """gsplat's `rasterization` of the same splats, with the same tiles, harmonics and cut-offs."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        fx, fy, cx, cy = workload.intrinsics[0].tolist()
        rows = [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
        self._intrinsics = torch.tensor([rows], device=workload.means.device)
        self._function: Callable[..., Any] = importlib.import_module("gsplat").rasterization
        self._options = {
            "near_plane": NEAR,
            "eps2d": EPS2D,
            "sh_degree": DEGREE,
            "packed": False,
            "tile_size": 16,
        }

    def render(self) -> Tensor:
        """Return radiance [1,H,W,3]."""
        w = self.workload
        lens = (w.viewmats, self._intrinsics, w.width, w.height)
        radiance: Tensor = self._function(*self.leaves.values(), *lens, **self._options)[0]
        return radiance


def has_gsplat() -> bool:
    """Return True if gsplat is installed."""
    return importlib.util.find_spec("gsplat") is not None


def agreement(ours: Rasterizer, theirs: Rasterizer) -> dict[str, float]:
    """Compare image and gradients of two rasterizers, to show that they do the same work."""
    difference = (ours.radiance - theirs.radiance).abs()
    figures = {
        "largest difference": float(difference.max()),
        "part that differs by 1e-3": float((difference > 1e-3).float().mean()),
    }
    for name, gradient in ours.gradients.items():
        other = theirs.gradients[name]
        one, two = gradient.flatten().double(), other.flatten().double()
        figures[f"cosine of {name}"] = float(torch.cosine_similarity(one, two, dim=0))
    return figures


def smallest_cosine(figures: dict[str, float]) -> float:
    """Return the cosine of the gradient that differs most."""
    return min(value for part, value in figures.items() if part.startswith("cosine"))


def check_agreement(name: str, figures: dict[str, float]) -> None:
    """End the program unless the scalar peer renders what the kernels render."""
    # Where a response is on the cut-off to within rounding, one rasterizer may add 1/255 that the
    # other omits: such pixels are rare, and their difference is bounded.
    same = figures["part that differs by 1e-3"] <= MAX_DIFFERENT
    near = figures["largest difference"] < 2 / 255
    if not (same and near and smallest_cosine(figures) > 0.9999):
        raise SystemExit(f"{name}: expected equal images and gradients, got {figures}")


def agrees_with_gsplat(figures: dict[str, float]) -> bool:
    """Return True if gsplat does equal work: only then are times compared."""
    same = figures["part that differs by 1e-3"] <= 10 * MAX_DIFFERENT
    near = figures["largest difference"] < 4 / 255
    return same and near and smallest_cosine(figures) > SMALLEST_COSINE
