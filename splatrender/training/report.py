"""Results of a run: figures, renderings beside their photos, and an overview."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatrender.io.images import comparison, stack, write_image
from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.training.folder import OutputFolder

OVERVIEW_ROWS = 4
OVERVIEW_WIDTH = 640  # px of one image in the overview


@dataclass(frozen=True)
class TrainResult:
    """Result of a run.

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
        """True if the run had ended before."""
        return self.splats is None

    @property
    def summary(self) -> str:
        """Result in one line."""
        return f"{self.model}: {figures(self.results)}, {self.results['splats']:,} splats."


def figures(results: dict[str, Any]) -> str:
    """Return PSNR and SSIM in words.

    Args:
        results: figures with "psnr", "ssim" and "split", as in results.json or its history.
    """
    psnr = results["psnr"]
    known = psnr is not None and math.isfinite(psnr)
    decibel = f"PSNR {psnr:.2f} dB" if known else "infinite PSNR"
    return f"{decibel}, SSIM {results['ssim']:.4f} on {results['split']} views"


class Overview:
    """Photo, rendering and error of a few views below each other.

    Args:
        count: number of views to choose from.

    Attributes:
        chosen: indices of the views that are shown, evenly spread.
    """

    def __init__(self, count: int) -> None:
        rows = min(OVERVIEW_ROWS, count)
        self.chosen = [(2 * row + 1) * count // (2 * rows) for row in range(rows)]
        self._rows: list[Tensor] = []

    def add(self, view: View, image: Tensor) -> None:
        """Add a view.

        Args:
            view: the photo.
            image: uint8 [H, W, 3] rendering.
        """
        step = max(1, -(-image.shape[1] // OVERVIEW_WIDTH))
        photo, image = (p[::step, ::step] for p in (view.photo, image))
        self._rows.append(comparison(photo, image, f"rendering of {view.name}"))

    def write(self, path: Path) -> None:
        """Write the image, if it has a view.

        Args:
            path: .png to write.
        """
        if self._rows:
            write_image(path, stack(self._rows))


class RenderingWriter:
    """Writer of renderings beside their photos, and of some of them in an overview.

    Args:
        folder: output folder.
        split: "test" or "train".
        iteration: iteration of the run.
        count: number of views to come.
    """

    def __init__(self, folder: OutputFolder, split: str, iteration: int, count: int) -> None:
        self._folder = folder.path / split / f"ours_{iteration}"
        names = [f"{kind}/{i:05d}.png" for i in range(count) for kind in ("renders", "gt")]
        folder.manifest.add(f"{split}/ours_{iteration}/{name}" for name in names)
        self._overview, self._path = Overview(count), folder.overview

    def add(self, index: int, view: View, image: Tensor) -> None:
        """Write one view.

        Args:
            index: index of the view.
            view: the photo.
            image: uint8 [H, W, 3] rendering.
        """
        name = f"{index:05d}.png"
        write_image(self._folder / "renders" / name, image)
        write_image(self._folder / "gt" / name, view.photo)
        if index in self._overview.chosen:
            self._overview.add(view, image)

    def write_overview(self) -> None:
        """Write overview.png: photo, rendering and error of a few views."""
        self._overview.write(self._path)


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process [MiB]; 0 where the system has no figure."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_device_memory_mb(device: torch.device) -> float:
    """Return the peak memory of tensors on a GPU [MiB]; 0 for a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
