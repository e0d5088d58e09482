"""Training run: load, resume, step, save, evaluate."""

from __future__ import annotations

import math
import platform
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from splatrender.arguments import require_type
from splatrender.errors import InputError, WriteError
from splatrender.flow import StepReport, Strategy, TrainState
from splatrender.io.checkpoint import load_checkpoint, save_checkpoint
from splatrender.io.images import to_uint8
from splatrender.io.packages import require_package
from splatrender.io.progress import Progress
from splatrender.runtime.devices import (
    choose_device,
    device_name,
    is_device_fault,
    is_out_of_memory,
    synchronize,
)
from splatrender.runtime.interruption import Interrupted, InterruptionGuard
from splatrender.runtime.malloc import keep_freed_memory
from splatrender.scenes.scene import Scene, load_scene
from splatrender.training.coverage import warn_of_blind_views
from splatrender.training.evaluate import Evaluation, evaluate
from splatrender.training.folder import OutputFolder
from splatrender.training.identity import difference, identity_of_folder, identity_of_scene
from splatrender.training.options import TrainOptions
from splatrender.training.report import (
    Overview,
    RenderingWriter,
    TrainResult,
    figures,
    peak_device_memory_mb,
    peak_memory_mb,
)
from splatrender.training.run import (
    Run,
    TrainingDeviceFault,
    TrainingDiverged,
    TrainingOutOfMemory,
)

OVERVIEW_SECONDS = 5.0  # a stopped run renders no further view after that time


def train(
    options: TrainOptions,
    scene: Scene | None = None,
    on_step: Callable[[TrainState], None] | None = None,
    strategy: Strategy | None = None,
) -> TrainResult:
    """Train splats on a scene: minimise 0.8 L1 + 0.2 (1 - SSIM) over its training views.

    On a CPU the run is a function of scene and options alone: the same call gives the same bits,
    also when it was interrupted and resumed. A GPU draws other random numbers; a run may be resumed
    on a different device. After Ctrl-C, SIGTERM or SIGHUP the run finishes the step, saves its
    state, and exports splats and overview; a second Ctrl-C ends the export.

    Args:
        options: scene, output folder and settings.
        scene: loaded scene; None to read it from `options.source`. Rates and near plane are made
            for a scene of unit size, as `load_scene` returns it.
        on_step: function to call with the state after every iteration.
        strategy: births and deaths; None for the strategy that the options name.

    Returns:
        The figures of results.json and the splats in world coordinates, as in the .ply;
        `scene.similarity.apply(result.splats)` fits the cameras of a loaded scene.

    Raises:
        InputError: an option, the scene or the output folder is not as expected, another run is at
            work in the folder, or a package or the requested backend is missing.
        WriteError: a file could not be written; the last checkpoint is kept.
        TrainingOutOfMemory: memory was not enough; a torch.OutOfMemoryError that names the options
            to lower, raised after the run was saved.
        TrainingDeviceFault: a kernel failed on the GPU; the last checkpoint is kept.
        TrainingDiverged: a number became infinite or NaN; the last checkpoint is kept.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP arrived; a SystemExit with code 130, 143 or 129 whose
            message explains how to resume.

    Example:
        >>> train(TrainOptions("scene", "out", iterations=500)).results["psnr"]  # doctest: +SKIP
        24.1
    """
    require_type("options", options, TrainOptions)
    device = choose_device(options.backend)
    require_package("plyfile")  # missing packages are reported before training
    folder = OutputFolder(options.output)
    with folder.held():
        folder.clean()
        memory = _earlier_state(options, folder)
        if memory is None:
            saved = {*options.save_iterations, options.iterations}
            folder.claim(options.overwrite, Path(options.source), saved)
        elif (results := _finished(options, folder, memory, scene)) is not None:
            _inform(options, f"{folder.path} is finished: {figures(results)}. Nothing left to do.")
            return TrainResult(folder.path, results)
        keep_freed_memory()
        threads = torch.get_num_threads()
        if options.threads:
            torch.set_num_threads(options.threads)
        try:
            return _train(options, device, folder, memory, scene, on_step, strategy)
        finally:
            torch.set_num_threads(threads)


