"""Neural peers in torch: MLP, SIREN, a net of Gaussian radial functions, and a KAN by pykan.

All are trained on the whole set in float64, once by Adam and once by Adam then L-BFGS, each within
`Problem.seconds` of CPU time. At intervals the error on the clean grid itself decides whether the
present weights are kept, and the better run counts: a selection that no user could make, in the
peers' favour.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.regression.peers.problem import Array, Deadline, Fitted, Method, Problem

RATES = {"adam": (3e-3, 1e-2), "adam, l-bfgs": (3e-3,)}
CHECKS = 60  # evaluations of the error on the grid in one run
SHARE_OF_ADAM = 0.15  # of the time, before L-BFGS begins
MODULE_SEED = 1000  # different from the seeds of the data


class Sine(nn.Module):
    """sin(ω x), the activation of SIREN."""

    def __init__(self, frequency: float = 30.0) -> None:
        super().__init__()
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * x)


class RadialNet(nn.Module):
    """Σ w_i exp(−½ |x − c_i|² / s_i²) + bias, with all parameters trained."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(2 * torch.rand(units, inputs) - 1)
        self.logs = nn.Parameter(torch.full((units,), math.log(2.0 * units ** (-1 / inputs))))
        self.out = nn.Linear(units, 1)

    def forward(self, x: Tensor) -> Tensor:
        gaps = torch.cdist(x, self.centres, compute_mode="donot_use_mm_for_euclid_dist")
        values: Tensor = self.out(torch.exp(-0.5 * (gaps / self.logs.exp()) ** 2))
        return values


