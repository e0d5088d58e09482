"""Strategies of density control: same scenes, seeds, starts, iterations and budgets for all.

    python -m benchmarks.flow.strategies                                the whole table: hours
    python -m benchmarks.flow.strategies --resolution 4 --iterations 1500 --budgets 2500
    python -m benchmarks.flow.strategies --strategies wfr --variants ablations
    python -m benchmarks.flow.strategies --strategies wfr --variants sensitivity
    python -m benchmarks.flow.strategies --strategies wfr --variants prices
    python -m benchmarks.flow.strategies --strategies wfr,mcmc --variants half  half the iterations
    python -m benchmarks.flow.strategies --strategies adc --variants baselines  ADC with fewer rules

Every run is kept in the folder of --cache and never done twice: a benchmark that was stopped
continues from there. A run is identified by its options; delete the folder after a code change.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from splatrender.flow import STRATEGIES, ExchangeConfig, ExchangeStrategy, Strategy, TrainState
from splatrender.flow.views.footprints import residual_of
from splatrender.flow.views.objective import PhotoObjective
from splatrender.flow.views.sweep import Sweep
from splatrender.io.json_files import read_json, write_json
from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.operators.render import render
from splatrender.training import TrainOptions, train
from splatrender.training.options import TRANSPORTS

BUNDLED = Path(__file__).resolve().parents[2] / "scenes" / "still_life"
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "no births and deaths": ("none", {}),
    "no ray probes": ("wfr", {"shares": (0.95, 0.0, 0.05)}),
    "no child probes": ("wfr", {"shares": (0.0, 0.95, 0.05)}),
    "no probes anywhere": ("wfr", {"shares": (0.55, 0.45, 0.0)}),
    "no twins": ("wfr", {"twins": False}),
    "quadratic removal cost": ("wfr quadratic", {}),
    "no neighbourhoods": ("wfr", {"neighbourhood": 0.0}),
    "no significance": ("wfr", {"significance": 0.0}),
    "no price of mass": ("wfr", {"mass": 0.0}),
    "noise": ("wfr", {"noise": 1.0}),
}
NUMBERS = (
    "sweeps", "views", "probes", "turnover", "growth", "significance", "neighbourhood", "mass",
)  # fmt: skip
PRICES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
KINDS = ("none", "ablations", "sensitivity", "prices", "half", "baselines")


@dataclass(frozen=True)
class Entry:
    """Line of the table.

    Attributes:
        label: name of the line.
        strategy: name of the strategy.
        change: arguments of the strategy other than the standard ones; for wfr, its config.
        price: price of a splat.
        effort: fraction of the iterations.
        transport: name of the transport.
    """

    label: str
    strategy: str
    change: dict[str, Any] | None = None
    price: float | None = None
    effort: float = 1.0
    transport: str = "adam"


@dataclass(frozen=True)
class Job:
    """Run of the table."""

    scene: str
    label: str
    strategy: str
    change: dict[str, Any] | None
    price: float | None
    transport: str
    budget: int
    seed: int
    iterations: int
    resolution: int
    random_init: bool

    @property
    def key(self) -> str:
        text = json.dumps(asdict(replace(self, label="")), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class QuadraticObjective(PhotoObjective):
    """Removal costs by the quadratic model in the optical mass m: −m ∂F/∂m + ½ m² Σ |∂C/∂m|².

    Both terms follow from the gradient of F in the opacity o and from the exact cost, because
    without `beer_lambert` radiance is affine in each opacity alone.
    """

    def sweep(self, measure: Splats) -> Sweep:
        sweep = super().sweep(measure)
        quadratic = []
        for view, exact in zip(self.views, sweep.removals.by_view, strict=True):
            splats = measure.detach()
            splats.opacity_logits.requires_grad_()
            with torch.enable_grad():
                image = render(
                    splats,
                    view.camera,
                    background=self.look.background,
                    options=self.look.options,
                ).radiance[0]
                loss = 0.5 * residual_of(image, view).square().sum()
                (slope,) = torch.autograd.grad(loss, splats.opacity_logits)
            o = splats.opacities.detach()
            slope = slope / (o * (1 - o))
            curvature = 2 * (exact + o * slope) / o.square()
            m = -torch.log1p(-o)
            quadratic.append(-m * (1 - o) * slope + 0.5 * (m * (1 - o)).square() * curvature)
        by_view = torch.stack(quadratic)
        removals = replace(sweep.removals, costs=by_view.sum(dim=0), by_view=by_view)
        return replace(sweep, removals=removals)


class QuadraticExchange(ExchangeStrategy):
    """Exchange by the quadratic model of removal costs."""

    name = "wfr quadratic"

    def objective(self, state: TrainState, views: Sequence[View]) -> PhotoObjective:
        return QuadraticObjective(views, state.look, self.config.masses)


def variants(kind: str) -> list[Entry]:
    """Return the lines beyond the plain strategies."""
    if kind == "ablations":
        pieces = [Entry(f"wfr, {name}", *change) for name, change in ABLATIONS.items()]
        return pieces + [Entry(f"wfr, {name}", "wfr", transport=name) for name in TRANSPORTS[1:]]
    if kind == "prices":
        return [Entry(f"wfr, price {price:g}", "wfr", price=price) for price in PRICES]
    if kind == "half":
        return [Entry(f"{n}, half the iterations", n, effort=0.5) for n in ("wfr", "mcmc")]
    if kind == "baselines":
        return [
            Entry("adc, no resets", "adc", {"resets": False}),
            Entry("adc, no pruning of large splats", "adc", {"prune_large": False}),
        ]
    if kind == "sensitivity":
        entries = []
        for name in NUMBERS:
            value = getattr(ExchangeConfig(), name)
            for word, factor in (("half", 0.5), ("double", 2)):
                change = {name: type(value)(value * factor)}
                entries.append(Entry(f"wfr, {word} {name}", "wfr", change))
        for word, factor in (("half", 0.5), ("double", 2)):
            masses = tuple(m * factor for m in ExchangeConfig().masses)
            entries.append(Entry(f"wfr, {word} masses", "wfr", {"masses": masses}))
        return entries
    return []


def strategy_of(job: Job) -> Strategy:
    """Return the strategy of a run, with its changed arguments."""
    kinds = {**STRATEGIES, QuadraticExchange.name: QuadraticExchange}
    change = dict(job.change or {})
    if change and job.strategy == ExchangeStrategy.name:
        change = {"config": replace(ExchangeConfig(), **change)}
    if job.price is not None:
        change["price"] = job.price
    return kinds[job.strategy](job.iterations, job.budget, **change)


def run_job(job: Job, cache: Path, threads: int) -> dict[str, Any]:
    """Return the figures of a run, from the cache if it was done before."""
    file = cache / f"{job.key}.json"
    if file.exists():
        kept: dict[str, Any] = read_json(file)
        return kept
    exact = job.strategy in STRATEGIES
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions(
            job.scene, Path(folder) / "run", resolution=job.resolution, iterations=job.iterations,
            max_splats=job.budget, strategy=job.strategy if exact else ExchangeStrategy.name,
            price=job.price, transport=job.transport, seed=job.seed, random_init=job.random_init,
            checkpoint_interval=0, threads=threads, quiet=True,
            test_iterations=(max(1, job.iterations // 2),),
        )  # fmt: skip
        results = train(options, strategy=strategy_of(job)).results
    half = results["history"][0]
    figures = {
        **asdict(job),
        **{k: results[k] for k in ("psnr", "ssim", "splats", "seconds", "cpu_seconds", "threads")},
        "psnr_half": half["psnr"],
    }
    write_json(file, figures)
    return figures


def mean_and_error(values: Sequence[float]) -> str:
    """Return `mean ± standard error`, or the value alone."""
    if len(values) == 1:
        return f"{values[0]:.2f}      "
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ±{error:.2f}"


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line for each scene, budget and strategy: means over seeds."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["scene"], row["budget"], row["label"]), []).append(row)
    width = max(len(label) for _, _, label in groups)
    before: tuple[str, int] | None = None
    for (scene, budget, label), runs in groups.items():
        if (scene, budget) != before:
            before = scene, budget
            click.echo(f"\n{Path(scene).name}, at most {budget:,} splats")
            click.echo(
                f"{'strategy':<{width}}  PSNR [dB]      half-way       SSIM    splats   wall [s]"
                "  CPU [s]  seeds"
            )
        mean = {k: statistics.mean(r[k] for r in runs) for k in runs[0] if _is_figure(runs[0][k])}
        click.echo(
            f"{label:<{width}}  {mean_and_error([r['psnr'] for r in runs])}    "
            f"{mean_and_error([r['psnr_half'] for r in runs])}    {mean['ssim']:.4f} "
            f"{mean['splats']:8,.0f} {mean['seconds']:10.1f} {mean['cpu_seconds']:8.1f} "
            f"{len(runs):6}"
        )


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(_: Any, __: Any, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers like 1,2,3, got {value!r}") from None


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    scenes: str
    strategies: str
    kind: str
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    iterations: int
    resolution: int
    random_init: bool
    threads: int
    cache: str

    def jobs(self) -> list[Job]:
        """Return all runs of the table."""
        names = [name for name in self.strategies.split(",") if name]
        entries = [Entry(name, name) for name in names] + variants(self.kind)
        return [
            Job(
                scene=str(Path(scene).resolve()),
                label=entry.label,
                strategy=entry.strategy,
                change=entry.change,
                price=entry.price,
                transport=entry.transport,
                budget=budget,
                seed=seed,
                iterations=round(entry.effort * self.iterations),
                resolution=self.resolution,
                random_init=self.random_init,
            )
            for scene in self.scenes.split(",")
            for budget in self.budgets
            for seed in self.seeds  # seeds outside: a stopped table is complete for some of them
            for entry in entries
        ]


@click.command()
@click.option("--scenes", default=str(BUNDLED), show_default=True, help="Folders, with commas.")
@click.option("--strategies", default="wfr,mcmc,adc,none", show_default=True)
@click.option("--variants", "kind", default="none",
              type=click.Choice(KINDS), help="Also run variants.")  # fmt: skip
@click.option("--budgets", default="10000,30000,60000", callback=_numbers, show_default=True)
@click.option("--seeds", default="0,1,2", callback=_numbers, show_default=True)
@click.option("--iterations", default=7000, show_default=True)
@click.option("-r", "--resolution", default=2, show_default=True)
@click.option("--random-init", is_flag=True)
@click.option("--threads", default=0, help="CPU threads of a run; 0: one for each core.")
@click.option("--cache", default="output/strategies", show_default=True)
def main(**given: Any) -> None:
    """Train every strategy on every scene, at every budget, with every seed; print one table."""
    options = Options(**given)
    folder = Path(options.cache)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = options.jobs()
    rows = []
    for number, job in enumerate(jobs, start=1):
        row = run_job(job, folder, options.threads) | {"label": job.label}
        rows.append(row)
        click.echo(
            f"[{number}/{len(jobs)}] {Path(job.scene).name} {job.budget} seed {job.seed} "
            f"{job.label}: {row['psnr']:.2f} dB, {row['seconds']:.0f} s",
            err=True,
        )
    print_table(rows)


if __name__ == "__main__":
    main()
