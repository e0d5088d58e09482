"""Splat regression against its peers: parameters, error and CPU seconds, one table for all tasks.

    python -m benchmarks.regression.table                    everything; takes hours on two cores
    python -m benchmarks.regression.table --quick            small budgets, one seed: a few minutes
    python -m benchmarks.regression.table --tasks chirp,rates --seeds 3 --seconds 60

Each result is written to --cache at once; an interrupted run resumes from there. At the end the
command writes results.md, results.json, a plot of error against parameters and time for each task,
one of all rates, and one of the loss on `chirp`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.regression.peers.catalog import ROWS, Row
from benchmarks.regression.peers.figures import draw_descents, draw_pareto, draw_rates
from benchmarks.regression.peers.problem import Problem
from splatrender.io.atomic import write_text
from splatrender.io.json_files import read_json, write_json
from splatrender.regression.job import errors
from splatrender.regression.problems.tasks import TASKS

FORMAT = 1  # of the cache: increment it to recompute all results
SECONDS = 30.0  # CPU time of one run of an optimiser
LONG_SECONDS = 600.0  # for physics-informed networks
QUICK_SECONDS = 4.0


@dataclass(frozen=True)
class Plan:
    """Runs of a comparison.

    Attributes:
        rows: tasks and methods.
        seeds: number of seeds; methods without randomness run once.
        seconds: CPU budget of one run of an optimiser, None for the standard ones.
        quick: small budgets, for a first impression.
        cache: folder of results.
    """

    rows: list[Row]
    seeds: int
    seconds: float | None
    quick: bool
    cache: Path

    def budget(self, row: Row) -> float:
        """Return the CPU seconds of one run of one optimiser."""
        if self.seconds is not None:
            return self.seconds
        if self.quick:
            return QUICK_SECONDS
        return LONG_SECONDS if row.long else SECONDS


def measure(row: Row, seed: int, seconds: float, quick: bool) -> dict[str, Any]:
    """Fit once and measure errors on the clean grid.

    Args:
        row: task and method.
        seed: seed of data and method.
        seconds: CPU budget of one optimiser.
        quick: shorten the search of splats, too.

    Returns:
        Errors, parameters and times.
    """
    task = TASKS[row.task]
    data = None if task.is_pde else task.data(seed, row.samples)
    problem = Problem(task, data, task.grid(), seed, seconds, quick)
    cpu, wall = time.process_time(), time.perf_counter()
    fitted = row.method(problem)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    predicted = fitted.predict(problem.grid.x)
    identity = {"format": FORMAT, "task": row.task, "label": row.label, "method": row.name}
    settings = {"seed": seed, "ours": row.ours, "budget": seconds, "quick": quick}
    return {
        **identity,
        **settings,
        "parameters": fitted.parameters,
        **errors(predicted, problem.grid.y),
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "note": fitted.note,
        "curve": fitted.curve,
    }


def collect(plan: Plan) -> list[dict[str, Any]]:
    """Run all that is not in the cache yet.

    Args:
        plan: runs of the comparison.

    Returns:
        All results of the plan.
    """
    results = []
    jobs = [(r, s) for r in plan.rows for s in range(plan.seeds if r.random else 1)]
    for number, (row, seed) in enumerate(jobs, 1):
        kind = "quick" if plan.quick else f"{plan.budget(row):g}s"
        name = row.name.replace(" ", "-").replace(",", "").replace("/", "-")
        path = plan.cache / kind / row.label / name / f"{seed}.json"
        if path.exists() and read_json(path).get("format") == FORMAT:
            results.append(read_json(path))
            continue
        print(f"[{number}/{len(jobs)}] {row.label}: {row.name}, seed {seed} ...", flush=True)
        try:
            result = measure(row, seed, plan.budget(row), plan.quick)
        except ImportError as error:
            print(f"    left out: {error.name} is not installed (splatrender[bench])")
            continue
        write_json(path, result)
        print(
            f"    {result['parameters']} parameters, RMSE {result['rmse']:.2e}, relative L2 "
            f"{result['relative_l2']:.2e}, {result['cpu_seconds']:.1f} s of CPU  {result['note']}"
        )
        results.append(result)
    return results


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians over seeds.

    Args:
        results: results of single runs.

    Returns:
        One entry for each task and method, in the order of the results.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["label"], result["method"]), []).append(result)
    rows = []
    for (label, method), group in groups.items():
        row: dict[str, Any] = {"label": label, "method": method, "ours": group[0]["ours"]}
        row["seeds"] = len(group)
        row["budget"] = group[0]["budget"]
        for key in ("parameters", "rmse", "linf", "relative_l2", "cpu_seconds", "wall_seconds"):
            row[key] = median(r[key] for r in group)
        row["worst_rmse"] = max(r["rmse"] for r in group)
        row["note"] = group[0]["note"]
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return one table for each task.

    Args:
        rows: medians.

    Returns:
        Markdown; ours in bold.
    """
    lines = ["# Splat regression and its peers", ""]
    machine = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} thread, float64, torch "
    lines += [f"{machine}{torch.__version__}. Medians over seeds; errors against clean values.", ""]
    for label in dict.fromkeys(row["label"] for row in rows):
        lines += [f"## {label}", ""]
        lines += ["| method | parameters | RMSE | worst | largest | relative L2 | CPU s | seeds |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for row in (r for r in rows if r["label"] == label):
            bold = "**" if row["ours"] else ""
            lines.append(
                f"| {bold}{row['method']}{bold} | {row['parameters']:g} | {bold}{row['rmse']:.2e}"
                f"{bold} | {row['worst_rmse']:.1e} | {row['linf']:.1e} | {row['relative_l2']:.1e} "
                f"| {row['cpu_seconds']:.1f} | {row['seeds']} |"
            )
        lines.append("")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], results: list[dict[str, Any]], folder: Path) -> None:
    """Draw a plot for each task, one for all rates, and one of the descents of splats.

    Args:
        rows: medians.
        results: results of single runs.
        folder: folder to write to.
    """
    if find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed (splatrender[bench])")
        return
    for label in dict.fromkeys(row["label"] for row in rows):
        if not label.startswith("rates"):
            group = [row for row in rows if row["label"] == label]
            draw_pareto(label, group, folder / f"pareto_{label}.png")
    rates = [row for row in rows if row["label"].startswith("rates")]
    if rates:
        draw_rates(rates, folder / "rates.png")
    curves = {r["method"]: r["curve"] for r in results if r["label"] == "chirp" and r.get("curve")}
    if curves:
        draw_descents(curves, folder / "descent_chirp.png")


