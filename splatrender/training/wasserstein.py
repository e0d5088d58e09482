"""Steps of the Wasserstein–Fisher–Rao flow itself on the splats that a view saw.

Legend: m = -ln(1 - o) optical mass, b mean, A = R diag(s) factor, c harmonics, ω turn about the
splat's own axes, F the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatrender.flow import TrainState
from splatrender.flow.reaction import fisher_rao_step
from splatrender.model import Splats
from splatrender.schedules import LearningRates
from splatrender.training.optimizer import BETAS, EPSILON, Optimizer

LONGEST = 0.5  # step of a logarithm, of a turn [rad], and of a mean in units of the splat's size
STIFFNESS = 0.01  # part of s² added to the inertia of turns: the flow turns a ball infinitely fast
MASSES = 1e-6, 13.0  # beyond, float32 rounds opacities to 0 and 1
GEOMETRY = "means", "log_scales", "quats"
# of the plain form, as parts of Adam's step sizes: means and shapes share a length, and a step of
# the mean logarithm takes some splats much farther (measured with 8,000 splats and 1,000 steps)
PLACE, REACTION = 0.1, 0.3


class WassersteinOptimizer(Optimizer):
    """Transport in the Wasserstein metric, preconditioned by mass, and Fisher–Rao reaction.

        ḃ = -1/m ∂F/∂b      ṡ = -1/m ∂F/∂s      ω̇ = -1/(m I) ∂F/∂ω      ċ = -1/m ∂F/∂c
        d ln m/dt = -∂F/∂m

    I ω² is the Bures–Wasserstein length² of a turn about axis k, which mixes axes i and j:
    I = (s_i² - s_j²)² / (s_i² + s_j²). Velocities are smoothed as Adam smooths gradients. Of time
    steps only lengths are given:

    - plain: the root mean square of (ḃ, ṡ, ω̇) over the mass of the splats in the picture is a
      tenth of the step size of the means, and likewise for ċ and for the reaction.
    - scaled: every splat has two scales of its own, the running root mean squares of ḃ and of
      (ṡ, ω̇), and moves by the step size of the means and by that of the scales times its size. It
      is Adam with one scale for a vector instead of one for each number, so it does not depend on
      the axes of the world; colours and masses go by Adam.

    The mass of a splat cancels in the scaled form, as it does in Adam: there, too, what all
    gradients of a splat have in common drops out.

    Args:
        rates: step sizes.
        scaled: which form.
    """

    def __init__(self, rates: LearningRates, scaled: bool) -> None:
        super().__init__(rates)
        self.scaled = scaled

    @torch.no_grad()
    def step(self, state: TrainState, visible: Tensor) -> None:
        """Move the visible splats along the flow, and clear the gradients.

        Args:
            state: splats with gradients in `.grad`, their moments and step counts.
            visible: bool [N].
        """
        rows = visible.nonzero()[:, 0]
        grads = {name: parameter.grad for name, parameter in state.splats.items()}
        if len(rows) == 0 or any(grad is None for grad in grads.values()):
            return
        seen = state.splats.detach().index(rows)
        slopes = Splats(**{name: grad[rows] for name, grad in grads.items() if grad is not None})
        mass = (-torch.log1p(-seen.opacities)).clamp(*MASSES)
        self._transport(state, rows, seen, slopes, torch.ones_like(mass) if self.scaled else mass)
        for name in GEOMETRY:
            getattr(state.splats, name).grad = None
        if self.scaled:
            super().step(state, visible)  # of what is left
            return
        self._react(state, rows, seen, slopes, mass)
        state.splats.sh.grad = state.splats.opacity_logits.grad = None
        state.steps[rows] += 1

    def _transport(
        self, state: TrainState, rows: Tensor, seen: Splats, slopes: Splats, mass: Tensor
    ) -> None:
        """Move means and factors."""
        scales, quats = seen.scales, normalize(seen.quats, dim=1)
        metric = {
            "means": torch.ones_like(scales),
            "log_scales": scales.square(),
            "quats": _inertia(scales),
        }
        slope = {
            "means": slopes.means,
            "log_scales": slopes.log_scales,
            "quats": slope_of_turns(quats, slopes.quats),
        }
        velocity = {name: -slope[name] / (mass[:, None] * metric[name]) for name in GEOMETRY}
        power = {n: (metric[n] * velocity[n].square()).sum(dim=1) for n in GEOMETRY}
        times = self._times(state, rows, mass, power, scales.prod(dim=1).pow(1 / 3))
        move = {
            name: times[name][:, None] * self._smoothed(state, name, rows, velocity[name])
            for name in GEOMETRY
        }
        far = move["means"].norm(dim=1) / (LONGEST * scales.amax(dim=1))
        target = state.splats.detach()
        target.means[rows] += move["means"] / far.clamp(min=1)[:, None]
        target.log_scales[rows] += move["log_scales"].clamp(-LONGEST, LONGEST)
        target.quats[rows] = turned(quats, move["quats"].clamp(-LONGEST, LONGEST))

    def _react(
        self, state: TrainState, rows: Tensor, seen: Splats, slopes: Splats, mass: Tensor
    ) -> None:
        """Change colours by transport and masses by reaction."""
        target, rates = state.splats.detach(), self.rates
        velocity = -slopes.sh / mass[:, None, None]
        time = rates.sh_constant / _mean(velocity.square().sum(dim=(1, 2)), mass).sqrt()
        target.sh[rows] += time * self._smoothed(state, "sh", rows, velocity)
        potential = slopes.opacity_logits / seen.opacities  # ∂F/∂m, as dm = o d(logit)
        time = REACTION * rates.opacity_logits / _mean(potential.square(), mass).sqrt()
        change = (time * potential).clamp(-LONGEST, LONGEST)
        grown = fisher_rao_step(mass, change, 1.0, balanced=False).clamp(*MASSES)
        target.opacity_logits[rows] = grown.expm1().log()

    def _times(
        self, state: TrainState, rows: Tensor, mass: Tensor, power: dict[str, Tensor], size: Tensor
    ) -> dict[str, Tensor]:
        """[M] time step of each visible splat, by parameter."""
        turning = power["log_scales"] + power["quats"]
        if not self.scaled:
            length = _mean(power["means"] + turning, mass).sqrt()
            return dict.fromkeys(GEOMETRY, (PLACE * state.means_lr / length).expand(len(rows)))
        place = state.means_lr / self._running("means", state, rows, power["means"])
        shape = self.rates.log_scales * size / self._running("log_scales", state, rows, turning)
        return {"means": place, "log_scales": shape, "quats": shape}

    def _running(self, name: str, state: TrainState, rows: Tensor, power: Tensor) -> Tensor:
        """Running root mean square of a velocity, kept in the first column of Adam's."""
        memory = state.moments[name].exp_avg_sq[:, 0]
        now = memory[rows].lerp(power, 1 - BETAS[1])
        memory[rows] = now
        bias = 1 - BETAS[1] ** (state.steps[rows] + 1)
        return (now / bias).sqrt() + EPSILON

    def _smoothed(self, state: TrainState, name: str, rows: Tensor, velocity: Tensor) -> Tensor:
        """Running mean of a velocity, kept in the last columns of Adam's."""
        memory = state.moments[name].exp_avg
        memory = memory[:, 1:] if name == "quats" else memory  # a turn has three numbers
        now = memory[rows].lerp(velocity, 1 - BETAS[0])
        memory[rows] = now
        bias = 1 - BETAS[0] ** (state.steps[rows] + 1)
        return now / bias.reshape(-1, *[1] * (now.dim() - 1))


