"""Views that see no splats: they contribute no gradient."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.operators.options import RenderOptions
from splatrender.operators.project import project
from splatrender.operators.render import peak_amplitudes
from splatrender.operators.stages import SplatTensors, lens_of

logger = logging.getLogger(__name__)

FEW = 10  # splats, or one in a hundred where there are fewer than a thousand
_MOST_SPLATS = 100_000  # that are projected: an evenly spread sample of more


@torch.no_grad()
def views_without_splats(
    views: Sequence[View], splats: Splats, options: RenderOptions
) -> list[str]:
    """Return the names of views that see almost no splat.

    Their images meet fewer than 10 splats, and fewer than one in a hundred.

    Args:
        views: views, of which only the cameras are used.
        splats: splats on any device.
        options: options that the splats are rendered with.
    """
    every = -(-len(splats) // _MOST_SPLATS) if len(splats) else 1
    some = splats.detach().map(lambda tensor: tensor[::every].contiguous())
    least = min(FEW, 0.01 * len(some))
    amplitudes = peak_amplitudes(some.opacity_logits, some.scales, options.response)
    tensors = SplatTensors(some.means, amplitudes, some.quats, some.scales)
    counts = []
    for view in views:
        counts.append(project(tensors, lens_of([view.camera], options, some.means)).visible.sum())
    seen = torch.stack(counts).tolist() if counts else []
    return [view.name for view, count in zip(views, seen, strict=True) if not count > least]


def warn_of_blind_views(
    views: Sequence[View], splats: Splats, options: RenderOptions, when: str
) -> None:
    """Log a warning that names the views that see almost no splat.

    Args:
        views, splats, options: see `views_without_splats`.
        when: "at the start" or "at the end".
    """
    blind = views_without_splats(views, splats, options)
    if blind:
        logger.warning(
            "%d of %d views see almost none of the %s splats %s: %s; are the points behind these "
            "cameras, or of another model?",
            len(blind),
            len(views),
            f"{len(splats):,}",
            when,
            ", ".join(blind[:3]) + (", ..." if len(blind) > 3 else ""),
        )
