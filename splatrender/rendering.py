"""From trained splats to pictures: the views of the photos, camera paths, videos."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from splatrender import paths
from splatrender.camera import Camera
from splatrender.errors import InputError
from splatrender.io.cameras import load_cameras
from splatrender.io.images import depth_picture, depth_range, to_uint8, write_image
from splatrender.io.json_files import read_json
from splatrender.io.video import encoder, video_writer
from splatrender.model import Splats
from splatrender.model.ply import read_ply
from splatrender.operators.devices import choose_device, is_out_of_memory
from splatrender.operators.render import Rendering, RenderOptions, render
from splatrender.scenes.scene import load_scene
from splatrender.scenes.similarity import Similarity

if TYPE_CHECKING:
    from splatrender.training.evaluate import ViewScore

FRAMES = 120
DEFAULT_WIDTH = 960  # px, for a path around splats without cameras


@dataclass(frozen=True)
class RenderJob:
    """What to render.

    Attributes:
        model: folder that training wrote, or a 3DGS .ply file.
        source: scene folder; None for the one in the model's config.json.
        iteration: which saved splats; None for the latest.
        views: "test", "train", "both" or "none"; None for "test" unless there is a path.
        path: "none", "orbit", "interpolate" or a JSON file of cameras.
        frames: of the path; None for 120, or for all cameras of a file.
        fps: frames a second of the video.
        resolution: of photos, as of `load_scene`; None for that of training. A path's frames are
            reduced alike.
        width, height: of a path's frames [px]; one follows from the other.
        depth: also write depth in colours.
        background: RGB in [0, 1]; None for that of training, or black.
        video: write videos; None for "if the encoder is installed".
        output: folder to write to; None for the model's.
        backend: "cpu", "cuda", or "auto" for CUDA where it works.
        threads: CPU threads; 0 for torch's default.
        quiet: print nothing but warnings.

    Example:
        >>> RenderJob("output/fox", path="orbit").frames is None
        True
    """

    model: str | os.PathLike[str]
    source: str | os.PathLike[str] | None = None
    iteration: int | None = None
    views: str | None = None
    path: str = "none"
    frames: int | None = None
    fps: float = 30.0
    resolution: int | None = None
    width: int | None = None
    height: int | None = None
    depth: bool = False
    background: Sequence[float] | None = None
    video: bool | None = None
    output: str | os.PathLike[str] | None = None
    backend: str = "auto"
    threads: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class Trained:
    """Trained splats and what is known of their training.

    Attributes:
        splats: in world coordinates.
        label: of the iteration, for names of folders: "7000", or the name of a .ply file.
        folder: where pictures go unless told otherwise.
        cameras: of the photos, in the world; empty if unknown.
        config: options of the training; empty if unknown.
        similarity: from the world to the frame of training; None if unknown.
    """

    splats: Splats
    label: str
    folder: Path
    cameras: list[Camera]
    config: dict[str, Any]
    similarity: Similarity | None = None


def render_model(job: RenderJob) -> dict[str, list[ViewScore]]:
    """Render what a job asks for, and write it.

    Views go to `<output>/{test,train}/ours_N/{renders,gt,depth}/00000.png`, a path to
    `<output>/paths/<name>_N/{renders,depth}/00000.png` and `<output>/paths/<name>_N.mp4`. One
    frame is held at a time.

    Args:
        job: see `RenderJob`.

    Returns:
        The scores of the rendered views, by "test" and "train".

    Raises:
        InputError: the model, the scene or the path is missing or unusable, or the backend that
            was asked for is not there.
        torch.OutOfMemoryError: memory is not enough for a picture of this size.

    Example:
        >>> render_model(RenderJob("output/fox", path="orbit"))  # doctest: +SKIP
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    choose_device(job.backend)  # better now than after loading
    model = open_model(job.model, job.iteration)
    with_cameras = bool(model.cameras or model.config or job.source)
    path, views = job.path, job.views
    if path == "none" and views is None and not with_cameras:
        path = "orbit"  # a bare .ply: the only thing to show
    if views is None:
        views = "test" if path == "none" else "none"
    if path != "none" and job.video:
        encoder()  # better now than after the views
    output = Path(job.output) if job.output else model.folder
    scores: dict[str, list[ViewScore]] = {}
    if views != "none":
        scores = _render_views(job, model, views, output)
    if path != "none":
        _render_path(job, model, path, output)
    return scores