def _matches(row: Row, names: list[str], method: str) -> bool:
    """Return whether a row belongs to the selected tasks and methods."""
    labelled = row.label in names or ("rates" in names and row.label.startswith("rates-"))
    return labelled and method.lower() in row.name.lower()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    labels = list(dict.fromkeys(row.label for row in ROWS))
    parser.add_argument("--tasks", default="all", help=f"comma-separated: {', '.join(labels)}")
    parser.add_argument("--methods", default="", help="only methods whose names contain this text")
    parser.add_argument("--seeds", type=int, help="default 5, or 1 with --quick")
    parser.add_argument("--seconds", type=float, help="CPU seconds of one run of an optimiser")
    parser.add_argument("--quick", action="store_true", help="small budgets, one seed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("output/regression"))
    parser.add_argument("--cache", type=Path, help="default: OUT/cache")
    options = parser.parse_args(arguments)
    names = labels if options.tasks == "all" else options.tasks.split(",")
    rows = [row for row in ROWS if _matches(row, names, options.methods)]
    unknown = [name for name in names if name not in labels and name != "rates"]
    if unknown or not rows:
        parser.error(f"--tasks, --methods: expected some of {', '.join(labels)}; got {unknown}")
    torch.set_num_threads(options.threads)
    seeds = options.seeds or (1 if options.quick else 5)
    cache = options.cache or options.out / "cache"
    results = collect(Plan(rows, seeds, options.seconds, options.quick, cache))
    medians = summarise(results)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "results.json", {"medians": medians, "runs": results})
    write_text(options.out / "results.md", markdown(medians))
    draw(medians, results, options.out)
    print(markdown(medians))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes from here")
        sys.exit(130)
