"""Trained splats: a .ply file, or the output folder of a run, finished or not."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splatrender.errors import InputError
from splatrender.io.checkpoint import load_checkpoint
from splatrender.io.json_files import read_json
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.ply import read_ply
from splatrender.scenes.cameras import load_cameras
from splatrender.scenes.similarity import Similarity


@dataclass(frozen=True)
class Trained:
    """Trained splats and the known facts of their training.

    Attributes:
        splats: in world coordinates.
        label: label of the iteration in names of folders: "7000", or the name of a .ply file.
        folder: default folder of images.
        cameras: cameras of the photos, in the world; empty if unknown.
        config: options of training; empty if unknown.
        similarity: map from the world to the frame of training; None if unknown.
    """

    splats: Splats
    label: str
    folder: Path
    cameras: list[Camera]
    config: dict[str, Any]
    similarity: Similarity | None = None


def open_model(model: str | os.PathLike[str], iteration: int | None = None) -> Trained:
    """Read splats from a model folder or a .ply file.

    Args:
        model: folder with `point_cloud/iteration_N/point_cloud.ply`, or, of a run that was
            interrupted before it wrote one, `checkpoint.pt` and `scene.json`; or a .ply file; a
            file that is in such a folder brings the folder's cameras with it.
        iteration: N of a folder; None for the latest.

    Returns:
        The splats and the known facts of their training.

    Raises:
        InputError: nothing is there, or not this iteration.
    """
    model = Path(model)
    if model.is_dir():
        file, label = _choose(model, iteration)
        folder = output = model
    else:
        if iteration is not None:
            raise InputError(f"iteration: expected a model folder to choose from, got {model}")
        file, label, output = model, model.name.split(".")[0], model.parent / f"{model.stem}_render"
        folder = model.resolve().parent
        place = re.fullmatch(r"iteration_(\d+)", folder.name)
        if place and folder.parent.name == "point_cloud":  # within a model folder after all
            folder = folder.parents[1]
            label, output = place[1], folder
    cameras, config, scene = (folder / f"{name}.json" for name in ("cameras", "config", "scene"))
    in_model = model.is_dir() or output == folder
    similarity = Similarity.load(scene) if in_model and scene.exists() else None
    if file is None:
        splats, label = _from_checkpoint(model, similarity, iteration)
    else:
        splats = read_ply(file)
    return Trained(
        splats=splats,
        label=label,
        folder=output,
        cameras=load_cameras(cameras) if in_model and cameras.exists() else [],
        config=_read_config(config) if in_model and config.exists() else {},
        similarity=similarity,
    )


def _choose(folder: Path, iteration: int | None) -> tuple[Path | None, str]:
    """Return the .ply file of an iteration, None for the checkpoint, and its label."""
    saved = {}
    for file in folder.glob("point_cloud/iteration_*/point_cloud.ply"):
        number = file.parent.name.removeprefix("iteration_")
        if number.isdecimal():
            saved[int(number)] = file
    if not saved and (folder / "checkpoint.pt").is_file():
        return None, ""
    if not saved:
        raise InputError(
            f"{folder}: expected point_cloud/iteration_N/point_cloud.ply or checkpoint.pt as "
            "training writes them, got none"
        )
    if iteration is None:
        iteration = max(saved)
    if iteration not in saved:
        known = ", ".join(str(n) for n in sorted(saved))
        raise InputError(f"{folder}: expected iteration {known}; got {iteration} asked for")
    return saved[iteration], str(iteration)


def _from_checkpoint(
    folder: Path, similarity: Similarity | None, iteration: int | None
) -> tuple[Splats, str]:
    """Read splats in the world, and their iteration, of a run without a .ply file."""
    if similarity is None:
        raise InputError(
            f"{folder}: expected scene.json beside checkpoint.pt, which has no .ply yet; got "
            "none; give the command of training again to resume"
        )
    path = folder / "checkpoint.pt"
    state = load_checkpoint(path)
    try:
        found, splats = int(state["iteration"]), Splats(**state["splats"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the state of a training run, got {error}") from error
    if iteration not in (None, found):
        raise InputError(f"{folder}: expected iteration {found}; got {iteration} asked for")
    print(
        f"{folder}: the run is not finished; rendering its checkpoint of iteration {found}",
        file=sys.stderr,
    )
    with torch.no_grad():
        return similarity.invert(splats.detach()), str(found)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(number, int | float) and 0 <= number <= 1 for number in value)
    )


# Options of training that rendering uses: the check of a value, and the expected kind.
_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (lambda value: isinstance(value, str), "a folder's name"),
    "resolution": (_is_integer, "a whole number"),
    "images": (lambda value: isinstance(value, str), "a folder's name"),
    "masks": (lambda value: value is None or isinstance(value, str), "a folder's name or null"),
    "holdout": (_is_integer, "a whole number"),
    "eval": (lambda value: isinstance(value, bool), "true or false"),
    "background": (
        lambda value: value is None or _is_color(value),
        "three numbers from 0 to 1, or null",
    ),
    "antialiased": (lambda value: isinstance(value, bool), "true or false"),
}


def _read_config(path: Path) -> dict[str, Any]:
    """Read the options of training, checked."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected an object of options, got {type(config).__name__}")
    for name, (fits, expected) in _OPTIONS.items():
        if name in config and not fits(config[name]):
            raise InputError(f"{path}: {name}: expected {expected}, got {config[name]!r:.80}")
    return config
