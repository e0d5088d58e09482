"""The run on a GPU is rehearsed without one: its programs run on the CPU, at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.backends import require_extension

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "tools" / "gpu"
PROGRAMS = ("profile_kernels", "sweep_parts", "million", "one_pass")
ALL_PROGRAMS = f"""
import importlib
for name in {PROGRAMS}:
    importlib.import_module(f"tools.gpu.{{name}}").main()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    require_extension()
    if not FOLDER.is_dir():
        pytest.skip(f"no folder {FOLDER}: the tools are not part of this installation")
    settings = {
        "GPU_DEVICE": "cpu",
        "GPU_TOY": "1",
        "OUT": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
    }
    return {**os.environ, **settings, "PY": sys.executable}


def figures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "figures.jsonl").read_text().splitlines()]


def test_stages_run_in_order_and_are_reported(environment: dict[str, str], tmp_path: Path) -> None:
    command = ["bash", str(FOLDER / "run.sh")]
    settings = {**environment, "STAGES": "load smoke scaling", "BUDGET": "280"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "summary.txt").read_text()
    ends = [line for line in summary.splitlines() if "exit code" in line]
    assert [line.split()[1] for line in ends] == ["load:", "smoke:", "scaling:"], summary
    assert all("exit code 0" in line for line in ends), summary
    assert "every operator agrees" in summary
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "tools.gpu.report", str(tmp_path), str(page)]
    subprocess.run(command, check=True, capture_output=True)
    text = page.read_text()
    assert "every operator agrees" in text and "| blend_backward | absgrad | float64 |" in text


def test_no_stage_begins_without_time_for_it(environment: dict[str, str], tmp_path: Path) -> None:
    settings = {**environment, "STAGES": "smoke train", "BUDGET": "5"}
    done = subprocess.run(
        ["bash", str(FOLDER / "run.sh")], env=settings, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "smoke: SKIPPED" in done.stdout and "train: SKIPPED" in done.stdout
    assert "exit code" not in done.stdout


def test_programs_run_and_record_their_figures(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALL_PROGRAMS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    assert {f["stage"] for f in found} == {"profile", "sweep", "million"}
    assert {f["part"] for f in found if f["stage"] == "sweep"} == {"propose", "sweep", "exchange"}
    names = [f["name"] for f in found if f["stage"] == "profile"]
    assert len(names) == 5 and all(f["ms"] > 0 for f in found if "ms" in f)


def test_a_wrong_operator_is_found(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each output in turn is planted wrong by a thousandth, as if a second device had made it."""
    for name in ("GPU_DEVICE", "GPU_TOY", "OUT"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.delitem(sys.modules, "tools.gpu.common", raising=False)
    from benchmarks.render.workloads import make_workload
    from tools.gpu import smoke

    original, calls = torch.ops.splatrender.shade, []

    def planted(*args: Any) -> torch.Tensor:
        calls.append(args)
        right = original(*args)
        return right if len(calls) == 1 else 1.001 * right

    monkeypatch.setattr(torch.ops.splatrender, "shade", planted)
    wrong = smoke.compare_all(make_workload("W0b", toy=True))
    assert wrong == ["shade.emission (float32)"]
