"""The benchmark runs, and its scalar peer renders what the kernels render."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers_backends import require_extension

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
STAGES = {
    "project", "shade", "bin", "blend", "blend_backward", "shade_backward", "project_backward",
}  # fmt: skip


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The benchmark's modules, which import each other as scripts of one folder do."""
    require_extension()
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} to compile the scalar peer with")
    monkeypatch.syspath_prepend(str(FOLDER))
    import kernels
    import raster
    import scalar
    import timing
    import workloads

    return SimpleNamespace(
        kernels=kernels, raster=raster, scalar=scalar, timing=timing, workloads=workloads
    )


@pytest.mark.parametrize("name", ["W0b", "W1", "W2"])
def test_scalar_peer_agrees_with_kernels(benchmark: SimpleNamespace, name: str) -> None:
    workload = benchmark.workloads.make_workload(name, toy=True)
    ours, peer = benchmark.kernels.Kernels(workload), benchmark.scalar.ScalarRasterizer(workload)
    laps = benchmark.timing.Laps()
    ours.run(laps)
    peer.run(laps)
    assert set(laps.medians()) == STAGES
    figures = benchmark.raster.agreement(ours, peer)
    benchmark.raster.check_agreement(name, figures)
    assert float(ours.radiance.mean()) > 0.01
    assert figures["largest difference"] < 1 / 255
    assert all(v > 0.9999 for k, v in figures.items() if k.startswith("cosine")), figures
    assert 0 < ours.counts()["pairs"] <= peer.counts()["pairs"]  # the exact test leaves out more
    assert peer.counts()["contributions"] <= ours.counts()["evaluations"]


def test_unequal_work_is_refused(benchmark: SimpleNamespace) -> None:
    workload = benchmark.workloads.make_workload("W0b", toy=True)
    ours, peer = benchmark.kernels.Kernels(workload), benchmark.scalar.ScalarRasterizer(workload)
    for rasterizer in (ours, peer):
        rasterizer.run(benchmark.timing.Laps())
    peer.gradients["quats"] = torch.randn_like(peer.gradients["quats"])
    with pytest.raises(SystemExit, match="expected equal pictures and gradients"):
        benchmark.raster.check_agreement("W0b", benchmark.raster.agreement(ours, peer))


def test_workloads_repeat(benchmark: SimpleNamespace) -> None:
    first, second = (benchmark.workloads.make_workload("W2", toy=True) for _ in range(2))
    assert torch.equal(first.means, second.means) and torch.equal(first.sh, second.sh)


def test_missing_compiler_is_named(
    benchmark: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="no-such-compiler"):
        benchmark.scalar.build()


def test_command_prints_tables_and_writes_figures(
    benchmark: SimpleNamespace, tmp_path: Path
) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--toy", "--workloads", "W2", "--threads", "1", "--repeats", "1", "--steps", "1"]
    command = [sys.executable, str(FOLDER / "raster.py"), *arguments, "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "forward + backward" in done.stdout and "A training step" in done.stdout
    figures = json.loads(target.read_text())
    assert set(figures["workloads"]["W2"]["threads"]["1"]) > STAGES
    step = figures["training_step"]
    assert step["parts"].keys() > STAGES
    assert sum(step["parts"].values()) == pytest.approx(step["total"])


def test_wrong_arguments_exit_with_2() -> None:
    command = [sys.executable, str(FOLDER / "raster.py"), "--repeats", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--repeats: expected at least 1" in done.stderr
