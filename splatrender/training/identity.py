"""The scene that a run was trained on, to distinguish it from others: names and places of photos.

The place of the scene's folder does not matter: it may have moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatrender.scenes.colmap import read_model
from splatrender.scenes.layout import find_model
from splatrender.scenes.scene import Scene

TOLERANCE = 1e-4  # for rotations, and for places relative to the size of the scene


def identity_of_scene(scene: Scene, source: Path) -> dict[str, Any]:
    """Return the identity of a loaded scene, for a checkpoint.

    Args:
        scene: the scene.
        source: its folder.

    Returns:
        "path"; "names" of all photos, sorted; "viewmats" [C, 4, 4] float64, world-to-camera.
    """
    views = sorted([*scene.train, *scene.test], key=lambda view: view.name)
    cameras = [scene.similarity.invert(view.camera) for view in views]
    viewmats = torch.stack([camera.viewmat.detach().cpu().double() for camera in cameras])
    return _identity(source, [view.name for view in views], viewmats)


def identity_of_folder(source: Path) -> dict[str, Any]:
    """Return the identity of the scene in a folder, without its photos.

    Raises:
        InputError: there is no scene, or a broken one.
    """
    images = sorted(read_model(find_model(source), False).images, key=lambda image: image.name)
    viewmats = torch.from_numpy(np.stack([image.viewmat for image in images]))
    return _identity(source, [image.name for image in images], viewmats)


def difference(memory: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the difference of a scene from that of a run, in words.

    Args:
        memory: the run's checkpoint.
        now: identity of the scene that was given.

    Returns:
        Both scenes and their difference as the end of a sentence, or None if they are the same.
    """
    earlier = memory.get("scene")
    if earlier is None:  # written before identities were kept: names of training views alone
        trained = {view.rsplit(" ", 1)[0] for view in memory["views"]}
        if trained <= set(now["names"]):
            return None
        earlier = {"path": memory["options"].get("source", "another"), "names": sorted(trained)}
    elif earlier["names"] == now["names"]:
        if _same_places(earlier["viewmats"], now["viewmats"]):
            return None
        return (
            f"expected the cameras of {earlier['path']}, got the same photos from other places "
            f"in {now['path']}"
        )
    return (
        f"expected {earlier['path']} with {_some(earlier['names'], now['names'])}, "
        f"got {now['path']} with {_some(now['names'], earlier['names'])}"
    )


def _identity(source: Path, names: Sequence[str], viewmats: Tensor) -> dict[str, Any]:
    return {"path": str(source.resolve()), "names": list(names), "viewmats": viewmats}


def _same_places(one: Tensor, two: Tensor) -> bool:
    """Return whether cameras have the same places and directions."""
    centers = [-(m[:, :3, :3].mT @ m[:, :3, 3:])[:, :, 0] for m in (one, two)]
    size = max(float((centers[0] - centers[0].mean(dim=0)).abs().max()), 1e-300)
    moved = float((centers[0] - centers[1]).abs().max())
    turned = float((one[:, :3, :3] - two[:, :3, :3]).abs().max())
    return turned <= TOLERANCE and (moved <= TOLERANCE * size or len(one) == 1)


def _some(names: Sequence[str], others: Sequence[str]) -> str:
    """Return the number of photos, and one that the other scene lacks if there is any."""
    lacking = sorted(set(names) - set(others))
    return f"{len(names)} photos such as {(lacking or list(names))[0]}"
