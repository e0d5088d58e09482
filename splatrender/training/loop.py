"""The whole of a training run: load, resume, step, save, evaluate."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from splatrender.arguments import require_type
from splatrender.errors import InputError
from splatrender.flow import StepReport, TrainState
from splatrender.io.checkpoint import load_checkpoint, save_checkpoint
from splatrender.memory import keep_freed_memory
from splatrender.operators.devices import (
    choose_device,
    device_name,
    is_out_of_memory,
    synchronize,
)
from splatrender.scenes.scene import Scene, load_scene
from splatrender.training.coverage import warn_of_blind_views
from splatrender.training.evaluate import Evaluation, evaluate
from splatrender.training.interruption import Interrupted, InterruptionGuard
from splatrender.training.options import TrainOptions
from splatrender.training.report import (
    OutputFolder,
    Pictures,
    TrainResult,
    peak_device_memory_mb,
    peak_memory_mb,
)
from splatrender.training.run import (
    Run,
    TrainingDiverged,
    TrainingOutOfMemory,
)

POSTFIX_INTERVAL = 10  # iterations between updates of the figures behind the progress bar


def train(
    options: TrainOptions,
    scene: Scene | None = None,
    on_step: Callable[[TrainState], None] | None = None,
) -> TrainResult:
    """Train splats on a scene: minimise 0.8 L1 + 0.2 (1 - SSIM) over its training views.

    On a CPU the run is a function of scene and options alone: the same call gives the same bits,
    also when it was interrupted and continued. A GPU draws other random numbers; a run may be
    continued on another device than it was begun on. Ctrl-C and SIGTERM finish the step and save
    first.

    Args:
        options: what to train, where to, and how.
        scene: the scene, if it is loaded already; otherwise it is read from `options.source`.
            Rates and near plane are made for a scene of unit size, as `load_scene` returns it.
        on_step: called after every iteration with the state, to watch it.

    Returns:
        The figures of results.json and the splats in world coordinates, as in the .ply;
        `scene.similarity.apply(result.splats)` fits the cameras of a loaded scene.

    Raises:
        InputError: an option, the scene or the output folder is not as expected, or the backend
            that was asked for is not there.
        TrainingOutOfMemory: memory was not enough; a torch.OutOfMemoryError that says what to
            lower, raised after the run was saved.
        TrainingDiverged: a number became infinite or NaN; the last checkpoint is kept.
        Interrupted: Ctrl-C or SIGTERM came; a SystemExit with code 130 or 143 whose message says
            how to resume.

    Example:
        >>> result = train(TrainOptions("scene", "out", iterations=500))  # doctest: +SKIP
        >>> result.results["psnr"]  # doctest: +SKIP
        24.1
    """
    require_type("options", options, TrainOptions)
    device = choose_device(options.backend)  # first: `claim` may remove an earlier run
    folder = OutputFolder(options.output)
    folder.claim(options.overwrite)
    memory = _earlier_state(options, folder)
    if memory is not None and memory["iteration"] == options.iterations:
        results = folder.finished_results(options.iterations)
        if results is not None:
            _say(options, f"{folder.path} is finished: {_figures(results)}. Nothing left to do.")
            return TrainResult(folder.path, results)

    keep_freed_memory()
    threads = torch.get_num_threads()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        return _train(options, device, folder, memory, scene, on_step)
    finally:
        torch.set_num_threads(threads)


def _train(
    options: TrainOptions,
    device: torch.device,
    folder: OutputFolder,
    memory: dict[str, Any] | None,
    scene: Scene | None,
    on_step: Callable[[TrainState], None] | None,
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
        raise InputError(f"{options.source}: expected at least one training view, found none")
    if begun is not None and not begun.is_close(scene.similarity):
        raise InputError(
            f"scene: expected the frame that the run in {folder.path} began in, found another; "
            "load it with normalize=Similarity.load(...) of the scene.json there"
        )
    run = Run(options, scene, device)
    if memory is not None:
        run.recall(memory)
        folder.cut_reports(run.state.iteration)
        _say(options, f"Resuming {folder.path} after iteration {run.state.iteration}.")
    else:
        folder.write_config({**options.as_json(), "backend": device.type})
        cameras = [view.camera for view in [*scene.test, *scene.train]]
        folder.write_cameras([scene.similarity.invert(camera) for camera in cameras])
        folder.write_similarity(scene.similarity)
    _say(
        options,
        f"{len(scene.train)} training views, {len(scene.test)} test views, "
        f"{len(run.state):,} splats to begin with, on {device_name(device)}.",
    )
    if (offset := scene.similarity.offset) is not None:
        _say(
            options,
            "The world's origin is far away: .ply files hold positions relative to "
            f"{offset.tolist()} (in their headers and in scene.json).",
        )
    if not scene.test and options.eval:
        _warn("no test views: the figures at the end are those of training views")
    elif not scene.test:
        _say(options, "No views are held out: the figures at the end are of training views.")
    if memory is None:
        _warn_of_blind_views(run, "at the start")
    try:
        _iterate(run, folder, on_step)
    except TrainingDiverged as error:
        kept = f"the last checkpoint is kept in {folder.checkpoint}"
        raise TrainingDiverged(
            f"{error}; {kept if folder.checkpoint.exists() else 'no checkpoint was written yet'}"
        ) from error
    return _finish(run, folder)


def _earlier_state(options: TrainOptions, folder: OutputFolder) -> dict[str, Any] | None:
    """The checkpoint to continue from, if there is one."""
    if not folder.checkpoint.exists():
        return None
    if options.resume == "never":
        raise InputError(
            f"{folder.path}: expected no earlier run (resume is 'never'), found checkpoint.pt; "
            "choose another folder, or overwrite"
        )
    memory = load_checkpoint(folder.checkpoint)
    options.check_agrees(memory["options"], folder.checkpoint)
    return memory


def _iterate(run: Run, folder: OutputFolder, on_step: Callable[[TrainState], None] | None) -> None:
    """Steps until the end or until a signal."""
    options, state = run.options, run.state
    bar = tqdm(
        total=state.iterations,
        initial=state.iteration,
        disable=options.quiet,
        dynamic_ncols=True,
        unit="it",
        smoothing=0.1,
    )
    with bar, InterruptionGuard() as guard:
        while state.iteration < state.iterations:
            wall, cpu = time.perf_counter(), time.process_time()
            report = _step(run, folder)
            run.seconds += time.perf_counter() - wall
            run.cpu_seconds += time.process_time() - cpu
            bar.update()
            if report is not None:
                folder.add_report(report)
            if state.iteration % POSTFIX_INTERVAL == 0:
                bar.set_postfix_str(
                    f"loss {run.loss:.4f}, train {run.psnr:.2f} dB, {len(state):,} splats",
                    refresh=False,
                )
            if on_step is not None:
                on_step(state)
            _at_milestones(run, folder, bar)
            if guard.received is not None and state.iteration < state.iterations:
                save_checkpoint(folder.checkpoint, run.memory())
                message = (
                    f"{guard.received.name}: saved {folder.checkpoint} after iteration "
                    f"{state.iteration} of {state.iterations}; give the same command to resume."
                )
                raise Interrupted(guard.received, message)
        wall = time.perf_counter()
        synchronize(run.device)  # the last steps may still be under way
        run.seconds += time.perf_counter() - wall
    if options.profile:
        print(run.watch.report(), file=sys.stderr)


def _step(run: Run, folder: OutputFolder) -> StepReport | None:
    """One step; when memory is not enough, the run is saved first."""
    try:
        return run.step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
    raise _out_of_memory(run, folder, reason)  # here, where no frame of the step holds memory


def _out_of_memory(run: Run, folder: OutputFolder, reason: str) -> TrainingOutOfMemory:
    """Save what can be saved, and say what to do."""
    state, camera = run.state, run.scene.train[0].camera
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    if run.intact:
        save_checkpoint(folder.checkpoint, run.memory())
        kept = f"saved {folder.checkpoint} after iteration {state.iteration}"
    elif folder.checkpoint.exists():
        kept = f"the last checkpoint is kept in {folder.checkpoint}"
    else:
        kept = "no checkpoint was written yet"
    return TrainingOutOfMemory(
        f"iteration {state.iteration + run.intact}, {len(state):,} splats, photos of "
        f"{camera.width}x{camera.height}: {reason.rstrip('.')}. Train anew with smaller photos "
        "(resolution) or fewer splats (max_splats), or give the same command where there is more "
        f"memory; {kept}."
    )


def _at_milestones(run: Run, folder: OutputFolder, bar: tqdm) -> None:
    """Evaluate, export and save where the options ask for it between start and end."""
    options, iteration = run.options, run.state.iteration
    if iteration == options.iterations:
        return
    if iteration in options.test_iterations:
        evaluation = _evaluate(run)
        run.history.append(evaluation.summary())
        if not options.quiet:
            bar.write(f"Iteration {iteration}: {_figures(evaluation.summary())}")
    if iteration in options.save_iterations:
        folder.write_splats(run.splats_in_world(), iteration, run.scene.similarity.offset)
    if options.checkpoint_interval and iteration % options.checkpoint_interval == 0:
        save_checkpoint(folder.checkpoint, run.memory())


def _evaluate(run: Run, pictures: Pictures | None = None) -> Evaluation:
    """Scores of the test views, or of the training views where there are none."""
    views, split = _judged(run.scene)
    on_picture = pictures.add if pictures else None
    return evaluate(views, run.picture, run.state.iteration, split, on_picture)


def _judged(scene: Scene) -> tuple[Any, str]:
    return (scene.test, "test") if scene.test else (scene.train, "train")


def _finish(run: Run, folder: OutputFolder) -> TrainResult:
    """Save, export, evaluate, and write the figures last."""
    options, state, scene = run.options, run.state, run.scene
    save_checkpoint(folder.checkpoint, run.memory())
    splats = run.splats_in_world()
    folder.write_splats(splats, state.iteration, scene.similarity.offset)
    views, split = _judged(scene)
    pictures = Pictures(folder, split, state.iteration, len(views))
    evaluation = _evaluate(run, pictures)
    pictures.write_overview()
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
    _say(options, f"{folder.path}: {_figures(results)}, {len(splats):,} splats.")
    return TrainResult(folder.path, results, splats)


def _warn_of_blind_views(run: Run, when: str) -> None:
    """Name the views that see almost no splat."""
    views = [*run.scene.test, *run.scene.train]
    warn_of_blind_views(views, run.state.splats, run.state.options, when)


def _figures(results: dict[str, Any]) -> str:
    return f"PSNR {results['psnr']:.2f} dB, SSIM {results['ssim']:.4f} on {results['split']} views"


def _say(options: TrainOptions, message: str) -> None:
    if not options.quiet:
        print(message, file=sys.stderr)


def _warn(message: str) -> None:
    print(message, file=sys.stderr)
