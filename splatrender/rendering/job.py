"""A render job: its cameras, and the images that it writes."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from splatrender.arguments import MOST_PIXELS, require_integer
from splatrender.errors import InputError
from splatrender.io.home import expand_home
from splatrender.io.manifest import register
from splatrender.io.video import check_rate, encoder, write_video
from splatrender.metrics import ViewScore, score
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.operators.options import RenderOptions
from splatrender.operators.render import Rendering, render
from splatrender.rendering import trajectories
from splatrender.rendering.frames import FrameFolder
from splatrender.rendering.trained import Trained, open_model
from splatrender.runtime.devices import choose_device, is_out_of_memory
from splatrender.scenes.cameras import load_cameras
from splatrender.scenes.scene import load_scene
from splatrender.scenes.similarity import Similarity

FRAMES = 120
DEFAULT_WIDTH = 960  # px, for a path around splats without cameras
MOST_FRAMES = 100_000  # names have five digits
SMALL = 0.6  # of the size of training: images below lose 1 dB and more


@dataclass(frozen=True)
class RenderJob:
    """A job: the model, the cameras, and the requested images.

    Attributes:
        model: folder that training wrote, or a 3DGS .ply file.
        source: scene folder; None for the one in the model's config.json.
        iteration: iteration of the saved splats; None for the latest.
        views: "test", "train", "both" or "none"; None for "test" unless there is a path.
        path: "none", "orbit", "interpolate" or a JSON file of cameras.
        frames: number of frames of the path; None for 120, or for all cameras of a file.
        fps: frames per second of the video.
        resolution: resolution of photos, see `load_scene`; None for that of training. Frames of a
            path are reduced alike.
        width, height: size of a path's frames [px]; one follows from the other.
        depth: also write depth, in colours and as values [length of the world].
        background: RGB in [0, 1]; None for that of training, or black.
        video: write videos; None for "if the encoder is installed".
        output: folder to write to; None for the model's.
        backend: "cpu", "cuda", or "auto" for CUDA where it works.
        threads: CPU threads; 0 for torch's default.
        quiet: print only warnings.

    Raises:
        InputError: a size, a number of frames or fps is out of range.

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

    def __post_init__(self) -> None:
        for name in ("width", "height", "frames"):
            most = MOST_FRAMES if name == "frames" else MOST_PIXELS
            if getattr(self, name) is not None:
                require_integer(name, getattr(self, name), 1, most)
        check_rate(self.fps)
        for name in ("model", "source", "path", "output"):
            place = getattr(self, name)
            if place is not None:
                object.__setattr__(self, name, os.fspath(expand_home(name, place)))


