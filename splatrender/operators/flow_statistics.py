"""What births and deaths would change: exact changes of the squared error, from the tile lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_tensors, require_type
from splatrender.operators.derivatives import refuse_derivative, refuse_vmap
from splatrender.operators.inputs import input_errors
from splatrender.operators.options import RESPONSES, response_number

MASSES = (0.15, 0.6, 2.5)
"""Peak optical depths at which a probe is tried: opacities 0.14, 0.45 and 0.92."""


@dataclass(frozen=True)
class Footprints:
    """Splats, and behind them probes, as cameras see them.

    Attributes:
        means2d, conics, peaks: see `project`; the last `probes` of the N rows are probes, with the
            peak of their largest mass.
        emission: [C,N,3] colours; those of probes are what their insertion is judged at.
        backgrounds: [C,3].
        probes: how many.
    """

    means2d: Tensor
    conics: Tensor
    peaks: Tensor
    emission: Tensor
    backgrounds: Tensor
    probes: int


@dataclass(frozen=True)
class FlowStatistics:
    """What `flow_statistics` returns; S = N - probes splats, K masses.

    Attributes:
        error: [C] F = 1/2 Σ |radiance - photo|² over the pixels that the mask keeps.
        removal: [C,S] change of F when one splat is removed.
        insertion: [C,probes,K,5] when one probe is inserted: the change e, its slopes g (three) and
            its curvature a in the probe's colour: with colour c + δ the change is
            e + ⟨g, δ⟩ + 1/2 a |δ|², exactly.
    """

    error: Tensor
    removal: Tensor
    insertion: Tensor


@input_errors
def flow_statistics(
    footprints: Footprints,
    bins: tuple[Tensor, Tensor, Tensor, Tensor],
    photos: Tensor,
    masks: Tensor | None,
    levels: Tensor,
    width: int,
    height: int,
    response: int,
) -> FlowStatistics:
    """Compute what each removal and each insertion alone would change of F = 1/2 Σ |r|².

    At a pixel let T be the transmittance in front of a splat, α its opacity, c its colour, S̃ the
    light from behind it (background included) as it arrives in front of it, r = radiance - photo:

        removal     ΔC = α/(1-α) (S̃ - T (1-α) c)             insertion   ΔC = α' (T c - S̃)
        ΔF = Σ ⟨r, ΔC⟩ + 1/2 |ΔC|²

    Probes change no pixel. One of mass k has peak levels[k] · peaks and is cut off where its own
    response falls below 1/255, as it would be once it is a splat. A pixel is taken to be full once
    it would be full without any one of its splats, so that removals show what lies behind.

    Args:
        footprints: splats and probes.
        bins: tile_offsets, splat_ids, slots, splat_offsets of all of them, see `bin_splats`.
        photos: [C,H,W,3], uint8 (0..255) or the dtype of means2d (0..1).
        masks: [C,H,W], uint8 or bool, 0 = leave the pixel out; None keeps all.
        levels: [K] peaks of a probe at its masses, as parts of its largest (see `levels_of`).
        width, height: size of the picture [px].
        response: 0 gaussian, 1 beer_lambert.

    Returns:
        See `FlowStatistics`; float32 or float64 as what goes in. No gradient.

    Raises:
        InputError: an argument has another type, shape, dtype or device than expected.

    Example:
        >>> from splatrender.operators.bin import bin_splats
        >>> one = torch.ones(1, 2)
        >>> prints = Footprints(
        ...     8.5 * torch.ones(1, 2, 2), torch.tensor([[[4.0, 0, 4], [4, 0, 4]]]), 0.5 * one,
        ...     torch.ones(1, 2, 3), torch.zeros(1, 3), probes=1)
        >>> bins = bin_splats(prints.means2d, prints.conics, one, prints.peaks, 2.0 * torch.ones(
        ...     1, 2, 2), 17, 17)
        >>> white = torch.ones(1, 17, 17, 3)
        >>> out = flow_statistics(prints, bins, white, None, torch.ones(1), 17, 17, 0)
        >>> bool(out.removal > 0), bool(out.insertion[0, 0, 0, 0] < 0)
        (True, True)
    """
    p = require_type("footprints", footprints, Footprints)
    require_tensors(
        {"masks": masks},
        means2d=p.means2d, conics=p.conics, peaks=p.peaks, emission=p.emission,
        backgrounds=p.backgrounds, tile_offsets=bins[0], splat_ids=bins[1], slots=bins[2],
        splat_offsets=bins[3], photos=photos, levels=levels,
    )  # fmt: skip
    kept = masks.to(torch.uint8) if masks is not None and masks.dtype == torch.bool else masks
    with torch.no_grad():
        sums = torch.ops.splatrender.flow_statistics(
            p.means2d, p.conics, p.peaks, p.emission, p.backgrounds, *bins, photos, kept,
            levels, p.probes, width, height, response,
        )  # fmt: skip
    return FlowStatistics(*sums[:3])  # an extension built before this version returns one more


def levels_of(masses: Sequence[float], response: str) -> list[float]:
    """Peaks at some masses as parts of the peak at the largest, which comes last.

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


@torch.library.register_fake("splatrender::flow_statistics")
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
