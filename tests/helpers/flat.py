"""Stages with the flat arguments of their op schemas.

Tests cast, spoil and differentiate arguments by their position in a schema, on the reference and on
the kernels alike; outputs are tuples.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from splatrender.interfaces import Footprints, Lens, Projected, SplatTensors, TileLists

Flat = Callable[..., Any]


def lens_of(width: int, height: int, response: int = 0) -> Lens:
    """Return a lens for stages behind `project`, which read no cameras."""
    nothing = torch.empty(0)
    return Lens(nothing, nothing, width, height, response=response)


def project(stage: Callable[..., Projected]) -> Flat:
    """(means, quats, scales, factors, amplitudes, *lens) -> the fields of `Projected`."""

    def flat(*args: Any) -> tuple[Tensor, ...]:
        means, quats, scales, factors, amplitudes, *lens = args
        splats = SplatTensors(means, amplitudes, quats, scales, factors)
        return stage(splats, Lens(*lens)).arguments

    return flat


def bin(stage: Callable[..., TileLists]) -> Flat:
    """(means2d, conics, depths, peaks, extents, width, height) -> the fields of `TileLists`."""

    def flat(*args: Any) -> tuple[Tensor, ...]:
        *tensors, width, height = args
        return stage(Projected(*tensors), lens_of(width, height)).arguments

    return flat


def footprints_of(tensors: Any, probes: int = 0) -> Footprints:
    """Return footprints from means2d, conics, peaks, emission, backgrounds."""
    means2d, conics, peaks, emission, backgrounds = tensors
    projected = Projected(means2d, conics, peaks, peaks, means2d)
    return Footprints(projected, emission, backgrounds, probes)


def blend(stage: Callable[..., Any]) -> Flat:
    """(5 of footprints, 4 of lists, width, height, response, visibility, absgrad) -> 4 images."""

    def flat(*args: Any) -> tuple[Tensor, ...]:
        images = stage(
            footprints_of(args[:5]),
            TileLists(*args[5:9]),
            lens_of(*args[9:12]),
            visibility=args[12],
            absgrad=len(args) > 13 and args[13],
        )
        return images.radiance, images.transmittance, images.visibility, images.hits

    return flat


def blend_dense(stage: Callable[..., tuple[Tensor, Tensor]]) -> Flat:
    """(means2d, conics, depths, peaks, emission, backgrounds, width, height, response)."""

    def flat(*args: Any) -> tuple[Tensor, Tensor]:
        means2d, conics, depths, peaks, emission, backgrounds = args[:6]
        projected = Projected(means2d, conics, depths, peaks, means2d)
        return stage(Footprints(projected, emission, backgrounds), lens_of(*args[6:]))

    return flat


def flow_statistics(stage: Callable[..., Any]) -> Flat:
    """(5 of footprints, 4 of lists, photos, masks, levels, probes, width, height, response)."""

    def flat(*args: Any) -> tuple[Tensor, ...]:
        photos, masks, levels, probes, *size = args[9:]
        footprints, lists = footprints_of(args[:5], probes), TileLists(*args[5:9])
        out = stage(footprints, lists, lens_of(*size), photos, masks, levels)
        return out.error, out.removal, out.insertion

    return flat


def flattened(adapter: Callable[[Flat], Flat], stage: Flat) -> Flat:
    """Return `adapter(stage)`; inspect.unwrap gives the same without what decorates the stage."""
    flat = adapter(stage)
    flat.__wrapped__ = adapter(inspect.unwrap(stage))  # type: ignore[attr-defined]
    return flat
