"""The methods of each table."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.regression.peers import networks, ours, pinn, series, splines
from benchmarks.regression.peers.problem import Method

RATE_COUNTS = {1: (2, 4, 8, 16, 32, 64), 2: (2, 4, 8, 16, 32, 64), 3: (2, 4, 8, 16, 32)}
RATE_SETTINGS = {"selection": 0.0, "max_rounds": 12}  # the whole budget, and a short search


@dataclass(frozen=True)
class Row:
    """Method on a task.

    Attributes:
        label: name of the table.
        name: name of the method.
        method: function that fits.
        task: key of `TASKS`; the label if empty.
        samples: number of samples, None for the task's own.
        ours: True for a splat model.
        random: True if results depend on the seed.
        long: True for the long budget.
    """

    label: str
    name: str
    method: Method
    task: str = ""
    samples: int | None = None
    ours: bool = False
    random: bool = True
    long: bool = False

    def __post_init__(self) -> None:
        if not self.task:
            object.__setattr__(self, "task", self.label)


def _one_dimensional(label: str) -> list[Row]:
    return [
        Row(label, "splats, k = 30", ours.splats(30), ours=True),
        Row(label, "Chebyshev interpolation, 30", series.chebyshev_series(30), random=False),
        Row(label, "Chebyshev interpolation, 90", series.chebyshev_series(90), random=False),
        Row(label, "Chebyshev least squares, at most 90", series.chebyshev_least_squares(90)),
        Row(label, "Haar, 128", series.haar(7), random=False),
        Row(label, "Haar, 256", series.haar(8), random=False),
        Row(label, "Haar, best 90 terms", series.haar_best_terms(90), random=False),
        Row(label, "cubic spline, 90", splines.cubic_spline(90), random=False),
        Row(label, "free-knot linear spline, 90", splines.free_knot_spline(90)),
        Row(label, "RBF interpolation, 90", splines.rbf_interpolation(90), random=False),
        Row(label, "Gaussian RBF net, 30 units", networks.radial_net(30)),
        Row(label, "Gaussian RBF net, 96 units", networks.radial_net(96)),
        Row(label, "MLP [15, 15]", networks.mlp(15, 15)),
        Row(label, "SIREN [15, 15]", networks.siren(15, 15)),
        Row(label, "KAN [1, 1], grid 87", networks.kan(grid=87)),
        Row(label, "KAN [1, 1], grid 295", networks.kan(grid=295)),
        Row(label, "KAN [1, 5, 1], grid 25", networks.kan(5, grid=25)),
    ]


def _descents() -> list[Row]:
    label, kind = "chirp", "splats, k = 30, the paper's"
    return [
        Row(label, f"{kind} descent", ours.papers_route(30, "wasserstein", 1e-5), ours=True),
        Row(label, f"{kind} start, Adam", ours.papers_route(30, "adam", 1e-3), ours=True),
    ]


def _few_samples() -> list[Row]:
    label, task, samples = "chirp-200", "chirp", 200
    return [
        Row(label, "splats, k = 30", ours.splats(30), task, samples, ours=True),
        Row(label, "Gaussian RBF net, 30 units", networks.radial_net(30), task, samples),
        Row(label, "SIREN [15, 15]", networks.siren(15, 15), task, samples),
        Row(label, "MLP [15, 15]", networks.mlp(15, 15), task, samples),
    ]


def _noisy() -> list[Row]:
    label = "noisy2d"
    return [
        *(Row(label, f"splats, k <= {k}", ours.splats(k), ours=True) for k in (10, 50, 100, 200)),
        Row(label, "splats, k chosen (at most 400)", ours.splats("auto"), ours=True),
        Row(label, "MLP [16, 16]", networks.mlp(16, 16)),
        Row(label, "SIREN [16, 16], ω = 10", networks.siren(16, 16, frequency=10)),
        Row(label, "Gaussian RBF net, 75 units", networks.radial_net(75)),
        Row(label, "KAN [2, 5, 1], grid 15", networks.kan(5, grid=15)),
        Row(label, "KAN [2, 10, 1], grid 12", networks.kan(10, grid=12)),
        Row(label, "kernel ridge", splines.kernel_ridge),
        Row(label, "bivariate spline, at most 900", splines.bivariate_spline(900)),
    ]


def _noisy_big() -> list[Row]:
    label = "noisy2d-big"
    return [
        Row(label, "splats, k chosen", ours.splats("auto"), ours=True),
        Row(label, "splats, oracle k", ours.oracle((20, 30, 45, 70)), ours=True),
        Row(label, "KAN [2, 5, 1], grid 15", networks.kan(5, grid=15)),
        Row(label, "KAN [2, 5, 1], grid 40", networks.kan(5, grid=40)),
        Row(label, "KAN [2, 10, 1], grid 20", networks.kan(10, grid=20)),
        Row(label, "SIREN [26, 26], ω = 10", networks.siren(26, 26, frequency=10)),
        Row(label, "MLP [26, 26]", networks.mlp(26, 26)),
        Row(label, "Gaussian RBF net, 200 units", networks.radial_net(200)),
        Row(label, "kernel ridge", splines.kernel_ridge),
        Row(label, "bivariate spline, at most 900", splines.bivariate_spline(900)),
    ]


def _equations() -> list[Row]:
    steady, evolving, net = "allen-cahn-steady", "allen-cahn", pinn.physics_informed
    return [
        Row(steady, "splats, k = 50", ours.steady(50), ours=True),
        Row(steady, "PINN-MLP [20, 20]", net("mlp", 20, 20)),
        Row(steady, "KAN-PINN [2, 8, 8, 1]", net("kan", 8, 8)),
        Row(evolving, "splats, k = 400", ours.evolving(400), ours=True, long=True),
        Row(evolving, "PINN-MLP [40, 40, 40]", net("mlp", 40, 40, 40), long=True),
        Row(evolving, "KAN-PINN [11, 12, 12, 1]", net("kan", 12, 12), long=True),
    ]


def _rates() -> list[Row]:
    return [
        Row(f"rates-{d}d", f"splats, k = {k}", ours.splats(k, **RATE_SETTINGS), ours=True)
        for d, counts in RATE_COUNTS.items()
        for k in counts
    ]


ROWS = [
    *_one_dimensional("chirp"),
    *_descents(),
    *_few_samples(),
    *_one_dimensional("chirp-rough"),
    *_noisy(),
    *_noisy_big(),
    *_equations(),
    *_rates(),
]
