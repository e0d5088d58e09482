"""`splatrender regress`: fit splats to a function, a table or a differential equation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from splatrender.cli.loading import loaded
from splatrender.cli.options import ParamType, SectionCommand, option
from splatrender.io.home import expand_home

if TYPE_CHECKING:
    from splatrender.io.progress import Progress
    from splatrender.regression.report import Round

DATA = "Data"
MODEL = "Model"
OUTPUT = "Output"
RUN = "Run"


class Names(ParamType):
    """Names of columns, separated by commas."""

    name = "A,B,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names as a tuple."""
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


class SplatCount(ParamType):
    """A number of splats, or `auto`."""

    name = "K|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or "auto"."""
        if value == "auto":
            return "auto"
        if isinstance(value, int) and value > 0:
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"expected a whole number from 1 on, or auto, got {value!r}", param, ctx)
        return int(value)


@click.command(
    cls=SectionCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("target", metavar="TASK|FILE.csv")
@option(
    "--inputs",
    section=DATA,
    type=Names(),
    default=(),
    show_default=False,
    help="Input columns of the file.",
)
@option(
    "--outputs",
    section=DATA,
    type=Names(),
    default=(),
    show_default=False,
    help="Columns of the file to predict.",
)
@option(
    "--holdout",
    section=DATA,
    type=float,
    default=0.2,
    metavar="SHARE",
    help="Share of the file's rows that is held out of the fit to measure errors on.",
)
@option(
    "--samples",
    section=DATA,
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of samples of a task.  [default: the task's own]",
)
@option(
    "-k",
    "--splats",
    section=MODEL,
    type=SplatCount(),
    help="Maximum number of splats; auto: as many as the data support.  "
    "[default: the task's own; auto for a file]",
)
@option(
    "--method",
    section=MODEL,
    default="levenberg",
    type=click.Choice(["levenberg", "adam", "wasserstein", "wfr"]),
    help="Gauss-Newton transport with births and deaths, or a first-order flow.",
)
@option("--parent", section=MODEL, default="gaussian", metavar="NAME", help="Shape of the splats.")
@option(
    "--rounds",
    section=MODEL,
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of rounds of births and deaths.  [default: the task's own]",
)
@option(
    "-o",
    "--out",
    section=OUTPUT,
    metavar="FOLDER",
    help="Folder to write to.  [default: output/regress/<task>]",
)
@option(
    "--pictures/--no-pictures",
    section=OUTPUT,
    default=None,
    help="Draw plots of fit, splats and history.  [default: if matplotlib is installed]",
)
@option(
    "--animation",
    section=OUTPUT,
    is_flag=True,
    help="Also animate the rounds in a .gif.",
)
@option(
    "--seed",
    section=RUN,
    type=click.IntRange(min=0),
    default=0,
    help="Random seed of data, starts and births.",
)
@option(
    "--threads",
    section=RUN,
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Number of CPU threads; 0: one per core.",
)
@option("-q", "--quiet", section=RUN, is_flag=True, help="Print only warnings.")
def regress(target: str, quiet: bool, out: str | None, **options: Any) -> None:
    """Fit splats to TASK, one of the known problems, or to columns of a table FILE.csv.

    Tasks: chirp, chirp-rough, noisy2d, noisy2d-big, rates-1d, rates-2d, rates-3d, and the
    differential equations allen-cahn-steady and allen-cahn. Written to the folder: results.json
    with the errors and the history of all rounds, the model, and plots. Ctrl-C ends the search and
    keeps the best splats so far.

    \b
    Examples:
      splatrender regress chirp --splats 30 --seed 0 --out output/chirp
      splatrender regress noisy2d --splats auto --animation
      splatrender regress data.csv --inputs x,y --outputs u
    """
    from splatrender.io.lock import locked_folder
    from splatrender.regression.job import (  # imported here: --help does not load torch
        RegressJob,
        run,
    )
    from splatrender.runtime.interruption import InterruptionGuard

    loaded()
    if target.startswith("~"):
        target = str(expand_home("FILE.csv", target))
    out = str(expand_home("out", out or Path("output/regress") / Path(target).stem))
    with (
        locked_folder(Path(out)),
        InterruptionGuard() as guard,
        _Watcher(quiet, lambda: guard.received is not None) as watcher,
    ):
        results = run(RegressJob(target=target, out=out, **options), watcher)
    if not quiet:
        click.echo(
            f"{results['splats']} splats, {results['parameters']} parameters, "
            f"{results['seconds']:.1f} s; on the {results['measured_on']}: "
            f"RMSE {results['rmse']:.3g}, largest error {results['linf']:.3g}, "
            f"relative L2 {results['relative_l2']:.3g}"
        )
        click.echo(f"{out}/results.json")


class _Watcher:
    """Shows the progress of a fit, one step for each round.

    Args:
        quiet: show nothing.
        stop: returns True if the fit must end.
    """

    def __init__(self, quiet: bool, stop: Callable[[], bool]) -> None:
        self._quiet, self._stop = quiet, stop
        self._progress: Progress | None = None

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(*error)

    def begin(self, title: str, rounds: int) -> None:
        """Show that a fit begins."""
        from splatrender.io.progress import Progress

        self._progress = Progress(rounds, unit="round", title=title, quiet=self._quiet)

    def round(self, report: Round, window: int) -> bool:
        """Count a round, and return whether the fit must end."""
        if self._progress is not None:
            self._progress.update(lambda: f"{report.splats} splats, loss {report.loss:.1e}")
        return self._stop()
