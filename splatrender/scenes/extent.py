"""The extent of cameras: the unit of length of a scene, without cameras that are astray."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 1.1  # the cameras' reach and a little more is 1, as in 3D Gaussian splatting
ASTRAY = 5.0  # times as far as nine tenths of the cameras: no capture known reaches 2
_MOST = 0.9  # cameras that count as the capture itself
_FEWEST = 4  # with fewer cameras, nothing says which of them is wrong


@dataclass(frozen=True, eq=False)
class Extent:
    """Middle and extent of the cameras.

    Args:
        center: float64 [3], mean of the camera centres, those astray left out.
        length: 1.1 times the largest distance of a camera to `center`, those astray left out.
        astray: indices of cameras so far out that they are probably registered wrong.
        times: distance of each of these, relative to the farthest other camera.
    """

    center: Tensor
    length: float
    astray: list[int]
    times: list[float]


def camera_extent(centers: Tensor) -> Extent:
    """Compute the middle and the extent of cameras: their mean c, and 1.1 max |x - c|.

    A camera is astray, and left out of both, where its distance to the median of the centres is
    more than five times that of nine tenths of all cameras. Without such a camera the result is
    the plain formula's, to the bit.

    Args:
        centers: float64 [C, 3], C >= 1.

    Returns:
        The extent; its length is 0 where all cameras share one place.

    Example:
        >>> ring = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [50, 0, 0]])
        >>> camera_extent(ring.double()).astray
        [4]
    """
    distances = (centers - centers.median(dim=0).values).norm(dim=1)
    usual = float(distances.sort().values[int(_MOST * (len(centers) - 1))])
    kept = distances <= ASTRAY * usual
    if len(centers) < _FEWEST or usual == 0:  # 0: nearly all share one place, a tripod's
        kept = torch.ones_like(kept)
    # Not centers[all of them]: a copy may be summed in another order.
    center = (centers if bool(kept.all()) else centers[kept]).mean(dim=0)
    reach = (centers - center).norm(dim=1)
    farthest = float(reach[kept].max())
    astray = (~kept).nonzero()[:, 0].tolist()
    return Extent(center, MARGIN * farthest, astray, [float(reach[i]) / farthest for i in astray])
