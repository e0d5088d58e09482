"""Linear differential operators on splats, their Jacobians, and conditions made of them.

Legend: z = A⁻¹ (x − b) local coordinates, φ profile of the parent, u shift and ε strain of a splat
in its own coordinates: b ← b + A u, A ← A exp(ε) with ε symmetric. A splat of peak 1 under
c₀ + a·∇ + C:∇² is

    E = c₀ φ + (ã·z) φ' + (zᵀ C̃ z) φ'' + tr C̃ φ',      ã = A⁻¹ a,  C̃ = A⁻¹ C A⁻ᵀ,

    ∂E/∂u = −∇_z E,      ∂E/∂ε = −sym(∇_z E zᵀ + φ' ã zᵀ + 2 φ'' z (C̃ z)ᵀ + 2 φ' C̃).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SplatMeasure

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Term:
    """factor(x) · (value + gradient·∇ + hessian:∇²) f, taken at x + offset.

    Attributes:
        value: c₀.
        gradient: a, d numbers, or None for zero.
        hessian: C, d symmetric rows of d numbers, or None for zero.
        offset: d numbers, or None for zero.
        factor: from points [n, d] to [n], or None for one.
    """

    value: float = 0.0
    gradient: Vector | None = None
    hessian: tuple[Vector, ...] | None = None
    offset: Vector | None = None
    factor: Callable[[Tensor], Tensor] | None = None

    def __mul__(self, number: float) -> Term:
        gradient = self.gradient and tuple(number * g for g in self.gradient)
        hessian = self.hessian and tuple(tuple(number * c for c in row) for row in self.hessian)
        return replace(self, value=number * self.value, gradient=gradient, hessian=hessian)

    def joined(self, other: Term) -> Term:
        """The sum of two terms of one offset and factor."""
        gradient = _sum(self.gradient, other.gradient)
        rows = [self.hessian, other.hessian]
        if None in rows:
            hessian = self.hessian or other.hessian
        else:
            hessian = tuple(_sum(a, b) for a, b in zip(*rows, strict=True))  # type: ignore
        return replace(self, value=self.value + other.value, gradient=gradient, hessian=hessian)


@dataclass(frozen=True)
class LinearOperator:
    """A linear differential operator of order two at most, with shifts: a sum of terms.

    Example:
        >>> heat = partial(1, dims=2) - 0.1 * partial(0, 0, dims=2)  # ∂/∂t − 0.1 ∂²/∂x²
        >>> heat.terms[0].gradient, heat.terms[0].hessian
        ((0.0, 1.0), ((-0.1, -0.0), (-0.0, -0.0)))
    """

    terms: tuple[Term, ...]

    def __add__(self, other: LinearOperator) -> LinearOperator:
        terms = list(self.terms)
        for term in other.terms:
            for i, mine in enumerate(terms):
                if (mine.offset, mine.factor) == (term.offset, term.factor):
                    terms[i] = mine.joined(term)
                    break
            else:
                terms.append(term)
        return LinearOperator(tuple(terms))

    def __mul__(self, number: float) -> LinearOperator:
        return LinearOperator(tuple(term * number for term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + -other

    def scaled_by(self, factor: Callable[[Tensor], Tensor]) -> LinearOperator:
        """factor(x) · L, with `factor` from points [n, d] to [n]."""
        if any(term.factor for term in self.terms):
            raise InputError("factor: expected an operator with constant coefficients")
        return LinearOperator(tuple(replace(term, factor=factor) for term in self.terms))

    def shifted(self, offset: Sequence[float]) -> LinearOperator:
        """(L f)(x + offset)."""
        return LinearOperator(
            tuple(replace(t, offset=_sum(t.offset, tuple(offset))) for t in self.terms)
        )

    def periodised(self, period: Sequence[float], images: int = 1) -> LinearOperator:
        """L on the periodic sum Σ_j f(x + j · period), j = −images ... images.

        Args:
            period: d numbers, the vector along which the function repeats.
            images: copies on each side; splats must not reach further.

        Returns:
            The operator; a function fitted through it is periodic by construction.
        """
        total = self
        for j in range(1, images + 1):
            for sign in (-j, j):
                total = total + self.shifted([sign * length for length in period])
        return total


def identity() -> LinearOperator:
    """f itself."""
    return LinearOperator((Term(value=1.0),))


def partial(*axes: int, dims: int) -> LinearOperator:
    """The derivative along one axis, or the second derivative along two (equal or not).

    Args:
        axes: one or two axes, 0 to dims − 1.
        dims: number of inputs d.

    Returns:
        The operator.

    Raises:
        InputError: there are none or more than two axes, or one is out of range.
    """
    if len(axes) not in (1, 2) or not all(0 <= axis < dims for axis in axes):
        raise InputError(f"axes: expected one or two in 0 ... {dims - 1}, found {axes}")
    if len(axes) == 1:
        return LinearOperator((Term(gradient=tuple(float(j == axes[0]) for j in range(dims))),))
    rows = [[0.0] * dims for _ in range(dims)]
    rows[axes[0]][axes[1]] += 0.5
    rows[axes[1]][axes[0]] += 0.5
    return LinearOperator((Term(hessian=tuple(tuple(row) for row in rows)),))


def laplacian(dims: int) -> LinearOperator:
    """Σ_j ∂²/∂x_j² over all d = `dims` axes."""
    rows = tuple(tuple(float(i == j) for j in range(dims)) for i in range(dims))
    return LinearOperator((Term(hessian=rows),))


@dataclass(frozen=True, eq=False)
class Rows:
    """What an operator makes of each splat of peak 1, at each point.

    Attributes:
        value: [n, k] E.
        shift: [n, k, d] ∂E/∂u.
        strain: [n, k, d (d+1)/2] ∂E/∂ε for the entries ε_ij, i <= j (i < j stands for both).
    """

    value: Tensor
    shift: Tensor | None = None
    strain: Tensor | None = None


def operator_rows(
    operator: LinearOperator, measure: SplatMeasure, points: Tensor, jacobian: bool = False
) -> Rows:
    """The columns of a design matrix and, if asked for, their derivatives, analytically.

    Args:
        operator: what is applied to the splats.
        measure: k splats; their masses and weights do not matter.
        points: [n, d], of the measure's dtype.
        jacobian: whether the derivatives with respect to shift and strain are wanted.

    Returns:
        Rows for every point and splat.

    Raises:
        InputError: a factor of the measure is singular.
    """
    inverse = measure.inverse_factors()
    total: list[Tensor] | None = None
    for term in operator.terms:
        parts = _term_rows(term, measure, inverse, points, jacobian)
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
    assert total is not None
    return Rows(*total)


def _term_rows(
    term: Term, measure: SplatMeasure, inverse: Tensor, points: Tensor, jacobian: bool
) -> list[Tensor]:
    offset = 0.0 if term.offset is None else points.new_tensor(term.offset)
    z = _local(points + offset, measure.means, inverse)  # [n, k, d]
    dims = measure.dims
    order = (2 if term.hessian else 1 if term.gradient else 0) + int(jacobian)
    phi = measure.parent.profile(0.5 * z.square().sum(dim=-1), dims, order)
    value = term.value * phi[0]
    slope = None if not jacobian else (term.value * phi[1])[..., None] * z
    strain = None
    if term.gradient is not None:
        a = inverse @ points.new_tensor(term.gradient)  # [k, d]
        az = (z * a).sum(dim=-1)
        value = value + az * phi[1]
        if slope is not None:
            slope = slope + phi[1][..., None] * a + (az * phi[2])[..., None] * z
            strain = phi[1][..., None, None] * a[:, :, None] * z[..., None, :]
    if term.hessian is not None:
        c = inverse @ points.new_tensor(term.hessian) @ inverse.mT  # [k, d, d]
        trace = c.diagonal(dim1=1, dim2=2).sum(dim=1)
        cz = torch.einsum("kij,nkj->nki", c, z)
        zcz = (z * cz).sum(dim=-1)
        value = value + zcz * phi[2] + trace * phi[1]
        if slope is not None:
            along = zcz * phi[3] + trace * phi[2]
            slope = slope + along[..., None] * z + 2 * phi[2][..., None] * cz
            second = 2 * (
                phi[2][..., None, None] * z[..., :, None] * cz[..., None, :]
                + phi[1][..., None, None] * c
            )
            strain = second if strain is None else strain + second
    parts = [value]
    if slope is not None:
        outer = slope[..., :, None] * z[..., None, :]
        strain = outer if strain is None else strain + outer
        parts += [-slope, -pack(strain)]
    if term.factor is not None:
        factor = term.factor(points)
        parts = [p * factor.reshape(-1, *(1,) * (p.dim() - 1)) for p in parts]
    return parts


def pack(strain: Tensor) -> Tensor:
    """[..., d (d+1)/2] entries i <= j of derivatives by a symmetric matrix: off-diagonal pairs add.

    Args:
        strain: [..., d, d] derivatives by each entry alone.
    """
    dims = strain.shape[-1]
    columns = []
    for i in range(dims):
        for j in range(i, dims):
            off = strain[..., j, i] if i != j else 0.0
            columns.append(strain[..., i, j] + off)
    return torch.stack(columns, dim=-1)


def unpack(strain: Tensor, dims: int) -> Tensor:
    """[..., d, d] symmetric matrices of the entries i <= j, the inverse storage of `pack`."""
    rows, columns = torch.triu_indices(dims, dims)
    matrix = strain.new_zeros(*strain.shape[:-1], dims, dims)
    matrix[..., rows, columns] = strain
    matrix[..., columns, rows] = strain
    return matrix


@dataclass(frozen=True, eq=False)
class Condition:
    """What a splat function is asked to fulfil at some points, as weighted squared residuals:

        r = √w · (N(x, L₁f(x), ..., L_qf(x)) − target),      loss = ½ Σ |r|².

    Data, a differential equation, boundary and initial values are all conditions, and a problem
    is a list of them.

    Attributes:
        points: [n, d], in units of the inputs.
        operators: q linear operators L.
        target: [n, m], or None for zero.
        weights: [n] w >= 0 or one number for all; `mean` makes 1/n of it.
        residual: N, written in torch: takes x [n, d] and L₁f ... L_qf [n, p] each, gives [n, m],
            row by row. None is N = L₁f: a linear condition.
        name: for reports.

    Example:
        >>> x = torch.rand(500, 2, dtype=torch.float64)
        >>> equation = Condition(
        ...     x, (laplacian(2), identity()), residual=lambda x, lap, u: 0.01 * lap + u - u**3
        ... )
    """

    points: Tensor
    operators: tuple[LinearOperator, ...]
    target: Tensor | None = None
    weights: Tensor | float = 1.0
    residual: Callable[..., Tensor] | None = None
    name: str = "data"

    def __post_init__(self) -> None:
        if self.points.dim() != 2 or len(self.points) == 0:
            found = tuple(self.points.shape)
            raise InputError(f"Condition.points: expected shape (n, d), n >= 1, found {found}")
        if self.target is not None and len(self.target) != len(self.points):
            raise InputError(
                f"Condition.target: expected {len(self.points)} rows, found {len(self.target)}"
            )
        if self.residual is None and len(self.operators) != 1:
            raise InputError(
                f"Condition.operators: expected one where there is no residual function, "
                f"found {len(self.operators)}"
            )

    def __len__(self) -> int:
        return len(self.points)

    @property
    def linear(self) -> bool:
        """Whether residuals are linear in the amplitudes."""
        return self.residual is None

    def width(self, outputs: int) -> int:
        """Number of residuals at a point, m, for p = `outputs`."""
        one = self.rows(slice(0, 1))
        return one.residuals([self.points.new_zeros(1, outputs)] * len(self.operators)).shape[1]

    @property
    def root_weights(self) -> Tensor:
        """[n] √w."""
        weights = torch.as_tensor(self.weights, dtype=self.points.dtype, device=self.points.device)
        return weights.sqrt().expand(len(self))

    def mean(self, weight: float = 1.0) -> Condition:
        """The same condition with weights · weight / n: its loss is half a mean square."""
        return replace(self, weights=self.weights * (weight / len(self)))

    def rows(self, ids: Tensor | slice) -> Condition:
        """The condition at some of its points."""
        return replace(
            self,
            points=self.points[ids],
            target=None if self.target is None else self.target[ids],
            weights=self.weights[ids] if isinstance(self.weights, Tensor) else self.weights,
        )

    def residuals(self, fields: Sequence[Tensor]) -> Tensor:
        """[n, m] weighted residuals of the operators' values, q tensors [n, p]."""
        value = fields[0] if self.residual is None else self.residual(self.points, *fields)
        if self.target is not None:
            value = value - self.target
        return self.root_weights[:, None] * value

    def linearised(self, fields: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Weighted residuals [n, m] and their derivatives by the fields [n, m, q, p].

        The derivatives are None for a linear condition: √w times the identity.
        """
        if self.residual is None:
            return self.residuals(fields), None
        leaves = [field.detach().requires_grad_() for field in fields]
        with torch.enable_grad():
            residuals = self.residuals(leaves)
            columns = []
            for j in range(residuals.shape[1]):
                grads = torch.autograd.grad(
                    residuals[:, j].sum(), leaves, retain_graph=True, materialize_grads=True
                )
                columns.append(torch.stack(grads, dim=1))
        return residuals.detach(), torch.stack(columns, dim=1)


def _local(points: Tensor, means: Tensor, inverse: Tensor) -> Tensor:
    """[n, k, d] z = A⁻¹ (x − b)."""
    return torch.einsum("kij,nkj->nki", inverse, points[:, None] - means)


def _sum(a: Vector | None, b: Vector | None) -> Vector | None:
    if a is None or b is None:
        return a or b
    return tuple(x + y for x, y in zip(a, b, strict=True))
