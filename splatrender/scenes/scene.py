"""A scene as training wants it: cameras with photos and seed points, brought to unit size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch

from splatrender.camera import Camera
from splatrender.errors import InputError
from splatrender.model.splats import Splats
from splatrender.scenes.colmap import ColmapModel, find_model, read_model
from splatrender.scenes.extent import camera_extent
from splatrender.scenes.photos import Job, find_masks, find_photos, read_all
from splatrender.scenes.text import file_name, read_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class View:
    """One photo and the camera that took it.

    Args:
        camera: pinhole camera in the scene's inside frame, of the photo's size.
        photo: uint8 [H, W, 3] RGB.
        mask: uint8 [H, W], 1 = keep and 0 = ignore, or None to keep everything.
        name: the photo's name in the COLMAP model, with subfolders.
    """

    camera: Camera
    photo: torch.Tensor
    mask: torch.Tensor | None
    name: str


@dataclass(frozen=True, eq=False)
class Similarity:
    """From the world of the files to the frame inside: x_inside = scale (x_world - center).

    There is no rotation, so quaternions and spherical harmonics are the same in both. Opacities
    are too; extinctions [1/length] are not touched either, as `Splats` does not tell the two apart.

    Args:
        scale: inside lengths per world length, > 0.
        center: float64 [3], the world's point that becomes the origin.

    Raises:
        InputError: the scale is not positive, or the centre no finite point.

    Example:
        >>> move = Similarity(2.0, torch.tensor([1.0, 0.0, 0.0]))
        >>> move.apply(torch.tensor([[1.5, 0.0, 0.0]])).tolist()
        [[1.0, 0.0, 0.0]]
    """

    scale: float
    center: torch.Tensor

    def __post_init__(self) -> None:
        center = torch.as_tensor(self.center).detach().to("cpu", torch.float64)
        if center.shape != (3,) or not bool(center.isfinite().all()):
            raise InputError(f"Similarity: center must be a finite point [3], got {self.center}")
        if not 0 < self.scale < float("inf"):
            raise InputError(f"Similarity: scale must be positive, got {self.scale}")
        object.__setattr__(self, "center", center)

    @classmethod
    def of_cameras(cls, centers: torch.Tensor, points: torch.Tensor) -> Similarity:
        """The frame in which the cameras have mean 0 and extent 1.

        The extent is that of `camera_extent`: 1.1 max |center - mean of centers| over the cameras
        that are not astray. Cameras that all stand in one place have no extent; then the median
        distance of the points becomes 1 instead.

        Args:
            centers: float64 [C, 3] camera centres.
            points: float64 [P, 3] seed points, P >= 0.
        """
        extent = camera_extent(centers)
        center, length = extent.center, extent.length
        if len(points):
            distance = float((points - center).norm(dim=1).median())
            if not length > 1e-9 * distance:
                length = distance
        return cls(1.0 / length if length > 0 else 1.0, center)

    @overload
    def apply(self, thing: torch.Tensor) -> torch.Tensor: ...
    @overload
    def apply(self, thing: Camera) -> Camera: ...
    @overload
    def apply(self, thing: Splats) -> Splats: ...

    def apply(self, thing: torch.Tensor | Camera | Splats) -> torch.Tensor | Camera | Splats:
        """From the world to the inside.

        Args:
            thing: points [..., 3] (floating point), a Camera, or Splats.

        Returns:
            The same kind of thing, dtype and device; differentiable for points and Splats.
        """
        return _move(thing, self.scale, self.center)

    @overload
    def invert(self, thing: torch.Tensor) -> torch.Tensor: ...
    @overload
    def invert(self, thing: Camera) -> Camera: ...
    @overload
    def invert(self, thing: Splats) -> Splats: ...

    def invert(self, thing: torch.Tensor | Camera | Splats) -> torch.Tensor | Camera | Splats:
        """From the inside back to the world; see `apply`."""
        # x_world = x_inside/scale + center = (1/scale) (x_inside - (-scale center))
        return _move(thing, 1.0 / self.scale, -self.scale * self.center)


def _move(
    thing: torch.Tensor | Camera | Splats, scale: float, center: torch.Tensor
) -> torch.Tensor | Camera | Splats:
    """`thing` after x -> scale (x - center)."""
    if isinstance(thing, Camera):
        # p_camera = W x + t must come out scaled: t' = scale (W center + t), W stays.
        viewmat = thing.viewmat.clone()
        viewmat[:3, 3] = scale * (viewmat[:3, :3] @ center + viewmat[:3, 3])
        return replace(thing, viewmat=viewmat)
    if isinstance(thing, Splats):
        means = _move(thing.means, scale, center)
        assert isinstance(means, torch.Tensor)
        log_scale = float(np.log(scale))
        return replace(thing, means=means, log_scales=thing.log_scales + log_scale)
    # In float64, as float32 would lose digits where the world's origin lies far away.
    moved = scale * (thing.double() - center.to(thing.device))
    return moved.to(thing.dtype)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that training needs from a scene folder; all lengths are inside lengths.

    Args:
        path: the folder.
        train: views to learn from.
        test: views held out.
        points: float32 [P, 3] seed points.
        colors: uint8 [P, 3] their colours.
        similarity: how the inside frame lies in the world of the files.
    """

    path: Path
    train: list[View]
    test: list[View]
    points: torch.Tensor
    colors: torch.Tensor
    similarity: Similarity

    def __repr__(self) -> str:
        return (
            f"Scene({self.path}, {len(self.train)} train + {len(self.test)} test views, "
            f"{len(self.points):,} points)"
        )


