"""Which views see the splats: a view that sees none learns nothing, and teaches nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.operators.options import RESPONSES, RenderOptions
from splatrender.operators.project import project
from splatrender.operators.render import peak_amplitudes

logger = logging.getLogger(__name__)

FEW = 10  # splats, or one in a hundred where there are fewer than a thousand
_MOST_SPLATS = 100_000  # that are looked at: evenly spread ones of more


@torch.no_grad()
def views_without_splats(
    views: Sequence[View], splats: Splats, options: RenderOptions
) -> list[str]:
    """Names of the views that see almost no splat.

    Those are the views whose pictures fewer than 10 splats touch, and fewer than one in a hundred.

    Args:
        views: their cameras are used.
        splats: on any device.
        options: as the splats are rendered with.
    """
    every = -(-len(splats) // _MOST_SPLATS) if len(splats) else 1
    some = splats.detach().map(lambda tensor: tensor[::every].contiguous())
    least = min(FEW, 0.01 * len(some))
    amplitudes = peak_amplitudes(some.opacity_logits, some.scales, options.response)
    counts = []
    for view in views:
        camera = view.camera
        extents = project(
            some.means, some.quats, some.scales, None, amplitudes,
            camera.viewmat[None].to(some.means), camera.intrinsics()[None].to(some.means),
            camera.width, camera.height, options.near, options.far, options.eps2d,
            options.antialiased, RESPONSES[options.response],
        )[4]  # fmt: skip
        counts.append((extents[0, :, 0] > 0).sum())
    seen = torch.stack(counts).tolist() if counts else []
    return [view.name for view, count in zip(views, seen, strict=True) if not count > least]


def warn_of_blind_views(
    views: Sequence[View], splats: Splats, options: RenderOptions, when: str
) -> None:
    """Name the views that see almost no splat in a warning.

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