def render_model(job: RenderJob) -> dict[str, list[ViewScore]]:
    """Render the images of a job, and write them.

    Views go to `<output>/{test,train}/ours_N/{renders,gt,depth}/00000.png`, a path to
    `<output>/paths/<name>_N/{renders,depth}/00000.png` and `<output>/paths/<name>_N.mp4`; depth
    also to `00000.npy`, with its unit and range in `depth.json`. One frame is held at a time.

    Splats and path cameras are in the world (of the .ply, of cameras.json and of COLMAP); they
    are rendered in the frame of training (scene.json), where the near plane is that of training.

    Args:
        job: see `RenderJob`.

    Returns:
        The scores of the rendered views, by "test" and "train".

    Raises:
        InputError: the model, the scene or the path is missing or unusable, or the backend that
            was asked for is not there.
        torch.OutOfMemoryError: memory is not enough for an image of this size.

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


def _render_views(
    job: RenderJob, model: Trained, views: str, output: Path
) -> dict[str, list[ViewScore]]:
    """Render the views of photos beside the photos."""
    config = model.config
    source = job.source or config.get("source")
    if source is None:
        raise InputError(
            f"{job.model}: expected the scene folder behind --source to render views of photos; "
            "got no config.json that names it"
        )
    if not Path(source).is_dir():
        raise InputError(
            f"{source}: expected the scene folder of {job.model}, got none; if it has moved, "
            "give its place behind --source"
        )
    known = ("images", "masks", "holdout", "eval")
    scene = load_scene(
        Path(source),
        resolution=config.get("resolution", -1) if job.resolution is None else job.resolution,
        normalize=model.similarity or True,
        need_points=False,
        **{name: config[name] for name in known if name in config},
    )
    splits = {"test": scene.test, "train": scene.train}
    if views != "both":
        splits = {views: splits[views]}
    if not any(splits.values()):
        raise InputError(
            f"{job.model}: expected {views} views, got none: no photo was held out; "
            "see --views train"
        )
    draw = _drawer(job, model, scene.similarity)
    _warn_of_size([view.camera for chosen in splits.values() for view in chosen], model)
    scores: dict[str, list[ViewScore]] = {}
    for split, chosen in splits.items():
        folder = output / split / f"ours_{model.label}"
        frames = FrameFolder(folder, scene.similarity.scale, steady=False)
        for view in _progress(chosen, split, job.quiet):
            image = frames.add(draw(view.camera), view.photo)
            scores.setdefault(split, []).append(score(image, view))
        frames.close()
        _warn_of_empty(frames, [scene.similarity.invert(view.camera) for view in chosen], model)
        register(output, frames.files)
        if not job.quiet and split in scores:
            _print_scores(split, scores[split], folder)
    return scores


def _render_path(job: RenderJob, model: Trained, path: str, output: Path) -> None:
    """Render a camera path, frame after frame, into images and a video."""
    cameras, name = _path_cameras(job, model, path)
    cameras = [_resized(camera, job) for camera in cameras]
    _warn_of_size(cameras, model)
    with_video = job.video
    if with_video is None:
        try:
            encoder()
            with_video = True
        except InputError as error:
            print(f"warning: no video, images only: {error}", file=sys.stderr)
            with_video = False
    similarity = _similarity(model)
    draw = _drawer(job, model, similarity)
    label = f"{name}_{model.label}" if name != model.label else name
    folder, video = output / "paths" / label, output / "paths" / f"{label}.mp4"
    frames = FrameFolder(folder, similarity.scale, steady=True)
    in_turn = _progress(cameras, name, job.quiet)
    images = (frames.add(draw(similarity.apply(camera))) for camera in in_turn)
    if with_video:
        write_video(video, images, job.fps)
    else:
        deque(images, maxlen=0)
    frames.close()
    _warn_of_empty(frames, cameras, model)
    register(output, [*frames.files, video])
    if not job.quiet:
        print(f"{len(cameras)} frames in {folder}" + (f", video {video}" if with_video else ""))


def _path_cameras(job: RenderJob, model: Trained, path: str) -> tuple[list[Camera], str]:
    """Return the cameras of a path, in the world, and its name."""
    if path not in ("orbit", "interpolate"):
        if Path(path).suffix.lower() != ".json":
            raise InputError(
                f"path: expected none, orbit, interpolate or a .json file, got {path!r}"
            )
        cameras = load_cameras(path)
        if job.frames is not None and job.frames != len(cameras):
            cameras = trajectories.interpolate(cameras, job.frames)
        return cameras, Path(path).stem
    frames = job.frames or FRAMES
    if model.cameras:
        if path == "orbit":
            return trajectories.orbit(model.cameras, frames), path
        in_order = sorted(model.cameras, key=lambda camera: _natural(camera.name))
        return trajectories.interpolate(in_order, frames), path
    if path == "interpolate":
        raise InputError(
            f"{job.model}: expected cameras.json to interpolate between cameras, got none"
        )
    center, radius = _ball(model.splats)
    width = job.width or (job.height * 16 // 9 if job.height else DEFAULT_WIDTH)
    height = job.height or width * 9 // 16
    return trajectories.orbit_sphere(
        center, radius, frames, width=width, height=max(1, height)
    ), path


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts numbers in names by value: 2 before 10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _resized(camera: Camera, job: RenderJob) -> Camera:
    """Return the camera with the requested frame size."""
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
            f"resolution: expected 1, 2, 4, 8, a width in pixels or -1, got {resolution}"
        )
    factor = 1 / resolution if resolution in (1, 2, 4, 8) else resolution / width
    return camera.resized(max(1, round(width * factor)), max(1, round(height * factor)))


def _warn_of_size(cameras: Sequence[Camera], model: Trained) -> None:
    """Report images that are much smaller than the photos, in which splats look too large."""
    if not model.cameras or model.config.get("antialiased"):
        return
    focal = {camera.name: camera.fx for camera in model.cameras}
    least = min(focal.values())
    ratio, smallest = min(
        ((camera.fx / focal.get(camera.name, least), camera) for camera in cameras),
        key=lambda pair: pair[0],
    )
    if ratio < SMALL:
        print(
            f"warning: images of {smallest.width}x{smallest.height} are {ratio:.2f} times as "
            "large as in training; splats look too large in them, as none is drawn smaller than "
            "a pixel. For true images render at the size of training and shrink the images, "
            "or train with --antialiased.",
            file=sys.stderr,
        )


def _warn_of_empty(frames: FrameFolder, cameras: Sequence[Camera], model: Trained) -> None:
    """Report images without splats: as a rule, splats and cameras are in two frames."""
    if frames.empty:
        places = model.splats.means.median(dim=0).values.tolist()
        stands = torch.stack([camera.center for camera in cameras]).median(dim=0).values.tolist()
        near, around = (", ".join(f"{x:.6g}" for x in place) for place in (places, stands))
        print(
            f"warning: {frames.empty} of {len(cameras)} images see no splat: splats are around "
            f"({near}), cameras around ({around}). Is the .ply in another frame than the cameras, "
            "or has a program dropped the offset from its header?",
            file=sys.stderr,
        )


def _similarity(model: Trained) -> Similarity:
    """Return the map from the world to the frame of unit size, that of the near plane."""
    if model.similarity is not None:
        return model.similarity
    if model.cameras:
        centers = torch.stack([camera.center for camera in model.cameras])
        return Similarity.of_cameras(centers, model.splats.means.double())
    center, radius = _ball(model.splats)
    return Similarity(1 / radius, center)


def _ball(splats: Splats) -> tuple[Tensor, float]:
    """Return a ball that holds most centres, and at least one splat up to 3 sigma."""
    center, radius = trajectories.bounding_sphere(splats.means)
    return center, max(radius, 3 * float(splats.scales.amax(dim=1).median()))


def _drawer(
    job: RenderJob, model: Trained, similarity: Similarity
) -> Callable[[Camera], Rendering]:
    """Return a function that renders the splats from a camera of the frame inside."""
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
                f"{len(splats):,} splats, images of {camera.width}x{camera.height}: "
                f"{' '.join(str(error).split())} Render smaller images (resolution, or width)."
            ) from error

    return draw


def _progress(items: Sequence[Any], what: str, quiet: bool) -> Iterable[Any]:
    # disable=None: only where somebody watches
    bar: Iterable[Any] = tqdm(items, desc=what, unit="frame", disable=True if quiet else None)
    return bar


def _print_scores(split: str, scores: Sequence[ViewScore], folder: Path) -> None:
    width = max(len(split) + 5, *(len(row.name) for row in scores))
    print(f"{split + ' view':<{width}}  PSNR [dB]    SSIM")
    for row in scores:
        print(f"{row.name:<{width}}  {row.psnr:9.2f}  {row.ssim:6.4f}")
    psnr = sum(row.psnr for row in scores) / len(scores)
    ssim = sum(row.ssim for row in scores) / len(scores)
    print(f"{'mean':<{width}}  {psnr:9.2f}  {ssim:6.4f}")
    print(f"{len(scores)} images in {folder}")
