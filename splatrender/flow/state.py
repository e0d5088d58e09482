"""State of a training run: splats, and all that belongs to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splatrender._moved import renamed_attribute
from splatrender.flow.memory import Moments, TransportMemory
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.ordering import morton_order
from splatrender.model.view import View
from splatrender.operators.render import Rendering, render
from splatrender.operators.stages import Look


@dataclass(frozen=True, eq=False)
class SeenFootprints:
    """Footprints of the splats in the view of this iteration.

    Attributes:
        means2d: [1, N, 2] centres [px]; their gradient is in `.grad` after the backward pass.
        extents: [1, N, 2] half-widths [px], 0 for splats out of sight.
        width, height: size of the image [px].
        means2d_abs: [1, N, 2] zeros whose `.grad` is, after the backward pass, the sum of the
            pixels' absolute gradients in the centres; None if not requested.
    """

    means2d: Tensor
    extents: Tensor
    width: int
    height: int
    means2d_abs: Tensor | None = None

    def slope(self, absolute: bool = False) -> Tensor | None:
        """Return the gradient [1, N, 2] in the centres, or the sum of pixels' absolute ones."""
        source = self.means2d_abs if absolute else self.means2d
        return None if source is None else source.grad


@dataclass(eq=False)
class TrainState:
    """Mutable state of a run that a strategy may read and change.

    Splats are changed in place (under `torch.no_grad()`) or through the methods, which keep the
    transport's memory, step counts and every tensor of `rows` with their splats.

    Attributes:
        splats: N splats, leaf tensors that require gradients.
        memory: the transport's memory of each splat.
        steps: int32 [N], transport steps that a splat has taken (those in which it was visible).
        generator: the source of randomness, on the device of the splats.
        iterations: length of the run.
        views: training views at full resolution, with photos on the CPU.
        look: background and options of the rendering.
        samples: the views at the current resolution of the run, on any device.
        iteration: the current iteration, 1 ... iterations; 0 before the first.
        means_lr: current step size of the means [scene units].
        rows: further tensors [N, ...] that belong to splats; a strategy keeps its own here under
            a name of its own. They are saved with the checkpoint; new splats get zeros.
        footprints: footprints in this iteration's view, for strategies that watch them; else None.
    """

    splats: Splats
    memory: TransportMemory
    steps: Tensor
    generator: torch.Generator
    iterations: int
    views: Sequence[View] = ()
    look: Look = field(default_factory=Look)
    samples: Sequence[View] = ()
    iteration: int = 0
    means_lr: float = 0.0
    rows: dict[str, Tensor] = field(default_factory=dict)
    footprints: SeenFootprints | None = None

    @classmethod
    def start(
        cls,
        splats: Splats,
        iterations: int,
        generator: torch.Generator,
        memory: TransportMemory | None = None,
        views: Sequence[View] = (),
        look: Look | None = None,
    ) -> TrainState:
        """Return the state before the first iteration.

        Args:
            splats: the first splats; not copied.
            iterations: length of the run.
            generator: source of randomness.
            memory: memory of the transport; by default Adam's.
            views: training views.
            look: background and options of the rendering; by default black and the defaults.
        """
        return cls(
            splats=_leaves(splats),
            memory=TransportMemory.of_adam(splats) if memory is None else memory,
            steps=torch.zeros(len(splats), dtype=torch.int32, device=splats.device),
            generator=generator,
            iterations=iterations,
            views=views,
            look=look or Look(),
            samples=views,
        )

    @property
    def moments(self) -> dict[str, Moments]:
        """Adam's moments, by the names of the splats' fields."""
        return self.memory.moments

    background = renamed_attribute("TrainState.background", "look.background")
    options = renamed_attribute("TrainState.options", "look.options")

    def render(self, splats: Splats, camera: Camera, **options: Any) -> Rendering:
        """Render splats with the run's background and options.

        Args:
            splats: any splats.
            camera: the camera.
            options: further arguments of `splatrender.render`.
        """
        look = self.look
        return render(splats, camera, background=look.background, options=look.options, **options)

    def __len__(self) -> int:
        return len(self.splats)

    @property
    def progress(self) -> float:
        """Completed fraction of the run."""
        return self.iteration / self.iterations

    def select(self, ids: Tensor) -> None:
        """Keep the splats `ids` in that order, with all that belongs to them.

        Args:
            ids: int64 [M] rows to keep, or bool [N].
        """
        self.splats = _leaves(self.splats.index(ids))
        self.memory = self.memory.map(lambda _, tensor: tensor[ids])
        self.steps = self.steps[ids]
        self.rows = {name: tensor[ids] for name, tensor in self.rows.items()}

    def append(self, splats: Splats) -> None:
        """Add newborn splats at the end, of which the transport remembers nothing.

        Args:
            splats: [M] splats of the same degree.
        """
        count = len(splats)
        # Everything is made before anything changes: a lack of memory changes nothing.
        grown = _leaves(Splats.cat([self.splats.detach(), splats.detach()]))
        memory = self.memory.map(lambda _, tensor: _grown(tensor, count))
        steps = _grown(self.steps, count)
        rows = {name: _grown(tensor, count) for name, tensor in self.rows.items()}
        self.splats, self.memory, self.steps, self.rows = grown, memory, steps, rows

    def overwrite(self, ids: Tensor, splats: Splats) -> None:
        """Put other splats into the rows `ids` and forget the transport's memory there.

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
        """Set the transport's memory and the step counts of the rows `ids` back to zero.

        Args:
            ids: int64 [M] rows.
        """
        self.memory.forget(ids)
        self.steps[ids] = 0

    def set_degree(self, degree: int) -> None:
        """Make room for harmonics up to `degree` with zeros, or cut those above.

        Harmonics that are not in use yet are not stored: they cost neither memory nor time.

        Args:
            degree: 0 to 3.
        """
        if degree == self.splats.degree:
            return
        size = (degree + 1) ** 2
        self.splats = _leaves(self.splats.detach().with_degree(degree))
        self.memory = self.memory.map(lambda n, t: _resized(t, size) if n == "sh" else t)

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
