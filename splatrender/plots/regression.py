"""Plots of a fit: function and residual, splats, the history of the loss. Needs matplotlib."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.packages import pyplot
from splatrender.model import SplatMeasure, evaluate

if TYPE_CHECKING:
    from splatrender.regression.report import Round

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]
DPI = 120
MOST_POINTS = 4000  # drawn at most of scattered data
FRAMES_PER_SECOND = 8
HEAVIEST = 1e2  # times the median mass; colours of heavier splats are the same
MASS_RANGE = 1e4  # between the darkest colour and the lightest
ELLIPSE = np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 49)), np.sin(a)])  # [2, 49]


def have_matplotlib() -> bool:
    """Return whether plots can be drawn; log a warning if matplotlib is installed but broken."""
    if find_spec("matplotlib") is None:
        return False
    try:
        pyplot()
    except InputError as error:
        logger.warning("no plots: %s", error)
        return False
    return True


@dataclass(frozen=True, eq=False)
class Shown:
    """Content of the plots.

    Attributes:
        title: title of the plots.
        inputs: names of the inputs.
        x: [m, d] points, a grid if `shape` is not None.
        truth: [m] values to compare with.
        fit: [m] values of the model.
        shape: shape of the grid in 2-D, or None for scattered points.
        samples: [n, d] and [n] data that were fitted, if any.
    """

    title: str
    inputs: tuple[str, ...]
    x: Array
    truth: Array
    fit: Array
    shape: tuple[int, int] | None = None
    samples: tuple[Array, Array] | None = field(default=None)


def draw_fit(path: Path, shown: Shown) -> None:
    """Draw function, fit and residual.

    Args:
        path: .png to write.
        shown: content; one output.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    plt = pyplot()
    dims = shown.x.shape[1]
    if dims == 1:
        figure, axes = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=(3, 2))
        order = np.argsort(shown.x[:, 0])
        if shown.samples is not None:
            axes[0].plot(shown.samples[0][:, 0], shown.samples[1], ".", ms=3, c="0.6", label="data")
        t = shown.x[order, 0]
        axes[0].plot(t, shown.truth[order], lw=2.5, c="0.8", label="truth")
        axes[0].plot(t, shown.fit[order], lw=1, c="C0", label="fit")
        axes[0].legend(loc="upper right", fontsize=8)
        axes[1].plot(t, (shown.fit - shown.truth)[order], lw=0.8, c="C3")
        axes[1].set(xlabel=shown.inputs[0], ylabel="fit - truth")
        axes[1].ticklabel_format(axis="y", scilimits=(-2, 3))
    elif dims == 2:
        figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharex=True, sharey=True)
        low, high = shown.truth.min(), shown.truth.max()
        gap = shown.fit - shown.truth
        most = max(float(np.abs(gap).max()), 1e-300)
        for axis, values, name, limits, colours in (
            (axes[0], shown.truth, "truth", (low, high), "viridis"),
            (axes[1], shown.fit, "fit", (low, high), "viridis"),
            (axes[2], gap, "fit - truth", (-most, most), "RdBu_r"),
        ):
            image = _surface(axis, shown, values, limits, colours)
            axis.set(title=name, xlabel=shown.inputs[0], ylabel=shown.inputs[1])
            figure.colorbar(image, ax=axis)
    else:
        figure, axis = plt.subplots(figsize=(5, 5))
        some = np.linspace(0, len(shown.x) - 1, min(len(shown.x), MOST_POINTS)).astype(int)
        axis.plot(shown.truth[some], shown.fit[some], ".", ms=2)
        ends = [shown.truth.min(), shown.truth.max()]
        axis.plot(ends, ends, c="0.5", lw=1)
        axis.set(xlabel="truth", ylabel="fit")
    figure.suptitle(shown.title, fontsize=10)
    _save(figure, path)


