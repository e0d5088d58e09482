"""Device, input size and results folder of the programs in this folder.

Environment:
    GPU_DEVICE  cuda (default); cpu tests a program without a GPU, with the CPU's kernels
    GPU_TOY     1 makes every input small, as the tests do
    OUT         results folder (default: output/gpu)
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "scenes" / "still_life"


@dataclass(frozen=True)
class Target:
    """Settings that the programs of this folder share.

    Attributes:
        device: "cuda", or "cpu" to test a program without a GPU.
        toy: True makes every input small.
        out: Results folder.
    """

    device: str
    toy: bool
    out: Path

    @classmethod
    def from_environment(cls) -> Target:
        """Read GPU_DEVICE, GPU_TOY and OUT."""
        return cls(
            os.environ.get("GPU_DEVICE", "cuda"),
            os.environ.get("GPU_TOY", "") == "1",
            Path(os.environ.get("OUT") or ROOT / "output" / "gpu"),
        )

    def record(self, stage: str, **figures: Any) -> None:
        """Append the figures of a stage to figures.jsonl, one JSON object per line, and flush.

        Args:
            stage: Key by which the report finds the figures.
            figures: JSON values.

        Example:
            >>> Target("cpu", True, Path("out")).record("million", ms=3.1, peak_mib=900)
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "figures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, **figures}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def wait(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()
