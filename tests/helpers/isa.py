"""Run as a script: every stage in float32, forward and backward, against the float64 reference.

The extension chooses its instruction set once per process, so each one needs a process of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers import RESPONSES, random_world
from splatrender import reference
from splatrender.operators.bin import bin_splats
from splatrender.operators.blend import blend
from splatrender.operators.project import project
from splatrender.operators.shade import shade

NAMES = ("means", "quats", "scales", "sh", "viewmats", "intrinsics", "backgrounds")


def worst_errors(response: int) -> dict[str, float]:
    """Error of the picture and of each gradient, relative to its largest number."""
    exact_world = random_world(80, cameras=1, seed=4).to(torch.float32).to(torch.float64)
    kernels = (project, shade, bin_splats, blend)
    truths = (reference.project, reference.shade, reference.bin_splats, reference.blend)
    results: list[list[Tensor]] = []
    for stages, world in ((kernels, exact_world.to(torch.float32)), (truths, exact_world)):
        leaves = [getattr(world, name).requires_grad_() for name in NAMES]
        first, second, third, fourth = stages
        means2d, conics, depths, peaks, extents = first(*world.project_args(response))
        light = second(world.means, world.sh, world.viewmats, extents, 3)
        size = world.width, world.height
        bins = third(means2d, conics, depths, peaks, extents, *size)
        shape = (means2d, conics, peaks, light, world.backgrounds)
        radiance, transmittance, *_ = fourth(*shape, *bins, *size, response, False)
        loss = radiance.square().mean() + transmittance.mean()
        gradients = torch.autograd.grad(loss, leaves)
        results.append([radiance.detach(), transmittance.detach(), *gradients])
    return {
        name: float((found - exact).abs().max() / exact.abs().max())
        for name, found, exact in zip(("radiance", "transmittance", *NAMES), *results, strict=True)
    }


if __name__ == "__main__":
    for one in RESPONSES:
        errors = worst_errors(one)
        bad = {name: error for name, error in errors.items() if not error < 1e-4}
        assert not bad, f"response {one}: {bad}"
    print("agrees")
