"""The place of the sparse model in a scene, as COLMAP and other programs write it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splatrender.errors import InputError
from splatrender.scenes.colmap import FILES, RANDOM, listing, model_suffix
from splatrender.scenes.colmap_files import count_images

logger = logging.getLogger(__name__)

_USUAL = ("sparse/*", "sparse")
_OTHER = ("colmap/sparse/*", "colmap/sparse", "colmap", ".")  # nerfstudio; a flat export
_MANY = 1000  # folders to look through for a hint


def find_model(root: Path) -> Path:
    """Find the sparse model of a scene: of `sparse/*` and `sparse`, the one with most photos.

    Where there is none, `colmap/sparse/*`, `colmap/sparse`, `colmap` and the scene's own folder
    are looked through, with a warning.

    Raises:
        InputError: there is none; the message names the nearest thing that exists.
    """
    models = _models(root, _USUAL)
    if models:
        return _largest(root, models)
    _refuse_own_model(root)
    models = _models(root, _OTHER)
    if not models:
        raise InputError(
            f"{root}: expected a COLMAP model {{{','.join(FILES)}}}.bin or .txt in sparse/0 or "
            f"sparse, got {_nearest(root)}"
        )
    model = _largest(root, models)
    logger.warning("%s: no COLMAP model is in sparse/0 or sparse, %s is taken", root, model)
    return model


def _largest(root: Path, models: list[Path]) -> Path:
    """Return the model with most photos, the first of equals; a warning names the others."""
    if len(models) == 1:
        return models[0]
    counts = [count_images(folder / f"images{model_suffix(folder)}") for folder in models]
    best = int(np.argmax(counts))
    found = ", ".join(
        f"{folder.relative_to(root).as_posix()} ({count} photos)"
        for folder, count in zip(models, counts, strict=True)
    )
    chosen = models[best].relative_to(root).as_posix()
    logger.warning("%s: several sparse models: %s; using %s", root, found, chosen)
    return models[best]


def _refuse_own_model(root: Path) -> None:
    """Raise InputError if `root` is the model of a scene, `SCENE/sparse/0`, and not the scene."""
    here = root.resolve()
    for parent in here.parents[:2]:
        if here in _models(parent, _USUAL):
            raise InputError(
                f"{root}: expected the folder of a scene, got its sparse model; its parent "
                f"{parent} is the scene: give that folder"
            )


def _models(root: Path, places: tuple[str, ...]) -> list[Path]:
    """Return the folders below `root` that hold a model, in the order of the places."""
    found = []
    for place in places:
        folders = sorted(root.glob(place)) if "*" in place else [root / place]
        found += [folder for folder in folders if model_suffix(folder)]
    return found


def _nearest(root: Path) -> str:
    """Describe the content of a folder without a model, and the remedy."""
    for parent in root.resolve().parents[:2]:
        if _models(parent, _USUAL):
            return f"{listing(root)}; its parent {parent} is the scene: give that folder"
    scenes = sorted({scene for scene in _scenes_below(root)})
    if scenes:
        shown = ", ".join(map(str, scenes[:4])) + (", ..." if len(scenes) > 4 else "")
        which = "is a scene: give that folder" if len(scenes) == 1 else "are scenes: give one"
        return f"{listing(root)}; {shown} {which}"
    transforms = sorted(root.glob("transforms*.json"))
    if transforms:
        return (
            f"{transforms[0].name}, the cameras of a NeRF scene, which are not read: run COLMAP on "
            "the photos, or write these cameras as COLMAP's cameras.txt and images.txt; without "
            f"points3D.txt, {RANDOM}"
        )
    for folder in (*sorted(root.glob("sparse/*")), root / "sparse"):
        if folder.is_dir() and any(folder.glob("*")):
            return f"only {listing(folder)} in {folder}"
    return listing(root)


def _scenes_below(root: Path) -> Iterator[Path]:
    """Yield folders one or two levels down that are scenes."""
    seen = 0
    for pattern in ("*/", "*/*/"):
        for folder in root.glob(pattern):
            seen += 1
            if seen > _MANY:
                return
            if folder.is_dir() and _models(folder, _USUAL):
                yield folder