def open_model(model: str | os.PathLike[str], iteration: int | None = None) -> Trained:
    """Read splats from a model folder or a .ply file.

    Args:
        model: folder with `point_cloud/iteration_N/point_cloud.ply`, or a .ply file; a file that
            lies in such a folder brings the folder's cameras with it.
        iteration: which N of a folder; None for the latest.

    Returns:
        The splats and what is known of their training.

    Raises:
        InputError: nothing is there, or not this iteration.
    """
    model = Path(model)
    if model.is_dir():
        saved = _saved_iterations(model)
        if not saved:
            raise InputError(
                f"{model}: expected point_cloud/iteration_N/point_cloud.ply as training writes "
                "it, found none"
            )
        if iteration is None:
            iteration = max(saved)
        if iteration not in saved:
            known = ", ".join(str(n) for n in sorted(saved))
            raise InputError(f"{model}: expected iteration {known}; found {iteration} asked for")
        file, folder, label, output = saved[iteration], model, str(iteration), model
    else:
        if iteration is not None:
            raise InputError(f"iteration: expected a model folder to choose from, found {model}")
        file, label, output = model, model.name.split(".")[0], model.parent / f"{model.stem}_render"
        folder = model.resolve().parent
        place = re.fullmatch(r"iteration_(\d+)", folder.name)
        if place and folder.parent.name == "point_cloud":  # within a model folder after all
            folder = folder.parents[1]
            label, output = place[1], folder
    cameras, config, scene = (folder / f"{name}.json" for name in ("cameras", "config", "scene"))
    in_model = model.is_dir() or output == folder
    return Trained(
        splats=read_ply(file),
        label=label,
        folder=output,
        cameras=load_cameras(cameras) if in_model and cameras.exists() else [],
        config=_config(config) if in_model and config.exists() else {},
        similarity=Similarity.load(scene) if in_model and scene.exists() else None,
    )


def _saved_iterations(folder: Path) -> dict[int, Path]:
    found = {}
    for file in folder.glob("point_cloud/iteration_*/point_cloud.ply"):
        number = file.parent.name.removeprefix("iteration_")
        if number.isdecimal():
            found[int(number)] = file
    return found


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected an object of options, found {type(config).__name__}")
    return config


def _render_views(
    job: RenderJob, model: Trained, views: str, output: Path
) -> dict[str, list[ViewScore]]:
    """Render the views of photos beside the photos."""
    config = model.config
    source = job.source or config.get("source")
    if source is None:
        raise InputError(
            f"{job.model}: expected the scene folder behind --source to render views of photos; "
            "found no config.json that names it"
        )
    if not Path(source).is_dir():
        raise InputError(
            f"{source}: expected the scene folder of {job.model}, found none; if it has moved, "
            "give its place behind --source"
        )
    known = ("images", "masks", "holdout", "eval")
    scene = load_scene(
        Path(source),
        resolution=config.get("resolution", -1) if job.resolution is None else job.resolution,
        normalize=model.similarity or True,
        **{name: config[name] for name in known if name in config},
    )
    splits = {"test": scene.test, "train": scene.train}
    if views != "both":
        splits = {views: splits[views]}
    if not any(splits.values()):
        raise InputError(
            f"{job.model}: expected {views} views, found none: no photo was held out; "
            "see --views train"
        )
    from splatrender.training.evaluate import score  # brings all of training: only if needed

    draw = _drawer(job, model, scene.similarity)
    scores: dict[str, list[ViewScore]] = {}
    for split, chosen in splits.items():
        folder = output / split / f"ours_{model.label}"
        for index, view in enumerate(_progress(chosen, split, job.quiet)):
            rendering = draw(view.camera)
            image = to_uint8(rendering.radiance[0])
            write_image(folder / "renders" / f"{index:05d}.png", image)
            write_image(folder / "gt" / f"{index:05d}.png", view.photo)
            if rendering.depth is not None:
                picture = depth_picture(rendering.depth[0], rendering.alpha[0])
                write_image(folder / "depth" / f"{index:05d}.png", picture)
            scores.setdefault(split, []).append(score(image, view))
        for kind in ("renders", "gt", "depth"):
            _remove_left_over(folder / kind, len(chosen))
        if not job.quiet and split in scores:
            _print_scores(split, scores[split], folder)
    return scores


