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

from splatrender.arguments import require_tensors
from splatrender.errors import InputError
from splatrender.model import SplatMeasure

Vector = tuple[float, ...]
NEGLIGIBLE = 1e-18  # relative to a splat's peak: images below are left out


@dataclass(frozen=True)
class Term:
    """Term factor(x) · (value + gradient·∇ + hessian:∇²) f at x + offset.

    Attributes:
        value: c₀.
        gradient: a, d numbers, or None for zero.
        hessian: C, d symmetric rows of d numbers, or None for zero.
        offset: d numbers, or None for zero.
        factor: function from points [n, d] to [n], or None for 1.
        period: d numbers; each splat is moved by the multiple of them that brings it nearest to x.
        signs: d numbers ±1 that multiply x first, or None.
    """

    value: float = 0.0
    gradient: Vector | None = None
    hessian: tuple[Vector, ...] | None = None
    offset: Vector | None = None
    factor: Callable[[Tensor], Tensor] | None = None
    period: Vector | None = None
    signs: Vector | None = None

    def __mul__(self, number: float) -> Term:
        gradient = self.gradient and tuple(number * g for g in self.gradient)
        hessian = self.hessian and tuple(tuple(number * c for c in row) for row in self.hessian)
        return replace(self, value=number * self.value, gradient=gradient, hessian=hessian)

    @property
    def place(self) -> tuple[Vector | None, ...]:
        """Signs, offset and period: all that determines distances to splats."""
        return self.signs, self.offset, self.period

    def reflected(self, signs: Vector) -> Term:
        """Return the same derivatives of f(signs · x), as derivatives of f there."""
        gradient = self.gradient and tuple(s * a for s, a in zip(signs, self.gradient, strict=True))
        hessian = self.hessian and tuple(
            tuple(s * r * c for r, c in zip(signs, row, strict=True))
            for s, row in zip(signs, self.hessian, strict=True)
        )
        return replace(self, gradient=gradient, hessian=hessian, signs=signs)

    def joined(self, other: Term) -> Term:
        """Return the sum of two terms of one place and factor."""
        gradient = _sum(self.gradient, other.gradient)
        rows = [self.hessian, other.hessian]
        if None in rows:
            hessian = self.hessian or other.hessian
        else:
            hessian = tuple(_sum(a, b) for a, b in zip(*rows, strict=True))  # type: ignore
        return replace(self, value=self.value + other.value, gradient=gradient, hessian=hessian)


