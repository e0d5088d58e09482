"""Types of the stages: project, shade, bin, blend, flow_statistics.

The types that the reference shares are defined in `splatrender.interfaces`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from splatrender.arguments import require_tensors, require_type
from splatrender.interfaces import (
    Blended,
    FlowStatistics,
    Footprints,
    Lens,
    Projected,
    SplatTensors,
    TileLists,
)
from splatrender.model.camera import Camera
from splatrender.operators.options import DEFAULTS, RenderOptions
from splatrender.runtime.devices import to_device

__all__ = [
    "Blended",
    "Colors",
    "FlowStatistics",
    "Footprints",
    "Lens",
    "Look",
    "Projected",
    "SplatTensors",
    "TileLists",
    "lens_of",
    "require_listed",
]


def require_listed(footprints: Footprints, lists: TileLists, lens: Lens) -> None:
    """Check that all inputs of a stage that walks the tile lists are of the right types.

    Raises:
        InputError: an argument, or a field of one, has another type.
    """
    require_type("footprints", footprints, Footprints)
    require_type("lists", lists, TileLists)
    require_type("lens", lens, Lens)
    require_tensors(
        means2d=footprints.projected.means2d,
        conics=footprints.projected.conics,
        peaks=footprints.projected.peaks,
        emission=footprints.emission,
        backgrounds=footprints.backgrounds,
        tile_offsets=lists.tile_offsets,
        splat_ids=lists.splat_ids,
        slots=lists.slots,
        splat_offsets=lists.splat_offsets,
    )


@dataclass(frozen=True, eq=False)
class Look:
    """Background and options that a model is rendered with.

    Attributes:
        background: [3] colour behind the splats.
        options: approximation of the transfer equation.

    Example:
        >>> Look().options.response
        'gaussian'
    """

    background: Tensor = field(default_factory=lambda: torch.zeros(3))
    options: RenderOptions = DEFAULTS


@dataclass(frozen=True, eq=False)
class Colors:
    """Colours of splats.

    Attributes:
        values: spherical harmonics [N,K,3] with a degree, else colours [N,D] or [C,N,D].
        degree: highest degree of the harmonics; None for colours.
    """

    values: Tensor
    degree: int | None


def lens_of(cameras: Sequence[Camera], options: RenderOptions, like: Tensor) -> Lens:
    """Return the lens of cameras that share one image size.

    Args:
        cameras: at least one.
        options: approximation of the transfer equation.
        like: tensor whose dtype and device the lens gets.

    Example:
        >>> camera = Camera(torch.eye(4), 100.0, 100.0, 32.0, 24.0, 64, 48)
        >>> lens_of([camera], DEFAULTS, torch.zeros(1)).intrinsics.tolist()
        [[100.0, 100.0, 32.0, 24.0]]
    """
    viewmats = torch.stack([camera.viewmat for camera in cameras])
    intrinsics = torch.stack([camera.intrinsics(like.dtype) for camera in cameras])
    viewmats, intrinsics = (to_device(x, like.device, like.dtype) for x in (viewmats, intrinsics))
    return options.lens(viewmats, intrinsics, cameras[0].width, cameras[0].height)
