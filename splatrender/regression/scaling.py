"""Units of the data: the solver sees inputs in [0, 1] and targets of mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SplatMeasure
from splatrender.regression.report import Round

FARTHEST = 1e100  # for scaled inputs: beyond, squared distances overflow and all splats are zero
ROUNDING = 4 * torch.finfo(torch.float64).eps  # a spread this small, relative to values, is none


@dataclass(frozen=True, eq=False)
class Scaling:
    """Map between the user's units and the solver's.

        u = (x − low) / size,      v = (y − centre) / unit

    Attributes:
        low: [d] smallest inputs.
        size: [d] their ranges, 1 where an input does not vary.
        centre: [p] means of the targets.
        unit: root mean square of the centred targets over all outputs, 1 if they do not vary.
    """

    low: Tensor
    size: Tensor
    centre: Tensor
    unit: float

    @staticmethod
    def of(points: Tensor, values: Tensor, weights: Tensor | None = None) -> Scaling:
        """Return the scaling of samples.

        Args:
            points: [n, d] inputs.
            values: [n, p] targets.
            weights: [n] >= 0, all equal if None.

        Raises:
            InputError: the range of an input is not a finite number.
        """
        low, high = points.amin(dim=0), points.amax(dim=0)
        size = high - low
        if not bool(size.isfinite().all()):
            column = int((~size.isfinite()).nonzero()[0])
            raise InputError(
                f"X: expected numbers whose range is finite, got {float(low[column]):g} to "
                f"{float(high[column]):g} in column {column}"
            )
        largest = float(values.abs().max()) or 1.0
        shares = torch.ones_like(values[:, 0]) if weights is None else weights / weights.max()
        shares = (shares / shares.sum())[:, None]
        reduced = values / largest  # sums of squares must not overflow
        centre = (shares * reduced).sum(dim=0)
        centre = centre + (shares * (reduced - centre)).sum(dim=0)  # the rest of rounding
        unit = float((shares * (reduced - centre).square()).sum(dim=0).mean().sqrt())
        if unit <= ROUNDING:  # targets that do not vary are met exactly
            return Scaling(low, torch.where(size > 0, size, 1.0), values[0].clone(), largest)
        return Scaling(low, torch.where(size > 0, size, 1.0), largest * centre, largest * unit)

    def inputs(self, points: Tensor) -> Tensor:
        """Return [n, d] inputs in the solver's units."""
        return ((points - self.low) / self.size).clamp(-FARTHEST, FARTHEST)

    def targets(self, values: Tensor) -> Tensor:
        """Return [n, p] targets in the solver's units."""
        return (values - self.centre) / self.unit

    def outputs(self, values: Tensor) -> Tensor:
        """Return [n, p] values in the user's units."""
        return self.centre + self.unit * values

    def splats(self, measure: SplatMeasure) -> SplatMeasure:
        """Return the splats in the user's units; `centre` must be added to their sum."""
        return measure.with_tensors(
            {
                "means": self.low + self.size * measure.means,
                "factors": self.size[:, None] * measure.factors,
                "weights": self.unit * measure.weights,
            }
        )

    def report(self, entry: Round) -> Round:
        """Return a report in the user's units."""
        square, held = self.unit * self.unit, entry.validation
        return replace(
            entry,
            loss=square * entry.loss,
            mass_moved=self.unit * entry.mass_moved,
            predicted=square * entry.predicted,
            realised=square * entry.realised,
            validation=None if held is None else square * held,
        )
