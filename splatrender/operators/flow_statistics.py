"""Stage `flow_statistics`: exact changes of the squared error by each birth and each death."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.operators.derivatives import refuse_derivative, refuse_vmap, register_fake
from splatrender.operators.inputs import input_errors
from splatrender.operators.options import RESPONSES, response_number
from splatrender.operators.stages import FlowStatistics, Footprints, Lens, TileLists, require_listed

MASSES = (0.15, 0.6, 2.5)
"""Peak optical depths at which a probe is tried: opacities 0.14, 0.45 and 0.92."""


@input_errors
def flow_statistics(
    footprints: Footprints,
    lists: TileLists,
    lens: Lens,
    photos: Tensor,
    masks: Tensor | None,
    levels: Tensor,
) -> FlowStatistics:
    """Compute the change of F = ½ Σ |r|² by each removal and each insertion alone.

    At a pixel let T be the transmittance in front of a splat, α its opacity, c its colour, S̃ the
    light from behind it (background included) as it arrives in front of it, r = radiance - photo:

        removal     ΔC = α/(1-α) (S̃ - T (1-α) c)             insertion   ΔC = α' (T c - S̃)
        ΔF = Σ ⟨r, ΔC⟩ + ½ |ΔC|²

    Probes change no pixel. A probe of mass k has peak levels[k] · peaks and is cut off where its
    own response falls below 1/255, as it would be once it is a splat. A pixel counts as full once
    it would be full without any one of its splats, so removals show the light from behind.

    Args:
        footprints: splats and, in the last rows, probes.
        lists: tile lists of all rows.
        lens: size of the image, and the response.
        photos: [C,H,W,3], uint8 (0..255) or the dtype of means2d (0..1).
        masks: [C,H,W], uint8 or bool, 0 = leave the pixel out; None keeps all.
        levels: [K] peaks of a probe at its masses, relative to its largest (see `levels_of`).

    Returns:
        See `FlowStatistics`; float32 or float64 as the footprints. No gradient.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected.

    Example:
        >>> from splatrender.operators.bin import bin
        >>> from splatrender.operators.stages import Projected
        >>> one, extents = torch.ones(1, 2), 2.0 * torch.ones(1, 2, 2)
        >>> conics = torch.tensor([[[4.0, 0, 4], [4, 0, 4]]])
        >>> projected = Projected(8.5 * torch.ones(1, 2, 2), conics, one, 0.5 * one, extents)
        >>> footprints = Footprints(projected, torch.ones(1, 2, 3), torch.zeros(1, 3), probes=1)
        >>> lens = Lens(torch.eye(4)[None], torch.ones(1, 4), 17, 17)
        >>> white = torch.ones(1, 17, 17, 3)
        >>> out = flow_statistics(
        ...     footprints, bin(projected, lens), lens, white, None, torch.ones(1))
        >>> bool(out.removal > 0), bool(out.insertion[0, 0, 0, 0] < 0)
        (True, True)
    """
    require_listed(footprints, lists, lens)
    require_tensors({"masks": masks}, photos=photos, levels=levels)
    kept = masks.to(torch.uint8) if masks is not None and masks.dtype == torch.bool else masks
    with torch.no_grad():
        error, removal, insertion = torch.ops.splatrender.flow_statistics(
            *footprints.arguments,
            *lists.arguments,
            photos,
            kept,
            levels,
            footprints.probes,
            lens.width,
            lens.height,
            lens.response,
        )
    return FlowStatistics(error, removal, insertion)


def levels_of(masses: Sequence[float], response: str) -> list[float]:
    """Return the peaks at some masses, relative to the peak at the largest, which comes last.

    A mass is a peak optical depth τ: the peak is τ itself for response `beer_lambert`, and the
    opacity 1 - e^{-τ} for `gaussian`.

    Args:
        masses: increasing.
        response: "gaussian" or "beer_lambert".

    Returns:
        One level for each mass.

    Example:
        >>> levels_of((0.5, 2.0), "beer_lambert")
        [0.25, 1.0]
    """
    is_gaussian = response_number(response) == RESPONSES["gaussian"]
    peaks = [-math.expm1(-m) if is_gaussian else m for m in masses]
    return [peak / peaks[-1] for peak in peaks]


@register_fake("flow_statistics")
def _flow_statistics_fake(means2d: Tensor, *args: Any) -> tuple[Tensor, ...]:
    cameras, rows = means2d.shape[:2]
    masses, probes = args[10].shape[0], args[11]
    shapes = (
        (cameras,),
        (cameras, rows - probes),
        (cameras, probes, masses, 5),
    )
    return tuple(means2d.new_empty(shape) for shape in shapes)


refuse_derivative("flow_statistics", "flow_statistics has no gradient: its results are statistics")
refuse_vmap("flow_statistics", "give all cameras in one call")
