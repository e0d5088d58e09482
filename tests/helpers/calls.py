"""Small calls of each operator of the extension, as `torch.ops` takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helpers import random_prints, random_world, truths
from splatrender import reference

OPERATORS = (
    "project",
    "project_backward",
    "shade",
    "shade_backward",
    "blend",
    "blend_backward",
    "photometric_loss",
    "adam_step",
)
WIDTHS = ((2,), (3,), (), ())
"""Last axes of the gradients of means2d, conics, depths and peaks."""


def arguments(operator: str, device: str = "cuda") -> list[Any]:
    """Return the arguments of a small call of an operator, in order; always the same numbers."""
    make = torch.Generator().manual_seed(5)
    if operator.startswith("project"):
        args = _project(make, backward=operator.endswith("backward"))
    elif operator.startswith("shade"):
        args = _shade(make, backward=operator.endswith("backward"))
    elif operator.startswith("blend"):
        args = _blend(make, backward=operator.endswith("backward"))
    elif operator == "photometric_loss":
        photo = torch.randint(0, 256, (60, 50, 3), generator=make, dtype=torch.uint8)
        args = [photo / 255 + 0.1 * _normal(make, 60, 50, 3), photo, None, 0.2, True]
    else:
        args = _adam(make)
    return [value.to(device) if isinstance(value, Tensor) else value for value in args]


def _normal(make: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=make)


def _project(make: torch.Generator, backward: bool) -> list[Any]:
    args = random_world(200, cameras=2, seed=2).to(torch.float32).project_args()
    if not backward:
        return args
    extents = truths.project(*args)[4]
    return [*args[:7], extents, *(_normal(make, 2, 200, *last) for last in WIDTHS), *args[7:]]


def _shade(make: torch.Generator, backward: bool) -> list[Any]:
    world = random_world(200, cameras=2, seed=2).to(torch.float32)
    extents = truths.project(*world.project_args())[4]
    args: list[Any] = [world.means, world.sh, world.viewmats, extents, 3]
    if not backward:
        return args
    return [*args[:4], reference.shade(*args), _normal(make, 2, 200, 3), *args[4:]]


def _blend(make: torch.Generator, backward: bool) -> list[Any]:
    prints = random_prints(120, seed=4).to(torch.float32)
    args = prints.blend_args(truths.bin(*prints.bin_args()), with_visibility=False)
    args[13] = None
    if not backward:
        return args
    _, transmittance, _, hits, last = torch.ops.splatrender.blend(*args)
    grads = [_normal(make, 2, 37, 43, 3), _normal(make, 2, 37, 43)]
    return [*args[:9], transmittance, hits, last, *grads, *args[9:12], False]


def _adam(make: torch.Generator) -> list[Any]:
    param, gradient = _normal(make, 300, 16, 3), _normal(make, 300, 16, 3)
    moments = _normal(make, 300, 16, 3), _normal(make, 300, 16, 3).square()
    steps = torch.arange(300, dtype=torch.int32)
    state = [param, gradient, *moments, steps, steps % 3 == 0]
    return [*state, torch.full((48,), 0.1), 0.9, 0.999, 1e-15, 48, True]


def run(operator: str, args: list[Any]) -> list[Tensor]:
    """Call an operator, and return its results or the arguments that it changed."""
    result = getattr(torch.ops.splatrender, operator)(*args)
    if result is None:
        return [args[i] for i in (0, 2, 3, 4)]
    return [result] if isinstance(result, Tensor) else list(result)


def copies(args: list[Any]) -> list[Any]:
    """Return the arguments with each tensor cloned."""
    return [value.clone() if isinstance(value, Tensor) else value for value in args]
