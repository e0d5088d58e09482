"""Density control by Markov chain Monte Carlo: dead splats move to live ones, and noise explores.

Legend: o opacity, Σ covariance, N number of splats that share one place, η standard normal noise,
λ learning rate of the means.

Source: Kheradmand et al., 3D Gaussian Splatting as Markov Chain Monte Carlo, NeurIPS 2024.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from splatrender.flow.schedules import scaled_interval
from splatrender.flow.state import TrainState
from splatrender.flow.strategies.base import STRATEGIES, StepReport, Strategy
from splatrender.model import Splats
from splatrender.model.draws import draw
from splatrender.model.quaternions import rotate

DEAD_OPACITY = 0.005  # a splat as faint as this changes a pixel by at most 1.3 grey levels
MAX_SHARERS = 51  # twins of one place at most; more would be so faint that they die at once
NOISE_SHARPNESS = 100.0  # slope of the gate of noise where opacity rises above DEAD_OPACITY
NOISE_NEGLIGIBLE = 0.09  # opacity at which the gate has fallen to 2e-4: no noise is drawn above


class MCMC(Strategy):
    """Relocation, growth and noise.

    Every 100 iterations between 500 and 85 % of the run (fewer in short runs), splats with
    o <= 0.005 move onto live splats drawn with probability proportional to opacity, and the
    number of splats grows by 5 % up to the budget. The twins share opacity and covariance such
    that the image stays (`shared`). In every iteration means receive noise
    λ · 5·10⁵ · sigmoid(100 (0.005 - o)) Σ η, and mean opacity and scale weigh 0.01 in the loss.

    Adam moves only splats that its view sees, so a splat that no view sees would never fade:
    such splats count as dead once every view has been visited without seeing them.

    Args:
        iterations: length of the run.
        max_splats: number of splats never to exceed.

    Source:
        Kheradmand et al. 2024, sections 3.2 (noise), 3.3 (relocation, eq. 9), 3.4 (regularisers).
    """

    name = "mcmc"
    growth = 0.05
    opacity_weight = 0.01
    scale_weight = 0.01  # [1 / scene unit]
    noise = 5e5  # [1 / scene unit²], times the learning rate of the means

    def __init__(self, iterations: int, max_splats: int) -> None:
        super().__init__(iterations, max_splats)
        self.interval = scaled_interval(100, iterations)
        self.first = scaled_interval(500, iterations)
        self.last = round(0.85 * iterations)
        self._window_start = 0  # iteration at which the search for unseen splats began

    @torch.no_grad()
    def after_backward(self, state: TrainState) -> None:
        """Add the gradients of 0.01 mean(o) + 0.01 mean(s)."""
        regularise(state, self.opacity_weight, self.scale_weight)

    @torch.no_grad()
    def step(self, state: TrainState) -> StepReport | None:
        """Add noise; relocate and grow when it is time."""
        diffuse(state, self.noise)
        unseen = self._unseen(state)
        due = self.first <= state.iteration <= self.last
        if not due or state.iteration % self.interval:
            return None
        relocated = self._relocate(state, unseen)
        born = self._grow(state)
        if relocated or born:
            return StepReport(state.iteration, len(state), born=born, relocated=relocated)
        return None

    def state_dict(self) -> dict[str, int]:
        """Return the iteration at which the window of the search for unseen splats began."""
        return {"window_start": self._window_start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the window of an earlier run."""
        self._window_start = int(state["window_start"])

    def _unseen(self, state: TrainState) -> Tensor:
        """Return [N] bool: splats that no view saw in the last complete round of views.

        `steps` counts the iterations that saw a splat; one that has not moved in two epochs of
        views (any window of two contains a complete shuffled round) is invisible from everywhere.
        """
        key = "mcmc/steps"
        if key not in state.rows:
            state.rows[key] = state.steps.clone()
            state.rows["mcmc/unseen"] = torch.zeros_like(state.steps, dtype=torch.bool)
            self._window_start = state.iteration
        elif state.iteration - self._window_start >= 2 * max(1, len(state.views)):
            state.rows["mcmc/unseen"] = state.rows[key] == state.steps
            state.rows[key] = state.steps.clone()
            self._window_start = state.iteration
        return state.rows["mcmc/unseen"]

    def _relocate(self, state: TrainState, unseen: Tensor) -> int:
        """Move dead splats onto live ones; return their number."""
        opacities = state.splats.opacities
        dead_mask = (opacities <= DEAD_OPACITY) | unseen
        dead = dead_mask.nonzero()[:, 0]
        weights = opacities.masked_fill(dead_mask, 0)
        if len(dead) in (0, len(state)):
            return 0
        parents, twins = _divide(state, weights, len(dead))
        state.overwrite(dead, twins)
        _mark_new(state, torch.cat([dead, parents]))
        return len(dead)

    def _grow(self, state: TrainState) -> int:
        """Add 5 % more splats within the budget; return their number."""
        count = len(state)
        born = min(self.max_splats, int((1 + self.growth) * count)) - count
        if born <= 0:
            return 0
        parents, twins = _divide(state, state.splats.opacities, born)
        state.append(twins)
        children = torch.arange(count, count + born, device=parents.device)
        _mark_new(state, torch.cat([parents, children]))
        return born


