"""Script that checks every stage in float32, both passes, against the float64 reference.

The extension chooses its instruction set once per process: each one needs a process of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from helpers import RESPONSES, World, random_world
from splatrender import operators, reference
from splatrender.interfaces import Blended, Footprints

STAGES = ("project", "shade", "bin", "blend")
NAMES = ("means", "quats", "scales", "sh", "viewmats", "intrinsics", "backgrounds")


def stages_of(package: ModuleType) -> list[Callable[..., Any]]:
    """Return the four stages of the operators or of the reference."""
    modules = (importlib.import_module(f"{package.__name__}.{name}") for name in STAGES)
    return [getattr(module, name) for module, name in zip(modules, STAGES, strict=True)]


def rendered(stages: Sequence[Callable[..., Any]], world: World, response: int) -> Blended:
    """Render a world."""
    project, shade, bin, blend = stages
    lens = world.lens(response)
    projected = project(world.splats(response), lens)
    emission = shade(world.means, world.sh, world.viewmats, projected.extents, 3)
    footprints = Footprints(projected, emission, world.backgrounds)
    images: Blended = blend(footprints, bin(projected, lens), lens)
    return images


def worst_errors(response: int) -> dict[str, float]:
    """Return the error of the image and of each gradient, relative to its largest number."""
    exact_world = random_world(80, cameras=1, seed=4).to(torch.float32).to(torch.float64)
    worlds = {operators: exact_world.to(torch.float32), reference: exact_world}
    results: list[list[Tensor]] = []
    for package, world in worlds.items():
        leaves = [getattr(world, name).requires_grad_() for name in NAMES]
        images = rendered(stages_of(package), world, response)
        loss = images.radiance.square().mean() + images.transmittance.mean()
        gradients = torch.autograd.grad(loss, leaves)
        results.append([images.radiance.detach(), images.transmittance.detach(), *gradients])
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
