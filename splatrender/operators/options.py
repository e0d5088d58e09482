"""Options of a rendering: the approximation of the transfer equation that is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from splatrender.arguments import require_flag, require_integer, require_number
from splatrender.errors import InputError
from splatrender.interfaces import Lens
from splatrender.model.splats import MAX_DEGREE

RESPONSES = {"gaussian": 0, "beer_lambert": 1}


def response_number(response: str) -> int:
    """Return the number of a response in the op schemas.

    Raises:
        InputError: the response is unknown.

    Example:
        >>> response_number("beer_lambert")
        1
    """
    if not isinstance(response, str) or response not in RESPONSES:
        known = " or ".join(map(repr, RESPONSES))
        raise InputError(f"response: expected {known}, got {response!r}")
    return RESPONSES[response]


@dataclass(frozen=True)
class RenderOptions:
    """Approximation of the transfer equation that is rendered.

    Attributes:
        response: "gaussian" (α = opacity · G, as 3DGS) or "beer_lambert" (α = 1 - e^{-τ}).
        antialiased: keep the integral of footprints smaller than a pixel.
        near, far: splats with camera z outside (near, far) are culled [scene units].
        eps2d: variance added to every footprint [px²].
        sh_degree: highest degree of harmonics that is used; None uses all that are stored.
        check: check all numbers first: impossible ones (NaN, zero quaternions, logits where
            opacities belong) raise an `InputError`, implausible ones (a camera that sees no splat)
            give an `InputWarning`. `splatrender.debug` enables the check everywhere.
    """

    response: str = "gaussian"
    antialiased: bool = False
    near: float = 0.01
    far: float = math.inf
    eps2d: float = 0.3
    sh_degree: int | None = None
    check: bool = False

    def __post_init__(self) -> None:
        response_number(self.response)
        require_number("near", self.near, least=0, open_=True)
        if not (isinstance(self.far, float) and self.far == math.inf):
            require_number("far", self.far)
        if not self.near < self.far:
            raise InputError(f"near, far: expected near < far, got {self.near}, {self.far}")
        require_number("eps2d", self.eps2d, least=0)
        for name in ("antialiased", "check"):
            object.__setattr__(self, name, require_flag(name, getattr(self, name)))
        if self.sh_degree is not None:
            require_integer("sh_degree", self.sh_degree, 0, MAX_DEGREE)

    def lens(self, viewmats: Tensor, intrinsics: Tensor, width: int, height: int) -> Lens:
        """Return the lens of cameras that are rendered with these options.

        Args:
            viewmats: [C,4,4] world-to-camera, OpenCV axes.
            intrinsics: [C,4] fx, fy, cx, cy [px].
            width, height: size of the image [px].
        """
        response = RESPONSES[self.response]
        optics = (self.near, self.far, self.eps2d, self.antialiased, response)
        return Lens(viewmats, intrinsics, width, height, *optics)


DEFAULTS = RenderOptions()