def draw_splats(
    path: Path,
    measures: Sequence[SplatMeasure],
    shown: Shown,
    count: int,
    slabs: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw splats at one standard deviation, coloured by mass: ellipses, or bumps where d = 1.

    Args:
        path: .png to write.
        measures: splats of each window, with or without images.
        shown: title, names and extent.
        count: number of splats, without their images.
        slabs: interval of the last of two inputs where each measure is used; the rest is not drawn.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 4) if shown.x.shape[1] == 1 else (6.4, 5.6))
    image = _splats(axis, measures, shown, slabs)
    figure.colorbar(image, ax=axis, label="mass ∫|c ρ|", extend="both")
    axis.set_title(f"{shown.title}: {count} splats", fontsize=10)
    _save(figure, path)


def draw_history(path: Path, history: Sequence[tuple[int, Round]], title: str) -> None:
    """Draw the loss by round, with births and deaths.

    Args:
        path: .png to write.
        history: windows' numbers and rounds, in order.
        title: title of the plot.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    plt = pyplot()
    figure, (top, low) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=(3, 1.4))
    steps = np.arange(len(history))
    loss = np.array([r.loss for _, r in history])
    kept = np.array([r.kept and (r.births > 0 or r.deaths > 0) for _, r in history])
    top.semilogy(steps, loss, "-", lw=1.2, c="0.3")
    top.semilogy(steps[kept], loss[kept], "o", ms=4, c="C2", label="births and deaths kept")
    births = np.array([r.births for _, r in history])
    deaths = np.array([r.deaths for _, r in history])
    faint = np.where(kept, 1.0, 0.3)
    for axis_values, colour, name in ((births, "C2", "births"), (-deaths, "C3", "deaths")):
        for bar, alpha in zip(low.bar(steps, axis_values, color=colour), faint, strict=True):
            bar.set_alpha(alpha)
        low.plot([], [], "s", c=colour, label=name)
    for i in range(1, len(history)):
        if history[i][0] != history[i - 1][0]:
            top.axvline(i - 0.5, c="0.8", lw=0.8)
            low.axvline(i - 0.5, c="0.8", lw=0.8)
    top.set(ylabel="loss ½Σr²", title=title)
    low.set(xlabel="round (pale: tried and not kept)", ylabel="splats")
    low.yaxis.get_major_locator().set_params(integer=True)
    top.legend(fontsize=8)
    low.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path)


def draw_animation(
    path: Path,
    frames: Sequence[tuple[Round, Sequence[SplatMeasure]]],
    shown: Shown,
    slabs: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw the splats of each round as an animation.

    Args:
        path: .gif to write.
        frames: rounds and the measures after them, one for each window so far.
        shown: title, names and extent.
        slabs: as for `draw_splats`.

    Raises:
        InputError: matplotlib is missing, or the file cannot be written.
    """
    plt = pyplot()
    from matplotlib.animation import FuncAnimation, PillowWriter

    figure, axis = plt.subplots(figsize=(6.4, 4 if shown.x.shape[1] == 1 else 5.6))

    def show(index: int) -> list[Any]:
        entry, measures = frames[index]
        axis.clear()
        _splats(axis, measures, shown, slabs)
        window = f"window {len(measures)}, " if slabs else ""
        axis.set_title(f"{window}round {entry.round}: {entry.splats} splats, loss {entry.loss:.2e}")
        return []

    animation = FuncAnimation(figure, show, frames=len(frames), blit=False)
    with atomic_write(path) as temporary:
        animation.save(temporary, writer=PillowWriter(fps=FRAMES_PER_SECOND), dpi=80)
    plt.close(figure)


def masses(measure: SplatMeasure) -> Array:
    """Return [k] |c| ∫ρ |det A|, the masses of the same measure of density-normalised splats."""
    volume = torch.linalg.det(measure.factors).abs() * measure.parent.integral(measure.dims)
    masses: Array = (measure.amplitudes.norm(dim=1) * volume).detach().numpy()
    return masses


