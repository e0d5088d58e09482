"""Births and deaths: values of splats, gains of candidates, and the exchange of both.

All functions take masses, potentials, costs, gains and columns as tensors. Point samples, a
differential equation and rendered views give them alike.

Legend: k splats, m mass, V potential, F loss, Φ = ∂r/∂c columns of the design, c amplitudes, r
residuals, R their number, q columns a splat has, s right-hand sides.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from splatrender._moved import renamed
from splatrender.errors import InputError

__all__ = [
    "Exchange",
    "ExchangeLimits",
    "Prices",
    "Selection",
    "duplicate_and_kill",
    "exchange",
    "insertion_gains",
    "orthogonal_least_squares",
    "perturbed_log_costs",
    "removal_cost",
    "removal_cost_refitted",
    "robust_cholesky",
    "splitting_direction",
]

DEPENDENT = 1e-10  # a column this small after projection, relative to before, spans nothing new


def removal_cost(mass: Tensor, potentials: Tensor, curvature: Tensor) -> Tensor:
    """Predict the change of F when one splat is removed and the others stay as they are.

        ΔF_i = −m_i V_i + ½ m_i² H_i,      H_i = ‖∂r/∂m_i‖²

    Exact where residuals are linear in the masses.

    Args:
        mass: [k] masses.
        potentials: [k] V = ∂F/∂m.
        curvature: [k] H.

    Returns:
        [k] costs; negative where removal is a gain.
    """
    return -mass * potentials + 0.5 * mass.square() * curvature


def removal_cost_refitted(amplitudes: Tensor, gram: Tensor) -> Tensor:
    """Predict the change of F when one splat is removed and the other amplitudes are refitted.

        ΔF_i = ½ c_iᵀ [(G⁻¹)_ii]⁻¹ c_i,      G = ΦᵀΦ (+ ridge)

    Exact at amplitudes that are optimal, where residuals are linear in them.

    Args:
        amplitudes: [k, q, s] c.
        gram: [k q, k q] G, positive definite.

    Returns:
        [k] costs >= 0.

    Source:
        Hassibi and Stork, Second order derivatives for network pruning: optimal brain surgeon,
        NIPS 1992.
    """
    count, width, _ = amplitudes.shape
    inverse = torch.cholesky_inverse(robust_cholesky(gram)).reshape(count, width, count, width)
    blocks = inverse.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    refitted: Tensor = torch.linalg.solve(blocks, amplitudes)
    return 0.5 * (amplitudes * refitted).sum(dim=(1, 2))


def duplicate_and_kill(
    potentials: Tensor, mass: Tensor, step: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the deaths and duplications of a step, the particle form of the Fisher–Rao flow.

    Splat i dies with probability 1 − exp(−η (V_i − V̄)⁺) and duplicates with probability
    1 − exp(−η (V_i − V̄)⁻); the longer of the two lists is thinned so that the budget is kept.

    Args:
        potentials: [k] V.
        mass: [k] weights of the mean V̄.
        step: η, in units of 1/V.
        generator: source of randomness.

    Returns:
        int64 deaths and duplications, in equal number and disjoint.

    Source:
        Rotskoff, Jelassi, Bruna and Vanden-Eijnden, Global convergence of neuron birth-death
        dynamics, 2019.
    """
    excess = potentials - (mass * potentials).sum() / mass.sum()
    chance = torch.rand(len(excess), generator=generator, dtype=torch.float64)
    happens = chance.to(excess) < 1 - (-step * excess.abs()).exp()
    deaths = (happens & (excess > 0)).nonzero()[:, 0]
    births = (happens & (excess < 0)).nonzero()[:, 0]
    number = min(len(deaths), len(births))
    return tuple(  # type: ignore[return-value]
        ids[torch.randperm(len(ids), generator=generator)[:number]] for ids in (deaths, births)
    )


def perturbed_log_costs(
    costs: Tensor, generator: torch.Generator, temperature: float = 1.0
) -> Tensor:
    """Return ln cost − T · Gumbel noise, whose order explores deaths that are nearly as cheap.

    For T = 1 a splat comes first with odds 1 / cost; for T = 0 the order is that of the costs.

    Args:
        costs: [k] costs of removal; those below zero count as zero.
        generator: source of randomness.
        temperature: T >= 0.

    Returns:
        [k] numbers to give to `exchange` in place of costs, with a death price of +∞.
    """
    tiny = torch.finfo(costs.dtype).tiny
    uniform = torch.rand(len(costs), generator=generator, dtype=torch.float64).to(costs)
    gumbel = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    return costs.clamp(min=tiny).log() - temperature * gumbel


