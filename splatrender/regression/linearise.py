"""A list of conditions around a measure: design matrix, Jacobian and normal equations.

Legend: c amplitudes [k, p], u shifts [k, d], ε strains [k, d (d+1)/2], θ = (c, u, ε), r residuals,
J = ∂r/∂θ, Φ = ∂r/∂c. Measures here are peak-normalised with mass one: their weights are c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.model import SplatMeasure
from splatrender.operators.differential import Condition, Rows, joint_rows, unpack

CHUNK = 1 << 19  # point-splat pairs at a time: tens of MB for each intermediate array in 2-D


@dataclass(frozen=True, eq=False)
class Design:
    """Residuals and their columns by amplitudes, over all conditions.

    Linear conditions treat the outputs as s = p right-hand sides of one column a splat (q = 1);
    others couple them: s = 1 and q = p.

    Attributes:
        residual: [R, s] r.
        columns: [R, k, q] Φ.
        widths: number of rows for each point, by condition.
    """

    residual: Tensor
    columns: Tensor
    widths: tuple[int, ...]

    def at_points(self, conditions: Sequence[Condition]) -> Tensor:
        """Return [n] squared residuals at the points of all conditions in turn."""
        energies = self.residual.square().sum(dim=1)
        rows = [len(c) * w for c, w in zip(conditions, self.widths, strict=True)]
        parts = torch.split(energies, rows)
        summed = [p.reshape(-1, w).sum(dim=1) for p, w in zip(parts, self.widths, strict=True)]
        return torch.cat(summed)

    @property
    def flat(self) -> Tensor:
        """[R, k q] the columns as a matrix."""
        return self.columns.flatten(1)


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """JᵀJ and Jᵀr at a measure.

    Attributes:
        hessian: [P, P] JᵀJ, P = k (p + d + d (d+1)/2), all of c first, then u, then ε.
        gradient: [P] Jᵀr, the gradient of the loss.
    """

    hessian: Tensor
    gradient: Tensor


def is_linear(conditions: Sequence[Condition]) -> bool:
    """Return whether all residuals are linear in the amplitudes, which can be eliminated then."""
    return all(condition.linear for condition in conditions)


def design_of(
    measure: SplatMeasure, conditions: Sequence[Condition], atoms: SplatMeasure | None = None
) -> Design:
    """Return residuals at a measure and the columns of other splats, or of its own.

    Args:
        measure: k splats.
        conditions: the problem.
        atoms: splats whose columns are returned; the measure's own if None.

    Returns:
        The whole design: R k q numbers.
    """
    linear = is_linear(conditions)
    residuals, columns = [], []
    for part in chunks(measure if atoms is None else atoms, conditions):
        rows = [row.value for row in joint_rows(part.operators, measure, part.points)]
        fields = [value @ measure.weights for value in rows]
        residual, slopes = (part.residuals(fields), None) if linear else part.linearised(fields)
        if atoms is not None:
            rows = [row.value for row in joint_rows(part.operators, atoms, part.points)]
        if linear:
            columns.append((part.root_weights[:, None] * rows[0])[..., None])
        else:
            if slopes is None:
                slopes = unit_slopes(part, residual)
            design = torch.einsum("nmqp,nqk->nmkp", slopes, torch.stack(rows, dim=1))
            columns.append(design.flatten(0, 1))
            residual = residual.reshape(-1, 1)
        residuals.append(residual)
    widths = tuple(1 if linear else c.width(measure.outputs) for c in conditions)
    return Design(torch.cat(residuals), torch.cat(columns), widths)


def normal_equations(measure: SplatMeasure, conditions: Sequence[Condition]) -> NormalEquations:
    """Sum JᵀJ and Jᵀr over all conditions; the Jacobian is never stored whole.

    Args:
        measure: k splats.
        conditions: the problem.

    Returns:
        The normal equations of the Gauss–Newton step.
    """
    size = measure.parameters
    hessian = measure.means.new_zeros(size, size)
    gradient = measure.means.new_zeros(size)
    for part in chunks(measure, conditions):
        residual, jacobian = jacobian_rows(measure, part)
        hessian.addmm_(jacobian.T, jacobian)
        gradient.addmv_(jacobian.T, residual)
    return NormalEquations(hessian, gradient)


def jacobian_rows(measure: SplatMeasure, condition: Condition) -> tuple[Tensor, Tensor]:
    """Return residuals [n m] of one condition and their Jacobian [n m, P] by (c, u, ε)."""
    rows = joint_rows(condition.operators, measure, condition.points, True)
    amplitudes = measure.weights
    residual, slopes = condition.linearised([row.value @ amplitudes for row in rows])
    if slopes is None:
        slopes = unit_slopes(condition, residual)
    if measure.outputs == 1 and residual.shape[1] == 1:  # the common case, without small products
        blocks = [_scalar_block(rows, slopes[:, 0, :, 0], amplitudes, name) for name in _BLOCKS]
    else:
        values = torch.stack([row.value for row in rows], dim=1)
        heights = torch.einsum("nmqp,kp->nmqk", slopes, amplitudes)
        blocks = [torch.einsum("nmqp,nqk->nmkp", slopes, values)] + [
            torch.einsum(
                "nmqk,nqkg->nmkg", heights, torch.stack([getattr(r, name) for r in rows], dim=1)
            )
            for name in _BLOCKS[1:]
        ]
    return residual.reshape(-1), torch.cat([b.reshape(residual.numel(), -1) for b in blocks], dim=1)


_BLOCKS = ("value", "shift", "strain")


def _scalar_block(rows: list[Rows], slopes: Tensor, amplitudes: Tensor, name: str) -> Tensor:
    """Return Σ_q slope_q ∂(L_q f)/∂(c, u or ε), [n, k] or [n, k, g], for m = p = 1."""
    total: Tensor | None = None
    for q, row in enumerate(rows):
        part: Tensor = getattr(row, name)
        slope = slopes[:, q].reshape(-1, *(1,) * (part.dim() - 1))
        total = slope * part if total is None else total + slope * part
    assert total is not None
    return total if name == "value" else total * amplitudes


def unit_slopes(condition: Condition, residual: Tensor) -> Tensor:
    """Return [n, p, 1, p] derivatives of a linear condition's residuals by the field: √w I."""
    eye = torch.eye(residual.shape[1]).to(residual)
    return condition.root_weights[:, None, None, None] * eye[None, :, None, :]


