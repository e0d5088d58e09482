"""The splat measure: a weighted mixture of affine images of one parent bump.

Legend: k splats, p outputs, d inputs, m mass, v weight, b mean, A factor, ρ parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model.parents import Gaussian, Parent
from splatrender.model.record import Record


@dataclass(frozen=True, eq=False)
class SplatMeasure(Record):
    """Measure μ = Σ_i m_i δ_(v_i, A_i, b_i) of splats.

    It stands for the function f : R^d → R^p,

        f(x) = Σ_i m_i v_i ρ_i(x),      ρ_i(x) = N_i ρ(A_i⁻¹ (x − b_i)),

    where N_i = 1 for peak-normalised splats and N_i = 1 / (|det A_i| ∫ρ) for densities. With
    |det A| a factor may change the sign of its determinant without the splat turning negative.

    Attributes:
        mass: [k] masses m >= 0, what Fisher–Rao reaction changes.
        weights: [k, p] directions v in output space.
        means: [k, d] centres b, in units of the inputs.
        factors: [k, d, d] A, in units of the inputs; the covariance is A Aᵀ.
        parent: the bump ρ that all splats share.
        normalised: true if splats are densities (integral 1), false if they have peak 1.

    All tensors are of one floating-point dtype and on one device.

    Raises:
        InputError: a field has another shape, dtype or device than it should have.

    Source:
        Splat Regression Models, ICLR 2026, section 3.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> measure = SplatMeasure(one, one[:, None], one[:, None], one[:, None, None])
        >>> len(measure), measure.dims, measure.outputs, measure.parameters
        (1, 1, 1, 3)
    """

    mass: Tensor
    weights: Tensor
    means: Tensor
    factors: Tensor
    parent: Parent = field(default_factory=Gaussian)
    normalised: bool = False

    def __post_init__(self) -> None:
        self.check_kinds()
        if self.means.dim() != 2 or self.means.shape[1] == 0:
            found = tuple(self.means.shape)
            raise InputError(f"SplatMeasure.means: expected shape (k, d) with d >= 1, got {found}")
        count, dims = self.means.shape
        outputs = self.weights.shape[-1] if self.weights.dim() == 2 else 1
        self.check_shapes(
            {
                "mass": (count,),
                "weights": (count, outputs),
                "factors": (count, dims, dims),
            }
        )
        self.parent.check_dims(dims)

    def __repr__(self) -> str:
        kind = "densities" if self.normalised else "peak 1"
        return (
            f"SplatMeasure({len(self):,} splats, R^{self.dims} -> R^{self.outputs}, "
            f"{self.parent.name}, {kind}, {self.dtype})"
        )

    @property
    def dims(self) -> int:
        """Number of inputs d."""
        return self.means.shape[1]

    @property
    def outputs(self) -> int:
        """Number of outputs p."""
        return self.weights.shape[1]

    @property
    def parameters(self) -> int:
        """Free numbers k (p + d (d + 3)/2): a rotation of A about the splat changes nothing."""
        return len(self) * (self.outputs + self.dims * (self.dims + 3) // 2)

    @property
    def covariances(self) -> Tensor:
        """[k, d, d] A Aᵀ, in squared units of the inputs."""
        return self.factors @ self.factors.mT

    @property
    def norms(self) -> Tensor:
        """[k] N, the peak of ρ_i."""
        if not self.normalised:
            return torch.ones_like(self.mass)
        volumes: Tensor = torch.linalg.det(self.factors).abs()
        return 1 / (volumes * self.parent.integral(self.dims))

    @property
    def amplitudes(self) -> Tensor:
        """[k, p] m v N, the splats' heights above zero."""
        return (self.mass * self.norms)[:, None] * self.weights

    @classmethod
    def from_amplitudes(
        cls,
        amplitudes: Tensor,
        means: Tensor,
        factors: Tensor,
        parent: Parent | None = None,
        normalised: bool = False,
    ) -> SplatMeasure:
        """Make a measure of splats of given heights, with m = |m v| and weights of length 1.

        Args:
            amplitudes: [k, p] m v N.
            means: [k, d].
            factors: [k, d, d].
            parent: bump, the Gaussian if None.
            normalised: true to make the splats densities.

        Returns:
            The measure; splats of height zero have mass zero and the first unit vector as weight.
        """
        parent = parent or Gaussian()
        unit = torch.zeros_like(amplitudes)
        unit[:, 0] = 1
        norms = cls(unit[:, 0], unit, means, factors, parent, normalised).norms
        moments = amplitudes / norms[:, None]
        mass = moments.norm(dim=1)
        safe = torch.where(mass > 0, mass, 1)[:, None]
        weights = torch.where(mass[:, None] > 0, moments / safe, unit)
        return cls(mass, weights, means, factors, parent, normalised)

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """Return the names of the tensors: all but the parent and the normalisation."""
        return "mass", "weights", "means", "factors"

    def inverse_factors(self) -> Tensor:
        """Return A⁻¹ [k, d, d].

        Raises:
            InputError: a factor is singular or not finite.
        """
        inverses: Tensor
        inverses, info = torch.linalg.inv_ex(self.factors)
        good = (info == 0) & inverses.isfinite().all(dim=2).all(dim=1)
        if not bool(good.all()):
            first = int((~good).nonzero()[0, 0])
            raise InputError(
                f"SplatMeasure.factors: expected invertible matrices, got a singular one "
                f"at splat {first}"
            )
        return inverses

    @classmethod
    def check_alike(cls, parts: Sequence[SplatMeasure]) -> None:
        """Check that measures have one parent, normalisation, and numbers of inputs and outputs."""
        kinds = {(part.parent, part.normalised, part.dims, part.outputs) for part in parts}
        if len(kinds) > 1:
            raise InputError("SplatMeasure.cat: expected one parent and shape, got several")
