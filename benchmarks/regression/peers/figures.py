"""Plots of a comparison: error against parameters and time, and rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.regression.peers.problem import Array

OFFSETS = [(r * np.cos(a), r * np.sin(a)) for r in (11, 17, 24) for a in np.pi / 4 * np.arange(8)]


def draw_pareto(label: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Draw error against parameters and against CPU time; numbers stand for methods.

    Args:
        label: name of the task.
        rows: medians of the task.
        path: .png to write.
    """
    plt = _pyplot()
    rows = sorted(rows, key=lambda row: row["rmse"])
    figure, axes = plt.subplots(1, 3, figsize=(11, 4), width_ratios=(4, 4, 2.6))
    for axis, key, name in (
        (axes[0], "parameters", "parameters"),
        (axes[1], "cpu_seconds", "CPU seconds"),
    ):
        x = np.array([max(row[key], 1e-3) for row in rows])
        y = np.array([row["rmse"] for row in rows])
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.grid(alpha=0.25)
        axis.set_xlim(_range(x))
        axis.set_ylim(_range(y))
        _ticks(axis.xaxis, x)
        _ticks(axis.yaxis, y)
        for ours in (False, True):
            mask = np.array([row["ours"] for row in rows]) == ours
            style = {"marker": "*", "s": 110, "c": "C3"} if ours else {"s": 28, "c": "C0"}
            axis.scatter(x[mask], y[mask], zorder=3, **style)
    axes[0].set(ylabel="RMSE against clean values", title=label)
    axes[1].tick_params(labelleft=False)
    figure.tight_layout()
    for axis, key in zip(axes, ("parameters", "cpu_seconds"), strict=False):
        _number(axis, [(max(row[key], 1e-3), row["rmse"]) for row in rows])
    axes[2].axis("off")
    step = min(0.065, 1.0 / len(rows))
    for index, row in enumerate(rows):
        text, colour = f"{index + 1}  {row['method']}", "C3" if row["ours"] else "0.15"
        place = {"va": "top", "transform": axes[2].transAxes}
        axes[2].text(-0.1, 1 - step * index, text, fontsize=8, color=colour, **place)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_rates(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw error against the number of splats for each dimension, with the theory's k^(-1/d).

    Args:
        rows: medians of all tables of rates.
        path: .png to write.
    """
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6, 4.2))
    for index, label in enumerate(dict.fromkeys(row["label"] for row in rows)):
        dims = int(label[-2])
        points = sorted(
            (int(row["method"].split("=")[1]), row["rmse"]) for row in rows if row["label"] == label
        )
        k, error = np.array(points, dtype=float).T
        axis.loglog(k, error, "o-", c=f"C{index}", ms=4, label=f"d = {dims}")
        theory = error[0] * (k / k[0]) ** (-1 / dims)
        power = "$k^{-1}$" if dims == 1 else f"$k^{{-1/{dims}}}$"
        axis.loglog(k, theory, "--", c=f"C{index}", lw=0.9, label=power)
    axis.set(xlabel="splats k", ylabel="RMSE against clean values")
    axis.set_xticks(k := [2, 4, 8, 16, 32, 64], [str(n) for n in k])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_descents(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Draw the training error of splats against time, for each method of training.

    Args:
        curves: seconds and mean square residuals, by method.
        path: .png to write.
    """
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6, 3.8))
    for name, curve in curves.items():
        seconds, squares = np.array(curve).T
        axis.loglog(np.maximum(seconds, 1e-2), squares, lw=1.4, label=name)
    axis.set(xlabel="seconds", ylabel="mean square residual on the samples")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _range(values: Array) -> tuple[float, float]:
    """Return the limits of a logarithmic axis, with a margin."""
    low, high = np.log10(values.min()), np.log10(values.max())
    margin = 0.1 * max(high - low, 0.5)
    return float(10 ** (low - margin)), float(10 ** (high + margin))


def _ticks(axis: Any, values: Array) -> None:
    """Label 1, 2 and 5 times powers of ten where the range is short, otherwise the powers."""
    low, high = _range(values)
    steps = (1, 2, 5) if high < 200 * low else (1,)
    every = max(1, int(np.log10(high / low)) // 6)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [m * 10.0**e for e in powers if e % every == 0 for m in steps]
    ticks = [t for t in ticks if low <= t <= high]
    plain = low > 1e-4 and high < 1e5
    axis.set_ticks(ticks, [f"{t:g}" if plain else f"{t:.0e}" for t in ticks])
    axis.set_ticks([], minor=True)


def _number(axis: Any, points: list[tuple[float, float]]) -> None:
    """Write numbers beside the points, each farthest from points and other numbers."""
    places = axis.transData.transform(np.array(points))
    taken = list(places)
    for index, (point, place) in enumerate(zip(points, places, strict=True)):
        room = [min(np.hypot(*(place + o - t)) for t in taken) for o in OFFSETS]
        best = OFFSETS[int(np.argmax(np.minimum(room, 11)))]
        taken.append(place + best)
        style = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 7}
        axis.annotate(str(index + 1), point, xytext=np.array(best) * 72 / 100, **style)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
