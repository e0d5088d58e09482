"""A run of `splatrender regress`: data, fit, figures, files.

results.json   errors, sizes, times and the history of all rounds
model.pt       the fitted model: `SplatRegressor.load`, or `PdeFit.load` for a differential equation
fit.png  splats.png  loss.png  animation.gif
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from splatrender.errors import InputError
from splatrender.io.json_files import write_json
from splatrender.io.packages import pyplot
from splatrender.model import SplatMeasure
from splatrender.plots import regression as plots
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.problems.evolving import Marching, fit_evolving
from splatrender.regression.problems.solution import PdeFit, with_images
from splatrender.regression.problems.steady import ROUNDS, fit_steady
from splatrender.regression.problems.table import Table, read_table
from splatrender.regression.problems.tasks import TASKS, Task, task
from splatrender.regression.report import Round

Array = NDArray[np.float64]
MOST_FRAMES = 80  # in the animation
HOLDOUT_SEED = 1  # independent of the seed of the fit


@dataclass(frozen=True)
class RegressJob:
    """Settings of a run.

    Attributes:
        target: name of a task, or path of a .csv file.
        splats: maximum number of splats, "auto" for as many as the data support, None for the
            task's own.
        seed: seed of data, starts and births.
        out: folder to write to.
        inputs: input columns of the file.
        outputs: columns of the file to predict.
        samples: number of samples, None for the task's own.
        holdout: share of a file's rows that is held out of the fit to measure errors on.
        method: method of `SplatRegressor`.
        parent: shape of the splats.
        rounds: maximum number of rounds of births and deaths, None for the task's own.
        pictures: draw plots; None to draw them if matplotlib is installed.
        animation: also draw the animation.
        threads: number of CPU threads, 0 for one per core.
    """

    target: str
    splats: int | str | None = None
    seed: int = 0
    out: str = "output/regress"
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    samples: int | None = None
    holdout: float = 0.2
    method: str = "levenberg"
    parent: str = "gaussian"
    rounds: int | None = None
    pictures: bool | None = None
    animation: bool = False
    threads: int = 0


class Watcher(Protocol):
    """Observer of a run."""

    def begin(self, title: str, rounds: int) -> None:
        """Note that a fit of at most so many rounds begins."""

    def round(self, report: Round, window: int) -> bool:
        """Note that a round has ended, and return True to end the fit."""


class Silent:
    """Observer that does nothing."""

    def begin(self, title: str, rounds: int) -> None:
        """Do nothing."""

    def round(self, report: Round, window: int) -> bool:
        """Return False: the fit continues."""
        return False


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Fit of samples or of an equation."""

    predict: Callable[[Array], Array]
    save: Callable[[Path], None]
    measures: list[SplatMeasure]
    history: list[tuple[int, Round]]
    parameters: int
    extra: dict[str, Any]
    frames: list[tuple[Round, list[SplatMeasure]]]
    drawn: list[SplatMeasure] | None = None  # in place of the measures, with images of splats
    slabs: tuple[tuple[float, float], ...] = ()  # intervals of time, one for each measure