def _render_path(job: RenderJob, model: Trained, path: str, output: Path) -> None:
    """Render a camera path, frame after frame, into pictures and a video."""
    cameras, name = _path_cameras(job, model, path)
    cameras = [_resized(camera, job) for camera in cameras]
    with_video = job.video
    if with_video is None:
        try:
            encoder()
            with_video = True
        except InputError as error:
            print(f"warning: no video, pictures only: {error}", file=sys.stderr)
            with_video = False
    similarity = _similarity(model)
    draw = _drawer(job, model, similarity)
    label = f"{name}_{model.label}" if name != model.label else name
    folder, video = output / "paths" / label, output / "paths" / f"{label}.mp4"
    limits: tuple[float, float] | None = None  # of depth: those of the first frame, for all
    with ExitStack() as stack:
        add = stack.enter_context(video_writer(video, job.fps)) if with_video else None
        for index, camera in enumerate(_progress(cameras, name, job.quiet)):
            rendering = draw(similarity.apply(camera))
            image = to_uint8(rendering.radiance[0])
            write_image(folder / "renders" / f"{index:05d}.png", image)
            if add is not None:
                add(image)
            if rendering.depth is not None:
                depth, alpha = rendering.depth[0], rendering.alpha[0]
                limits = limits or depth_range(depth, alpha)
                picture = depth_picture(depth, alpha, limits)
                write_image(folder / "depth" / f"{index:05d}.png", picture)
    for kind in ("renders", "depth"):
        _remove_left_over(folder / kind, len(cameras))
    if not job.quiet:
        print(f"{len(cameras)} frames in {folder}" + (f", video {video}" if with_video else ""))


