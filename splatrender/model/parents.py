"""Parent bumps: the isotropic shape ρ that a splat is the affine image of.

Legend: z local coordinates of a splat, d their number, s = |z|²/2, φ profile, ρ(z) = φ(s).

Every parent has peak φ(0) = 1 and, where it is a density, identity covariance once normalised, so
that the factors A of splats of different parents mean the same. All derivatives follow from those
of the profile: ∇ρ = φ' z, ∇²ρ = φ'' z zᵀ + φ' I, Δρ = 2 s φ'' + d φ'.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splatrender.errors import InputError

NEAR_KINK = 1e-16  # smallest s of the hat, whose profile has its kink at s = 0


class Parent(ABC):
    """An isotropic bump ρ(z) = φ(|z|²/2) with peak 1.

    Attributes:
        name: name in files and options.
        smoothness: number of derivatives that exist almost everywhere and are not all zero.
        is_density: true if ρ is positive: it can then be normalised and sampled.
    """

    name: ClassVar[str]
    smoothness: ClassVar[int] = 3
    is_density: ClassVar[bool] = True

    @abstractmethod
    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return the profile and its derivatives φ, φ', ... up to `order`.

        Args:
            s: half the squared distance in local coordinates, of any shape, >= 0.
            dims: number of input dimensions d.
            order: 0 to 3.

        Returns:
            order + 1 tensors of the shape of `s`.
        """

    @abstractmethod
    def integral(self, dims: int) -> float:
        """Return ∫ ρ(z) dz over R^d, by which a density is normalised."""

    @abstractmethod
    def radius(self, dims: int, tolerance: float) -> float:
        """Return the distance |z| beyond which |ρ| stays below `tolerance`."""

    @abstractmethod
    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw independent samples from the normalised parent.

        Args:
            count: number of samples.
            dims: number of input dimensions d.
            generator: source of random numbers; torch's own if None.

        Returns:
            float64 [count, d].

        Raises:
            InputError: the parent is no density.
        """

    def value(self, z: Tensor) -> Tensor:
        """Return ρ(z) for local coordinates [..., d]."""
        return self.profile(_half_square(z), z.shape[-1], 0)[0]

    def gradient(self, z: Tensor) -> Tensor:
        """Return ∇ρ(z) = φ' z, [..., d]."""
        return self.profile(_half_square(z), z.shape[-1], 1)[1][..., None] * z

    def laplacian(self, z: Tensor) -> Tensor:
        """Return Δρ(z) = 2 s φ'' + d φ', [...]."""
        s = _half_square(z)
        _, first, second = self.profile(s, z.shape[-1], 2)
        return 2 * s * second + z.shape[-1] * first

    def check_dims(self, dims: int) -> None:
        """Raise InputError if the parent does not exist in that many dimensions."""
        return None