def load_scene(
    path: str | Path,
    *,
    resolution: int = -1,
    images: str = "images",
    masks: str | None = None,
    holdout: int = 8,
    eval: bool = True,
    need_points: bool = True,
) -> Scene:
    """Read a COLMAP scene: photos, cameras and points, undistorted, resized and normalised.

    Looks for `images/` and for `sparse/0/{cameras,images,points3D}.{bin,txt}`; also `sparse/`
    itself, and of several models `sparse/*` the one with the most registered photos. All camera
    models of COLMAP with ids 0 to 10 are read; photos of those that distort are undistorted to a
    pinhole of the same focal length, cropped so that no border is blank. The frame inside has its
    origin at the mean of the camera centres, and 1.1 times the longest distance of a camera to it
    is 1; cameras more than five times as far out as nine tenths of them are named in a warning and
    left out of both. EXIF orientation is ignored, as by COLMAP, and so is transparency.

    Args:
        path: the scene's folder.
        resolution: 1, 2, 4 or 8 divides the photos' size; a larger number is the width to have
            [px]; -1 makes the longest side at most 800 px, which is sane on a CPU. Photos are
            never enlarged. With 2, 4 or 8 the folder `images_2` etc. is used where it exists.
        images: folder of the photos, relative to `path` or absolute.
        masks: folder of masks (usually "masks"): for `images/x.jpg` it holds `x.jpg.png` or
            `x.png`, lighter than 127 = keep. Photos without one are kept whole. None: no masks.
        holdout: of the photos sorted by name, those with index % holdout == 0 are for testing;
            a file `test.txt` beside the model, one name a line, says it instead.
        eval: hold test photos out; False puts all photos in `train`.
        need_points: refuse a scene without seed points; training from random points needs none.

    Returns:
        The scene; views are sorted by name.

    Raises:
        InputError: something is missing or broken; the message names the file.

    Example:
        >>> scene = load_scene("scenes/fox", resolution=2)  # doctest: +SKIP
        >>> len(scene.train), len(scene.test)  # doctest: +SKIP
        (43, 7)
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: expected the folder of a scene, found {_what(root)}")
    if resolution != -1 and resolution not in (1, 2, 4, 8) and resolution <= 8:
        raise InputError(
            f"resolution: expected -1, 1, 2, 4, 8 or a width in px above 8, found {resolution}"
        )
    if eval and holdout < 2:
        raise InputError(f"holdout: expected a whole number of at least 2, found {holdout}")
    model = read_model(find_model(root), need_points)
    names = [image.name for image in model.images]
    files = find_photos(root, images, names, resolution)
    masks_of = find_masks(root / masks, names) if masks is not None else [None] * len(names)
    if masks is None and (root / "masks").is_dir():
        logger.info("%s is not used; pass masks='masks' to use it", root / "masks")
    shrink = 1 if files.reduced else resolution
    jobs = [
        Job(photo, mask, model.cameras[image.camera_id], shrink)
        for photo, mask, image in zip(files.paths, masks_of, model.images, strict=True)
    ]
    world_points = torch.from_numpy(model.points)
    viewmats = torch.from_numpy(np.stack([image.viewmat for image in model.images]))
    centers = -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:])[:, :, 0]
    similarity = Similarity.of_cameras(centers, world_points)
    _warn_of_astray(root, names, centers)
    views = []
    for image, viewmat, read in zip(model.images, viewmats, read_all(jobs), strict=True):
        lens, name = read.lens, image.name
        focal_and_center = (lens.fx, lens.fy, lens.cx, lens.cy)
        camera = Camera(viewmat, *focal_and_center, lens.width, lens.height, name)
        views.append(View(similarity.apply(camera), read.photo, read.mask, name))
    points, colors = _distinct(similarity.apply(world_points).float(), model)
    held_out = _held_out(root, model, holdout) if eval else set()
    train = [view for view in views if view.name not in held_out]
    test = [view for view in views if view.name in held_out]
    if not train:
        raise InputError(
            f"{root}: all {len(views)} photos are held out for testing and none is left to train "
            "on; train on all of them with --no-eval (eval=False in Python)"
        )
    return Scene(root, train, test, points, colors, similarity)


def _warn_of_astray(root: Path, names: Sequence[str], centers: torch.Tensor) -> None:
    """Name the cameras that stand too far out to belong to the capture."""
    extent = camera_extent(centers)
    if extent.astray:
        worst = max(zip(extent.times, extent.astray, strict=True))
        logger.warning(
            "%s: %d of %d cameras are far out, probably registered wrong, for example that of "
            "%s: %.0f times as far from the middle as all others; the unit of length ignores them",
            root,
            len(extent.astray),
            len(names),
            names[worst[1]],
            worst[0],
        )


def _what(path: Path) -> str:
    """What lies at a path, for messages."""
    return "a file" if path.exists() else "nothing"


def _distinct(points: torch.Tensor, model: ColmapModel) -> tuple[torch.Tensor, torch.Tensor]:
    """The points and colours without repetitions, in their order; says so if there were any."""
    _, first = np.unique(points.numpy(), axis=0, return_index=True)
    first.sort()
    if len(first) < len(points):
        logger.info("%s: dropped %d duplicate points", model.folder, len(points) - len(first))
    return points[first].contiguous(), torch.from_numpy(model.colors[first])


def _held_out(root: Path, model: ColmapModel, holdout: int) -> set[str]:
    """Names of the test views."""
    names = [image.name for image in model.images]
    for folder in (model.folder, root / "sparse" / "0"):
        listing = folder / "test.txt"
        if not listing.is_file():
            continue
        lines = map(file_name, read_lines(listing))
        wanted = {line for line in lines if line}
        known = wanted & set(names)
        if not known:
            raise InputError(
                f"{listing}: expected names of registered photos such as {names[0]}, "
                f"found {len(wanted)} names, none of them registered"
            )
        if known != wanted:
            logger.warning(
                "%s: %d of %d names are no registered photos, for example %s",
                listing,
                len(wanted - known),
                len(wanted),
                min(wanted - known),
            )
        return known
    return set(names[::holdout])
