"""Steps of Wasserstein transport and Fisher–Rao reaction on the splats that a view saw.

Legend: m = -ln(1 - o) optical mass, b mean, A = R diag(s) factor, c harmonics, ω turn about the
splat's own axes, L the training loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatrender.flow.memory import Moments, TransportMemory
from splatrender.flow.reaction import fisher_rao_step, mean_potential
from splatrender.flow.schedules import LearningRates
from splatrender.flow.state import TrainState
from splatrender.flow.transports.adam import BETAS, EPSILON, Optimizer
from splatrender.model import Splats
from splatrender.model.quaternions import slope_of_turns, turned

LONGEST = 0.5  # step of a logarithm, a turn [rad], a colour, and a mean in units of the splat
STIFFNESS = 0.01  # part of s_i² + s_j² added to the inertia: the flow turns a ball at once
THINNEST = 0.01  # share of the longest axis; below it an axis no longer shrinks by its logarithm
SMALLEST = 1e-12  # scene units: scales below it, 0 too, count as this one where they divide
MASS_RANGE = 1e-6, 13.0  # opacities of 1e-6 and 1 - 2e-6
LARGEST_POWER = 1e30  # bound of a velocity's power: its sum over splats must not overflow
GEOMETRY = "means", "log_scales", "quats"
SCALED = "means", "log_scales"  # velocities whose running mean squares are kept
FORMS = {"wasserstein": False, "wasserstein-scaled": True}  # True: scales for each splat
# Plain form, as parts of Adam's step sizes: means and shapes share a length, and a step of the mean
# logarithm takes some splats much farther.
PLACE, REACTION = 0.1, 0.3


@dataclass(frozen=True, eq=False)
class _Slope:
    """Splats in the image and their gradients, which all parts of a step share.

    Attributes:
        state: the run; its splats and its memory change in place.
        rows: int64 [M] splats in the image.
        seen: splats of those rows before the step.
        slopes: gradients of L in them.
        mass: [M] m, or one where it cancels.
    """

    state: TrainState
    rows: Tensor
    seen: Splats
    slopes: Splats
    mass: Tensor


class WassersteinOptimizer(Optimizer):
    """Transport in the Wasserstein metric, preconditioned by mass, and Fisher–Rao reaction.

        ḃ = -1/m ∂L/∂b      ṡ = -1/m ∂L/∂s      ω̇ = -1/(m I) ∂L/∂ω      ċ = -1/m ∂L/∂c
        d ln m/dt = -∂L/∂m

    I ω² is the Bures–Wasserstein length² of a turn about axis k, which mixes axes i and j:
    I = (s_i² - s_j²)² / (s_i² + s_j²). Velocities of transport are smoothed as Adam smooths
    gradients. Not time steps are given but lengths, view by view:

    - plain: the root mean square of (ḃ, ṡ, ω̇) over the mass of the splats in the image becomes
      a tenth of the step size of the means, that of ċ the step size of the constant harmonic, and
      that of d ln m/dt three tenths of the step size of the opacities.
    - scaled: every splat has two scales of its own, the running root mean squares of ḃ and of
      (ṡ, ω̇), and moves by the step size of the means and by that of the scales times its size. It
      is Adam with one scale for a vector instead of one for each number: places and shapes do not
      depend on the axes of the world. Colours and masses go by Adam. The mass of a splat
      cancels, as it does in Adam.

    Args:
        rates: step sizes.
        scaled: give each splat its own scales.
    """

    def __init__(self, rates: LearningRates, scaled: bool) -> None:
        super().__init__(rates)
        self.scaled = scaled

    def memory(self, splats: Splats) -> TransportMemory:
        """Return the memory before the first step."""
        moved = GEOMETRY if self.scaled else (*GEOMETRY, "sh")
        velocities = {n: torch.zeros_like(t) for n, t in splats.detach().items() if n in moved}
        velocities["quats"] = torch.zeros_like(splats.means, requires_grad=False)
        if not self.scaled:
            return TransportMemory(velocities=velocities)
        zeros = torch.zeros(len(splats), dtype=splats.dtype, device=splats.device)
        rest = {n: Moments.zeros(t) for n, t in splats.items() if n not in GEOMETRY}
        return TransportMemory(rest, velocities, {name: zeros.clone() for name in SCALED})

    @torch.no_grad()
    def step(self, state: TrainState, visible: Tensor) -> None:
        """Move the visible splats along the flow, and clear the gradients.

        Args:
            state: splats with gradients in `.grad`, the memory and step counts.
            visible: bool [N].
        """
        rows = visible.nonzero()[:, 0]
        grads = {n: p.grad for n, p in state.splats.items() if p.grad is not None}
        if len(rows) and len(grads) == len(Splats.tensor_names()):
            seen = state.splats.detach().index(rows)
            slopes = Splats(**{name: grad[rows] for name, grad in grads.items()})
            mass = seen.optical_depths.clamp(*MASS_RANGE)
            if self.scaled:
                self._transport(_Slope(state, rows, seen, slopes, torch.ones_like(mass)))
                for name in GEOMETRY:
                    getattr(state.splats, name).grad = None
                super().step(state, visible)  # colours and masses
                return
            self._react(self._transport_all(_Slope(state, rows, seen, slopes, mass)))
            state.steps[rows] += 1
        for _, parameter in state.splats.items():
            parameter.grad = None

    def _transport(self, slope: _Slope) -> _Slope:
        """Move means and factors."""
        rows, seen, slopes, mass = slope.rows, slope.seen, slope.slopes, slope.mass
        scales, quats = seen.scales.clamp(min=SMALLEST), normalize(seen.quats, dim=1)
        metric = {
            "means": torch.ones_like(scales),
            "log_scales": scales.square() + (THINNEST * scales.amax(dim=1, keepdim=True)).square(),
            "quats": _inertia(scales),
        }
        length = seen.quats.norm(dim=1, keepdim=True)
        gradient = {
            "means": slopes.means,
            "log_scales": slopes.log_scales,
            "quats": slope_of_turns(quats, length * slopes.quats),
        }
        power, move = {}, {}
        for name in GEOMETRY:
            now = -gradient[name] / (mass[:, None] * metric[name])
            move[name] = _smoothed(slope, name, now)
            moving = now if self.scaled else move[name]
            power[name] = (metric[name] * moving.square()).sum(dim=1).clamp(max=LARGEST_POWER)
        times = self._times(slope, power, scales.prod(dim=1).pow(1 / 3))
        move = {name: times[name][:, None] * move[name] for name in GEOMETRY}
        far = move["means"].norm(dim=1) / (LONGEST * scales.amax(dim=1))
        target = slope.state.splats.detach()
        target.means[rows] += move["means"] / far.clamp(min=1)[:, None]
        target.log_scales[rows] += move["log_scales"].clamp(-LONGEST, LONGEST)
        target.quats[rows] = turned(quats, move["quats"].clamp(-LONGEST, LONGEST))
        return slope

    def _transport_all(self, slope: _Slope) -> _Slope:
        """Move means, factors and colours."""
        self._transport(slope)
        mass = slope.mass
        velocity = _smoothed(slope, "sh", -slope.slopes.sh / mass[:, None, None])
        power = velocity.square().sum(dim=(1, 2)).clamp(max=LARGEST_POWER)
        time = _time(self.rates.sh_constant, mean_potential(mass, power))
        slope.state.splats.detach().sh[slope.rows] += (time * velocity).clamp(-LONGEST, LONGEST)
        return slope

    def _react(self, slope: _Slope) -> _Slope:
        """Change masses by Fisher–Rao reaction."""
        mass, opacities = slope.mass, slope.seen.opacities.clamp(min=MASS_RANGE[0])
        potential = slope.slopes.opacity_logits / opacities  # dm = o d logit
        power = potential.square().clamp(max=LARGEST_POWER)
        time = _time(REACTION * self.rates.opacity_logits, mean_potential(mass, power))
        change = (time * potential).clamp(-LONGEST, LONGEST)
        grown = fisher_rao_step(mass, change, 1.0, balanced=False).clamp(*MASS_RANGE)
        slope.state.splats.detach().opacity_logits[slope.rows] = grown.expm1().log()
        return slope

    def _times(self, slope: _Slope, power: dict[str, Tensor], size: Tensor) -> dict[str, Tensor]:
        """Return the time step [M] of each visible splat, by parameter."""
        reshaping, means_lr = power["log_scales"] + power["quats"], slope.state.means_lr
        if not self.scaled:
            mean = mean_potential(slope.mass, power["means"] + reshaping)
            time = _time(PLACE * means_lr, mean)
            return dict.fromkeys(GEOMETRY, time.expand(len(slope.rows)))
        place = means_lr / _running(slope, "means", power["means"])
        shape = self.rates.log_scales * size / _running(slope, "log_scales", reshaping)
        return {"means": place, "log_scales": shape, "quats": shape}


def _running(slope: _Slope, name: str, power: Tensor) -> Tensor:
    """Return the running root mean square [M] of a velocity, after a new value."""
    memory, rows = slope.state.memory.powers[name], slope.rows
    now = memory[rows].lerp(power, 1 - BETAS[1])
    memory[rows] = now
    bias = 1 - BETAS[1] ** (slope.state.steps[rows] + 1)
    return (now / bias).sqrt() + EPSILON


def _smoothed(slope: _Slope, name: str, velocity: Tensor) -> Tensor:
    """Return the running mean of a velocity, after a new value."""
    memory, rows = slope.state.memory.velocities[name], slope.rows
    now = memory[rows].lerp(velocity, 1 - BETAS[0])
    memory[rows] = now
    bias = 1 - BETAS[0] ** (slope.state.steps[rows] + 1)
    return now / bias.reshape(-1, *[1] * (now.dim() - 1))


def memory_from_moments(moments: dict[str, Moments], transport: str) -> TransportMemory:
    """Return the memory that a checkpoint of an earlier version keeps in Adam's tensors.

    Velocities were in the first moments (turns in the last three columns of the quaternions'),
    mean squares in the first column of the second ones.

    Args:
        moments: moments of the checkpoint.
        transport: name of the transport that wrote it.
    """
    if transport == "adam":
        return TransportMemory(moments)
    scaled = FORMS[transport]
    moved = GEOMETRY if scaled else (*GEOMETRY, "sh")
    velocities = {name: moments[name].exp_avg for name in moved}
    velocities["quats"] = velocities["quats"][:, 1:].clone()
    if not scaled:
        return TransportMemory(velocities=velocities)
    powers = {name: moments[name].exp_avg_sq[:, 0].clone() for name in SCALED}
    rest = {name: m for name, m in moments.items() if name not in GEOMETRY}
    return TransportMemory(rest, velocities, powers)


def create_optimizer(transport: str, rates: LearningRates) -> Optimizer:
    """Return a transport by its name.

    Args:
        transport: a name in `splatrender.training.options.TRANSPORTS`.
        rates: step sizes.
    """
    if transport == "adam":
        return Optimizer(rates)
    return WassersteinOptimizer(rates, FORMS[transport])


def _inertia(scales: Tensor) -> Tensor:
    """Return [M, 3] I of turns about each axis, and a little more."""
    square = scales.square()
    one, other = square.roll(-1, dims=1), square.roll(1, dims=1)
    return (one - other).square() / (one + other) + STIFFNESS * (one + other)


def _time(length: float, power: Tensor) -> Tensor:
    """Return the time in which a velocity of mean square `power` covers a length; 0 at rest."""
    return torch.where(power > 0, length / power.clamp(min=1e-38).sqrt(), 0)