def mlp_module(
    inputs: int, widths: tuple[int, ...], activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Return fully connected layers."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), activation()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


def siren_module(inputs: int, widths: tuple[int, ...], frequency: float) -> nn.Sequential:
    """Return the network of Sitzmann et al. 2020, with its initialisation."""
    module = mlp_module(inputs, widths, lambda: Sine(frequency))
    linears = [layer for layer in module if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for index, layer in enumerate(linears):
            fan = layer.in_features
            bound = 1 / fan if index == 0 else math.sqrt(6 / fan) / frequency
            layer.weight.uniform_(-bound, bound)
    return module


def kan_module(widths: tuple[int, ...], grid: int, seed: int) -> nn.Module:
    """Return pykan's model with cubic splines, without its symbolic branch."""
    from kan import KAN

    with contextlib.redirect_stdout(io.StringIO()):
        model: nn.Module = KAN(
            width=list(widths),
            grid=grid,
            k=3,
            seed=seed,
            symbolic_enabled=False,
            auto_save=False,
            save_act=False,
            grid_range=[-1, 1],
            noise_scale=0.3,
        )
        return model.double()


def kan_parameters(widths: tuple[int, ...], grid: int) -> int:
    """Count spline coefficients, two scales for each edge, and biases, as is usual for KANs."""
    edges = sum(a * b for a, b in itertools.pairwise(widths))
    return edges * (grid + 3 + 2) + sum(widths[1:])


@dataclass
class _Best:
    """Weights with the smallest error so far."""

    error: float = math.inf
    state: dict[str, Tensor] | None = None

    def offer(self, error: float, module: nn.Module) -> None:
        if error < self.error:
            self.error, self.state = error, copy.deepcopy(module.state_dict())


def train(
    module: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    error: Callable[[nn.Module], float],
    seconds: float,
    prepare: Callable[[nn.Module], None] | None = None,
) -> tuple[nn.Module, str]:
    """Train copies of a module by each optimiser and return the best with its optimiser's name."""
    best, winner = _Best(), ""
    prepare = prepare or (lambda module: None)
    for name, rates in RATES.items():
        for rate in rates:
            trial = copy.deepcopy(module)
            mine = _Best()
            deadline = Deadline(seconds / len(rates))
            until = 1.0 if name == "adam" else SHARE_OF_ADAM
            _adam(trial, loss, error, deadline, rate, until, mine, prepare)
            if name != "adam":
                _lbfgs(trial, loss, error, deadline, mine)
            if mine.error < best.error:
                best, winner = mine, f"{name} {rate:g}"
    if best.state is not None:
        module.load_state_dict(best.state)
    return module, winner


def _adam(
    module: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    error: Callable[[nn.Module], float],
    deadline: Deadline,
    rate: float,
    until: float,
    best: _Best,
    prepare: Callable[[nn.Module], None],
) -> None:
    """Train by Adam with a cosine schedule over CPU time."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    step, next_check = 0, 0.0
    while (share := deadline.share / until) < 1:
        if step in (5, 50, 200):
            prepare(module)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share)) + 1e-6
        optimizer.zero_grad()
        value = loss(module)
        torch.autograd.backward(value)
        optimizer.step()
        step += 1
        if share >= next_check:
            best.offer(error(module), module)
            next_check = share + 1 / CHECKS
    best.offer(error(module), module)


def _lbfgs(
    module: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    error: Callable[[nn.Module], float],
    deadline: Deadline,
    best: _Best,
) -> None:
    """Train by L-BFGS until the time is over or it stalls."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def fresh() -> torch.optim.LBFGS:
        return torch.optim.LBFGS(
            parameters,
            lr=1,
            max_iter=25,
            history_size=50,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-14,
            tolerance_change=1e-16,
        )

    optimizer, last, idle = fresh(), math.inf, 0

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(module)
        torch.autograd.backward(value)
        return value

    next_check = 0.0
    while not deadline.over and idle < 3:
        value = float(optimizer.step(closure).detach())
        if not math.isfinite(value):
            break
        if value >= last * (1 - 1e-9):
            optimizer, idle = fresh(), idle + 1
        else:
            idle = 0
        last = value
        if deadline.share >= next_check or idle:
            best.offer(error(module), module)
            next_check = deadline.share + 1 / CHECKS
    best.offer(error(module), module)


def _fit(
    problem: Problem,
    module: nn.Module,
    parameters: int | None,
    prepare: Callable[[nn.Module, Tensor], None] | None = None,
) -> Fitted:
    module = module.double()
    count = parameters or sum(p.numel() for p in module.parameters())
    x = torch.from_numpy(problem.scaled(problem.samples.x))
    mean, scale = problem.samples.y.mean(), problem.samples.y.std()
    y = torch.from_numpy((problem.samples.y - mean) / scale)[:, None]

    def predict(model: nn.Module, points: Array) -> Array:
        with torch.no_grad():
            parts = torch.split(torch.from_numpy(problem.scaled(points)), 8192)
            values: Array = np.concatenate([model(p)[:, 0].numpy() for p in parts])
            return np.asarray(values * scale + mean)

    module, winner = train(
        module,
        lambda model: (model(x) - y).square().mean(),
        lambda model: problem.rmse(lambda points: predict(model, points)),
        problem.seconds,
        (lambda model: prepare(model, x)) if prepare else None,
    )
    return Fitted(lambda points: predict(module, points), count, winner)


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.Tanh) -> Method:
    """Return a multi-layer perceptron."""

    def fit(problem: Problem) -> Fitted:
        torch.manual_seed(MODULE_SEED + problem.seed)
        return _fit(problem, mlp_module(problem.task.dimensions, widths, activation), None)

    return fit


def siren(*widths: int, frequency: float = 30.0) -> Method:
    """Return a network of sines; its authors use 30, and less suits smoother or noisy data."""

    def fit(problem: Problem) -> Fitted:
        torch.manual_seed(MODULE_SEED + problem.seed)
        module = siren_module(problem.task.dimensions, widths, frequency)
        return _fit(problem, module, None)

    return fit


def radial_net(units: int) -> Method:
    """Return isotropic Gaussians by Adam: a splat model without shapes, flow and Gauss–Newton."""

    def fit(problem: Problem) -> Fitted:
        torch.manual_seed(MODULE_SEED + problem.seed)
        return _fit(problem, RadialNet(problem.task.dimensions, units).double(), None)

    return fit


def kan(*hidden: int, grid: int) -> Method:
    """Return a Kolmogorov–Arnold network; its grids follow the samples early in training."""

    def fit(problem: Problem) -> Fitted:
        widths = (problem.task.dimensions, *hidden, 1)
        module = kan_module(widths, grid, MODULE_SEED + problem.seed)

        def prepare(model: nn.Module, x: Tensor) -> None:
            with torch.no_grad():
                model.update_grid_from_samples(x)  # type: ignore[operator]

        return _fit(problem, module, kan_parameters(widths, grid), prepare)

    return fit
