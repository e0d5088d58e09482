"""A training run: its state in memory and in a checkpoint, and a single step of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.flow import (
    Moments,
    SeenFootprints,
    StepReport,
    Strategy,
    TrainState,
    create_strategy,
)
from splatrender.flow.memory import TransportMemory
from splatrender.flow.schedules import downscale_at, sh_degree_at
from splatrender.flow.step import Flow
from splatrender.flow.transports.wasserstein import create_optimizer, memory_from_moments
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View
from splatrender.operators.loss import photometric_gradient
from splatrender.operators.options import RenderOptions
from splatrender.operators.stages import Look
from splatrender.runtime.devices import choose_device, read
from splatrender.runtime.stopwatch import Stopwatch
from splatrender.scenes.scene import Scene
from splatrender.training.data import Samples
from splatrender.training.identity import identity_of_scene
from splatrender.training.initial import initial_splats
from splatrender.training.options import TrainOptions

MORTON_INTERVAL = 1000  # iterations between spatial sorts: births scatter memory slowly
FINITE_INTERVAL = 100  # iterations between searches for broken splats
MSE_INTERVAL = 10  # iterations between updates of the PSNR in the progress line
LOSS_INTERVAL = 10  # iterations between reads of a GPU's losses: each read waits for it
SMOOTHING = 0.99  # share of the past in the figures of the progress line, per iteration


class TrainingDiverged(RuntimeError):  # noqa: N818, an event like KeyboardInterrupt
    """Loss or splat that became infinite or NaN; the message names iteration and view."""


class TrainingOutOfMemory(torch.OutOfMemoryError):
    """Lack of memory for a step; the message names the options to lower and the saved files."""


class TrainingDeviceFault(RuntimeError):  # noqa: N818, as above
    """Failure of a kernel on the GPU; the message names CUDA's error and the saved files."""


@dataclass(frozen=True, eq=False)
class _Step:
    """Iteration within the flow.

    Attributes:
        visible: bool [N] splats in the image, before births and deaths.
        report: report of births and deaths, if there were any.
    """

    visible: Tensor
    report: StepReport | None = None


