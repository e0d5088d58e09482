"""Solve an equation of your own: Burgers' u_t + u u_x = ν u_xx, with a travelling front.

An equation is a residual function of linear operators on u; initial and boundary values are a
second condition. No value inside the domain is given.
"""

import torch

from splatrender.model import evaluate
from splatrender.operators.differential import Condition, identity, partial
from splatrender.regression import SolverOptions, fit, initial_measure

VISCOSITY = 0.05


def exact(points):
    """Return the front u = 1/2 − 1/2 tanh((x − t/2) / 4ν) at points (x, t)."""
    x, t = points.T
    return 0.5 - 0.5 * torch.tanh((x - t / 2) / (4 * VISCOSITY))[:, None]


axis = torch.linspace(0, 1, 30, dtype=torch.float64)
inside = torch.cartesian_prod(2 * axis - 1, axis)  # (x, t) in [−1, 1] × [0, 1]
border = inside[(inside[:, 0].abs() == 1) | (inside[:, 1] == 0)]

u, u_x, u_t, u_xx = identity(), partial(0, dims=2), partial(1, dims=2), partial(0, 0, dims=2)
equation = Condition(
    inside,
    (u, u_x, u_t, u_xx),
    residual=lambda points, u, u_x, u_t, u_xx: u_t + u * u_x - VISCOSITY * u_xx,
)
values = Condition(border, (u,), target=exact(border))

generator = torch.Generator().manual_seed(0)
start = initial_measure(inside, 8, generator=generator)
options = SolverOptions(n_splats=20, rounds=8, shrinkage=0, polish=100)
solution = fit([equation.mean(), values.mean(100.0)], start, options, generator)
error = (evaluate(solution.measure, inside).value - exact(inside)).abs().max()
print(f"{len(solution.measure)} splats, loss {solution.loss:.1e}, largest error {float(error):.1e}")
