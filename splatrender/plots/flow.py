"""Plot of the births and deaths of a run, from flow.jsonl. Needs matplotlib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.manifest import register
from splatrender.io.packages import pyplot

DPI = 110


def plot_flow(model: Path, target: Path | None = None) -> Path:
    """Plot mass, births, deaths, relocations, potentials and the loss over a run.

    Args:
        model: output folder of a run, with flow.jsonl in it.
        target: .png to write; MODEL/flow.png by default.

    Returns:
        The file that was written.

    Raises:
        InputError: matplotlib is missing, there is no flow.jsonl, or it is empty.
    """
    plt = pyplot()
    reports = read_flow(model / "flow.jsonl")
    if target is None:
        target = model / "flow.png"
        register(model, [target])
    figure, axes = plt.subplots(2, 3, figsize=(15, 7.5))
    _counts(axes[0, 0], reports)
    _births(axes[0, 1], reports)
    _line(axes[0, 2], reports, "mass", "optical mass, Σ -ln(1 - opacity)")
    _line(axes[1, 0], reports, "error_of_view", "squared error of a view, 1/2 Σ |r|²")
    _health(axes[1, 1], reports)
    _potentials(axes[1, 2], reports)
    for axis in (*axes[0], axes[1, 0]):
        axis.set_xlabel("iteration")
    figure.suptitle(str(model), fontsize=10)
    figure.tight_layout()
    with atomic_write(target) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    plt.close(figure)
    return target


def read_flow(path: Path) -> list[dict[str, Any]]:
    """Read the reports of a flow.jsonl.

    Raises:
        InputError: there is no such file, it is empty, or a line of it is not an object.
    """
    if not path.exists():
        raise InputError(f"{path}: expected reports of a strategy, one on each line; got no file")
    reports = []
    text = path.read_bytes().decode("utf-8-sig", "replace")
    lines = text.split("\n")[:-1]  # the last may still be in writing
    for number, line in enumerate(lines, start=1):
        try:
            reports.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise InputError(f"{path}: line {number}: expected a JSON object") from None
    if not reports:
        raise InputError(f"{path}: expected at least one report, got none")
    return reports


def _column(reports: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Return iterations and values of the reports that have a number under the key."""
    rows = [(r["iteration"], r[key]) for r in reports if r.get(key) is not None]
    return [i for i, _ in rows], [v for _, v in rows]


def _line(axis: Any, reports: list[dict[str, Any]], key: str, title: str) -> None:
    axis.plot(*_column(reports, key), ".-", lw=1)
    axis.set_title(title, fontsize=10)
    axis.set_ylim(bottom=0)


def _counts(axis: Any, reports: list[dict[str, Any]]) -> None:
    axis.plot(*_column(reports, "splats"), ".-", lw=1)
    axis.set_title("splats", fontsize=10)
    axis.set_ylim(bottom=0)


def _births(axis: Any, reports: list[dict[str, Any]]) -> None:
    for key, sign, label in (
        ("born", 1, "births"),
        ("twins", 1, "births by splitting"),
        ("moved", 1, "relocated"),
        ("died", -1, "deaths"),
    ):
        iterations, values = _column(reports, key)
        if not iterations:
            continue
        axis.plot(iterations, [sign * v for v in values], ".-", lw=1, label=label)
    axis.axhline(0, c="0.8", lw=0.8)
    axis.set_title("births, relocations, deaths", fontsize=10)
    axis.legend(fontsize=8)


def _health(axis: Any, reports: list[dict[str, Any]]) -> None:
    """Plot predicted against realised change of the swept views' error."""
    needed = ("predicted", "realised", "error")
    rows = [r for r in reports if all(r.get(key) is not None for key in needed)]
    if not rows:
        axis.set_axis_off()
        return
    x = [r["predicted"] / max(r["error"], 1e-30) for r in rows]
    y = [r["realised"] / max(r["error"], 1e-30) for r in rows]
    dots = axis.scatter(x, y, c=[r["iteration"] for r in rows], s=14)
    ends = [min(*x, *y, 0.0), max(*x, *y, 0.0)]
    axis.plot(ends, ends, c="0.7", lw=0.8)
    axis.axhline(0, c="0.85", lw=0.8)
    axis.set(xlabel="predicted ΔF / F", ylabel="realised ΔF / F")
    axis.locator_params(axis="x", nbins=5)
    axis.set_title("predictions of the exchanges", fontsize=10)
    axis.figure.colorbar(dots, ax=axis, label="iteration")


def _potentials(axis: Any, reports: list[dict[str, Any]]) -> None:
    """Plot histograms of removal costs and insertion gains of the first and last sweep."""
    rows = [r for r in reports if "costs" in r]
    if not rows:
        axis.set_axis_off()
        return
    for report, style in ((rows[0], "--"), (rows[-1], "-")):
        for key, color in (("costs", "C3"), ("gains", "C2")):
            centers = report["log10"]
            label = f"{key}, iteration {report['iteration']}"
            axis.plot(centers, report[key], style, c=color, lw=1, label=label)
    axis.set(xlabel="log10 ΔF of one splat", ylabel="number")
    axis.set_title("removal costs and insertion gains > 0", fontsize=10)
    axis.legend(fontsize=7)