@dataclass(frozen=True)
class Gaussian(Parent):
    """ρ = exp(−|z|²/2).

    Example:
        >>> Gaussian().value(torch.tensor([1.0]))
        tensor(0.6065)
    """

    name = "gaussian"

    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return the derivatives of the profile, each ∓φ; see `Parent`."""
        value = (-s).exp()
        return [value if i % 2 == 0 else -value for i in range(order + 1)]

    def integral(self, dims: int) -> float:
        """Return (2π)^{d/2}."""
        return math.pow(2 * math.pi, dims / 2)

    def radius(self, dims: int, tolerance: float) -> float:
        """Return √(2 ln(1/tolerance))."""
        return math.sqrt(-2 * math.log(tolerance))

    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw from the standard normal distribution."""
        return torch.randn(count, dims, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Bump(Parent):
    """ρ = (1 − |z|²/R²)³ inside |z| < R, 0 outside, R² = d + 8: twice differentiable, compact."""

    name = "bump"

    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return the derivatives of the profile, see `Parent`."""
        slope = -2 / (dims + 8)
        t = (1 + slope * s).clamp(min=0)
        inside = (t > 0).to(t.dtype)
        powers = [t**3, 3 * slope * t**2, 6 * slope**2 * t, 6 * slope**3 * inside]
        return powers[: order + 1]

    def integral(self, dims: int) -> float:
        """Return R^d π^{d/2} Γ(4) / Γ(d/2 + 4)."""
        return math.pow(math.pi * (dims + 8), dims / 2) * 6 / math.gamma(dims / 2 + 4)

    def radius(self, dims: int, tolerance: float) -> float:
        """Return the radius R of the support."""
        return math.sqrt(dims + 8)

    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Return d coordinates of uniform points on the sphere of radius R in R^{d+8}."""
        ball = torch.randn(count, dims + 8, generator=generator, dtype=torch.float64)
        norms: Tensor = ball.norm(dim=1, keepdim=True)
        return math.sqrt(dims + 8) * ball[:, :dims] / norms


@dataclass(frozen=True)
class StudentT(Parent):
    """ρ = (1 + |z|²/(ν − 2))^{−(ν+d)/2}: heavy tails.

    Attributes:
        degrees: degrees of freedom ν >= 3.
    """

    degrees: int = 5
    name = "student-t"

    def __post_init__(self) -> None:
        if self.degrees < 3:
            raise InputError(f"degrees: expected a whole number >= 3, got {self.degrees}")

    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return the derivatives of the profile, see `Parent`."""
        slope, power = 2 / (self.degrees - 2), -(self.degrees + dims) / 2
        t = 1 + slope * s
        derivatives, factor = [], 1.0
        for i in range(order + 1):
            derivatives.append(factor * t ** (power - i))
            factor *= slope * (power - i)
        return derivatives

    def integral(self, dims: int) -> float:
        """Return (π (ν − 2))^{d/2} Γ(ν/2) / Γ((ν + d)/2)."""
        nu = self.degrees
        ratio = math.lgamma(nu / 2) - math.lgamma((nu + dims) / 2)
        return math.pow(math.pi * (nu - 2), dims / 2) * math.exp(ratio)

    def radius(self, dims: int, tolerance: float) -> float:
        """Return the distance at which the tail has fallen to `tolerance`."""
        tail = tolerance ** (-2 / (self.degrees + dims)) - 1
        return math.sqrt(tail * (self.degrees - 2))

    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw normal samples over the root of χ²_ν/(ν − 2)."""
        nu = self.degrees
        normal = torch.randn(count, dims + nu, generator=generator, dtype=torch.float64)
        chi_squared = normal[:, dims:].square().sum(dim=1, keepdim=True)
        return normal[:, :dims] * ((nu - 2) / chi_squared).sqrt()


@dataclass(frozen=True)
class MexicanHat(Parent):
    """ρ = (1 − |z|²/d) exp(−|z|²/2), the Gaussian's negative Laplacian: signed, of integral 0.

    In place of its own integral it is normalised by that of the Gaussian.
    """

    name = "mexican-hat"
    is_density = False

    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return φ^{(i)} = (−1)^i (1 + 2 i/d − 2 s/d) e^{−s}."""
        gaussian, polynomial = (-s).exp(), 1 - (2 / dims) * s
        return [(-1) ** i * (polynomial + 2 * i / dims) * gaussian for i in range(order + 1)]

    def integral(self, dims: int) -> float:
        """Return (2π)^{d/2}, the integral of the Gaussian."""
        return math.pow(2 * math.pi, dims / 2)

    def radius(self, dims: int, tolerance: float) -> float:
        """Return the distance at which (|z|²/d) exp(−|z|²/2) has fallen to `tolerance`."""
        square = 2.0
        for _ in range(20):  # the fixed point of |z|² = 2 ln(|z|²/(d · tolerance))
            square = 2 * math.log(max(square, 2.0) / (dims * min(tolerance, 1e-2)))
        return math.sqrt(square)

    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Refuse: a signed bump has no samples."""
        raise InputError("parent: expected a density to sample from, got mexican-hat (signed)")


class _Linear(Parent):
    """A parent of one dimension."""

    def check_dims(self, dims: int) -> None:
        """Refuse all dimensions but one."""
        if dims != 1:
            raise InputError(f"parent: {self.name} exists in 1 dimension, got {dims}")


@dataclass(frozen=True)
class Box(_Linear):
    """ρ = 1 inside |z| < √3 and 0 outside, in one dimension: piecewise constant functions.

    Its derivatives vanish, so that transport cannot move it: births and deaths place boxes.
    """

    name = "box"
    smoothness = 0

    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return the derivatives of the profile, see `Parent`."""
        inside = (s < 1.5).to(s.dtype)
        return [inside] + [torch.zeros_like(s) for _ in range(order)]

    def integral(self, dims: int) -> float:
        """Return 2√3."""
        return 2 * math.sqrt(3)

    def radius(self, dims: int, tolerance: float) -> float:
        """Return √3."""
        return math.sqrt(3)

    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uniform samples."""
        uniform = torch.rand(count, dims, generator=generator, dtype=torch.float64)
        return math.sqrt(3) * (2 * uniform - 1)


@dataclass(frozen=True)
class Hat(_Linear):
    """ρ = 1 − |z|/√6 inside |z| < √6, 0 outside, in one dimension: piecewise linear functions."""

    name = "hat"
    smoothness = 1

    def profile(self, s: Tensor, dims: int, order: int) -> list[Tensor]:
        """Return the derivatives of the profile, see `Parent`."""
        distance = (2 * s.clamp(min=NEAR_KINK)).sqrt()
        inside = (s < 3).to(s.dtype) / math.sqrt(6)
        derivatives = [
            (1 - (2 * s).clamp(min=2 * NEAR_KINK).sqrt() / math.sqrt(6)).clamp(min=0),
            -inside / distance,
            inside / distance**3,
            -3 * inside / distance**5,
        ]
        return derivatives[: order + 1]

    def integral(self, dims: int) -> float:
        """Return √6."""
        return math.sqrt(6)

    def radius(self, dims: int, tolerance: float) -> float:
        """Return √6."""
        return math.sqrt(6)

    def sample(self, count: int, dims: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw differences of two uniform samples."""
        pair = torch.rand(2, count, dims, generator=generator, dtype=torch.float64)
        return math.sqrt(6) * (pair[0] - pair[1])


PARENTS: dict[str, type[Parent]] = {
    parent.name: parent for parent in (Gaussian, Bump, StudentT, MexicanHat, Box, Hat)
}


def create_parent(name: str | Parent) -> Parent:
    """Return the parent of a name, with its default settings; pass a parent on.

    Args:
        name: a key of `PARENTS`, or a parent.

    Returns:
        A parent.

    Raises:
        InputError: there is none of that name.

    Example:
        >>> create_parent("bump")
        Bump()
    """
    if isinstance(name, Parent):
        return name
    if name not in PARENTS:
        raise InputError(f"parent: expected one of {', '.join(PARENTS)}; got {name!r}")
    return PARENTS[name]()


def _half_square(z: Tensor) -> Tensor:
    return 0.5 * z.square().sum(dim=-1)
