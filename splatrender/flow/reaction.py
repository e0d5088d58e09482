"""Reaction: the Fisher–Rao part of the flow, which changes masses and keeps places.

Legend: m mass, V = ∂F/∂m potential, V̄ = Σ m V / Σ m, η step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_potential(mass: Tensor, potentials: Tensor) -> Tensor:
    """Return V̄ = Σ m V / Σ m."""
    return (mass * potentials).sum() / mass.sum().clamp(min=torch.finfo(mass.dtype).tiny)


def fisher_rao_step(mass: Tensor, potentials: Tensor, step: float, balanced: bool = True) -> Tensor:
    """Take a step of mirror descent on the masses.

        m ← m exp(−η (V − V̄)), renormalised to the old total       (balanced)
        m ← m exp(−η V)                                             (unbalanced)

    It is the flow ṁ = −m (V − V̄), or ṁ = −m V, with the exponential exact for fixed V.

    Args:
        mass: [k] m >= 0.
        potentials: [k] V.
        step: η.
        balanced: keep total mass.

    Returns:
        [k] new masses.

    Example:
        >>> fisher_rao_step(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), 100.0)
        tensor([2., 0.])
    """
    if not balanced:
        return mass * (-step * potentials).exp()
    excess = potentials - mean_potential(mass, potentials)
    # relative to the lowest potential, so that a long step cannot overflow
    grown = mass * (-step * (excess - excess.min())).exp()
    return grown * (mass.sum() / grown.sum())


def dissipation(mass: Tensor, potentials: Tensor, balanced: bool = True) -> Tensor:
    """Return −dF/dt of the flow: Σ m (V − V̄)² = Var_m(V) Σ m, or Σ m V² if unbalanced.

    Args:
        mass: [k] m.
        potentials: [k] V.
        balanced: keep total mass.
    """
    excess = potentials - mean_potential(mass, potentials) if balanced else potentials
    return (mass * excess.square()).sum()


def entropy_potential(mass: Tensor) -> Tensor:
    """Return [k] ∂/∂m of Σ q ln q, q = m / Σ m: added to V, it spreads mass over the splats."""
    total = mass.sum()
    log_share = (mass / total).clamp(min=torch.finfo(mass.dtype).tiny).log()
    return (log_share - (mass / total * log_share).sum()) / total