@dataclass(frozen=True, eq=False)
class Selection:
    """Candidates in the order of their selection, with the gain of each.

    Attributes:
        ids: int64 [b] candidates.
        gains: [b] decrease of F by each, given those before it.
    """

    ids: Tensor
    gains: Tensor


def orthogonal_least_squares(
    residual: Tensor,
    columns: Tensor,
    candidates: Tensor,
    count: int,
    ridge: float = 0.0,
    allowed: Tensor | None = None,
) -> Selection:
    """Select the atoms that decrease F = ½ |r|² most once all amplitudes are refitted.

    A candidate with columns ψ, orthogonalised against those that are there, ψ⊥ = ψ − Φ Φ⁺ ψ,
    gains ½ (ψ⊥ᵀ r)² / (|ψ⊥|² + ridge): the steepest direction of F in the space of measures, per
    unit of what the atom adds. After each selection the rest is orthogonalised against it.

    Args:
        residual: [R, s] r.
        columns: [R, k q] Φ, those of the splats that are there.
        candidates: [R, a, q] ψ of a candidates.
        count: maximum number of atoms.
        ridge: penalty of squared amplitudes, >= 0.
        allowed: bool [a], candidates that may be selected; all if None.

    Returns:
        At most `count` candidates with positive gain.

    Raises:
        InputError: the candidates have other rows than the residual.

    Source:
        Chen, Billings and Luo, Orthogonal least squares methods, 1989.
    """
    if candidates.shape[0] != residual.shape[0]:
        raise InputError(
            f"candidates: expected {residual.shape[0]} rows, got {candidates.shape[0]}"
        )
    psi, r = _orthogonalised(candidates, residual, columns)
    scale = candidates.square().sum(dim=0)
    ids: list[int] = []
    gains: list[float] = []
    for _ in range(count):
        gain, _ = _gains(psi, r, scale, ridge)
        if allowed is not None:
            gain = torch.where(allowed, gain, 0)
        best = int(gain.argmax())
        if not float(gain[best]) > 0:
            break
        ids.append(best)
        gains.append(float(gain[best]))
        for column in torch.linalg.qr(psi[:, best])[0].T:
            psi = psi - column[:, None, None] * torch.einsum("r,raq->aq", column, psi)
            r = r - column[:, None] * (column @ r)
    return Selection(torch.tensor(ids, dtype=torch.int64), residual.new_tensor(gains))