def _path_cameras(job: RenderJob, model: Trained, path: str) -> tuple[list[Camera], str]:
    """The cameras of a path, in the world, and its name."""
    if path not in ("orbit", "interpolate"):
        if Path(path).suffix.lower() != ".json":
            raise InputError(
                f"path: expected none, orbit, interpolate or a .json file, found {path!r}"
            )
        cameras = load_cameras(path)
        if job.frames is not None and job.frames != len(cameras):
            cameras = paths.interpolate(cameras, job.frames)
        return cameras, Path(path).stem
    frames = job.frames or FRAMES
    if model.cameras:
        if path == "orbit":
            return paths.orbit(model.cameras, frames), path
        in_order = sorted(model.cameras, key=lambda camera: _natural(camera.name))
        return paths.interpolate(in_order, frames), path
    if path == "interpolate":
        raise InputError(
            f"{job.model}: expected cameras.json to interpolate between cameras, found none"
        )
    center, radius = _ball(model.splats)
    width = job.width or (job.height * 16 // 9 if job.height else DEFAULT_WIDTH)
    height = job.height or width * 9 // 16
    return paths.orbit_sphere(center, radius, frames, width=width, height=max(1, height)), path


def _natural(name: str) -> list[tuple[str, int]]:
    """Key that sorts names as they count: 2 before 10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _resized(camera: Camera, job: RenderJob) -> Camera:
    """The camera with the frame size that was asked for."""
    width, height = camera.width, camera.height
    if job.width or job.height:
        across = job.width or max(1, round(width * job.height / height))  # type: ignore[operator]
        down = job.height or max(1, round(height * job.width / width))  # type: ignore[operator]
        # crop rather than squeeze: pixels stay square when both sides are given
        factor = max(across / width, down / height)
        return Camera(
            viewmat=camera.viewmat,
            fx=camera.fx * factor,
            fy=camera.fy * factor,
            cx=camera.cx * factor + (across - width * factor) / 2,
            cy=camera.cy * factor + (down - height * factor) / 2,
            width=across,
            height=down,
            name=camera.name,
        )
    resolution = job.resolution
    if resolution is None or resolution == -1:
        return camera
    if resolution < 1:
        raise InputError(
            f"resolution: expected 1, 2, 4, 8, a width in pixels or -1, found {resolution}"
        )
    factor = 1 / resolution if resolution in (1, 2, 4, 8) else resolution / width
    return camera.resized(max(1, round(width * factor)), max(1, round(height * factor)))


def _similarity(model: Trained) -> Similarity:
    """World to the unit frame in which the renderer's near plane makes sense."""
    if model.similarity is not None:
        return model.similarity
    if model.cameras:
        centers = torch.stack([camera.center for camera in model.cameras])
        return Similarity.of_cameras(centers, model.splats.means.double())
    center, radius = _ball(model.splats)
    return Similarity(1 / radius, center)


def _ball(splats: Splats) -> tuple[Tensor, float]:
    """A ball that holds most splats: their places, and at least one of them with its skirts."""
    center, radius = paths.bounding_sphere(splats.means)
    return center, max(radius, 3 * float(splats.scales.amax(dim=1).median()))


def _drawer(
    job: RenderJob, model: Trained, similarity: Similarity
) -> Callable[[Camera], Rendering]:
    """A function that renders the splats from a camera of the frame inside."""
    device = choose_device(job.backend)
    splats = similarity.apply(model.splats).to(device, torch.float32)
    color = job.background
    if color is None:
        color = model.config.get("background")
    background = None if color is None else torch.tensor(color, dtype=torch.float32, device=device)
    options = RenderOptions(antialiased=bool(model.config.get("antialiased", False)))

    @torch.no_grad()
    def draw(camera: Camera) -> Rendering:
        try:
            return render(splats, camera, background=background, options=options, depth=job.depth)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise torch.OutOfMemoryError(
                f"{len(splats):,} splats, pictures of {camera.width}x{camera.height}: "
                f"{' '.join(str(error).split())} Render smaller pictures (resolution, or width)."
            ) from error

    return draw


def _progress(items: Sequence[Any], what: str, quiet: bool) -> Iterable[Any]:
    # disable=None: only where somebody watches
    return tqdm(items, desc=what, unit="frame", disable=True if quiet else None)


def _remove_left_over(folder: Path, count: int) -> None:
    """Remove numbered pictures of an earlier, longer run: they would mix with these."""
    for file in _numbered(folder):
        if int(file.stem) >= count:
            file.unlink()


def _numbered(folder: Path) -> Iterator[Path]:
    return (file for file in folder.glob("*.png") if re.fullmatch(r"\d{5}", file.stem))


def _print_scores(split: str, scores: Sequence[ViewScore], folder: Path) -> None:
    width = max(len(split) + 5, *(len(row.name) for row in scores))
    print(f"{split + ' view':<{width}}  PSNR [dB]    SSIM")
    for row in scores:
        print(f"{row.name:<{width}}  {row.psnr:9.2f}  {row.ssim:6.4f}")
    psnr = sum(row.psnr for row in scores) / len(scores)
    ssim = sum(row.ssim for row in scores) / len(scores)
    print(f"{'mean':<{width}}  {psnr:9.2f}  {ssim:6.4f}")
    print(f"{len(scores)} pictures in {folder}")


__all__ = ["RenderJob", "Trained", "open_model", "render_model"]
