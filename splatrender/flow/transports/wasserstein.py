"""Steps of the Wasserstein–Fisher–Rao flow itself on the splats that a view saw.

Legend: m = -ln(1 - o) optical mass, b mean, A = R diag(s) factor, c harmonics, ω turn about the
splat's own axes, L the training loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatrender.flow import TrainState
from splatrender.flow.reaction import fisher_rao_step, mean_potential
from splatrender.flow.schedules import LearningRates
from splatrender.flow.transports.adam import BETAS, EPSILON, Optimizer
from splatrender.model import Splats
from splatrender.model.quaternions import slope_of_turns, turned

LONGEST = 0.5  # step of a logarithm, a turn [rad], a colour, and a mean in units of the splat
STIFFNESS = 0.01  # of s_i² + s_j², added to the inertia: the flow turns a ball infinitely fast
THINNEST = 0.01  # of a splat's longest axis: below, an axis no longer shrinks by its logarithm
SMALLEST = 1e-12  # scene units: scales below it, 0 too, count as this one where they divide
MASS_RANGE = 1e-6, 13.0  # opacities of 1e-6 and 1 - 2e-6
LARGEST_POWER = 1e30  # of a velocity: its sum over splats must not overflow
GEOMETRY = "means", "log_scales", "quats"
# of the plain form, as parts of Adam's step sizes: means and shapes share a length, and a step of
# the mean logarithm takes some splats much farther
PLACE, REACTION = 0.1, 0.3


class WassersteinOptimizer(Optimizer):
    """Transport in the Wasserstein metric, preconditioned by mass, and Fisher–Rao reaction.

        ḃ = -1/m ∂L/∂b      ṡ = -1/m ∂L/∂s      ω̇ = -1/(m I) ∂L/∂ω      ċ = -1/m ∂L/∂c
        d ln m/dt = -∂L/∂m

    I ω² is the Bures–Wasserstein length² of a turn about axis k, which mixes axes i and j:
    I = (s_i² - s_j²)² / (s_i² + s_j²). Velocities of transport are smoothed as Adam smooths
    gradients. Not time steps are given but lengths, view by view:

    - plain: the root mean square of (ḃ, ṡ, ω̇) over the mass of the splats in the picture becomes
      a tenth of the step size of the means, that of ċ the step size of the constant harmonic, and
      that of d ln m/dt three tenths of the step size of the opacities.
    - scaled: every splat has two scales of its own, the running root mean squares of ḃ and of
      (ṡ, ω̇), and moves by the step size of the means and by that of the scales times its size. It
      is Adam with one scale for a vector instead of one for each number, so that places and shapes
      do not depend on the axes of the world. Colours and masses go by Adam. The mass of a splat
      cancels, as it does in Adam.

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
        grads = {n: p.grad for n, p in state.splats.items() if p.grad is not None}
        if len(rows) and len(grads) == len(state.moments):
            seen = state.splats.detach().index(rows)
            slopes = Splats(**{name: grad[rows] for name, grad in grads.items()})
            mass = seen.optical_depths.clamp(*MASS_RANGE)
            self._transport(
                state, rows, seen, slopes, torch.ones_like(mass) if self.scaled else mass
            )
            if self.scaled:
                for name in GEOMETRY:
                    getattr(state.splats, name).grad = None
                super().step(state, visible)  # of what is left
                return
            self._transport_colors(state, rows, slopes, mass)
            self._react(state, rows, seen, slopes, mass)
            state.steps[rows] += 1
        for _, parameter in state.splats.items():
            parameter.grad = None

    def _transport(
        self, state: TrainState, rows: Tensor, seen: Splats, slopes: Splats, mass: Tensor
    ) -> None:
        """Move means and factors."""
        scales, quats = seen.scales.clamp(min=SMALLEST), normalize(seen.quats, dim=1)
        metric = {
            "means": torch.ones_like(scales),
            "log_scales": scales.square() + (THINNEST * scales.amax(dim=1, keepdim=True)).square(),
            "quats": _inertia(scales),
        }
        length = seen.quats.norm(dim=1, keepdim=True)
        slope = {
            "means": slopes.means,
            "log_scales": slopes.log_scales,
            "quats": slope_of_turns(quats, length * slopes.quats),
        }
        power, move = {}, {}
        for name in GEOMETRY:
            now = -slope[name] / (mass[:, None] * metric[name])
            move[name] = self._smoothed(state, name, rows, now)
            moving = now if self.scaled else move[name]
            power[name] = (metric[name] * moving.square()).sum(dim=1).clamp(max=LARGEST_POWER)
        times = self._times(state, rows, mass, power, scales.prod(dim=1).pow(1 / 3))
        move = {name: times[name][:, None] * move[name] for name in GEOMETRY}
        far = move["means"].norm(dim=1) / (LONGEST * scales.amax(dim=1))
        target = state.splats.detach()
        target.means[rows] += move["means"] / far.clamp(min=1)[:, None]
        target.log_scales[rows] += move["log_scales"].clamp(-LONGEST, LONGEST)
        target.quats[rows] = turned(quats, move["quats"].clamp(-LONGEST, LONGEST))

    def _transport_colors(
        self, state: TrainState, rows: Tensor, slopes: Splats, mass: Tensor
    ) -> None:
        """Move colours."""
        velocity = self._smoothed(state, "sh", rows, -slopes.sh / mass[:, None, None])
        power = velocity.square().sum(dim=(1, 2)).clamp(max=LARGEST_POWER)
        time = _time(self.rates.sh_constant, mean_potential(mass, power))
        state.splats.detach().sh[rows] += (time * velocity).clamp(-LONGEST, LONGEST)

    def _react(
        self, state: TrainState, rows: Tensor, seen: Splats, slopes: Splats, mass: Tensor
    ) -> None:
        """Change masses by Fisher–Rao reaction."""
        potential = slopes.opacity_logits / seen.opacities.clamp(
            min=MASS_RANGE[0]
        )  # dm = o d logit
        power = potential.square().clamp(max=LARGEST_POWER)
        time = _time(REACTION * self.rates.opacity_logits, mean_potential(mass, power))
        change = (time * potential).clamp(-LONGEST, LONGEST)
        grown = fisher_rao_step(mass, change, 1.0, balanced=False).clamp(*MASS_RANGE)
        state.splats.detach().opacity_logits[rows] = grown.expm1().log()

    def _times(
        self, state: TrainState, rows: Tensor, mass: Tensor, power: dict[str, Tensor], size: Tensor
    ) -> dict[str, Tensor]:
        """[M] time step of each visible splat, by parameter."""
        reshaping = power["log_scales"] + power["quats"]
        if not self.scaled:
            mean = mean_potential(mass, power["means"] + reshaping)
            time = _time(PLACE * state.means_lr, mean)
            return dict.fromkeys(GEOMETRY, time.expand(len(rows)))
        place = state.means_lr / self._running("means", state, rows, power["means"])
        shape = self.rates.log_scales * size / self._running("log_scales", state, rows, reshaping)
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
    return WassersteinOptimizer(
        rates, {"wasserstein": False, "wasserstein-scaled": True}[transport]
    )


def _inertia(scales: Tensor) -> Tensor:
    """[M,3] I of turns about each axis, and a little more."""
    square = scales.square()
    one, other = square.roll(-1, dims=1), square.roll(1, dims=1)
    return (one - other).square() / (one + other) + STIFFNESS * (one + other)


def _time(length: float, power: Tensor) -> Tensor:
    """The time in which a velocity of mean square `power` goes so far; 0 if nothing moves."""
    return torch.where(power > 0, length / power.clamp(min=1e-38).sqrt(), 0)
