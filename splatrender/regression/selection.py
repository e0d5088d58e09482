"""Numbers of splats and of starts that data support, and the criterion that selects among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

AUTO_SPLATS = 400  # maximum for "auto"
FIRST_SPLATS = 6  # growth begins here: few enough that the data decide every birth
STARTS = 2  # at most, of which the best grown one is searched further
SCARCE = 4  # numbers of data for each of the model, below which data distinguish minima badly:
STARTS_OF_SCARCE = 4  # then more starts, which are cheap there
SPACING = 0.3  # smallest scale over the mean spacing: smaller splats describe single samples


@dataclass(frozen=True)
class Budget:
    """Sizes of a search.

    Attributes:
        most: maximum number of splats.
        first: number of splats at a start.
        starts: maximum number of starts.
        each: number of parameters of a splat.
    """

    most: int
    first: int
    starts: int
    each: int


def budget_of(n_splats: int | str, count: int, dims: int, outputs: int) -> Budget:
    """Return the sizes of a search in data.

    Args:
        n_splats: maximum number of splats, or "auto".
        count: number of samples n.
        dims: number of inputs d.
        outputs: number of outputs p.
    """
    each = outputs + dims * (dims + 3) // 2
    affordable = max(1, (count * outputs - 3) // each)  # more parameters than data have no meaning
    most = min(requested(n_splats), affordable)
    scarce = count * outputs < SCARCE * most * each
    starts = STARTS_OF_SCARCE if scarce else STARTS
    return Budget(most, min(FIRST_SPLATS, max(1, most // 2)), starts, each)


def requested(n_splats: int | str) -> int:
    """Return the maximum number of splats that a user asks for."""
    return AUTO_SPLATS if n_splats == "auto" else int(n_splats)


def smallest_scale(min_scale: float | str, count: int, dims: int) -> float:
    """Return the smallest standard deviation, relative to the inputs' ranges."""
    if isinstance(min_scale, str):
        return SPACING * float(count ** (-1 / dims))
    return min_scale


def corrected_akaike(rows: int, factor: float, first: int) -> Callable[[int], float] | None:
    """Return AICc over n data as a function of the parameters: 2 q / (n − q − 1).

    Too few data for the criterion (q >= n − 2 at the first splats) leave it out: only the number
    of data bounds the number of splats then.

    Args:
        rows: number of data n.
        factor: q over the number of parameters; 0 for no criterion.
        first: parameters of the first splats.

    Source:
        Hurvich and Tsai, Biometrika 76, 1989.
    """
    if not factor or factor * first >= rows - 2:
        return None

    def penalty(parameters: int) -> float:
        q = factor * parameters
        return 2 * q / (rows - q - 1) if q < rows - 2 else math.inf

    return penalty
