"""The programs of the run on a GPU, tested without one: on the CPU, at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPOSITORY
from helpers.backends import require_extension

from benchmarks.render.workloads import make_workload
from tools.gpu import million, one_pass, profile_kernels, record, report, smoke, sweep_parts
from tools.gpu.target import Target

FOLDER = REPOSITORY / "tools" / "gpu"


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the CPU, tiny inputs and a results folder of the test."""
    require_extension()
    values = {"GPU_DEVICE": "cpu", "GPU_TOY": "1", "OUT": tmp_path, "PY": sys.executable}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def run_script(stages: str, budget: int) -> str:
    """Run the stages and return what is printed."""
    environment = {**os.environ, "STAGES": stages, "BUDGET": str(budget)}
    command = ["bash", str(FOLDER / "run.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "figures.jsonl").read_text().splitlines()]


def test_stages_run_in_order_and_are_reported(tmp_path: Path) -> None:
    run_script("load smoke", budget=280)
    summary = (tmp_path / "summary.txt").read_text()
    ends = [line for line in summary.splitlines() if "exit code" in line]
    assert [line.split()[1] for line in ends] == ["load:", "smoke:"], summary
    assert all("exit code 0" in line for line in ends), summary
    assert "every operator agrees" in summary
    page = report.write(tmp_path)
    assert "every operator agrees" in page and "| blend_backward | absgrad | float64 |" in page


def test_no_stage_begins_without_time_for_it() -> None:
    printed = run_script("smoke train", budget=5)
    assert "smoke: SKIPPED" in printed and "train: SKIPPED" in printed
    assert "exit code" not in printed


def test_programs_run_and_record_their_figures(tmp_path: Path) -> None:
    for program in (profile_kernels, sweep_parts, million, one_pass):
        program.main()
    rows = figures(tmp_path)
    assert {row["stage"] for row in rows} == {"profile", "sweep", "million"}
    parts = {row["part"] for row in rows if row["stage"] == "sweep"}
    assert parts == {"propose", "sweep", "exchange"}
    names = [row["name"] for row in rows if row["stage"] == "profile"]
    assert len(names) == 5 and all(row["ms"] > 0 for row in rows if "ms" in row)


def test_a_json_file_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"psnr": 20.5, "splats": 3, "other": []}')
    record.main(["train", str(file), "psnr", "splats"])
    assert capsys.readouterr().out == "{'psnr': 20.5, 'splats': 3}\n"
    record.main(["speed", str(file)])
    assert figures(tmp_path) == [
        {"stage": "train", "psnr": 20.5, "splats": 3},
        {"stage": "speed", "psnr": 20.5, "splats": 3, "other": []},
    ]
    with pytest.raises(SystemExit, match="STAGE FILE"):
        record.main(["speed"])


def test_a_wrong_operator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the second output by a thousandth, as if another device had made it."""
    original, calls = torch.ops.splatrender.shade, []

    def planted(*args: Any) -> torch.Tensor:
        calls.append(args)
        right: torch.Tensor = original(*args)
        return right if len(calls) == 1 else 1.001 * right

    monkeypatch.setattr(torch.ops.splatrender, "shade", planted)
    wrong = smoke.compare_all(Target.from_environment(), make_workload("W0b", toy=True))
    assert wrong == ["shade.emission (float32)"]