def run(job: RegressJob, watcher: Watcher | None = None) -> dict[str, Any]:
    """Fit, measure the errors, and write all files.

    Args:
        job: settings.
        watcher: observer of the rounds.

    Returns:
        The content of results.json.

    Raises:
        InputError: the input is invalid.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    draw = plots.have_matplotlib() if job.pictures is None else job.pictures
    if draw or job.animation:
        pyplot()  # an error now is better than after the fit
    watcher = watcher or Silent()
    out = Path(job.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder to write to, got a file")
    cpu, wall = time.process_time(), time.perf_counter()
    is_file = job.target not in TASKS and ("." in job.target or "/" in job.target)
    if is_file:
        outcome, shown, measured = _run_table(job, watcher)
    else:
        outcome, shown, measured = _run_task(job, task(job.target), watcher)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    results: dict[str, Any] = {
        "task": job.target,
        "splats": sum(map(len, outcome.measures)),
        "parameters": outcome.parameters,
        "seed": job.seed,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        **measured,
        "method": job.method,
        **outcome.extra,
        "history": [{"window": w, **asdict(r)} for w, r in outcome.history],
    }
    outcome.save(out / "model.pt")
    if draw:
        plots.draw_fit(out / "fit.png", shown)
        drawn = outcome.drawn or outcome.measures
        plots.draw_splats(out / "splats.png", drawn, shown, results["splats"], outcome.slabs)
        plots.draw_history(out / "loss.png", outcome.history, shown.title)
    if job.animation:
        frames = outcome.frames[:: max(1, math.ceil(len(outcome.frames) / MOST_FRAMES))]
        plots.draw_animation(out / "animation.gif", frames, shown, outcome.slabs)
    write_json(out / "results.json", results)  # last: a folder with results is complete
    return results


def errors(predicted: Array, truth: Array) -> dict[str, float]:
    """Return root mean square, largest and relative L2 error.

    Args:
        predicted: [...] values.
        truth: [...] true values.

    Returns:
        rmse, linf and relative_l2 = |predicted - truth| / |truth|.

    Example:
        >>> errors(np.array([1.0, 3.0]), np.array([1.0, 1.0]))["linf"]
        2.0
    """
    gap = predicted - truth
    size = float(np.linalg.norm(truth))
    return {
        "rmse": float(np.sqrt(np.mean(gap**2))),
        "linf": float(np.abs(gap).max()),
        "relative_l2": float(np.linalg.norm(gap)) / size if size else math.inf,
    }


def _run_task(
    job: RegressJob, problem: Task, watcher: Watcher
) -> tuple[_Outcome, plots.Shown, dict[str, Any]]:
    """Fit a task and measure it on its grid."""
    grid = problem.grid()
    data = None
    if problem.is_pde:
        if job.samples is not None:
            raise InputError(f"samples: expected none, {problem.name} is a differential equation")
        outcome = _fit_pde(job, problem, watcher)
        where = "exact solution" if problem.truth else "reference solution"
    else:
        data = problem.data(job.seed, job.samples)
        splats = problem.splats if job.splats is None else job.splats
        outcome = _fit_samples(job, splats, data.x, data.y, problem.title, watcher)
        where = "dense clean grid"
    fit = outcome.predict(grid.x)
    shape = None
    if problem.dimensions == 2:
        first = len(np.unique(grid.x[:, 0]))
        second = len(grid.x) // first
        shape = (first, second) if problem.truth else (second, first)
    samples = None if data is None else (data.x, data.y)
    shown = plots.Shown(problem.title, problem.inputs, grid.x, grid.y, fit, shape, samples)
    measured: dict[str, Any] = {**errors(fit, grid.y), "measured_on": where, "points": len(grid.y)}
    if data is not None:
        residual = errors(outcome.predict(data.x), data.y)["rmse"]
        measured |= {"samples": len(data.y), "noise": problem.noise, "train_rmse": residual}
    return outcome, shown, measured


def _run_table(job: RegressJob, watcher: Watcher) -> tuple[_Outcome, plots.Shown, dict[str, Any]]:
    """Fit a table and measure it on rows that are held out."""
    if job.samples is not None:
        raise InputError("samples: expected with a task only, got with a file")
    if not 0 < job.holdout < 1:
        raise InputError(f"holdout: expected a share between 0 and 1, got {job.holdout}")
    table = read_table(job.target, job.inputs, job.outputs)
    train, test = _split(table, job.holdout)
    splats = "auto" if job.splats is None else job.splats
    y = table.y[:, 0] if table.y.shape[1] == 1 else table.y
    title = f"{', '.join(table.outputs)} of {', '.join(table.inputs)}"
    names = (table.inputs, table.outputs)
    outcome = _fit_samples(job, splats, table.x[train], y[train], title, watcher, names)
    fit = outcome.predict(table.x[test])
    flat = (fit[:, 0], y[test][:, 0]) if fit.ndim == 2 else (fit, y[test])
    shown = plots.Shown(title, table.inputs, table.x[test], flat[1], flat[0])
    inside = errors(outcome.predict(table.x[train]), y[train])["rmse"]
    measured = {
        **errors(fit, y[test]),
        "measured_on": "rows held out",
        "points": len(test),
        "samples": len(train),
        "train_rmse": inside,
        "inputs": list(table.inputs),
        "outputs": list(table.outputs),
    }
    return outcome, shown, measured


def _split(table: Table, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to fit and rows to measure on, both in the order of the file."""
    count = len(table.x)
    held = min(max(1, round(share * count)), count - 2)
    order = np.random.default_rng(HOLDOUT_SEED).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def _fit_samples(
    job: RegressJob,
    splats: int | str,
    x: Array,
    y: Array,
    title: str,
    watcher: Watcher,
    names: tuple[tuple[str, ...], tuple[str, ...]] | None = None,
) -> _Outcome:
    frames: list[tuple[Round, list[SplatMeasure]]] = []
    model = SplatRegressor(splats, parent=job.parent, method=job.method, random_state=job.seed)
    if job.rounds is not None:
        model.max_rounds = job.rounds

    def progress(report: Round, measure: SplatMeasure) -> bool:
        if job.animation and (report.kept or report.round == 0):
            frames.append((report, [measure.detach()]))
        return watcher.round(report, 0)

    watcher.begin(title, model.max_rounds)
    model.fit(x, y, progress=progress)
    if names is not None:  # inputs and outputs
        model.feature_names_in_, model.target_names_ = (np.array(n, dtype=object) for n in names)
    return _Outcome(
        model.predict,
        model.save,
        [model.measure_],
        [(0, r) for r in model.history_],
        model.measure_.parameters,
        {"splats_at_most": splats, "parent": job.parent},
        frames,
    )


