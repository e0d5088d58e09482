"""The splat measure: a weighted mixture of affine images of one parent bump.

Legend: k splats, p outputs, d inputs, m mass, v weight, b mean, A factor, ρ parent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model.parents import Gaussian, Parent


@dataclass(frozen=True, eq=False)
class SplatMeasure:
    """μ = Σ_i m_i δ_(v_i, A_i, b_i), which stands for the function f : R^d → R^p,

        f(x) = Σ_i m_i v_i ρ_i(x),      ρ_i(x) = N_i ρ(A_i⁻¹ (x − b_i)),

    where N_i = 1 for peak-normalised splats and N_i = 1 / (|det A_i| ∫ρ) for densities. With
    |det A| a factor may change the sign of its determinant without the splat turning negative.

    Attributes:
        mass: [k] masses m >= 0, what Fisher–Rao reaction changes.
        weights: [k, p] directions v in output space.
        means: [k, d] centres b, in units of the inputs.
        factors: [k, d, d] A, in units of the inputs; the covariance is A Aᵀ.
        parent: the bump ρ that all splats share.
        normalised: whether splats are densities (integral 1) or bumps of peak 1.

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
        for name, tensor in self.items():
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise InputError(
                    f"SplatMeasure.{name}: expected a floating-point tensor, found {kind}"
                )
        if self.means.dim() != 2 or self.means.shape[1] == 0:
            found = tuple(self.means.shape)
            raise InputError(
                f"SplatMeasure.means: expected shape (k, d) with d >= 1, found {found}"
            )
        count, dims = self.means.shape
        outputs = self.weights.shape[-1] if self.weights.dim() == 2 else 1
        expected = {
            "mass": (count,),
            "weights": (count, outputs),
            "factors": (count, dims, dims),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise InputError(f"SplatMeasure.{name}: expected shape {shape}, found {found}")
        for name, tensor in self.items():
            for what in ("dtype", "device"):
                if getattr(tensor, what) != getattr(self.means, what):
                    raise InputError(
                        f"SplatMeasure.{name}: expected {what} {getattr(self.means, what)} as of "
                        f"means, found {getattr(tensor, what)}"
                    )
        self.parent.check_dims(dims)

    def __len__(self) -> int:
        return self.means.shape[0]

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
        return 1 / (torch.linalg.det(self.factors).abs() * self.parent.integral(self.dims))

    @property
    def amplitudes(self) -> Tensor:
        """[k, p] m v N, the splats' heights above zero."""
        return (self.mass * self.norms)[:, None] * self.weights

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that all tensors share."""
        return self.means.dtype

    @property
    def device(self) -> torch.device:
        """The device that all tensors share."""
        return self.means.device

    @classmethod
    def from_amplitudes(
        cls,
        amplitudes: Tensor,
        means: Tensor,
        factors: Tensor,
        parent: Parent | None = None,
        normalised: bool = False,
    ) -> SplatMeasure:
        """The measure of splats of given heights, with m = |m v| and weights of length 1.

        Args:
            amplitudes: [k, p] m v N.
            means: [k, d].
            factors: [k, d, d].
            parent: bump, the Gaussian if None.
            normalised: whether the splats are to be densities.

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

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of the fields, in the order of declaration."""
        return ((f.name, getattr(self, f.name)) for f in fields(self)[:4])

    def map(self, function: Callable[[Tensor], Tensor]) -> SplatMeasure:
        """The measure whose tensors are those of this one after `function`."""
        return self.with_tensors({name: function(tensor) for name, tensor in self.items()})

    def with_tensors(self, tensors: dict[str, Tensor]) -> SplatMeasure:
        """The measure with other tensors in the named fields, of the same parent and kind."""
        merged = {**dict(self.items()), **tensors}
        return SplatMeasure(**merged, parent=self.parent, normalised=self.normalised)

    def to(self, *args: Any, **kwargs: Any) -> SplatMeasure:
        """The same measure in another dtype or on another device (arguments of `Tensor.to`)."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> SplatMeasure:
        """The same measure outside the autograd graph, sharing memory."""
        return self.map(Tensor.detach)

    def index(self, ids: Tensor) -> SplatMeasure:
        """The splats chosen by integer ids [M] or by a boolean mask [k]."""
        return self.map(lambda tensor: tensor[ids])

    def finite(self) -> Tensor:
        """[k] bool: whether every number of a splat is finite."""
        masks = [t.isfinite().reshape(len(self), -1).all(dim=1) for _, t in self.items()]
        return torch.stack(masks).all(dim=0)

    def inverse_factors(self) -> Tensor:
        """[k, d, d] A⁻¹.

        Raises:
            InputError: a factor is singular or not finite.
        """
        inverses, info = torch.linalg.inv_ex(self.factors)
        good = (info == 0) & inverses.isfinite().all(dim=2).all(dim=1)
        if not bool(good.all()):
            first = int((~good).nonzero()[0, 0])
            raise InputError(
                f"SplatMeasure.factors: expected invertible matrices, found a singular one "
                f"at splat {first}"
            )
        return inverses

    @staticmethod
    def cat(parts: Sequence[SplatMeasure]) -> SplatMeasure:
        """All splats of several measures, in order; they must agree in all but their number."""
        if not parts:
            raise InputError("SplatMeasure.cat: expected at least one measure, found none")
        kinds = {(part.parent, part.normalised, part.dims, part.outputs) for part in parts}
        if len(kinds) > 1:
            raise InputError("SplatMeasure.cat: expected one parent and shape, found several")
        tensors = {
            name: torch.cat([getattr(part, name) for part in parts]) for name, _ in parts[0].items()
        }
        return parts[0].with_tensors(tensors)