@dataclass(frozen=True)
class LinearOperator:
    """Linear differential operator of order at most 2, with shifts: a sum of terms.

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
                if mine.place == term.place and mine.factor == term.factor:
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
        """Return factor(x) · L, with `factor` from points [n, d] to [n]."""
        if any(term.factor for term in self.terms):
            raise InputError("factor: expected an operator with constant coefficients")
        return LinearOperator(tuple(replace(term, factor=factor) for term in self.terms))

    def shifted(self, offset: Sequence[float]) -> LinearOperator:
        """Return the operator x ↦ (L f)(x + offset)."""
        return LinearOperator(
            tuple(replace(t, offset=_sum(t.offset, tuple(offset))) for t in self.terms)
        )

    def mirrored(self, signs: Sequence[float]) -> LinearOperator:
        """Return L on f(x) + f(signs · x); call it before any shift or period.

        Args:
            signs: d numbers ±1, −1 for the inputs that a mirror inverts.

        Returns:
            The operator; a function fitted through it is symmetric by construction.
        """
        images = tuple(term.reflected(tuple(signs)) for term in self.terms)
        return LinearOperator(self.terms + images)

    def periodised(self, period: Sequence[float], images: int = 2) -> LinearOperator:
        """Return L on the periodic sum Σ_j f(x + j · period), over the images nearest to x.

        Args:
            period: d numbers, the vector along which the function repeats.
            images: copies on each side of the nearest one. Values of a splat at a distance of
                more than images + 1/2 periods are left out.

        Returns:
            The operator; a function fitted through it is periodic up to these values.
        """
        length, terms = tuple(period), []
        for j in sorted(range(-images, images + 1), key=abs):
            step = tuple(j * p for p in length) if j else None
            terms += [
                replace(term, period=length, offset=_sum(term.offset, step)) for term in self.terms
            ]
        return LinearOperator(tuple(terms))


def identity() -> LinearOperator:
    """Return the operator that leaves f as it is."""
    return LinearOperator((Term(value=1.0),))


def partial(*axes: int, dims: int) -> LinearOperator:
    """Return the derivative along one axis, or the second derivative along two (equal or not).

    Args:
        axes: one or two axes, 0 to dims − 1.
        dims: number of inputs d.

    Returns:
        The operator.

    Raises:
        InputError: there are none or more than two axes, or one is out of range.
    """
    if len(axes) not in (1, 2) or not all(0 <= axis < dims for axis in axes):
        raise InputError(f"axes: expected one or two in 0 ... {dims - 1}, got {axes}")
    if len(axes) == 1:
        return LinearOperator((Term(gradient=tuple(float(j == axes[0]) for j in range(dims))),))
    rows = [[0.0] * dims for _ in range(dims)]
    rows[axes[0]][axes[1]] += 0.5
    rows[axes[1]][axes[0]] += 0.5
    return LinearOperator((Term(hessian=tuple(tuple(row) for row in rows)),))


def laplacian(dims: int) -> LinearOperator:
    """Return Σ_j ∂²/∂x_j² over all d = `dims` axes."""
    rows = tuple(tuple(float(i == j) for j in range(dims)) for i in range(dims))
    return LinearOperator((Term(hessian=rows),))


@dataclass(frozen=True, eq=False)
class Rows:
    """Values of an operator on each splat of peak 1, at each point.

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
    """Return the columns of a design matrix and, optionally, their derivatives, analytically.

    Args:
        operator: linear operator that is applied to the splats.
        measure: k splats; their masses and weights do not matter.
        points: [n, d], of the measure's dtype.
        jacobian: compute the derivatives with respect to shift and strain, too.

    Returns:
        Rows for every point and splat.

    Raises:
        InputError: a factor of the measure is singular.
    """
    return joint_rows((operator,), measure, points, jacobian)[0]


def joint_rows(
    operators: Sequence[LinearOperator],
    measure: SplatMeasure,
    points: Tensor,
    jacobian: bool = False,
) -> list[Rows]:
    """Return `operator_rows` of several operators, which share distances and profiles.

    Args:
        operators: linear operators that are applied to the splats.
        measure: k splats.
        points: [n, d].
        jacobian: compute the derivatives, too.

    Returns:
        Rows for each operator.

    Raises:
        InputError: a factor of the measure is singular.
    """
    inverse, dims = measure.inverse_factors(), measure.dims
    places: dict[tuple[Vector | None, ...], list[tuple[int, Term]]] = {}
    for q, operator in enumerate(operators):
        for term in operator.terms:
            places.setdefault(term.place, []).append((q, term))
    totals: list[list[Tensor]] = [[] for _ in operators]
    for terms in places.values():
        ids, gaps = _seen(terms[0][1], measure, points)
        rows = inverse if ids is None else inverse[ids]
        z = [_dot(rows[:, i].unbind(1), gaps) for i in range(dims)]
        half = 0.5 * _dot(z, z)
        order = max(2 if t.hessian else 1 if t.gradient else 0 for _, t in terms) + int(jacobian)
        phi = measure.parent.profile(half, dims, order)
        for q, term in terms:
            parts = _term_parts(term, rows, z, phi, jacobian)
            if term.factor is not None:
                factor = term.factor(points)[:, None]
                parts = [factor * part for part in parts]
            if ids is not None:
                base = totals[q] or [half.new_zeros(len(points), len(measure))] * len(parts)
                totals[q] = [a.index_add(1, ids, b) for a, b in zip(base, parts, strict=True)]
            elif totals[q]:
                totals[q] = [a + b for a, b in zip(totals[q], parts, strict=True)]
            else:
                totals[q] = parts
    if not jacobian:
        return [Rows(parts[0]) for parts in totals]
    return [
        Rows(p[0], torch.stack(p[1 : 1 + dims], dim=2), torch.stack(p[1 + dims :], dim=2))
        for p in totals
    ]


