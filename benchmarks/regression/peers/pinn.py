"""Physics-informed networks for both Allen-Cahn equations: an MLP and a KAN.

The KAN's edges are sums of Chebyshev polynomials, whose second derivatives are fast to compute;
pykan's splines of degree 3 have a piecewise linear second derivative and are several times slower.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.regression.peers.networks import MODULE_SEED, train
from benchmarks.regression.peers.problem import Array, Fitted, Method, Problem
from splatrender.regression.problems.etdrk4 import allen_cahn_initial
from splatrender.regression.problems.tasks import INTERFACE

BOUNDARY_WEIGHT = 100.0
CHUNKS = 16  # intervals of time, for causal weights
CAUSALITY = 1.0  # epsilon of Wang et al. 2022: a chunk waits until those before it are solved
HARMONICS = 10  # cosines of the periodic input
DEGREE = 5  # degree of the KAN's polynomials


class ChebyshevKan(nn.Module):
    """Layers of edges Σ_m c_m T_m(tanh x)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ParameterList(
            nn.Parameter(torch.randn(a, b, DEGREE + 1) / (a * (DEGREE + 1)) ** 0.5)
            for a, b in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(x)
            terms = [torch.ones_like(x), x]
            for _ in range(DEGREE - 1):
                terms.append(2 * x * terms[-1] - terms[-2])
            x = torch.einsum("niq,ioq->no", torch.stack(terms, dim=2), layer)
        return x


class Symmetric(nn.Module):
    """Inputs t, cos πjx, j <= HARMONICS: periodic and even by construction, as splats are."""

    def forward(self, x: Tensor) -> Tensor:
        waves = math.pi * x[:, :1] * torch.arange(1, HARMONICS + 1).to(x)
        return torch.cat([2 * x[:, 1:] - 1, waves.cos()], dim=1)


def _body(kind: str, inputs: int, widths: tuple[int, ...]) -> nn.Module:
    if kind == "kan":
        return ChebyshevKan((inputs, *widths, 1))
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


def _derivatives(model: nn.Module, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return u, its gradient, and second derivatives along `axes`."""
    x = x.detach().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    second = [
        torch.autograd.grad(slope[:, axis].sum(), x, create_graph=True)[0][:, axis] for axis in axes
    ]
    return u[:, 0], slope, *second


def _steady_loss(problem: Problem) -> Callable[[nn.Module], Tensor]:
    """Return mean squares at 2,000 fixed inner points and 400 on the boundary."""
    truth = problem.task.truth
    assert truth is not None
    random = np.random.default_rng(problem.seed)
    inner = torch.from_numpy(random.random((2000, 2)))
    edge = random.random((400, 2))
    edge[:200, 0] = np.arange(200) % 2
    edge[200:, 1] = np.arange(200) % 2
    values = torch.from_numpy(truth(edge))
    border = torch.from_numpy(edge)

    def loss(model: nn.Module) -> Tensor:
        u, _, uxx, uyy = _derivatives(model, inner, (0, 1))
        residual = INTERFACE**2 * (uxx + uyy) + u - u**3
        boundary = model(border)[:, 0] - values
        total: Tensor = residual.square().mean() + BOUNDARY_WEIGHT * boundary.square().mean()
        return total

    return loss


def _evolving_loss(problem: Problem) -> Callable[[nn.Module], Tensor]:
    """Return causally weighted residuals at 4,096 fixed points (Wang et al. 2022)."""
    random = np.random.default_rng(problem.seed)
    t = (np.arange(CHUNKS)[:, None] + random.random((CHUNKS, 256))) / CHUNKS
    points = np.stack([2 * random.random(t.shape) - 1, t], axis=2).reshape(-1, 2)
    inner = torch.from_numpy(points)
    x0 = -1 + 2 * (np.arange(512) + 0.5) / 512
    start = torch.from_numpy(np.stack([x0, 0 * x0], axis=1))
    values = torch.from_numpy(allen_cahn_initial(x0))
    earlier = torch.tril(torch.ones(CHUNKS, CHUNKS, dtype=torch.float64), -1)

    def loss(model: nn.Module) -> Tensor:
        u, slope, uxx = _derivatives(model, inner, (0,))
        residual = slope[:, 1] - 1e-4 * uxx - 5 * (u - u**3)
        chunks = residual.square().reshape(CHUNKS, -1).mean(dim=1)
        weights = torch.exp(-CAUSALITY * (earlier @ chunks.detach()))
        initial = model(start)[:, 0] - values
        total: Tensor = (weights * chunks).mean() + BOUNDARY_WEIGHT * initial.square().mean()
        return total

    return loss


def physics_informed(kind: str, *widths: int) -> Method:
    """Return a network on either equation, of kind "mlp" or "kan"."""

    def fit(problem: Problem) -> Fitted:
        torch.manual_seed(MODULE_SEED + problem.seed)
        steady = problem.task.name == "allen-cahn-steady"
        inputs = 2 if steady else 1 + HARMONICS
        module: nn.Module = _body(kind, inputs, widths)
        if not steady:
            module = nn.Sequential(Symmetric(), module)
        module = module.double()
        loss = _steady_loss(problem) if steady else _evolving_loss(problem)

        def predict(model: nn.Module, points: Array) -> Array:
            with torch.no_grad():
                parts = torch.split(torch.from_numpy(points), 8192)
                return np.concatenate([model(p)[:, 0].numpy() for p in parts])

        sparse = slice(None, None, 1 if steady else 7)
        grid = problem.grid

        def error(model: nn.Module) -> float:
            gap = predict(model, grid.x[sparse]) - grid.y[sparse]
            return float(np.sqrt(np.mean(gap**2)))

        module, winner = train(module, loss, error, problem.seconds)
        count = sum(p.numel() for p in module.parameters())
        return Fitted(lambda points: predict(module, points), count, winner)

    return fit
