"""One training run: its state in memory and in a checkpoint, and a single step of it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow import Moments, SeenFootprints, StepReport, TrainState, create_strategy
from splatrender.flow.schedules import downscale_at, sh_degree_at
from splatrender.flow.transports.wasserstein import create_optimizer
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.loss import photometric_gradient
from splatrender.operators.render import RenderOptions, render
from splatrender.runtime.devices import choose_device, read
from splatrender.runtime.stopwatch import Stopwatch
from splatrender.scenes.scene import Scene
from splatrender.training.data import Samples
from splatrender.training.identity import identity_of_scene
from splatrender.training.initial import initial_splats
from splatrender.training.options import TrainOptions

MORTON_INTERVAL = 1000  # iterations between spatial sorts: births scatter memory slowly
FINITE_INTERVAL = 100  # iterations between searches for broken splats
MSE_INTERVAL = 10  # iterations between looks at the PSNR for the progress line
LOSS_INTERVAL = 10  # iterations between looks at the losses of a GPU: each look waits for it
SMOOTHING = 0.99  # of the figures in the progress line, per iteration


class TrainingDiverged(RuntimeError):  # noqa: N818, an event like KeyboardInterrupt
    """A loss or a splat became infinite or NaN; the message names iteration and view."""


class TrainingOutOfMemory(torch.OutOfMemoryError):
    """Memory was not enough for a step; the message says what to lower and what was saved."""


class TrainingDeviceFault(RuntimeError):  # noqa: N818, as above
    """A kernel failed on the GPU; the message names CUDA's error and what was saved before."""


