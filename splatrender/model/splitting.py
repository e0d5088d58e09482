"""Division of a splat into two that together look like it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from splatrender.model import Splats
from splatrender.model.quaternions import rotate

APART = math.sqrt(0.75)  # standard deviations from the parent's place, along its longest axis


def divide(splats: Splats) -> tuple[Splats, Splats]:
    """Twins of half the length, side by side along the longest axis.

    b' = b ± √(3/4) s e,  s' = s / 2, with s the longest standard deviation and e its axis; the
    peak opacity stays. Two of half the length have the optical mass of one, and since
    s'² + 3/4 s² = s², mean and covariance of the mass stay, too: only its fourth moments change.

    Args:
        splats: N parents.

    Returns:
        N twins on one side, N on the other.

    Example:
        >>> parents = Splats.random(5, seed=0)
        >>> one, other = divide(parents)
        >>> bool(((one.means + other.means) / 2 - parents.means).abs().max() < 1e-6)
        True
    """
    splats = splats.detach()
    axis = splats.log_scales.argmax(dim=1, keepdim=True)
    longest = torch.zeros_like(splats.scales).scatter_(1, axis, splats.scales.gather(1, axis))
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    offset = APART * rotate(quats, longest)
    halved = torch.zeros_like(splats.log_scales).scatter_(1, axis, -math.log(2.0))

    def twin(shift: Tensor) -> Splats:
        same = splats.clone()
        return replace(same, means=same.means + shift, log_scales=same.log_scales + halved)

    return twin(offset), twin(-offset)
