"""Types that travel between the stages: project, shade, bin, blend."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from splatrender.operators.options import DEFAULTS, RenderOptions


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