def loss_of(measure: SplatMeasure, conditions: Sequence[Condition]) -> float:
    """Return ½ Σ |r|² of all conditions."""
    total = 0.0
    for part in chunks(measure, conditions):
        total += 0.5 * float(residuals_of(measure, part).square().sum())
    return total


def residuals_of(measure: SplatMeasure, condition: Condition) -> Tensor:
    """Return [n, p] residuals of a condition, differentiable in the measure."""
    rows = joint_rows(condition.operators, measure, condition.points)
    return condition.residuals([row.value @ measure.amplitudes for row in rows])


def chunks(measure: SplatMeasure, conditions: Sequence[Condition]) -> Iterator[Condition]:
    """Divide the conditions into parts that bound memory."""
    size = max(16, CHUNK // max(1, len(measure)))
    for condition in conditions:
        if len(condition) <= size:
            yield condition
            continue
        for start in range(0, len(condition), size):
            yield condition.rows(slice(start, start + size))


def moved(measure: SplatMeasure, step: Tensor) -> SplatMeasure:
    """Return the measure after a step θ = (δc, u, ε): c + δc, b + A u, A exp(ε).

    Args:
        measure: k splats.
        step: [P] in the order of `NormalEquations`.

    Returns:
        The new measure; factors stay invertible because exp(ε) is.
    """
    count, dims, outputs = len(measure), measure.dims, measure.outputs
    sizes = [count * outputs, count * dims, count * dims * (dims + 1) // 2]
    change, shift, strain = torch.split(step, sizes)
    matrix = unpack(strain.reshape(count, -1), dims)
    stretch = matrix.exp() if dims == 1 else torch.linalg.matrix_exp(matrix)
    return replace(
        measure,
        weights=measure.weights + change.reshape(count, outputs),
        means=measure.means + (measure.factors @ shift.reshape(count, dims, 1))[..., 0],
        factors=measure.factors @ stretch,
    )