class Run:
    """Run in progress.

    Args:
        options: the options.
        scene: the scene, loaded.
        device: device of the training; by default the one that the options choose.
        strategy: births and deaths; by default those that the options name.
    """

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        device: torch.device | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        self.options = options
        self.scene = scene
        self.device = choose_device(options.backend) if device is None else device
        generator = torch.Generator().manual_seed(options.seed)
        rates = options.learning_rates.for_run(options.iterations)
        self.optimizer = create_optimizer(options.transport, rates)
        self.strategy = strategy or create_strategy(
            options.strategy, options.iterations, options.max_splats, options.price
        )
        self.flow: Flow[_Step] = Flow(transport=self._move, birth_death=self._exchange)
        self.samples = Samples(scene.train, generator, self.device)
        self.watch = Stopwatch(options.profile, options.iterations, self.device)
        splats = initial_splats(
            scene.points, scene.colors, options.max_splats, options.random_init, generator
        )
        self.generator = generator  # for the order of views; on a GPU splats have one of their own
        if self.device.type != "cpu":
            generator = torch.Generator(self.device).manual_seed(options.seed)
        splats = splats.to(self.device)
        self.state = TrainState.start(
            splats,
            options.iterations,
            generator,
            self.optimizer.memory(splats),
            scene.train,
            look_of(options, self.device),
        )
        self.identity = identity_of_scene(scene, Path(options.source))
        self.history: list[dict[str, Any]] = []
        self.loss = math.nan  # smoothed
        self.mse = math.nan  # smoothed
        self.intact = True  # True while splats, memory and counts are those of one iteration
        self._unread: list[tuple[int, str, Tensor]] = []  # iteration, view and loss
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    @property
    def psnr(self) -> float:
        """PSNR on training views, smoothed [dB]."""
        return -10 * math.log10(self.mse) if self.mse > 0 else math.nan

    def step(self) -> StepReport | None:
        """Render a view, and take one step of the flow: transport, then births and deaths.

        Adam's step and that of the Wasserstein transport change masses, too, by the same gradient,
        so the flow has no reaction of its own.

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
        done = self.flow.step(_Step(visible))
        if iteration % MSE_INTERVAL == 0:
            mse = _mean_square(radiance, sample.photo)
            self.mse = _smoothed(self.mse, mse, MSE_INTERVAL)
        self.intact = True
        return done.report

    def _move(self, step: _Step) -> _Step:
        """Move the splats by the gradients of the view, and by those that the strategy adds."""
        state, watch = self.state, self.watch
        self.strategy.after_backward(state)
        watch.lap("strategy")
        self.optimizer.step(state, step.visible)
        if state.iteration % FINITE_INTERVAL == 0:
            self._check_finite()
        watch.lap("optimizer")
        return step

    def _exchange(self, step: _Step) -> _Step:
        """Let the strategy add and remove splats."""
        report = self.strategy.step(self.state)
        self.watch.lap("strategy")
        return replace(step, report=report)

    def _differentiate(self) -> tuple[View, Tensor, Tensor]:
        """Compute the gradient for the next view, and leave it in the splats.

        Returns:
            The view; its radiance [H, W, 3]; visible [N], true for splats in its image.
        """
        state, watch = self.state, self.watch
        factor = downscale_at(state.iteration, state.iterations, self.samples.smallest_side)
        sample = self.samples.next(factor)
        state.samples = self.samples.current
        watch.lap("data")
        rendering = state.render(state.splats, sample.camera, absgrad=self.strategy.absgrad)
        if self.strategy.watches_footprints:
            rendering.means2d.retain_grad()
            height, width = sample.photo.shape[:2]
            state.footprints = SeenFootprints(
                rendering.means2d, rendering.extents, width, height, rendering.means2d_abs
            )
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
        """Read the losses since the last reading, and smooth them."""
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
        """Undo the part of a step before it changes splats."""
        state = self.state
        for _, tensor in state.splats.items():
            tensor.grad = None
        self._unread = [entry for entry in self._unread if entry[0] < state.iteration]
        self.samples.put_back()
        state.iteration -= 1

    def image(self, camera: Camera) -> Tensor:
        """Return the radiance [H, W, 3] that a camera sees."""
        return self.state.render(self.state.splats, camera).radiance[0]

    def splats_in_world(self) -> Splats:
        """Return the splats with all harmonics, in the coordinates of the scene's files."""
        splats = self.state.splats.detach().with_degree(self.options.sh_degree)
        return self.scene.similarity.invert(splats)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, as a checkpoint holds it.

        Raises:
            TrainingDiverged: a splat is not finite: the checkpoint before is the better one.
        """
        state, memory = self.state, self.state.memory
        self._read_losses()
        self._check_finite()
        on_cpu = self.device.type == "cpu"
        return {
            "options": self.options.as_json(),
            "views": self._fingerprint(),
            "scene": self.identity,
            "iteration": state.iteration,
            "splats": dict(state.splats.detach().items()),
            "moments": {n: [m.exp_avg, m.exp_avg_sq] for n, m in memory.moments.items()},
            **({"velocities": memory.velocities} if memory.velocities else {}),
            **({"powers": memory.powers} if memory.powers else {}),
            "steps": state.steps,
            "rows": state.rows,
            "generator": self.generator.get_state(),
            "device_generator": None if on_cpu else state.generator.get_state(),
            "order": self.samples.state_dict(),
            "strategy": self.strategy.state_dict(),
            "history": self.history,
            "loss": self.loss,
            "mse": self.mse,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from a checkpoint: on the same kind of device, as if never interrupted.

        Args:
            saved: as returned by `state_dict` of a run with the same options; its tensors may be
                on any device.

        Raises:
            InputError: the scene is another one.
        """
        if saved["views"] != self._fingerprint():
            raise InputError(
                f"source: expected the {len(saved['views'])} training views that the run in "
                f"{self.options.model} began with, got others in {self.options.source}"
            )
        state, device = self.state, self.device
        state.splats = Splats(**saved["splats"]).to(device).requires_grad_()
        memory = _memory_of(saved, self.options.transport)
        state.memory = memory.map(lambda _, tensor: tensor.to(device))
        state.steps = saved["steps"].to(device)
        state.rows = {name: tensor.to(device) for name, tensor in saved["rows"].items()}
        state.iteration = saved["iteration"]
        self.generator.set_state(saved["generator"].cpu())
        if device.type != "cpu":
            numbers = saved.get("device_generator")
            if numbers is None:  # the run comes from a CPU, whose random numbers are others
                state.generator.manual_seed(self.options.seed + state.iteration)
            else:
                state.generator.set_state(numbers.cpu())
        self.samples.load_state_dict(saved["order"])
        self.strategy.load_state_dict(saved["strategy"])
        self.history = saved["history"]
        self.loss, self.mse = saved["loss"], saved["mse"]
        self.seconds, self.cpu_seconds = saved["seconds"], saved["cpu_seconds"]

    def _check_finite(self) -> None:
        """Refuse splats that are not finite: renderers leave them out of the loss."""
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
        """Return names and sizes of the training views."""
        return [
            f"{view.name} {view.camera.width}x{view.camera.height}" for view in self.scene.train
        ]


def look_of(options: TrainOptions, device: torch.device) -> Look:
    """Return the background and the options that a run renders with."""
    background = torch.tensor(options.background or (0.0, 0.0, 0.0), device=device)
    return Look(background, RenderOptions(antialiased=options.antialiased))


def _memory_of(saved: dict[str, Any], transport: str) -> TransportMemory:
    """Return the transport's memory in a checkpoint, of earlier versions, too."""
    moments = {name: Moments(*pair) for name, pair in saved["moments"].items()}
    if "velocities" not in saved:
        return memory_from_moments(moments, transport)
    return TransportMemory(moments, saved["velocities"], saved.get("powers", {}))


def _smoothed(before: float, now: float, iterations: int = 1) -> float:
    kept = 0.0 if math.isnan(before) else SMOOTHING**iterations
    return now if kept == 0 else kept * before + (1 - kept) * now


def _mean_square(radiance: Tensor, photo: Tensor) -> float:
    """Return the mean squared error against a uint8 photo."""
    return float(photo.float().mul_(1 / 255).sub_(radiance).square_().mean())
