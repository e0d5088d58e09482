"""The output folder of a run: its layout, and what is written when.

checkpoint.pt            the state to resume from
config.json              the options
cameras.json             where the photos were taken, in world coordinates
scene.json               the similarity from world coordinates to those of training
point_cloud/iteration_N/point_cloud.ply
test/ours_N/{renders,gt}/00000.png     (train/ where no views are held out)
results.json  per_view.json  overview.png
flow.jsonl               what the strategy did, a line for each of its reports
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatrender.camera import Camera
from splatrender.errors import InputError
from splatrender.flow import StepReport, TrainingView
from splatrender.io.cameras import write_cameras_json
from splatrender.io.images import comparison, stack, write_image
from splatrender.io.json_files import json_text, read_json, write_json
from splatrender.model import Splats
from splatrender.model.ply import write_ply
from splatrender.scenes.similarity import Similarity
from splatrender.training.evaluate import Evaluation

OVERVIEW_ROWS = 4
OVERVIEW_WIDTH = 640  # px of one picture in the overview
OURS = (
    "checkpoint.pt",
    "config.json",
    "cameras.json",
    "scene.json",
    "results.json",
    "per_view.json",
    "overview.png",
    "flow.jsonl",
    "flow.png",
    "point_cloud",
    "test",
    "train",
)


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Attributes:
        model: the output folder.
        results: content of results.json.
        splats: the trained splats in world coordinates, as in the .ply; None if the run had ended
            before. `scene.similarity.apply(splats)` fits the cameras of the scene.
    """

    model: Path
    results: dict[str, Any]
    splats: Splats | None = None

    @property
    def already_finished(self) -> bool:
        """Whether there was nothing left to do."""
        return self.splats is None


class OutputFolder:
    """The folder that a run writes to.

    Args:
        path: made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """The state to resume from."""
        return self.path / "checkpoint.pt"

    @property
    def results(self) -> Path:
        """The figures, written last: a run with results is finished."""
        return self.path / "results.json"

    @property
    def flow(self) -> Path:
        """What the strategy did, a line for each of its reports."""
        return self.path / "flow.jsonl"

    def ply(self, iteration: int) -> Path:
        """The splats after `iteration`."""
        return self.path / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply"

    def claim(self, overwrite: bool) -> None:
        """Make sure that nothing of anybody else is lost by writing here.

        Args:
            overwrite: remove what an earlier run left (and nothing else).

        Raises:
            InputError: there is a file of that name, or a folder with other things in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: expected a folder to write to, found a file")
        if overwrite:
            for name in OURS:
                target = self.path / name
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        elif not self.checkpoint.exists() and not (self.path / "config.json").exists():
            others = sorted(p.name for p in self.path.iterdir()) if self.path.exists() else []
            if others:
                raise InputError(
                    f"{self.path}: expected a new or empty folder, or one of an earlier run; "
                    f"found {others[0]!r} in it (overwrite to train there all the same)"
                )

    def finished_results(self, iterations: int) -> dict[str, Any] | None:
        """The figures of a run of that length that has ended here, if there is one."""
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
        """Write cameras.json, of cameras in world coordinates."""
        write_cameras_json(self.path / "cameras.json", cameras)

    def write_similarity(self, similarity: Similarity) -> None:
        """Write scene.json: how the frame of training is placed in the world."""
        similarity.save(self.path / "scene.json")

    def similarity(self) -> Similarity | None:
        """The similarity of the run that began here, if there is one."""
        path = self.path / "scene.json"
        return Similarity.load(path) if path.exists() else None

    def write_splats(self, splats: Splats, iteration: int, offset: Tensor | None = None) -> None:
        """Write splats, in world coordinates, as a .ply file relative to an offset, if any."""
        write_ply(self.ply(iteration), splats, offset)

    def add_report(self, report: StepReport) -> None:
        """Append what a strategy did as a line of flow.jsonl."""
        line = {k: v for k, v in asdict(report).items() if k != "details"} | report.details
        with self.flow.open("a", encoding="utf-8") as file:
            file.write(json_text(line) + "\n")

    def cut_reports(self, iteration: int) -> None:
        """Drop the lines of flow.jsonl that came after `iteration`: they are to come again."""
        if not self.flow.exists():
            return
        lines = self.flow.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["iteration"] <= iteration]
        self.flow.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write_results(self, results: dict[str, Any], evaluation: Evaluation) -> None:
        """Write per_view.json, then results.json."""
        views = {
            f"{index:05d}.png": {"view": score.name, "psnr": score.psnr, "ssim": score.ssim}
            for index, score in enumerate(evaluation.scores)
        }
        write_json(self.path / "per_view.json", {f"ours_{evaluation.iteration}": views})
        write_json(self.results, results)


class Pictures:
    """Writes renderings beside their photos, and some of them into an overview.

    Args:
        folder: where.
        split: "test" or "train".
        iteration: of the run.
        count: number of views to come.
    """

    def __init__(self, folder: OutputFolder, split: str, iteration: int, count: int) -> None:
        self._folder = folder.path / split / f"ours_{iteration}"
        self._overview = folder.path / "overview.png"
        rows = min(OVERVIEW_ROWS, count)
        self._chosen = {(2 * row + 1) * count // (2 * rows) for row in range(rows)}
        self._rows: list[Tensor] = []

    def add(self, index: int, view: TrainingView, image: Tensor) -> None:
        """Write one view.

        Args:
            index: of the view.
            view: the photo.
            image: uint8 [H, W, 3] rendering.
        """
        name = f"{index:05d}.png"
        write_image(self._folder / "renders" / name, image)
        write_image(self._folder / "gt" / name, view.photo)
        if index in self._chosen:
            step = max(1, -(-image.shape[1] // OVERVIEW_WIDTH))
            photo, image = (p[::step, ::step] for p in (view.photo, image))
            self._rows.append(comparison(photo, image, f"rendering of {view.name}"))

    def write_overview(self) -> None:
        """Write overview.png: photo, rendering and error of a few views."""
        write_image(self._overview, stack(self._rows))


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far [MiB]; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_device_memory_mb(device: torch.device) -> float:
    """Most memory of a GPU that tensors took at one time so far [MiB]; 0 for a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