def _splats(
    axis: Any,
    measures: Sequence[SplatMeasure],
    shown: Shown,
    slabs: Sequence[tuple[float, float]] = (),
) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    mass = np.concatenate([masses(m) for m in measures])
    top = max(min(float(mass.max()), HEAVIEST * float(np.median(mass))), 1e-300)
    norm = LogNorm(max(float(mass.min()), top / MASS_RANGE), top)
    low, high = shown.x.min(axis=0), shown.x.max(axis=0)
    for index, measure in enumerate(measures):
        lines: list[Array] = []
        means, factors = measure.means.detach().numpy(), measure.factors.detach().numpy()
        if measure.dims == 1:
            u = np.linspace(-3, 3, 61)
            flat = torch.tensor([[1.0]], dtype=measure.dtype)
            bump = SplatMeasure(flat[0], flat, 0 * flat, flat[None], parent=measure.parent)
            profile = evaluate(bump, torch.from_numpy(u)[:, None]).value[:, 0].numpy()
            heights = measure.amplitudes[:, 0].detach().numpy()
            lines += [
                np.stack([b[0] + a[0, 0] * u, c * profile], 1)
                for b, a, c in zip(means, factors, heights, strict=True)
            ]
        else:  # the projection on the first two inputs
            shadows = [np.linalg.cholesky(f[:2] @ f[:2].T + 1e-300 * np.eye(2)) for f in factors]
            lines += [(b[:2, None] + s @ ELLIPSE).T for b, s in zip(means, shadows, strict=True)]
        colours = _colours("plasma", norm, masses(measure))
        curves = axis.add_collection(LineCollection(lines, colors=colours, linewidths=0.9))
        if slabs:
            first, last = slabs[index]
            slab = Rectangle((low[0], first), high[0] - low[0], last - first)
            curves.set_clip_path(slab.get_path(), slab.get_patch_transform() + axis.transData)
    axis.set_xlim(low[0], high[0])
    axis.set_xlabel(shown.inputs[0])
    if shown.x.shape[1] == 1:
        unit = max(float(np.abs(shown.truth).max()), 1e-12)
        height = 1.5 * max(unit, *(float(np.abs(line[:, 1]).max()) for line in lines))
        axis.set_yscale("symlog", linthresh=unit)  # splats that cancel are higher than their sum
        decades = [unit * 10**e for e in range(1 + int(math.log10(height / unit)))]
        ticks = [*(-t for t in reversed(decades)), 0, *decades]
        axis.set_yticks(ticks, [f"{t:.3g}" for t in ticks])
        axis.minorticks_off()
        axis.set(ylim=(-height, height), ylabel="c ρ (logarithmic beyond the function's range)")
        axis.plot(shown.x[:, 0], shown.truth, c="0.85", lw=1, zorder=0)
    else:
        axis.set(ylim=(low[1], high[1]), ylabel=shown.inputs[1])
    return ScalarMappable(norm, "plasma")


def _colours(name: str, norm: Any, values: Array) -> Any:
    import matplotlib

    return matplotlib.colormaps[name](norm(np.maximum(values, norm.vmin)))


def _surface(axis: Any, shown: Shown, values: Array, limits: tuple[float, float], map_: str) -> Any:
    style = {"vmin": limits[0], "vmax": limits[1], "cmap": map_}
    if shown.shape is None:
        some = np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).astype(int)
        return axis.scatter(*shown.x[some].T, c=values[some], s=6, **style)
    a, b = shown.x.reshape(*shown.shape, 2)[:, :, 0], shown.x.reshape(*shown.shape, 2)[:, :, 1]
    step = max(1, math.ceil(max(shown.shape) / 300))
    cut = (slice(None, None, step), slice(None, None, step))
    grid = values.reshape(shown.shape)[cut]
    return axis.pcolormesh(a[cut], b[cut], grid, shading="nearest", rasterized=True, **style)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    pyplot().close(figure)
