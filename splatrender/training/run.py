"""One training run: its state in memory and in a checkpoint, and a single step of it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from splatrender.camera import Camera
from splatrender.errors import InputError
from splatrender.flow import Moments, SeenFootprints, StepReport, TrainState, create_strategy
from splatrender.model import Splats
from splatrender.operators.loss import photometric_gradient
from splatrender.operators.render import RenderOptions, render
from splatrender.scenes.scene import Scene
from splatrender.schedules import downscale_at, sh_degree_at
from splatrender.training.data import Samples
from splatrender.training.initial import initial_splats
from splatrender.training.optimizer import Optimizer
from splatrender.training.options import TrainOptions
from splatrender.training.stopwatch import Stopwatch

MORTON_INTERVAL = 1000  # iterations between spatial sorts: births scatter memory slowly
FINITE_INTERVAL = 100  # iterations between searches for broken splats
MSE_INTERVAL = 10  # iterations between looks at the PSNR for the progress line
SMOOTHING = 0.99  # of the figures in the progress line, per iteration


class TrainingDiverged(RuntimeError):  # noqa: N818, an event like KeyboardInterrupt
    """A loss or a splat became infinite or NaN; the message names iteration and view."""


class Run:
    """A run in progress.

    Args:
        options: what to do.
        scene: the scene, loaded.
    """

    def __init__(self, options: TrainOptions, scene: Scene) -> None:
        self.options = options
        self.scene = scene
        generator = torch.Generator().manual_seed(options.seed)
        self.optimizer = Optimizer(options.learning_rates.for_run(options.iterations))
        self.strategy = create_strategy(
            options.strategy, options.iterations, options.max_splats, options.price
        )
        self.samples = Samples(scene.train, generator)
        self.watch = Stopwatch(options.profile, options.iterations)
        self.background = torch.tensor(options.background or (0.0, 0.0, 0.0))
        render_options = RenderOptions(antialiased=options.antialiased)
        self.render = partial(render, background=self.background, options=render_options)
        splats = initial_splats(
            scene.points, scene.colors, options.max_splats, options.random_init, generator
        )
        self.state = TrainState.start(splats, options.iterations, generator)
        self.state.views, self.state.render = scene.train, self.render
        self.state.background, self.state.options = self.background, render_options
        self.history: list[dict[str, Any]] = []
        self.loss = math.nan  # smoothed
        self.mse = math.nan  # smoothed
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
        """
        state, options, watch = self.state, self.options, self.watch
        state.iteration += 1
        iteration = state.iteration
        watch.start(iteration)
        state.set_degree(sh_degree_at(iteration, state.iterations, options.sh_degree))
        if iteration % MORTON_INTERVAL == 0:
            state.sort_spatially()
        factor = downscale_at(iteration, state.iterations, self.samples.smallest_side)
        sample = self.samples.next(factor)
        state.samples = self.samples.current
        self.optimizer.schedule(state)
        watch.lap("data")

        rendering = self.render(state.splats, sample.camera)
        if self.strategy.watches_footprints:
            rendering.means2d.retain_grad()
            height, width = sample.photo.shape[:2]
            state.footprints = SeenFootprints(rendering.means2d, rendering.extents, width, height)
        radiance = rendering.radiance.detach()[0]
        watch.lap("render")
        loss, gradient = photometric_gradient(
            radiance, sample.photo, sample.mask, options.ssim_weight
        )
        value = float(loss)
        watch.lap("loss")
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"iteration {iteration}, view {sample.name}: the loss became {value}"
            )
        rendering.radiance.backward(gradient[None])
        watch.lap("backward")

        self.strategy.after_backward(state)
        watch.lap("strategy")
        self.optimizer.step(state, rendering.visible[0])
        if iteration % FINITE_INTERVAL == 0:
            self._check_finite()
        watch.lap("optimizer")
        report = self.strategy.step(state)
        watch.lap("strategy")

        self.loss = _smoothed(self.loss, value)
        if iteration % MSE_INTERVAL == 0:
            mse = _mean_square(radiance, sample.photo)
            self.mse = _smoothed(self.mse, mse, MSE_INTERVAL)
        return report

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
        self._check_finite()
        return {
            "options": self.options.as_json(),
            "views": self._fingerprint(),
            "iteration": state.iteration,
            "splats": dict(state.splats.detach().items()),
            "moments": {n: [m.exp_avg, m.exp_avg_sq] for n, m in state.moments.items()},
            "steps": state.steps,
            "rows": state.rows,
            "generator": state.generator.get_state(),
            "order": self.samples.memory(),
            "strategy": self.strategy.memory(),
            "history": self.history,
            "loss": self.loss,
            "mse": self.mse,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        """Continue where `memory` was taken, to the same bits.

        Args:
            memory: as returned by `memory`, of a run with the same options.

        Raises:
            InputError: the scene is another one.
        """
        if memory["views"] != self._fingerprint():
            raise InputError(
                f"source: expected the {len(memory['views'])} training views that the run in "
                f"{self.options.model} began with, found others in {self.options.source}"
            )
        state = self.state
        state.splats = Splats(**memory["splats"]).requires_grad_()
        state.moments = {name: Moments(*pair) for name, pair in memory["moments"].items()}
        state.steps = memory["steps"]
        state.rows = memory["rows"]
        state.iteration = memory["iteration"]
        state.generator.set_state(memory["generator"])
        self.samples.recall(memory["order"])
        self.strategy.recall(memory["strategy"])
        self.history = memory["history"]
        self.loss, self.mse = memory["loss"], memory["mse"]
        self.seconds, self.cpu_seconds = memory["seconds"], memory["cpu_seconds"]

    def _check_finite(self) -> None:
        """Renderers leave broken splats out, so that the loss does not tell."""
        splats = self.state.splats.detach()
        if all(math.isfinite(float(tensor.sum())) for _, tensor in splats.items()):
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