def _train(
    options: TrainOptions,
    device: torch.device,
    folder: OutputFolder,
    memory: dict[str, Any] | None,
    scene: Scene | None,
    on_step: Callable[[TrainState], None] | None,
    strategy: Strategy | None,
) -> TrainResult:
    begun = None if memory is None else folder.similarity()
    if scene is None:
        scene = load_scene(
            Path(options.source),
            resolution=options.resolution,
            images=options.images,
            masks=options.masks,
            holdout=options.holdout,
            eval=options.eval,
            need_points=not options.random_init,
            normalize=begun or True,
        )
    if not scene.train:
        raise InputError(f"{options.source}: expected at least one training view, got none")
    if begun is not None and not begun.is_close(scene.similarity):
        raise InputError(
            f"scene: expected the frame that the run in {folder.path} began in, got another; "
            "load it with normalize=Similarity.load(...) of the scene.json there"
        )
    run = Run(options, scene, device, strategy)
    if memory is not None:
        _check_scene(options, folder, memory, run.identity)
        run.load_state_dict(memory)
        folder.resume(run.state.iteration)
        _inform(options, f"Resuming {folder.path} after iteration {run.state.iteration}.")
    _inform(
        options,
        f"{len(scene.train)} training views, {len(scene.test)} test views, "
        f"{len(run.state):,} splats to begin with, on {device_name(device)}.",
    )
    if (offset := scene.similarity.offset) is not None:
        _inform(
            options,
            "The world's origin is far away: .ply files hold positions relative to "
            f"{offset.tolist()} (in their headers and in scene.json).",
        )
    if not scene.test and options.eval:
        _warn("no test views: the figures at the end are those of training views")
    elif not scene.test:
        _inform(options, "No views are held out: the figures at the end are of training views.")
    if memory is None:
        _warn_of_blind_views(run, "at the start")
    try:
        _iterate(run, folder, on_step)
        return _finish(run, folder)
    except TrainingDiverged as error:
        raise TrainingDiverged(f"{error}; {_kept(folder)}") from error
    except WriteError as error:
        hint = f"; {_kept(folder)}; {_resume(options)} once the file can be written"
        raise WriteError(error.path, error.reason, hint) from error


def _begin(run: Run, folder: OutputFolder) -> None:
    """Replace the files of an earlier run, after the first step of this one."""
    scene = run.scene
    cameras = [scene.similarity.invert(view.camera) for view in [*scene.test, *scene.train]]
    config = {**run.options.as_json(), "backend": run.device.type}
    folder.begin(config, cameras, scene.similarity)


def _kept(folder: OutputFolder) -> str:
    """Return a phrase about the last checkpoint of a run."""
    if folder.begun and folder.checkpoint.exists():
        return f"the last checkpoint is kept in {folder.checkpoint}"
    return "no checkpoint was written yet"


def _resume(options: TrainOptions) -> str:
    """Return a phrase about the way to resume."""
    without = " without --overwrite (overwrite=True)" if options.overwrite else ""
    return f"give the same command{without} to resume"


def _earlier_state(options: TrainOptions, folder: OutputFolder) -> dict[str, Any] | None:
    """Return the checkpoint to resume from, if there is one."""
    if options.overwrite or not folder.checkpoint.exists():
        return None
    if options.resume == "never":
        raise InputError(
            f"{folder.path}: expected no earlier run (resume is 'never'), got checkpoint.pt; "
            "choose another folder, or replace that run with --overwrite (overwrite=True)"
        )
    memory = load_checkpoint(folder.checkpoint)
    options.check_agrees(memory["options"], folder.checkpoint)
    return memory