class Run:
    """A run in progress.

    Args:
        options: what to do.
        scene: the scene, loaded.
        device: where to train; by default the one that the options choose.
    """

    def __init__(
        self, options: TrainOptions, scene: Scene, device: torch.device | None = None
    ) -> None:
        self.options = options
        self.scene = scene
        self.device = choose_device(options.backend) if device is None else device
        generator = torch.Generator().manual_seed(options.seed)
        rates = options.learning_rates.for_run(options.iterations)
        self.optimizer = create_optimizer(options.transport, rates)
        self.strategy = create_strategy(
            options.strategy, options.iterations, options.max_splats, options.price
        )
        self.samples = Samples(scene.train, generator, self.device)
        self.watch = Stopwatch(options.profile, options.iterations, self.device)
        self.background = torch.tensor(options.background or (0.0, 0.0, 0.0), device=self.device)
        render_options = RenderOptions(antialiased=options.antialiased)
        self.render = partial(render, background=self.background, options=render_options)
        splats = initial_splats(
            scene.points, scene.colors, options.max_splats, options.random_init, generator
        )
        self.generator = generator  # of the order of views; on a GPU splats have one of their own
        if self.device.type != "cpu":
            generator = torch.Generator(self.device).manual_seed(options.seed)
        self.state = TrainState.start(splats.to(self.device), options.iterations, generator)
        self.state.views, self.state.render = scene.train, self.render
        self.state.background, self.state.options = self.background, render_options
        self.identity = identity_of_scene(scene, Path(options.source))
        self.history: list[dict[str, Any]] = []
        self.loss = math.nan  # smoothed
        self.mse = math.nan  # smoothed
        self.intact = True  # whether splats, moments and counts are those of one iteration
        self._unread: list[tuple[int, str, Tensor]] = []  # iteration, view and loss
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    @property
    def psnr(self) -> float:
        """PSNR on training views, smoothed [dB]."""
        return -10 * math.log10(self.mse) if self.mse > 0 else math.nan

    def step(self) -> StepReport | None:
        """Render a view, move the splats, and let the strategy act.

        Returns:
            The strategy's report, if there is one.

        Raises:
            TrainingDiverged: the loss or a splat is not finite.
            RuntimeError: memory is not enough (see `is_out_of_memory`); the step is undone if
                the run is still `intact`.
        """
        state, watch = self.state, self.watch
        state.iteration += 1
        iteration = state.iteration
        watch.start(iteration)
        state.set_degree(sh_degree_at(iteration, state.iterations, self.options.sh_degree))
        if iteration % MORTON_INTERVAL == 0:
            state.sort_spatially()
        self.optimizer.schedule(state)
        try:
            sample, radiance, visible = self._differentiate()
        except RuntimeError:
            self._undo()
            raise
        self.intact = False
        self.strategy.after_backward(state)
        watch.lap("strategy")
        self.optimizer.step(state, visible)
        if iteration % FINITE_INTERVAL == 0:
            self._check_finite()
        watch.lap("optimizer")
        report = self.strategy.step(state)
        watch.lap("strategy")
        if iteration % MSE_INTERVAL == 0:
            mse = _mean_square(radiance, sample.photo)
            self.mse = _smoothed(self.mse, mse, MSE_INTERVAL)
        self.intact = True
        return report

    def _differentiate(self) -> tuple[View, Tensor, Tensor]:
        """Leave the gradient for the next view in the splats.

        Returns:
            The view; its radiance [H, W, 3]; visible [N], which splats it sees.
        """
        state, watch = self.state, self.watch
        factor = downscale_at(state.iteration, state.iterations, self.samples.smallest_side)
        sample = self.samples.next(factor)
        state.samples = self.samples.current
        watch.lap("data")
        rendering = self.render(state.splats, sample.camera, absgrad=self.strategy.absgrad)
        if self.strategy.watches_footprints:
            rendering.means2d.retain_grad()
            height, width = sample.photo.shape[:2]
            state.footprints = SeenFootprints(rendering.means2d, rendering.extents, width, height)
        radiance = rendering.radiance.detach()[0]
        watch.lap("render")
        loss, gradient = photometric_gradient(
            radiance, sample.photo, sample.mask, self.options.ssim_weight
        )
        self._unread.append((state.iteration, sample.name, loss))
        if self.device.type == "cpu" or state.iteration % LOSS_INTERVAL == 0:
            self._read_losses()
        watch.lap("loss")
        rendering.radiance.backward(gradient[None])
        watch.lap("backward")
        return sample, radiance, rendering.visible[0]

    def _read_losses(self) -> None:
        """Look at the losses since the last look, and smooth them."""
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        values = torch.stack([loss for _, _, loss in unread]).tolist()
        for (iteration, name, _), value in zip(unread, values, strict=True):
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"iteration {iteration}, view {name}: the loss became {value}"
                )
            self.loss = _smoothed(self.loss, value)

    def _undo(self) -> None:
        """Take back what a step does before it changes splats."""
        state = self.state
        for _, tensor in state.splats.items():
            tensor.grad = None
        self._unread = [entry for entry in self._unread if entry[0] < state.iteration]
        self.samples.put_back()
        state.iteration -= 1

    def picture(self, camera: Camera) -> Tensor:
        """Radiance [H, W, 3] that a camera sees."""
        return self.render(self.state.splats, camera).radiance[0]

    def splats_in_world(self) -> Splats:
        """The splats with all harmonics, in the coordinates of the scene's files."""
        splats = self.state.splats.detach().with_degree(self.options.sh_degree)
        return self.scene.similarity.invert(splats)

    def memory(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as a checkpoint holds it.

        Raises:
            TrainingDiverged: a splat is not finite: the checkpoint before is the better one.
        """
        state = self.state
        self._read_losses()
        self._check_finite()
        on_cpu = self.device.type == "cpu"
        return {
            "options": self.options.as_json(),
            "views": self._fingerprint(),
            "scene": self.identity,
            "iteration": state.iteration,
            "splats": dict(state.splats.detach().items()),
            "moments": {n: [m.exp_avg, m.exp_avg_sq] for n, m in state.moments.items()},
            "steps": state.steps,
            "rows": state.rows,
            "generator": self.generator.get_state(),
            "device_generator": None if on_cpu else state.generator.get_state(),
            "order": self.samples.memory(),
            "strategy": self.strategy.memory(),
            "history": self.history,
            "loss": self.loss,
            "mse": self.mse,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        """Continue where `memory` was taken: on the same kind of device, as if never interrupted.

        Args:
            memory: as returned by `memory`, of a run with the same options; its tensors may lie on
                any device.

        Raises:
            InputError: the scene is another one.
        """
        if memory["views"] != self._fingerprint():
            raise InputError(
                f"source: expected the {len(memory['views'])} training views that the run in "
                f"{self.options.model} began with, got others in {self.options.source}"
            )
        state, device = self.state, self.device
        state.splats = Splats(**memory["splats"]).to(device).requires_grad_()
        state.moments = {
            name: Moments(*(moment.to(device) for moment in pair))
            for name, pair in memory["moments"].items()
        }
        state.steps = memory["steps"].to(device)
        state.rows = {name: tensor.to(device) for name, tensor in memory["rows"].items()}
        state.iteration = memory["iteration"]
        self.generator.set_state(memory["generator"].cpu())
        if device.type != "cpu":
            numbers = memory.get("device_generator")
            if numbers is None:  # the run comes from a CPU, whose random numbers are others
                state.generator.manual_seed(self.options.seed + state.iteration)
            else:
                state.generator.set_state(numbers.cpu())
        self.samples.recall(memory["order"])
        self.strategy.recall(memory["strategy"])
        self.history = memory["history"]
        self.loss, self.mse = memory["loss"], memory["mse"]
        self.seconds, self.cpu_seconds = memory["seconds"], memory["cpu_seconds"]

    def _check_finite(self) -> None:
        """Renderers leave broken splats out, so that the loss does not tell."""
        splats = self.state.splats.detach()
        sums = read({name: tensor.sum() for name, tensor in splats.items()})
        if all(map(math.isfinite, sums.values())):
            return
        broken = int((~splats.finite()).sum())
        if broken:
            raise TrainingDiverged(
                f"iteration {self.state.iteration}: {broken} of {len(splats)} splats are not finite"
            )

    def _fingerprint(self) -> list[str]:
        """Names and sizes of the training views."""
        return [
            f"{view.name} {view.camera.width}x{view.camera.height}" for view in self.scene.train
        ]


def _smoothed(before: float, now: float, iterations: int = 1) -> float:
    memory = 0.0 if math.isnan(before) else SMOOTHING**iterations
    return now if memory == 0 else memory * before + (1 - memory) * now


def _mean_square(radiance: Tensor, photo: Tensor) -> float:
    """Mean squared error against a uint8 photo."""
    return float(photo.float().mul_(1 / 255).sub_(radiance).square_().mean())
