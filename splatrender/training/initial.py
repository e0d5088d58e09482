"""The first splats of a run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splatrender.model import Splats

SEED_OPACITY = 0.5  # seed points are surfaces: begun at 0.1, training is behind by 0.3 to 0.5 dB
SEED_SCALE = 0.7  # share of the distance to neighbours: splats so opaque need not overlap as much
RANDOM_POINTS = 20_000
RANDOM_OPACITY = 0.1  # most random points are in empty space
RANDOM_EXTENT = 1.5  # half the side of the cube, cameras are within 1 of the origin


def initial_splats(
    points: Tensor, colors: Tensor, max_splats: int, random: bool, generator: torch.Generator
) -> Splats:
    """Return splats of degree 0 at a scene's points, or at random ones.

    Args:
        points: [P, 3] seed points; with P = 0 random points are used.
        colors: [P, 3] uint8.
        max_splats: budget; of more points a random part is taken.
        random: use random points although there are others. They fill the cube of the cameras;
            half the budget, at most 20,000, so that births have room.
        generator: source of randomness.

    Returns:
        At most `max_splats` splats.
    """
    if random or len(points) == 0:
        count = max(1, min(RANDOM_POINTS, max_splats // 2))
        points = (torch.rand(count, 3, generator=generator) * 2 - 1) * RANDOM_EXTENT
        colors = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
        return Splats.from_points(points, colors, degree=0, opacity=RANDOM_OPACITY)
    if len(points) > max_splats:
        kept = torch.randperm(len(points), generator=generator)[:max_splats].sort().values
        points, colors = points[kept], colors[kept]
    splats = Splats.from_points(points, colors, degree=0, opacity=SEED_OPACITY)
    splats.log_scales.add_(math.log(SEED_SCALE))
    return splats
