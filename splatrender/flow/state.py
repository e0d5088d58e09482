"""What is trained: splats, the optimizer's memory of each, and what else belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splatrender.model import Splats
from splatrender.model.ordering import morton_order
from splatrender.model.view import View
from splatrender.operators.render import DEFAULTS, RenderOptions


@dataclass(frozen=True, eq=False)
class Moments:
    """The optimizer's running means of the gradient and of its square, of the parameter's shape."""

    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def zeros(cls, parameter: Tensor) -> Moments:
        """The moments before the first step."""
        zeros = torch.zeros_like(parameter, requires_grad=False)
        return cls(zeros, zeros.clone())


@dataclass(frozen=True, eq=False)
class SeenFootprints:
    """Where the view of this iteration saw the splats.

    Attributes:
        means2d: [1, N, 2] centres [px]; their gradient is in `.grad` after the backward pass.
        extents: [1, N, 2] half-widths [px], 0 for splats out of sight.
        width, height: of the picture [px].
    """

    means2d: Tensor
    extents: Tensor
    width: int
    height: int

    def slope(self, absolute: bool = False) -> Tensor | None:
        """Gradient of the loss in the centres [1, N, 2], or the sum of pixels' absolute ones."""
        return getattr(self.means2d, "absgrad", None) if absolute else self.means2d.grad


@dataclass(eq=False)
class TrainState:
    """The mutable state of a run that a strategy may read and change.

    Splats are changed in place (under `torch.no_grad()`) or through the methods, which keep
    moments, step counts and every tensor of `rows` with their splats.

    Attributes:
        splats: N splats, leaf tensors that require gradients.
        moments: the optimizer's, by the names of the splats' fields.
        steps: int32 [N], optimizer steps that a splat has taken (those in which it was visible).
        generator: the source of randomness, on the device of the splats.
        iterations: length of the run.
        iteration: the current iteration, 1 ... iterations; 0 before the first.
        means_lr: current step size of the means [scene units].
        rows: further tensors [N, ...] that belong to splats; a strategy keeps its own here under
            a name of its own. They are saved with the checkpoint; new splats get zeros.
        views: training views at full resolution, with photos on the CPU.
        samples: the same at the resolution that the run trains on at the moment, on any device.
        background: [3] colour behind the splats.
        options: approximations that the splats are rendered with.
        footprints: of this iteration's view, for strategies that watch them; else None.
        render: `render(splats, camera, **options) -> Rendering` with the run's settings.
    """

    splats: Splats
    moments: dict[str, Moments]
    steps: Tensor
    generator: torch.Generator
    iterations: int
    iteration: int = 0
    means_lr: float = 0.0
    rows: dict[str, Tensor] = field(default_factory=dict)
    views: Sequence[View] = ()
    samples: Sequence[View] = ()
    background: Tensor = field(default_factory=lambda: torch.zeros(3))
    options: RenderOptions = DEFAULTS
    footprints: SeenFootprints | None = None
    render: Callable[..., Any] | None = None

    @classmethod
    def start(cls, splats: Splats, iterations: int, generator: torch.Generator) -> TrainState:
        """The state before the first iteration.

        Args:
            splats: where to start; not copied.
            iterations: length of the run.
            generator: source of randomness.

        Returns:
            A state with empty moments.
        """
        return cls(
            splats=_leaves(splats),
            moments={name: Moments.zeros(tensor) for name, tensor in splats.items()},
            steps=torch.zeros(len(splats), dtype=torch.int32, device=splats.device),
            generator=generator,
            iterations=iterations,
        )

    def __len__(self) -> int:
        return len(self.splats)

    @property
    def progress(self) -> float:
        """Fraction of the run that is done."""
        return self.iteration / self.iterations

    def select(self, ids: Tensor) -> None:
        """Keep the splats `ids` in that order, with all that belongs to them.

        Args:
            ids: int64 [M] rows to keep, or bool [N].
        """
        self.splats = _leaves(self.splats.index(ids))
        self.moments = {
            name: Moments(m.exp_avg[ids], m.exp_avg_sq[ids]) for name, m in self.moments.items()
        }
        self.steps = self.steps[ids]
        self.rows = {name: tensor[ids] for name, tensor in self.rows.items()}

    def append(self, splats: Splats) -> None:
        """Add newborn splats at the end, without moments.

        Args:
            splats: [M] splats of the same degree.
        """
        count = len(splats)
        # Everything is made before anything changes, so that running out of memory changes nothing.
        grown = _leaves(Splats.cat([self.splats.detach(), splats.detach()]))
        moments = {
            name: Moments(_grown(m.exp_avg, count), _grown(m.exp_avg_sq, count))
            for name, m in self.moments.items()
        }
        steps = _grown(self.steps, count)
        rows = {name: _grown(tensor, count) for name, tensor in self.rows.items()}
        self.splats, self.moments, self.steps, self.rows = grown, moments, steps, rows

    def overwrite(self, ids: Tensor, splats: Splats) -> None:
        """Put other splats into the rows `ids` and forget the moments there.

        Args:
            ids: int64 [M] distinct rows.
            splats: [M] splats of the same degree.
        """
        for (_, target), (_, source) in zip(
            self.splats.items(), splats.detach().items(), strict=True
        ):
            target.data[ids] = source
        self.forget(ids)

    def forget(self, ids: Tensor) -> None:
        """Set moments and step counts of the rows `ids` back to zero: they begin anew.

        Args:
            ids: int64 [M] rows.
        """
        for moments in self.moments.values():
            moments.exp_avg[ids] = 0
            moments.exp_avg_sq[ids] = 0
        self.steps[ids] = 0

    def set_degree(self, degree: int) -> None:
        """Make room for harmonics up to `degree` (or cut those above), with zeros.

        Harmonics that are not in use yet are not stored: they cost neither memory nor time.

        Args:
            degree: 0 to 3.
        """
        if degree == self.splats.degree:
            return
        size = (degree + 1) ** 2
        self.splats = _leaves(self.splats.detach().with_degree(degree))
        sh = self.moments["sh"]
        self.moments["sh"] = Moments(_resized(sh.exp_avg, size), _resized(sh.exp_avg_sq, size))

    def sort_spatially(self) -> None:
        """Order splats along a Morton curve: neighbours in space become neighbours in memory."""
        self.select(morton_order(self.splats.means.detach()))


def _leaves(splats: Splats) -> Splats:
    return splats.detach().map(Tensor.contiguous).requires_grad_()


def _grown(tensor: Tensor, count: int) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(count, *tensor.shape[1:])])


def _resized(tensor: Tensor, size: int) -> Tensor:
    tensor = tensor[:, :size]
    missing = size - tensor.shape[1]
    return torch.cat([tensor, tensor.new_zeros(len(tensor), missing, *tensor.shape[2:])], dim=1)
