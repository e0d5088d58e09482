"""One step of Adam on the splats that a view saw."""

from __future__ import annotations

import torch
from torch import Tensor

from splatrender.flow.memory import TransportMemory
from splatrender.flow.schedules import LearningRates, exponential
from splatrender.flow.state import TrainState
from splatrender.model import Splats
from splatrender.operators.adam import adam_step

BETAS = (0.9, 0.999)
EPSILON = 1e-15  # gradients of a mean over pixels are small: a larger one would damp the steps


class Optimizer:
    """Adam with a step size for each parameter and a step count for each splat.

    Splats outside the image keep value and moments, as if the step had not been. Step counts
    per splat make the bias correction right for splats that are young or seldom seen.

    Args:
        rates: step sizes.
    """

    def __init__(self, rates: LearningRates) -> None:
        self.rates = rates
        self._sh_rates = torch.empty(0)

    def memory(self, splats: Splats) -> TransportMemory:
        """Return the memory before the first step."""
        return TransportMemory.of_adam(splats)

    def schedule(self, state: TrainState) -> None:
        """Set the step size of the means for the current iteration."""
        rates = self.rates
        state.means_lr = exponential(rates.means, rates.means_final, state.progress)

    @torch.no_grad()
    def step(self, state: TrainState, visible: Tensor) -> None:
        """Move the visible splats by their gradients, and clear the gradients.

        Args:
            state: splats with gradients in `.grad`, their moments and step counts.
            visible: bool [N].
        """
        rates = self.rates
        lr: dict[str, float | Tensor] = {
            "means": state.means_lr,
            "quats": rates.quats,
            "log_scales": rates.log_scales,
            "opacity_logits": rates.opacity_logits,
            "sh": self._rates_of_sh(state.splats.sh),
        }
        moving = [(n, p, p.grad) for n, p in state.splats.items() if p.grad is not None]
        for name, parameter, gradient in moving:
            moments = state.moments[name]
            adam_step(
                parameter,
                gradient,
                moments.exp_avg,
                moments.exp_avg_sq,
                state.steps,
                visible,
                lr[name],
                betas=BETAS,
                eps=EPSILON,
                advance=name == moving[-1][0],  # the counts are common to all parameters
            )
            parameter.grad = None

    def _rates_of_sh(self, sh: Tensor) -> Tensor:
        """Return [K*3] step sizes of the columns: the constant harmonic, then the others."""
        columns = sh.shape[1] * sh.shape[2]
        if len(self._sh_rates) != columns:
            self._sh_rates = torch.full((columns,), self.rates.sh_directional, device=sh.device)
            self._sh_rates[: sh.shape[2]] = self.rates.sh_constant
        return self._sh_rates
