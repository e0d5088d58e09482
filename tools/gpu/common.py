"""Shared by the programs of this folder: device, size, import paths, and the file of figures.

Environment:
    GPU_DEVICE  cuda (default); cpu rehearses a program without a GPU, with the CPU's kernels
    GPU_TOY     1 makes every input small, as the tests do
    OUT         folder of the results (default: output/gpu)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEVICE = os.environ.get("GPU_DEVICE", "cuda")
TOY = os.environ.get("GPU_TOY", "") == "1"
OUT = Path(os.environ.get("OUT") or ROOT / "output" / "gpu")
SCENE = ROOT / "scenes" / "still_life"

if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))  # for its helpers and tolerances


def record(stage: str, **figures: Any) -> None:
    """Append the figures of a stage to OUT/figures.jsonl, one JSON object a line, at once.

    Args:
        stage: name that the report looks for.
        figures: JSON values.

    Example:
        >>> record("million", ms=3.1, peak_mib=900)
    """
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": stage, **figures}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def wait() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        import torch

        torch.cuda.synchronize()