def _seen(term: Term, measure: SplatMeasure, points: Tensor) -> tuple[Tensor | None, list[Tensor]]:
    """Return the splats that are not negligible at a term's place, and d gaps x − b [n, k'].

    Only the widest splats matter in far images: along a period p, gaps differ from the offset by at
    most |p|/2, and |z|² >= (p · gap)² / (pᵀ Σ p). Ids of None stand for all splats.
    """
    means, ids = measure.means, None
    reach = measure.parent.radius(measure.dims, NEGLIGIBLE)
    period = None if term.period is None else points.new_tensor(term.period)
    if period is not None and term.offset is not None:
        square = float(period.square().sum())
        least = abs(float(points.new_tensor(term.offset) @ period)) - square / 2
        deviation = (period @ measure.factors).norm(dim=1)
        ids = (max(least, 0.0) < reach * deviation).nonzero()[:, 0]
        means = means[ids]
    if term.signs is not None:
        points = points * points.new_tensor(term.signs)
    gaps = [points[:, j, None] - means[:, j] for j in range(measure.dims)]
    if period is not None:
        unit = period / period.square().sum()
        turns = _dot(gaps, unit.unbind()).round()
        gaps = [g - turns * p if p else g for g, p in zip(gaps, period.tolist(), strict=True)]
    if term.offset is not None:
        gaps = [gap + o for gap, o in zip(gaps, term.offset, strict=True)]
    return ids, gaps


def _term_parts(
    term: Term, inverse: Tensor, z: list[Tensor], phi: list[Tensor], jacobian: bool
) -> list[Tensor]:
    """Return E, then ∂E/∂u by axis and the packed ∂E/∂ε, [n, k] each.

    There is one array for each component: products of small matrices for each pair cost more.
    """
    dims = range(len(z))
    value = term.value * phi[0]
    slope = [term.value * phi[1] * part for part in z] if jacobian else []
    first: list[Tensor] = []  # φ' ã
    bent: list[Tensor] = []  # C̃ z
    if term.gradient is not None:
        a = (inverse @ inverse.new_tensor(term.gradient)).unbind(1)  # d times [k]
        az = _dot(a, z)
        value = value + az * phi[1]
        if jacobian:
            first = [phi[1] * a[i] for i in dims]
            along = az * phi[2]
            slope = [slope[i] + first[i] + along * z[i] for i in dims]
    if term.hessian is not None:
        c = inverse @ inverse.new_tensor(term.hessian) @ inverse.mT  # [k, d, d]
        trace = c.diagonal(dim1=1, dim2=2).sum(dim=1)
        bent = [_dot(row.unbind(1), z) for row in c.unbind(1)]
        zcz = _dot(z, bent)
        value = value + zcz * phi[2] + trace * phi[1]
        if jacobian:
            along, twice = zcz * phi[3] + trace * phi[2], 2 * phi[2]
            bent = [twice * part for part in bent]
            slope = [slope[i] + along * z[i] + bent[i] for i in dims]
    if not jacobian:
        return [value]

    def strain(i: int, j: int) -> Tensor:
        """Return −∂E/∂ε_ij for one entry, before the matrix is made symmetric."""
        entry = slope[i] * z[j]
        if first:
            entry = entry + z[i] * first[j]
        if bent:
            entry = entry + z[i] * bent[j] + 2 * phi[1] * c[:, i, j]
        return entry

    strains = [
        -strain(i, i) if i == j else -(strain(i, j) + strain(j, i)) for i in dims for j in dims[i:]
    ]
    return [value, *(-part for part in slope), *strains]


