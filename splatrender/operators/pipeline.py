"""Composition of the stages before the tile lists: project and shade."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splatrender.operators.project import project
from splatrender.operators.shade import shade
from splatrender.operators.stages import Colors, Footprints, Lens, SplatTensors


def footprints_of(
    splats: SplatTensors, colors: Sequence[Colors], backgrounds: Tensor, lens: Lens
) -> Footprints:
    """Project and shade splats.

    Args:
        splats: N splats.
        colors: colours of consecutive splats, N in all.
        backgrounds: [C,D].
        lens: cameras and their optics.

    Returns:
        Footprints that `bin` and `blend` take.
    """
    projected = project(splats, lens)
    if len(colors) == 1:
        emission = _emission(colors[0], splats.means, projected.extents, lens)
    else:
        counts = [part.values.shape[0] for part in colors]
        rows = zip(
            colors,
            splats.means.split(counts),
            projected.extents.split(counts, dim=1),
            strict=True,
        )
        parts = [_emission(part, means, extents, lens) for part, means, extents in rows]
        emission = torch.cat(parts, dim=1)
    return Footprints(projected, emission, backgrounds)


def _emission(colors: Colors, means: Tensor, extents: Tensor, lens: Lens) -> Tensor:
    """Return the colours [C,N,D] that the cameras see."""
    if colors.degree is None:
        return colors.values.expand(len(lens.viewmats), -1, -1)
    return shade(means, colors.values, lens.viewmats, extents.contiguous(), colors.degree)