def insertion_gains(
    residual: Tensor, columns: Tensor, candidates: Tensor, ridge: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the gain of each candidate alone, all amplitudes refitted, and its amplitudes.

    Args:
        residual, columns, candidates, ridge: as for `orthogonal_least_squares`.

    Returns:
        [a] gains and [a, q, s] amplitudes.
    """
    psi, r = _orthogonalised(candidates, residual, columns)
    return _gains(psi, r, candidates.square().sum(dim=0), ridge)


def _orthogonalised(candidates: Tensor, residual: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return candidates and residual without their parts in the span of the columns."""
    psi, r = candidates.clone(), residual
    if columns.shape[1]:
        basis, _ = torch.linalg.qr(columns)
        psi = psi - torch.einsum("rb,baq->raq", basis, torch.einsum("rb,raq->baq", basis, psi))
        r = r - basis @ (basis.T @ r)
    return psi, r


def _gains(psi: Tensor, r: Tensor, scale: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return [a] gains and [a, q, s] amplitudes of orthogonalised candidates; 0 if dependent."""
    norms = psi.square().sum(dim=0)
    new = norms > DEPENDENT * scale
    overlap = torch.einsum("raq,rs->aqs", psi, r)
    curvature = (norms + ridge).clamp(min=1e-300)
    gains = torch.where(new, 0.5 * overlap.square().sum(dim=2) / curvature, 0).sum(dim=1)
    return gains, torch.where(new[..., None], -overlap / curvature[..., None], 0)


class Prices(NamedTuple):
    """Prices of an unbalanced exchange, in units of F.

    Both are the price λ of a splat where F + λ k is minimised. Where deaths explore, every death
    is allowed, death = +∞, and every birth that gains, birth = 0: `line_search` decides later.
    """

    death: float
    birth: float


@dataclass(frozen=True)
class ExchangeLimits:
    """Bounds of an exchange.

    Attributes:
        deaths: maximum number of deaths.
        births: maximum number of births.
        growth: maximum number of births beyond deaths; None leaves it to `births`.
        prices: prices of an unbalanced exchange; None for a balanced one.
    """

    deaths: int
    births: int
    growth: int | None = None
    prices: Prices | None = None


@dataclass(frozen=True, eq=False)
class Exchange:
    """Deaths and births that happen together.

    Attributes:
        deaths: int64 [b] splats, by rising cost.
        births: int64 [b'] candidates, by falling gain.
        predicted: change of F, cost of the deaths less gain of the births.
    """

    deaths: Tensor
    births: Tensor
    predicted: float


def exchange(costs: Tensor, gains: Tensor, limits: ExchangeLimits) -> Exchange:
    """Exchange cheap splats for gainful candidates.

    Balanced: splats whose removal lowers F die in any case, free places are filled by falling
    gain, and further births are paired with deaths while their gain exceeds the cost. Priced:
    deaths cost less and births gain more than their price, and nothing is paired.

    Args:
        costs: [k] costs of removal.
        gains: [a] gains of insertion.
        limits: bounds, and the prices if there are any.

    Returns:
        The deaths and the births.

    Example:
        >>> costs, gains = torch.tensor([1.0, 9.0]), torch.tensor([5.0, 2.0])
        >>> result = exchange(costs, gains, ExchangeLimits(deaths=2, births=2, growth=0))
        >>> result.deaths.tolist(), result.births.tolist(), result.predicted
        ([0], [0], -4.0)
    """
    cheap, gainful = costs.argsort(), gains.argsort(descending=True)
    growth = limits.births if limits.growth is None else limits.growth
    if limits.prices is not None:
        deaths = cheap[costs[cheap] < limits.prices.death][: limits.deaths]
        births = gainful[gains[gainful] > limits.prices.birth]
        births = births[: max(0, min(limits.births, growth + len(deaths)))]
    else:
        harmful, gainers = torch.stack([(costs < 0).sum(), (gains > 0).sum()]).tolist()
        harmful = min(limits.deaths, harmful)
        free = min(growth + harmful, gainers, limits.births)
        pairs = min(len(cheap), limits.deaths) - harmful
        pairs = max(0, min(pairs, len(gainful) - free, limits.births - free))
        pays = gains[gainful[free : free + pairs]] > costs[cheap[harmful : harmful + pairs]]
        pairs = int(pays.long().cumprod(dim=0).sum())
        deaths, births = cheap[: harmful + pairs], gainful[: free + pairs]
    cost, gain = torch.stack([costs[deaths].sum(), gains[births].sum()]).tolist()
    return Exchange(deaths, births, cost - gain)


def splitting_direction(splitting: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the direction in which twins gain most at second order, and how much.

    Moving twins to b ± A e δ changes the splat's loss by ½ δ² eᵀ (Aᵀ S A) e, S = E_ρ[∇²φ].

    Args:
        splitting: [n, d, d] S, symmetric.
        factors: [n, d, d] A.

    Returns:
        Lowest eigenvalues [n] of Aᵀ S A (a split pays where they are negative) and their
        eigenvectors [n, d].
    """
    values, vectors = torch.linalg.eigh(factors.mT @ splitting @ factors)
    return values[:, 0], vectors[:, :, 0]


def robust_cholesky(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor of the matrix plus as little of its diagonal as is needed.

    Args:
        matrix: [P, P], positive semidefinite up to rounding.

    Raises:
        InputError: the matrix is not finite.
    """
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(matrix)
    scale, jitter = matrix.diagonal().mean(), torch.finfo(matrix.dtype).eps
    scale = torch.where(scale > 0, scale, 1.0)
    while int(info):
        jitter *= 10
        if not jitter < 1:
            raise InputError("matrix: expected finite positive definite, got something else")
        lifted = matrix.clone()
        lifted.diagonal().add_(jitter * scale)
        lower, info = torch.linalg.cholesky_ex(lifted)
    return lower


def choose_deaths(
    costs: Tensor, count: int, generator: torch.Generator, temperature: float = 1.0
) -> Tensor:
    """Return int64 [count] splats by rising `perturbed_log_costs`; deprecated."""
    warnings.warn(
        "choose_deaths(...) is perturbed_log_costs(...).argsort()[:count] now; the old name ends "
        "with the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return perturbed_log_costs(costs, generator, temperature).argsort()[:count]


__getattr__ = renamed(
    __name__,
    {
        "Births": "splatrender.flow.birth_death.Selection",
        "Twins": "splatrender.model.splitting.Children",
        "split_twins": "splatrender.model.splitting.split_factors",
        "steepest_atoms": "splatrender.flow.birth_death.orthogonal_least_squares",
    },
)
