"""An estimate of the noise in data, before a fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_ROWS = 500  # used for the estimate: enough for a median to a few percent
CHI_MEDIAN = 0.4549364231195724  # median of a squared standard normal number


def neighbour_noise(points: Tensor, values: Tensor) -> float:
    """Return the noise's standard deviation, or a bound where neighbours differ by more than noise.

    Some samples are predicted, each from its 2 (d + 1) nearest ones by an affine function, with
    weights w, and

        σ² = median (y − Σ_j w_j y_j)² / (1 + |w|²) / median of χ²₁.

    The median excludes jumps and spikes. Curvature over the distance of neighbours counts as noise:
    the estimate may be too large, but not too small.

    Args:
        points: [n, d].
        values: [n, p].

    Returns:
        σ, the root mean square over outputs; infinity where too few samples differ.

    Source:
        Gasser, Sroka and Jennen-Steinmetz, Residual variance and residual pattern in nonlinear
        regression, Biometrika 73, 1986.

    Example:
        >>> x = torch.linspace(0, 1, 300)[:, None].double()
        >>> noise = 0.1 * torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.08 < neighbour_noise(x, torch.sin(5 * x) + noise) < 0.12
        True
    """
    dims = points.shape[1]
    rows = torch.unique(torch.cat([points, values], dim=1), dim=0)
    points, values = rows[:, :dims], rows[:, dims:]
    near = 2 * (dims + 1)
    if len(points) <= 2 * near:
        return math.inf
    probes = torch.linspace(0, len(points) - 1, min(len(points), MOST_ROWS)).long()
    gaps = torch.cdist(points[probes], points)
    gaps[torch.arange(len(probes)), probes] = math.inf
    ids = gaps.topk(near, dim=1, largest=False).indices  # [m, near]
    offsets = points[ids] - points[probes][:, None]
    size = offsets.norm(dim=2).amax(dim=1).clamp(min=torch.finfo(points.dtype).tiny)
    offsets = offsets / size[:, None, None]
    design = torch.cat([torch.ones_like(offsets[..., :1]), offsets], dim=2)
    weights = torch.linalg.pinv(design)[:, 0]  # that predict the sample
    residual = values[probes] - torch.einsum("mj,mjp->mp", weights, values[ids])
    squares = residual.square() / (1 + weights.square().sum(dim=1))[:, None]
    noise = float((squares.median(dim=0).values.mean() / CHI_MEDIAN).sqrt())
    return noise if noise > 0 else math.inf