def _fit_pde(job: RegressJob, problem: Task, watcher: Watcher) -> _Outcome:
    splats = problem.splats if job.splats is None else job.splats
    if not isinstance(splats, int):
        raise InputError(f"splats: expected a number for {problem.name}, got {splats!r}")
    for name, usual in (("method", "levenberg"), ("parent", "gaussian")):
        if getattr(job, name) != usual:
            raise InputError(
                f"{name}: expected {usual} for {problem.name}, got {getattr(job, name)}"
            )
    frames: list[tuple[Round, list[SplatMeasure]]] = []
    shown: dict[int, SplatMeasure] = {}

    def progress(report: Round, window: int, measure: SplatMeasure) -> bool:
        if job.animation and (report.kept or report.round == 0):
            shown[window] = measure.detach() if problem.truth else with_images(measure.detach())
            frames.append((report, list(shown.values())))
        return watcher.round(report, window)

    fitted: PdeFit
    if problem.truth is not None:
        rounds = ROUNDS if job.rounds is None else job.rounds
        watcher.begin(problem.title, rounds)
        fitted = fit_steady(splats, job.seed, rounds, progress)
    else:
        marching = Marching()
        if job.rounds is not None:
            marching = Marching(rounds=job.rounds, later=min(job.rounds, marching.later))
        watcher.begin(problem.title, marching.total)
        fitted = fit_evolving(splats, job.seed, marching, progress=progress)
    measures = [w.measure for w in fitted.windows]
    return _Outcome(
        fitted.predict,
        fitted.save,
        measures,
        fitted.history,
        fitted.parameters,
        {"windows": [w.stop for w in fitted.windows] if len(fitted.windows) > 1 else []},
        frames,
        None if problem.truth else [with_images(m) for m in measures],
        () if problem.truth else tuple((w.start, w.stop) for w in fitted.windows),
    )
