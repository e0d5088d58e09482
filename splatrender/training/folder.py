"""The output folder of a run: its layout, and the order in which files are written.

checkpoint.pt            the state to resume from
config.json              the options
cameras.json             cameras of the photos, in world coordinates
scene.json               the similarity from world coordinates to those of training
point_cloud/iteration_N/point_cloud.ply
test/ours_N/{renders,gt}/00000.png     (train/ where no views are held out)
results.json  per_view.json  overview.png
flow.jsonl               reports of the strategy, a line for each
manifest.json            the files that runs wrote: only these are ever replaced or removed
run.lock                 process that is at work, as long as it is
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from splatrender.errors import InputError, WriteError
from splatrender.flow import StepReport
from splatrender.io.atomic import write_text
from splatrender.io.checkpoint import load_checkpoint
from splatrender.io.json_files import json_text, read_json, write_json
from splatrender.io.lock import NAME as LOCK
from splatrender.io.lock import locked_folder
from splatrender.io.manifest import NAME as MANIFEST
from splatrender.io.manifest import Manifest
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.ply import write_ply
from splatrender.scenes.cameras import write_cameras_json
from splatrender.scenes.similarity import Similarity
from splatrender.training.evaluate import Evaluation

logger = logging.getLogger(__name__)

FILES = (
    "checkpoint.pt",
    "config.json",
    "cameras.json",
    "scene.json",
    "results.json",
    "per_view.json",
    "overview.png",
    "flow.jsonl",
)
FOLDERS = ("point_cloud", "test", "train")
# Files of runs from before there were manifests, exactly.
RECOGNISED = re.compile(
    r"point_cloud/iteration_\d+/point_cloud\.ply"
    r"|(test|train)/ours_\d+/(renders|gt|depth)/\d{5}\.png"
)
RESULT = re.compile(r"results\.json|checkpoint\.pt|point_cloud/iteration_\d+/point_cloud\.ply")
OPTIONS = {"source", "model", "iterations", "max_splats", "strategy"}  # keys of every config.json


class OutputFolder:
    """Folder that a run writes to.

    Args:
        path: path of the folder, created by the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = False  # True once the files in the folder are of this run

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint to resume from."""
        return self.path / "checkpoint.pt"

    @property
    def results(self) -> Path:
        """File of the figures, written last: a run with results is finished."""
        return self.path / "results.json"

    @property
    def flow(self) -> Path:
        """File of the reports of the strategy, a line for each."""
        return self.path / "flow.jsonl"

    @property
    def overview(self) -> Path:
        """Image of photo, rendering and error of a few views."""
        return self.path / "overview.png"

    def ply(self, iteration: int) -> Path:
        """Return the file of the splats after `iteration`."""
        return self.path / _ply(iteration)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the folder until the block ends.

        Raises:
            InputError: another run is at work there, or no folder can be made there.
        """
        with locked_folder(self.path):
            yield

    def claim(self, overwrite: bool, source: Path, iterations: Iterable[int]) -> None:
        """Refuse to overwrite files that are not from an earlier run; remove nothing.

        Args:
            overwrite: allow the results of an earlier run to be replaced.
            source: folder of the scene.
            iterations: iterations whose splats and images will be written.

        Raises:
            InputError: the folder is that of the scene, is not empty and of no earlier run, holds
                results without `overwrite`, or a file that no run wrote is in the way.
        """
        if self.path.resolve() == source.resolve():
            raise InputError(
                f"{self.path}: expected a folder to write to, got that of the scene; choose "
                "another one"
            )
        if not overwrite:
            self._check_free()
        planned = [*FILES, MANIFEST, *(_ply(iteration) for iteration in iterations)]
        for name in planned:
            if self._is_in_the_way(name):
                raise InputError(
                    f"{self.path / name}: expected nothing, or a file of an earlier run, got "
                    "one that no run wrote; choose another folder"
                )
        for name in FOLDERS:
            if (self.path / name).exists() and not (self.path / name).is_dir():
                raise InputError(f"{self.path / name}: expected a folder to write to, got a file")

    def _check_free(self) -> None:
        """Refuse a folder that is not empty, except for a run that ended before its first step."""
        ours = self.manifest.files
        kept = sorted(file for file in ours if RESULT.fullmatch(file))
        kept = [file for file in kept if (self.path / file).exists()]
        if kept:
            raise InputError(
                f"{self.path}: expected a new or empty folder, or a run with checkpoint.pt to "
                f"resume; got {kept[0]} of a run without it; choose another folder, or replace "
                "its results with --overwrite (overwrite=True)"
            )
        others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        others = [name for name in others if name != LOCK]
        if others and not ours:
            raise InputError(
                f"{self.path}: expected a new or empty folder, or one of an earlier run; got "
                f"{others[0]!r} in it; choose another folder"
            )

    def _is_in_the_way(self, name: str) -> bool:
        path = self.path / name
        return (path.exists() or path.is_symlink()) and name not in self.manifest.files

    @cached_property
    def manifest(self) -> Manifest:
        """Files in the folder that runs wrote."""
        return Manifest.read(self.path) or Manifest(self.path, _recognised(self.path))

    def begin(
        self, config: dict[str, Any], cameras: Sequence[Camera], similarity: Similarity
    ) -> None:
        """Remove the files of an earlier run, and write the first files of this one.

        Args:
            config: options of the run.
            cameras: cameras in world coordinates.
            similarity: place of the training frame in the world.
        """
        self.manifest.remove_files(last=self.checkpoint.name)
        self.begun = True
        self.manifest.add(FILES)
        self.write_config(config)
        self.write_cameras(cameras)
        self.write_similarity(similarity)

    def resume(self, iteration: int) -> None:
        """Prepare for the iterations after `iteration`."""
        self.begun = True
        self.manifest.add(FILES)
        self.cut_reports(iteration)

    def clean(self) -> None:
        """Remove the temporary files of a run that was killed."""
        Manifest(self.path, [*FILES, MANIFEST, *self.manifest.files]).remove_temporaries()

    def finished_results(self, iterations: int) -> dict[str, Any] | None:
        """Return the figures of a run of that length that has ended here, if there is one."""
        if not self.results.exists():
            return None
        results = read_json(self.results)
        if isinstance(results, dict) and results.get("iterations") == iterations:
            return results
        return None

    def write_config(self, options: dict[str, Any]) -> None:
        """Write config.json."""
        write_json(self.path / "config.json", options)

    def write_cameras(self, cameras: Sequence[Camera]) -> None:
        """Write cameras.json, with cameras in world coordinates."""
        write_cameras_json(self.path / "cameras.json", cameras)

    def write_similarity(self, similarity: Similarity) -> None:
        """Write scene.json: the place of the training frame in the world."""
        similarity.save(self.path / "scene.json")

    def similarity(self) -> Similarity | None:
        """Return the similarity of the run that began here, if there is one."""
        path = self.path / "scene.json"
        return Similarity.load(path) if path.exists() else None

    def write_splats(self, splats: Splats, iteration: int, offset: Tensor | None = None) -> None:
        """Write splats, in world coordinates, as a .ply file relative to an offset, if any."""
        self.manifest.add([_ply(iteration)])
        write_ply(self.ply(iteration), splats, offset)

    def add_report(self, report: StepReport) -> None:
        """Append the report of a strategy as a line of flow.jsonl."""
        try:
            with self.flow.open("a", encoding="utf-8") as file:
                file.write(json_text(report.as_json()) + "\n")
        except OSError as error:
            raise WriteError(self.flow, error.strerror or str(error)) from error

    def cut_reports(self, iteration: int) -> None:
        """Drop the lines of flow.jsonl after `iteration`: they will be written again.

        An incomplete line, after a full disk or a power failure, is dropped, too.
        """
        if not self.flow.exists():
            return
        kept, broken = [], 0
        for line in self.flow.read_bytes().decode("utf-8", "replace").split("\n"):
            try:
                if json.loads(line)["iteration"] <= iteration:
                    kept.append(line)
            except (ValueError, TypeError, KeyError):
                broken += bool(line)
        if broken:
            logger.warning("%s: dropped %d line(s) that were incomplete", self.flow, broken)
        write_text(self.flow, "".join(line + "\n" for line in kept))

    def write_results(self, results: dict[str, Any], evaluation: Evaluation) -> None:
        """Write per_view.json, then results.json."""
        views = {
            f"{index:05d}.png": {"view": score.name, "psnr": score.psnr, "ssim": score.ssim}
            for index, score in enumerate(evaluation.scores)
        }
        write_json(self.path / "per_view.json", {f"ours_{evaluation.iteration}": views})
        write_json(self.results, results)


def _ply(iteration: int) -> str:
    return f"point_cloud/iteration_{iteration}/point_cloud.ply"


def _recognised(folder: Path) -> list[str]:
    """Return the files of a run from before there were manifests; none in case of doubt.

    Its config.json or its checkpoint must show that a run wrote it.
    """
    if not _is_config(folder / "config.json") and not _is_checkpoint(folder / "checkpoint.pt"):
        return []
    names = [name for name in (*FILES, "flow.png") if (folder / name).is_file()]
    for path in (path for name in FOLDERS for path in (folder / name).glob("**/*")):
        name = path.relative_to(folder).as_posix()
        if RECOGNISED.fullmatch(name) and path.is_file():
            names.append(name)
    return names


def _is_config(path: Path) -> bool:
    try:
        config = read_json(path)
    except InputError:
        return False
    return isinstance(config, dict) and config.keys() >= OPTIONS


def _is_checkpoint(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except InputError:
        return False
    return True