def _finished(
    options: TrainOptions, folder: OutputFolder, memory: dict[str, Any], scene: Scene | None
) -> dict[str, Any] | None:
    """Return the figures of the run in the folder if it has ended and was of this scene."""
    if memory["iteration"] != options.iterations:
        return None
    results = folder.finished_results(options.iterations)
    if results is None:
        return None
    source = Path(options.source)
    if scene is not None:
        _check_scene(options, folder, memory, identity_of_scene(scene, source))
        return results
    try:  # without photos, which may take minutes
        same = difference(memory, identity_of_folder(source)) is None
    except InputError:
        same = False
    return results if same else None  # otherwise the scene is loaded, and its errors are reported


def _check_scene(
    options: TrainOptions, folder: OutputFolder, memory: dict[str, Any], now: dict[str, Any]
) -> None:
    """Refuse to resume a run with another scene."""
    if different := difference(memory, now):
        raise InputError(
            f"source: {different}; choose another folder than {folder.path}, or replace the run "
            "in it with --overwrite (overwrite=True)"
        )


def _iterate(run: Run, folder: OutputFolder, on_step: Callable[[TrainState], None] | None) -> None:
    """Take steps until the end or until a signal."""
    options, state = run.options, run.state

    def words() -> str:
        train = "" if math.isnan(run.psnr) else f"train {run.psnr:.2f} dB, "
        return f"loss {run.loss:.4f}, {train}{len(state):,} splats"

    progress = Progress(state.iterations, state.iteration, quiet=options.quiet)
    with progress, InterruptionGuard() as guard:
        while state.iteration < state.iterations:
            wall, cpu = time.perf_counter(), time.process_time()
            report = _step(run, folder)
            run.seconds += time.perf_counter() - wall
            run.cpu_seconds += time.process_time() - cpu
            if not folder.begun:
                _begin(run, folder)
            progress.update(words)
            if report is not None:
                folder.add_report(report)
            if on_step is not None:
                on_step(state)
            _at_milestones(run, folder, progress)
            if guard.received is not None and state.iteration < state.iterations:
                raise _stop(run, folder, guard.received)
        wall = time.perf_counter()
        synchronize(run.device)  # the last steps may still be running
        run.seconds += time.perf_counter() - wall
    if options.profile:
        print(run.watch.report(), file=sys.stderr)


def _stop(run: Run, folder: OutputFolder, received: signal.Signals) -> Interrupted:
    """Save the run, and export splats and an overview; another signal ends the export."""
    iteration = run.state.iteration
    save_checkpoint(folder.checkpoint, run.state_dict())
    saved = f"{received.name}: saved {folder.checkpoint} after iteration {iteration} of "
    saved += str(run.state.iterations)
    try:
        folder.write_splats(run.splats_in_world(), iteration, run.scene.similarity.offset)
        saved += f", and {folder.ply(iteration)}"
        _write_overview(run, folder)
    except KeyboardInterrupt:
        pass
    except Exception as error:  # of any kind: the state is saved, and that must be reported
        saved += f" ({error})"
    return Interrupted(received, f"{saved}; {_resume(run.options)}.")


def _write_overview(run: Run, folder: OutputFolder) -> None:
    """Write overview.png of a run that was stopped, within a few seconds."""
    views, _ = _judged(run.scene)
    overview, start = Overview(len(views)), time.monotonic()
    with torch.no_grad():
        for index in overview.chosen:
            overview.add(views[index], to_uint8(run.image(views[index].camera)))
            if time.monotonic() - start > OVERVIEW_SECONDS:
                break
    overview.write(folder.overview)


def _step(run: Run, folder: OutputFolder) -> StepReport | None:
    """Take one step; save the run if memory is not enough."""
    try:
        return run.step()
    except (RuntimeError, MemoryError) as error:
        if is_device_fault(error):
            raise TrainingDeviceFault(
                f"iteration {run.state.iteration + 1}: {str(error).splitlines()[0].rstrip('.')}. "
                f"The GPU cannot be used any more in this process; {_kept(folder)}; "
                f"{_resume(run.options)}"
            ) from error
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
    raise _out_of_memory(run, folder, reason)  # no frame of the step holds memory any more


