"""Schedules of training, as functions of the iteration (1 ... iterations).

Every schedule is proportional to the length of the run, so that a run of a few hundred iterations
passes through the same stages as one of thirty thousand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

REFERENCE_ITERATIONS = 7000  # runs at least this long use intervals unscaled
FULL_ITERATIONS = 30_000  # length of the run that the step sizes of the field were chosen for


@dataclass(frozen=True)
class LearningRates:
    """Step sizes of Adam for a run of 30,000 iterations, in a scene whose cameras span one unit.

    Those of the means are five times the customary ones, which gave 0.2 to 0.7 dB on a scene of
    43 photos, with 8,000 to 20,000 splats and 1,000 to 7,000 iterations.

    Source:
        Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023.
    """

    means: float = 8e-4  # [scene units], at the start
    means_final: float = 8e-6  # [scene units], at the end
    quats: float = 1e-3
    log_scales: float = 5e-3
    opacity_logits: float = 5e-2
    sh_constant: float = 2.5e-3
    sh_directional: float = 1.25e-4  # 1/20 of the constant: directions must not explain geometry

    def for_run(self, iterations: int) -> LearningRates:
        """Return the step sizes for a shorter run: larger, as there are fewer of them.

        rate * b with b = √(30000 / iterations), 1 <= b <= 10: a random walk of all steps
        reaches as far; opacities, which saturate, get √b.

        Args:
            iterations: length of the run.

        Returns:
            New step sizes.

        Example:
            >>> round(LearningRates().for_run(1200).quats, 6)
            0.005
        """
        boost = min(10.0, max(1.0, math.sqrt(FULL_ITERATIONS / iterations)))
        rates = {field.name: boost * getattr(self, field.name) for field in fields(self)}
        rates["opacity_logits"] = math.sqrt(boost) * self.opacity_logits
        return replace(self, **rates)


def exponential(start: float, end: float, fraction: float) -> float:
    """Interpolate geometrically: start^(1-t) end^t at t = `fraction`, clamped to [0, 1].

    Args:
        start, end: positive values at t = 0 and t = 1.
        fraction: t.

    Returns:
        The value at t.

    Example:
        >>> exponential(1.0, 0.01, 0.5)
        0.1
    """
    fraction = min(1.0, max(0.0, fraction))
    return float(start * (end / start) ** fraction)


def scaled_interval(count: int, iterations: int) -> int:
    """Return an interval of runs of 7,000 iterations and more, shortened for shorter runs.

    Args:
        count: interval of long runs, in iterations.
        iterations: length of the run.

    Returns:
        count * min(1, iterations / 7000), at least 1.

    Example:
        >>> scaled_interval(100, 30_000), scaled_interval(100, 700)
        (100, 10)
    """
    return max(1, round(count * min(1.0, iterations / REFERENCE_ITERATIONS)))


def sh_degree_at(iteration: int, iterations: int, highest: int) -> int:
    """Return the degree of harmonics in use: one more every 1,000 iterations of a long run.

    Args:
        iteration: 1 ... iterations.
        iterations: length of the run.
        highest: degree at which growth ends.

    Returns:
        The degree, 0 ... highest.

    Example:
        >>> [sh_degree_at(i, 7000, 3) for i in (1, 1001, 2001, 3001, 7000)]
        [0, 1, 2, 3, 3]
    """
    return min(highest, (iteration - 1) // scaled_interval(1000, iterations))


def downscale_at(iteration: int, iterations: int, smallest_side: int) -> int:
    """Return the factor by which photos are reduced: 4, then 2, then 1 (coarse to fine).

    Coarse photos cost 1/16 and 1/4 of a full one, and attract misplaced splats from farther away. A
    level whose photos would have fewer than 32 pixels on a side is left out.

    Args:
        iteration: 1 ... iterations.
        iterations: length of the run.
        smallest_side: shortest side of any photo [px].

    Returns:
        1, 2 or 4.

    Example:
        >>> [downscale_at(i, 1000, 480) for i in (1, 101, 401, 1000)]
        [4, 2, 1, 1]
    """
    fraction = (iteration - 1) / iterations
    factor = 4 if fraction < 0.1 else 2 if fraction < 0.4 else 1
    while factor > 1 and smallest_side < 32 * factor:
        factor //= 2
    return factor
