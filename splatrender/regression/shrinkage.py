"""A ridge that follows the noise level and the spread of the amplitudes.

Amplitudes have the prior c_i ~ N(0, s² / ρ̂_i) with the relative ridges ρ̂ of `Prior`. Over n rows of
noise variance σ², the ridge of a mean square loss is

    σ² / (n s²),      s² = shrinkage² · median_i (|c_i|² ρ̂_i).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from splatrender.regression.lm import Minimum
from splatrender.regression.prior import Prior

LARGEST = 100.0  # amplitudes over the signal's deviation: beyond, splats cancel each other
UNFITTED = 1e-3  # share of the signal's variance: largest noise variance while splats are born
FAINTEST = 1e-6  # squared amplitudes relative to the noise's variance, below which all is noise


@dataclass(frozen=True)
class Shrinkage:
    """Knowledge about data from which a ridge follows.

    Attributes:
        factor: prior standard deviation of amplitudes over their present size; 0 keeps a prior.
        signal: standard deviation of the data, 0 where it is not known.
        noise: bound of the noise's standard deviation, ∞ where it is not known.
        rows: number of residuals n.
    """

    factor: float
    signal: float
    noise: float
    rows: int

    def first(self, prior: Prior, loss: float, relative: float) -> Prior:
        """Return the prior of the first descent, which bounds amplitudes where a bound is known.

        Args:
            prior: prior whose ridge is set.
            loss: loss at the start.
            relative: median of the relative ridges.
        """
        if not (self.factor and self.signal):
            return prior
        bound = (LARGEST * self.signal) ** 2
        bound *= relative
        return replace(prior, ridge=2 * loss / (self.rows * bound))

    def adapted(self, prior: Prior, minimum: Minimum, growing: bool = False) -> Prior:
        """Return the prior with the ridge that belongs to a minimum.

        Args:
            prior: prior whose ridge is set.
            minimum: end of a descent.
            growing: splats are still being born: a stronger prior leads to better minima.
        """
        if not self.factor:
            return prior
        measure = minimum.measure
        noise, relative = self._noise(minimum, growing), prior.relative(measure)
        squares = measure.weights.square().mean(dim=1)
        if self.signal:
            squares = squares.clamp(self.signal**2, (LARGEST * self.signal) ** 2)
        # the median: a pair of large opposite amplitudes must not loosen its own bounds
        spread = float((squares * relative).median()) * self.factor**2
        least = FAINTEST * noise * float(relative.median())
        ridge = noise / (self.rows * max(spread, least)) if least > 0 else 0.0
        return replace(prior, ridge=ridge)

    def _noise(self, minimum: Minimum, growing: bool) -> float:
        """Return the variance of the noise, at most the known bound: the rest is not fitted yet."""
        free = max(self.rows - minimum.measure.parameters, self.rows / 4)
        noise = 2 * minimum.loss * self.rows / free  # conditions are means over their points
        bound = self.noise**2
        if growing and self.signal:
            bound = UNFITTED * self.signal**2
        return min(noise, bound)


def under_prior(minimum: Minimum, prior: Prior) -> Minimum:
    """Return a minimum with its objective under another prior."""
    return replace(minimum, objective=minimum.loss + prior.penalty(minimum.measure))