def _out_of_memory(run: Run, folder: OutputFolder, reason: str) -> TrainingOutOfMemory:
    """Save the run if it is intact, and return the error with advice."""
    state, camera = run.state, run.scene.train[0].camera
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    kept = _kept(folder)
    if run.intact and folder.begun:
        save_checkpoint(folder.checkpoint, run.state_dict())
        kept = f"saved {folder.checkpoint} after iteration {state.iteration}"
        with suppress(RuntimeError, MemoryError, OSError, InputError):
            folder.write_splats(run.splats_in_world(), state.iteration, run.scene.similarity.offset)
    return TrainingOutOfMemory(
        f"iteration {state.iteration + run.intact}, {len(state):,} splats, photos of "
        f"{camera.width}x{camera.height}: {reason.rstrip('.')}. Train anew with smaller photos "
        "(--resolution) or fewer splats (--max-splats), or give the same command where there is "
        f"more memory; {kept}."
    )


def _at_milestones(run: Run, folder: OutputFolder, progress: Progress) -> None:
    """Evaluate, export and save at the iterations of the options between start and end."""
    options, iteration = run.options, run.state.iteration
    if iteration == options.iterations:
        return
    if iteration in options.test_iterations:
        evaluation = _evaluate(run)
        run.history.append(evaluation.summary())
        progress.write(f"Iteration {iteration}: {figures(evaluation.summary())}")
    if iteration in options.save_iterations:
        folder.write_splats(run.splats_in_world(), iteration, run.scene.similarity.offset)
    if options.checkpoint_interval and iteration % options.checkpoint_interval == 0:
        save_checkpoint(folder.checkpoint, run.state_dict())


def _evaluate(run: Run, writer: RenderingWriter | None = None) -> Evaluation:
    """Return scores of the test views, or of the training views if there are none."""
    views, split = _judged(run.scene)
    on_image = writer.add if writer else None
    return evaluate(views, run.image, run.state.iteration, split, on_image)


def _judged(scene: Scene) -> tuple[Any, str]:
    return (scene.test, "test") if scene.test else (scene.train, "train")


def _finish(run: Run, folder: OutputFolder) -> TrainResult:
    """Save, export, evaluate, and write the figures last."""
    options, state, scene = run.options, run.state, run.scene
    save_checkpoint(folder.checkpoint, run.state_dict())
    splats = run.splats_in_world()
    folder.write_splats(splats, state.iteration, scene.similarity.offset)
    views, split = _judged(scene)
    writer = RenderingWriter(folder, split, state.iteration, len(views))
    evaluation = _evaluate(run, writer)
    writer.write_overview()
    results = {
        "psnr": evaluation.psnr,
        "ssim": evaluation.ssim,
        "split": split,
        "splats": len(splats),
        "iterations": state.iterations,
        "seconds": run.seconds,
        "seconds_per_iteration": run.seconds / state.iterations,
        "cpu_seconds": run.cpu_seconds,
        "peak_memory_mb": peak_memory_mb(),
        "peak_device_memory_mb": peak_device_memory_mb(run.device),
        "strategy": options.strategy,
        "seed": options.seed,
        "backend": run.device.type,
        "device": device_name(run.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "scene": str(options.source),
        "resolution": [scene.train[0].camera.width, scene.train[0].camera.height],
        "views": {"train": len(scene.train), "test": len(scene.test)},
        "train_loss": run.loss,
        "history": [*run.history, evaluation.summary()],
    }
    folder.write_results(results, evaluation)
    _warn_of_blind_views(run, "at the end")
    result = TrainResult(folder.path, results, splats)
    if not options.quiet:
        print(result.summary)
    return result


def _warn_of_blind_views(run: Run, when: str) -> None:
    """Name the views that see almost no splat."""
    views = [*run.scene.test, *run.scene.train]
    warn_of_blind_views(views, run.state.splats, run.state.look.options, when)


def _inform(options: TrainOptions, message: str) -> None:
    if not options.quiet:
        _warn(message)


def _warn(message: str) -> None:
    with suppress(OSError):  # the terminal may have been closed
        print(message, file=sys.stderr, flush=True)