@torch.no_grad()
def regularise(state: TrainState, opacity_weight: float, scale_weight: float) -> None:
    """Add the gradients of opacity_weight · mean(o) + scale_weight · mean(s).

    Args:
        state: the run, after the backward pass.
        opacity_weight, scale_weight: against the photometric loss.
    """
    splats = state.splats
    logits, log_scales = splats.opacity_logits, splats.log_scales
    if logits.grad is not None and opacity_weight:
        opacities = logits.sigmoid()
        slope = torch.addcmul(opacities, opacities, opacities, value=-1)  # o (1 - o)
        logits.grad.add_(slope, alpha=opacity_weight / logits.numel())
    if log_scales.grad is not None and scale_weight:
        log_scales.grad.add_(log_scales.exp(), alpha=scale_weight / log_scales.numel())


def diffuse(state: TrainState, noise: float) -> None:
    """Add noise: means += λ · noise · sigmoid(100 (0.005 - o)) Σ η, for o < 0.09.

    Args:
        state: the run; its splats are changed in place.
        noise: strength [1 / scene unit²], times the learning rate of the means.
    """
    splats, strength = state.splats, noise * state.means_lr
    means, *shape = splats.means, splats.opacities, splats.quats, splats.log_scales
    if means.device.type != "cpu":
        # All of them at once: to gather the faint ones would mean to wait for their number.
        means.add_(_noise(state.generator, strength, *shape))
        return
    ids = (shape[0] < NOISE_NEGLIGIBLE).nonzero()[:, 0]
    if len(ids):
        faint = (tensor.index_select(0, ids) for tensor in shape)
        means.index_add_(0, ids, _noise(state.generator, strength, *faint))


def _noise(
    generator: torch.Generator, strength: float, opacities: Tensor, quats: Tensor, logs: Tensor
) -> Tensor:
    """Return [M, 3] for M splats of opacities [M], quaternions [M, 4] and log scales [M, 3]."""
    eta = torch.randn(len(quats), 3, generator=generator, device=quats.device)
    gate = torch.sigmoid(NOISE_SHARPNESS * (DEAD_OPACITY - opacities))
    gate.masked_fill_(opacities >= NOISE_NEGLIGIBLE, 0)
    eta *= (gate * strength)[:, None]
    quats = torch.nn.functional.normalize(quats, dim=1)
    variances = (2 * logs).exp_()
    local = rotate(quats, eta, inverse=True).mul_(variances)  # Σ = R diag(s²) Rᵀ
    return rotate(quats, local)


def shared(opacities: Tensor, sharers: Tensor) -> tuple[Tensor, Tensor]:
    """Return opacity and scale factor of N twins that together look like one splat.

    o' = 1 - (1 - o)^(1/N),    s' = s o / Σ_{j=1}^{N} C(N, j) (-1)^(j+1) o'^j / √j

    The first keeps the transmittance at the centre; the second keeps the integral of the alpha
    along a line through the centre, where 1 - (1 - o' g)^N replaces o g. (The double sum of the
    paper, over i <= N and k < i of C(i-1, k), is this single one, as Σ_i C(i-1, k) = C(N, k+1).)

    Args:
        opacities: [M] opacities o in (0, 1).
        sharers: int64 [M] numbers N of twins, >= 1; counts above 51 are taken as 51.

    Returns:
        Opacities o' [M] and factors s'/s [M], of the dtype of `opacities`.

    Source:
        Kheradmand et al. 2024, eq. 9.

    Example:
        >>> shared(torch.tensor([0.75]), torch.tensor([2]))[0]
        tensor([0.5000])
    """
    n = sharers.clamp(1, MAX_SHARERS)
    old = opacities.double()
    new = -torch.expm1(torch.log1p(-old) / n)
    powers = torch.arange(1, MAX_SHARERS + 1, dtype=torch.float64, device=old.device)
    terms = _signed_binomials(old.device)[n] * new[:, None] ** powers / powers.sqrt()
    return new.to(opacities.dtype), (old / terms.sum(dim=1)).to(opacities.dtype)


@cache
def _signed_binomials(device: torch.device) -> Tensor:
    """Return [52, 51] C(N, j) (-1)^(j+1) by N and j - 1, in float64 (exact below 2^53)."""
    table = torch.zeros(MAX_SHARERS + 1, MAX_SHARERS + 1, dtype=torch.float64)
    table[:, 0] = 1
    for n in range(1, MAX_SHARERS + 1):
        table[n, 1:] = table[n - 1, 1:] + table[n - 1, :-1]  # Pascal's triangle
    table[:, 2::2] *= -1
    return table[:, 1:].to(device)


def _divide(state: TrainState, weights: Tensor, count: int) -> tuple[Tensor, Splats]:
    """Draw `count` parents by weight, shrink them in place; return their ids and the twins."""
    chosen = draw(weights, count, state.generator)
    parents, inverse, repeats = chosen.unique(return_inverse=True, return_counts=True)
    family = state.splats.detach().index(parents)
    opacities, factors = shared(family.opacities, repeats + 1)
    opacities = opacities.clamp(DEAD_OPACITY, 1 - 1e-6)  # a newborn must not count as dead
    family.opacity_logits.copy_(torch.logit(opacities))
    family.log_scales.add_(factors.log()[:, None])
    state.overwrite(parents, family)
    return parents, family.index(inverse)


def _mark_new(state: TrainState, ids: Tensor) -> None:
    """Mark newborn splats as seen: no view has been searched for them yet."""
    state.rows["mcmc/unseen"][ids] = False
    state.rows["mcmc/steps"][ids] = -1


STRATEGIES[MCMC.name] = MCMC