def create_optimizer(transport: str, rates: LearningRates) -> Optimizer:
    """What moves the splats.

    Args:
        transport: a name in `splatrender.training.options.TRANSPORTS`.
        rates: step sizes.
    """
    if transport == "adam":
        return Optimizer(rates)
    return WassersteinOptimizer(rates, scaled=transport == "wasserstein-scaled")


def slope_of_turns(quats: Tensor, slopes: Tensor) -> Tensor:
    """[N,3] ∂F/∂ω at ω = 0 of q (1, ω/2), from unit quaternions and ∂F/∂q, both [N,4]."""
    w, u = quats[:, :1], quats[:, 1:]
    return 0.5 * (w * slopes[:, 1:] - slopes[:, :1] * u + torch.linalg.cross(slopes[:, 1:], u))


def turned(quats: Tensor, turns: Tensor) -> Tensor:
    """[N,4] q (1, ω/2), normalised: turns about the splat's own axes."""
    w, u, half = quats[:, :1], quats[:, 1:], 0.5 * turns
    real = w - (u * half).sum(dim=1, keepdim=True)
    return normalize(torch.cat([real, u + w * half + torch.linalg.cross(u, half)], dim=1), dim=1)


def _inertia(scales: Tensor) -> Tensor:
    """[N,3] I of turns about each axis, and a little more."""
    square = scales.square()
    one, other = square[:, [1, 2, 0]], square[:, [2, 0, 1]]
    return (one - other).square() / (one + other) + STIFFNESS * (one + other)


def _mean(power: Tensor, mass: Tensor) -> Tensor:
    """Mean over the mass, never 0."""
    return (mass * power).sum() / mass.sum() + torch.finfo(mass.dtype).tiny
