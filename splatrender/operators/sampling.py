"""Point sampling: the forward operator of regression."""

from __future__ import annotations

from torch import Tensor

from splatrender.arguments import require_tensors
from splatrender.operators.differential import Condition, identity


def observations(points: Tensor, values: Tensor, weights: Tensor | None = None) -> Condition:
    """Return data y at points x as a condition with loss ½ Σ w |f(x) − y|² / Σ w.

    Args:
        points: [n, d], in units of the inputs.
        values: [n, p].
        weights: [n] w >= 0, all equal if None.

    Returns:
        The condition.

    Raises:
        InputError: an argument is not a tensor, or shapes do not match.
    """
    require_tensors({"weights": weights}, points=points, values=values)
    total = len(points) if weights is None else weights.sum()
    normal = 1 / total if weights is None else weights / total
    return Condition(points, (identity(),), target=values, weights=normal)
