"""What a sweep over 32 views costs, in training steps: as many probes as there are splats.

    python -m benchmarks.flow.sweep                                 the bundled scene at 480 px
    python -m benchmarks.flow.sweep --scene FOLDER -r 2 --splats 30000

Splats come from a short training run on the scene itself. Then blocks of steps at the full size of
the photos, with all harmonics, alternate with sweeps over the same photos; medians of CPU time.
The last line is one whole exchange of strategy `wfr`: proposals, the sweep over its 24 views,
choice and line search.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.flow.strategies import BUNDLED
from benchmarks.render.timing import Laps
from splatrender.flow import ExchangeStrategy
from splatrender.flow.views.sweep import sweep
from splatrender.scenes.scene import load_scene
from splatrender.training import TrainOptions
from splatrender.training.run import Run

VIEWS, AT_ONCE, BLOCK = 32, 8, 20  # of the answer; of a sweep that is timed; steps between


@click.command()
@click.option("--scene", default=str(BUNDLED), show_default=True)
@click.option("-r", "--resolution", default=480, show_default=True)
@click.option("--splats", default=30_000, show_default=True)
@click.option("--iterations", default=2000, show_default=True, help="Of the run before.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    scene: str, resolution: int, splats: int, iterations: int, rounds: int, threads: int
) -> None:
    """Print CPU milliseconds of a step and of a swept view, and their ratio for 32 views."""
    if iterations <= 2 * rounds * BLOCK:
        expected = f"expected more than {2 * rounds * BLOCK} with {rounds} rounds"
        raise click.BadParameter(f"{expected}, got {iterations}", param_hint="--iterations")
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:  # named in the options, never written to
        options = TrainOptions(
            scene, Path(folder) / "run", resolution=resolution, iterations=iterations,
            max_splats=splats, strategy="mcmc", threads=threads, backend="cpu",
        )  # fmt: skip
        run = Run(options, load_scene(scene, resolution=resolution))
        for _ in range(iterations - 1 - rounds * BLOCK):
            run.step()
    state, laps = run.state, Laps()
    views = list(state.samples)[:AT_ONCE]
    strategy = ExchangeStrategy(iterations, splats)
    for _ in range(rounds):
        laps.measure("steps", lambda: [run.step() for _ in range(BLOCK)])
        probes = strategy.propose(state)
        now = state.splats.detach()
        work = partial(sweep, now, probes.splats, views, state.look)
        laps.measure("sweep", work)
    medians = laps.medians()
    step, view = medians["steps"].cpu / BLOCK, medians["sweep"].cpu / len(views)
    camera = views[0].camera
    click.echo(
        f"{Path(scene).name}, {camera.width}x{camera.height}, {len(state):,} splats, "
        f"{len(probes.splats):,} probes, {threads} thread(s)\n"
        f"a training step       {step:8.1f} ms\n"
        f"a view of a sweep     {view:8.1f} ms\n"
        f"a sweep over {VIEWS} views costs {VIEWS * view / step:.0f} training steps"
    )
    state.iteration = strategy.interval
    laps.measure("exchange", strategy.step, state)
    whole = laps.medians()["exchange"].cpu
    click.echo(f"a whole exchange of wfr costs {whole / step:.0f} training steps")


if __name__ == "__main__":
    main()