def pack(strain: Tensor) -> Tensor:
    """Return derivatives by the entries i <= j of a symmetric matrix; off-diagonal pairs add.

    Args:
        strain: [..., d, d] derivatives by each entry alone.

    Returns:
        [..., d (d+1)/2].
    """
    dims = strain.shape[-1]
    columns = []
    for i in range(dims):
        for j in range(i, dims):
            off = strain[..., j, i] if i != j else 0.0
            columns.append(strain[..., i, j] + off)
    return torch.stack(columns, dim=-1)


def unpack(strain: Tensor, dims: int) -> Tensor:
    """Return [..., d, d] symmetric matrices with the entries i <= j, in the order of `pack`."""
    rows, columns = torch.triu_indices(dims, dims)
    matrix = strain.new_zeros(*strain.shape[:-1], dims, dims)
    matrix[..., rows, columns] = strain
    matrix[..., columns, rows] = strain
    return matrix


@dataclass(frozen=True, eq=False)
class Condition:
    """Requirement on a splat function at some points, as weighted squared residuals.

        r = √w · (N(x, L₁f(x), ..., L_qf(x)) − target),      loss = ½ Σ |r|².

    Data, a differential equation, boundary and initial values are all conditions, and a problem
    is a list of them (docs/equations.md).

    Attributes:
        points: [n, d], in units of the inputs.
        operators: q linear operators L.
        target: [n, m], or None for zero.
        weights: [n] w >= 0 or one number for all; `mean` divides them by n.
        residual: N, written in torch: takes x [n, d] and L₁f ... L_qf [n, p] each, returns [n, m],
            row by row. None is N = L₁f: a linear condition.
        name: name for reports.

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
        require_tensors({"Condition.target": self.target}, **{"Condition.points": self.points})
        if self.points.dim() != 2 or len(self.points) == 0:
            shape = tuple(self.points.shape)
            raise InputError(f"Condition.points: expected shape (n, d), n >= 1, got {shape}")
        if self.target is not None and len(self.target) != len(self.points):
            raise InputError(
                f"Condition.target: expected {len(self.points)} rows, got {len(self.target)}"
            )
        if self.residual is None and len(self.operators) != 1:
            raise InputError(
                f"Condition.operators: expected one where there is no residual function, "
                f"got {len(self.operators)}"
            )

    def __len__(self) -> int:
        return len(self.points)

    @property
    def linear(self) -> bool:
        """True if residuals are linear in the amplitudes."""
        return self.residual is None

    def width(self, outputs: int) -> int:
        """Return the number m of residuals at a point, for p = `outputs`."""
        one = self.rows(slice(0, 1))
        return one.residuals([self.points.new_zeros(1, outputs)] * len(self.operators)).shape[1]

    @property
    def root_weights(self) -> Tensor:
        """[n] √w."""
        weights = torch.as_tensor(self.weights, dtype=self.points.dtype, device=self.points.device)
        return weights.sqrt().expand(len(self))

    def mean(self, weight: float = 1.0) -> Condition:
        """Return the condition with weights · weight / n: its loss is half a mean square."""
        return replace(self, weights=self.weights * (weight / len(self)))

    def rows(self, ids: Tensor | slice) -> Condition:
        """Return the condition at some of its points."""
        return replace(
            self,
            points=self.points[ids],
            target=None if self.target is None else self.target[ids],
            weights=self.weights[ids] if isinstance(self.weights, Tensor) else self.weights,
        )

    def residuals(self, fields: Sequence[Tensor]) -> Tensor:
        """Return [n, m] weighted residuals for the operators' values, q tensors [n, p]."""
        value = fields[0] if self.residual is None else self.residual(self.points, *fields)
        if self.target is not None:
            value = value - self.target
        return self.root_weights[:, None] * value

    def linearised(self, fields: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return weighted residuals [n, m] and their derivatives by the fields [n, m, q, p].

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


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return Σ_i a_i b_i."""
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def _sum(a: Vector | None, b: Vector | None) -> Vector | None:
    if a is None or b is None:
        return a or b
    return tuple(x + y for x, y in zip(a, b, strict=True))
