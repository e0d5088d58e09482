"""A scene for training: cameras with photos and seed points, scaled to unit size."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splatrender.arguments import require_path
from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.ply import read_ply, write_ply
from splatrender.model.splats import Splats
from splatrender.model.view import View
from splatrender.scenes.colmap import ColmapModel, read_model
from splatrender.scenes.extent import camera_extent
from splatrender.scenes.layout import find_model
from splatrender.scenes.photo_files import find_masks, find_photos, same_photos
from splatrender.scenes.photos import Job, read_all
from splatrender.scenes.similarity import Similarity
from splatrender.scenes.text import file_name, read_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that training needs from a scene folder; all lengths are inside lengths.

    Cameras and points are in the inside frame, .ply files and cameras.json in the world of the
    scene's files; `load_splats` and `save_splats` move splats from one to the other. The origin of
    the inside frame is the mean of the camera centres, and 1.1 times the longest distance of a
    camera to it is 1. Cameras more than five times as far out as nine tenths of them are left out
    of both, with a warning.

    Args:
        path: the folder.
        train: views to learn from.
        test: views held out.
        points: float32 [P, 3] seed points.
        colors: uint8 [P, 3] their colours.
        similarity: map from the world of the files to the inside frame.
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

    def load_splats(self, path: str | os.PathLike[str]) -> Splats:
        """Read splats from a .ply file, in the frame of this scene's cameras.

        x_inside = scale (x_file - center), in float64, of the scene's `similarity`.

        Args:
            path: 3DGS .ply file in the world of the scene's files, as training writes it.

        Returns:
            Splats in float32, to be rendered with the cameras of `train` and `test`.

        Raises:
            InputError: see `Splats.load`.

        Example:
            >>> splats = scene.load_splats("out/point_cloud/iteration_7000/point_cloud.ply")
            ... # doctest: +SKIP
            >>> render(splats, scene.test[0].camera).radiance  # doctest: +SKIP
        """
        return self.similarity.apply(read_ply(path)).to(torch.float32)

    def save_splats(self, splats: Splats, path: str | os.PathLike[str]) -> None:
        """Write splats as a .ply file in the world of the scene's files.

        Args:
            splats: in the frame of this scene's cameras.
            path: file to write, atomically.

        Raises:
            InputError: the file cannot be made.

        Example:
            >>> scene.save_splats(splats, "mine.ply")  # doctest: +SKIP
        """
        world = self.similarity.invert(splats.detach())
        write_ply(path, world, self.similarity.offset)


def load_scene(
    path: str | Path,
    *,
    resolution: int = -1,
    images: str = "images",
    masks: str | None = None,
    holdout: int = 8,
    eval: bool = True,
    need_points: bool = True,
    normalize: bool | Similarity = True,
) -> Scene:
    """Read a COLMAP scene: photos, cameras and points, undistorted, resized and normalised.

    Looks for `images/` and `sparse/0/{cameras,images,points3D}.{bin,txt}`, also in `sparse/`, and
    of several models takes the one with most photos; where other programs put them, they are found
    with a warning if there is no doubt. All camera models of COLMAP but EQUIRECTANGULAR are read;
    photos are undistorted to a pinhole of the same focal length without blank borders. EXIF
    orientation is ignored unless a photo fits its camera only when turned; so is transparency.

    Args:
        path: the scene's folder.
        resolution: 1, 2, 4 or 8 divides the photos' size, or takes it from `images_2` etc.; a
            larger number is the width [px]; -1 makes the longest side at most 800 px, which is
            sane on a CPU. Photos are never enlarged.
        images: folder of the photos, relative to `path` or absolute.
        masks: folder of masks (usually "masks"): for `images/x.jpg` it holds `x.jpg.png` or
            `x.png`, lighter than 127 = keep. Photos without one are kept whole. None: no masks.
        holdout: of the photos sorted by name, those with index % holdout == 0 are for testing;
            a file `test.txt` beside the model, one name per line, replaces this rule.
        eval: hold test photos out; False puts all photos in `train`.
        need_points: refuse a scene without seed points; training from random points needs none.
        normalize: True moves to the frame inside, see `Scene`; False keeps the coordinates of the
            files, which splats of `Splats.load` fit (though `train` and the near plane of
            `RenderOptions` are made for unit size); a Similarity, as of an earlier run, is applied.

    Returns:
        The scene; views are sorted by name.

    Raises:
        InputError: something is missing or broken; the message names the file.

    Example:
        >>> scene = load_scene("scenes/still_life", resolution=2)  # doctest: +SKIP
    """
    root = require_path("path", path)
    _check(root, resolution, holdout if eval else None)
    model = read_model(find_model(root), need_points)
    jobs = _jobs(root, model, images, masks, resolution)
    centers, world_points = _centers(model), torch.from_numpy(model.points)
    similarity = _chosen(normalize, centers, world_points)
    _warn_of_astray(root, model, centers)
    views = _views(model, jobs, similarity)
    points, colors = _distinct(similarity.apply(world_points).float(), model)
    train, test = _divided(root, views, _held_out(root, model, holdout) if eval else set())
    return Scene(root, train, test, points, colors, similarity)


def _check(root: Path, resolution: int, holdout: int | None) -> None:
    """Refuse a path that is no folder, and numbers out of range."""
    if not root.is_dir():
        raise InputError(f"{root}: expected the folder of a scene, got {_what(root)}")
    if resolution != -1 and resolution not in (1, 2, 4, 8) and resolution <= 8:
        raise InputError(
            f"resolution: expected -1, 1, 2, 4, 8 or a width in px above 8, got {resolution}"
        )
    if holdout is not None and holdout < 2:
        raise InputError(f"holdout: expected a whole number of at least 2, got {holdout}")


def _jobs(
    root: Path, model: ColmapModel, images: str, masks: str | None, resolution: int
) -> list[Job]:
    """Return the photos to read, with their masks and lenses."""
    names = [image.name for image in model.images]
    files = find_photos(root, images, names, resolution)
    masks_of = find_masks(root / masks, names) if masks is not None else [None] * len(names)
    if masks is None and (root / "masks").is_dir():
        logger.info("%s is not used; pass masks='masks' to use it", root / "masks")
    shrink = 1 if files.reduced else resolution
    return [
        Job(photo, mask, model.cameras[image.camera_id], shrink)
        for photo, mask, image in zip(files.paths, masks_of, model.images, strict=True)
    ]


def _views(model: ColmapModel, jobs: list[Job], similarity: Similarity) -> list[View]:
    """Read the photos; return them with their cameras in the frame inside."""
    views = []
    for image, read in zip(model.images, read_all(jobs), strict=True):
        lens, viewmat = read.lens, torch.from_numpy(image.viewmat)
        focal_and_center = (lens.fx, lens.fy, lens.cx, lens.cy)
        camera = Camera(viewmat, *focal_and_center, lens.width, lens.height, image.name)
        views.append(View(similarity.apply(camera), read.photo, read.mask, image.name))
    return views


def _divided(root: Path, views: list[View], held_out: set[str]) -> tuple[list[View], list[View]]:
    """Return the views to train on, of which there must be one, and those to test."""
    train = [view for view in views if view.name not in held_out]
    if not train:
        raise InputError(
            f"{root}: all {len(views)} photos are held out for testing and none is left to train "
            "on; train on all of them with --no-eval (eval=False in Python)"
        )
    return train, [view for view in views if view.name in held_out]


def _warn_of_astray(root: Path, model: ColmapModel, centers: torch.Tensor) -> None:
    """Report the cameras that are too far out to belong to the capture."""
    extent = camera_extent(centers)
    if extent.astray:
        worst = max(zip(extent.times, extent.astray, strict=True))
        logger.warning(
            "%s: %d of %d cameras are far out, probably registered wrong, for example that of "
            "%s: %.0f times as far from the middle as all others; the unit of length ignores them",
            root,
            len(extent.astray),
            len(model.images),
            model.images[worst[1]].name,
            worst[0],
        )


def _centers(model: ColmapModel) -> torch.Tensor:
    """Return the centres of the cameras [C, 3] in the world of the files."""
    viewmats = torch.from_numpy(np.stack([image.viewmat for image in model.images]))
    return -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:])[:, :, 0]


def _chosen(
    normalize: bool | Similarity, centers: torch.Tensor, points: torch.Tensor
) -> Similarity:
    """Return the similarity of the frame inside."""
    if isinstance(normalize, Similarity):
        return normalize
    natural = Similarity.of_cameras(centers, points)
    if normalize:
        return natural
    if natural.offset is not None:
        logger.warning(
            "normalize=False: cameras near %s are too far from the origin for float32, which "
            "moves points and splats; normalize=True keeps them in place",
            [round(x) for x in natural.center.tolist()],
        )
    return Similarity.identity()


def _what(path: Path) -> str:
    """Describe the content of a path that is no folder, for messages."""
    if path.exists():
        return "a file; give the folder that holds images and sparse"
    if not path.parent.is_dir():
        return f"nothing, nor a folder {path.parent}"
    folders = {p.name.casefold(): p for p in path.parent.iterdir() if p.is_dir()}
    alike = difflib.get_close_matches(path.name.casefold(), folders, n=1)
    return f"nothing; {folders[alike[0]]} is there" if alike else "nothing"


def _distinct(points: torch.Tensor, model: ColmapModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points and colours without repetitions, in their order; log their number."""
    _, first = np.unique(points.numpy(), axis=0, return_index=True)
    first.sort()
    if len(first) < len(points):
        logger.info("%s: dropped %d duplicate points", model.folder, len(points) - len(first))
    return points[first].contiguous(), torch.from_numpy(model.colors[first])


def _held_out(root: Path, model: ColmapModel, holdout: int) -> set[str]:
    """Return the names of the test views."""
    names = [image.name for image in model.images]
    for folder in (model.folder, root / "sparse" / "0"):
        listing = folder / "test.txt"
        if not listing.is_file():
            continue
        lines = map(file_name, read_lines(listing))
        wanted = {line for line in lines if line}
        found = same_photos(wanted, names)
        known = set(found.values())
        if not known:
            raise InputError(
                f"{listing}: expected names of registered photos such as {names[0]}, "
                f"got {len(wanted)} names, none of them registered"
            )
        unknown = wanted - found.keys()
        if unknown:
            logger.warning(
                "%s: %d of %d names are no registered photos, for example %s",
                listing,
                len(unknown),
                len(wanted),
                min(unknown),
            )
        return known
    return set(names[::holdout])
