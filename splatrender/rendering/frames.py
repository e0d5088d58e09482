"""Images of a sequence of cameras as numbered files: renders, photos, and depth."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splatrender.io.atomic import atomic_write
from splatrender.io.images import depth_image, depth_range, to_uint8, write_image
from splatrender.io.json_files import write_json
from splatrender.operators.render import Rendering

KINDS = ("renders", "gt", "depth")


class FrameFolder:
    """Writer of `{renders,gt,depth}/00000.png`, depth also as `.npy` with a `depth.json`.

    Depth is camera z of the blended splats (`Rendering.depth`), in lengths of the world: of
    cameras.json and of COLMAP's model.

    Args:
        path: folder to write to.
        unit: inside length of one length of the world: the similarity's scale.
        steady: colour all depths by the range of the first, as for a video; otherwise each by
            its own.
    """

    def __init__(self, path: Path, unit: float, steady: bool) -> None:
        self.path = path
        self._unit = unit
        self._steady = steady
        self._limits: tuple[float, float] | None = None
        self._depths: dict[str, dict[str, float | None]] = {}
        self._count = 0
        self.empty = 0  # frames that no splat is in
        self.files: list[Path] = []  # that were written

    def add(self, rendering: Rendering, photo: Tensor | None = None) -> Tensor:
        """Write the next frame.

        Args:
            rendering: rendering of one camera.
            photo: uint8 [H, W, 3] to write beside it, if there is one.

        Returns:
            The image as uint8 [H, W, 3].
        """
        name = f"{self._count:05d}"
        kinds = ("renders",) if photo is None else ("renders", "gt")
        self.files += [self.path / kind / f"{name}.png" for kind in kinds]
        image = to_uint8(rendering.radiance[0])
        write_image(self.path / "renders" / f"{name}.png", image)
        if photo is not None:
            write_image(self.path / "gt" / f"{name}.png", photo)
        if rendering.depth is not None:
            self._add_depth(name, rendering.depth[0] / self._unit, rendering.alpha[0])
        self._count += 1
        self.empty += not bool(rendering.visible.any())
        return image

    def _add_depth(self, name: str, depth: Tensor, alpha: Tensor) -> None:
        names = (f"{name}.png", f"{name}.npy", "depth.json")
        self.files += [self.path / "depth" / file for file in names]
        limits = self._limits if self._steady and self._limits else depth_range(depth, alpha)
        self._limits = limits
        write_image(self.path / "depth" / f"{name}.png", depth_image(depth, alpha, limits))
        values = torch.where(depth.isfinite() & (depth > 0), depth, 0.0).float().cpu().numpy()
        with atomic_write(self.path / "depth" / f"{name}.npy") as temporary:
            np.save(temporary, values, allow_pickle=False)
        seen = values[values > 0]
        self._depths[f"{name}.npy"] = {
            "min": float(seen.min()) if len(seen) else None,
            "max": float(seen.max()) if len(seen) else None,
            "near": limits[0],
            "far": limits[1],
        }

    def close(self) -> None:
        """Write depth.json, and remove numbered files of an earlier, longer run."""
        if self._depths:
            write_json(
                self.path / "depth" / "depth.json",
                {
                    "values": "NNNNN.npy: float32 [H, W], depth along the camera's axis (z); "
                    "0 where nothing is",
                    "unit": "length of the world: of cameras.json and the COLMAP model",
                    "colors": "NNNNN.png: evenly in 1/depth from near (red) to far (blue); "
                    "black where nothing is",
                    "frames": self._depths,
                },
            )
        for kind in KINDS:
            for file in (self.path / kind).glob("*"):
                numbered = re.fullmatch(r"(\d{5})\.(png|npy)", file.name)
                if numbered and int(numbered[1]) >= self._count:
                    file.unlink()
