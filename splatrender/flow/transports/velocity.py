"""Transport: the Wasserstein part of the flow, on means, factors and weights of splats.

Legend: m mass, v weight, b mean, A factor, V potential of one splat, F loss, η step, τ temperature.

The Wasserstein velocity of a splat is −∇V, and autograd's gradient of F is m ∇V: dividing by the
mass lets light splats move as fast as heavy ones. Nothing here depends on the form of F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.errors import InputError


@dataclass(frozen=True, eq=False)
class Velocity:
    """−∇V of each splat.

    Attributes:
        weights: [k, p] v̇ = −E[δF].
        means: [k, d] ḃ = −E[∇φ].
        factors: [k, d, d] Ȧ = −E[∇φ ξᵀ].
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def power(self, mass: Tensor) -> Tensor:
        """Return −dF/dt along the velocity, Σ m |∇V|²: the decrease of F at first order."""
        squares = [t.square().reshape(len(mass), -1).sum(dim=1) for t in self.parts()]
        return (mass * sum(squares)).sum()

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three tensors."""
        return self.weights, self.means, self.factors


def wasserstein_velocity(
    mass: Tensor, grad_weights: Tensor, grad_means: Tensor, grad_factors: Tensor
) -> Velocity:
    """Divide autograd's gradients of F by −m.

    Args:
        mass: [k] m; splats without mass get no velocity.
        grad_weights: [k, p] ∂F/∂v.
        grad_means: [k, d] ∂F/∂b.
        grad_factors: [k, d, d] ∂F/∂A.

    Returns:
        The velocity.
    """
    inverse = torch.where(mass > 0, -1 / mass.clamp(min=torch.finfo(mass.dtype).tiny), 0)
    return Velocity(
        inverse[:, None] * grad_weights,
        inverse[:, None] * grad_means,
        inverse[:, None, None] * grad_factors,
    )


def splitting_matrix(factors: Tensor, velocity: Tensor) -> Tensor:
    """Return [k, d, d] S = E_ρ[∇²φ] = 2 ∂V/∂Σ for a Gaussian parent: Ȧ = −S A.

    Args:
        factors: [k, d, d] A.
        velocity: [k, d, d] Ȧ.
    """
    matrix: Tensor = -torch.linalg.solve(factors, velocity, left=False)
    return (matrix + matrix.mT) / 2


def euclidean_retraction(factors: Tensor, velocity: Tensor, step: float) -> Tensor:
    """Return [k, d, d] A + η Ȧ, which may pass through singular factors."""
    return factors + step * velocity


def bures_wasserstein_retraction(
    factors: Tensor, splitting: Tensor, step: float, exponential: bool = True
) -> Tensor:
    """Return exp(−η S) A, which stays invertible, or (I − η S) A to first order.

    Args:
        factors: [k, d, d] A.
        splitting: [k, d, d] S, symmetric.
        step: η.
        exponential: take the exponential; otherwise its first order.

    Returns:
        [k, d, d] new factors.
    """
    if exponential:
        exponent: Tensor = torch.linalg.matrix_exp(-step * splitting)
        return exponent @ factors
    return factors - step * splitting @ factors


def entropic_noise(
    means: Tensor,
    step: float,
    temperature: float,
    generator: torch.Generator | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """Add the noise of the flow of F + τ · entropy: b + √(2 η τ) ξ, or b + √(2 η τ) A ξ.

    Args:
        means: [k, d] b.
        step: η.
        temperature: τ >= 0.
        generator: source of randomness.
        factors: [k, d, d] A to shape the noise like the splats, None for round noise.

    Returns:
        [k, d] new means.
    """
    if temperature < 0:
        raise InputError(f"temperature: expected a number >= 0, got {temperature}")
    if temperature == 0:
        return means
    noise = torch.randn(means.shape, generator=generator, dtype=torch.float64).to(means)
    if factors is not None:
        noise = (factors @ noise[..., None])[..., 0]
    return means + math.sqrt(2 * step * temperature) * noise
