"""The benchmark runs, and its scalar peer renders what the kernels render."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.backends import EMULATED, missing_for_cuda, require_extension
from helpers.emulation import in_place_of_cpu_kernels

from splatrender import reference

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
    from benchmarks.render import kernels, raster, scalar, timing, workloads

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
    command = [sys.executable, "-m", "benchmarks.render.raster", *arguments, "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "forward + backward" in done.stdout and "A training step" in done.stdout
    figures = json.loads(target.read_text())
    assert set(figures["workloads"]["W2"]["threads"]["1"]) > STAGES
    step = figures["training_step"]
    assert step["parts"].keys() > STAGES
    assert sum(step["parts"].values()) == pytest.approx(step["total"])


def test_gpu_tables_run_on_the_emulator(tmp_path: Path) -> None:
    with in_place_of_cpu_kernels(EMULATED):  # builds it, or skips
        pass
    target = tmp_path / "figures.json"
    arguments = ["--device", "emulated", "--workloads", "W0b", "--repeats", "1", "--steps", "1"]
    command = [sys.executable, "-m", "benchmarks.render.raster", *arguments, "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "whole calls" in done.stdout and "A training step" in done.stdout
    figures = json.loads(target.read_text())
    assert set(figures["workloads"]["W0b"]["stages"]) > STAGES
    assert figures["workloads"]["W0b"]["calls"].keys() == {"forward", "forward + backward"}
    assert figures["training_step"]["parts"].keys() > STAGES


def test_gpu_tables_without_a_gpu_say_so(tmp_path: Path) -> None:
    require_extension()
    if not missing_for_cuda():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.render.raster", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "got 'cuda': " in done.stderr


@pytest.mark.parametrize("equal", [True, False])
def test_gsplat_is_compared_only_where_it_does_equal_work(
    benchmark: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    equal: bool,
) -> None:
    """With a stand-in that has gsplat's interface and renders by the reference."""
    from benchmarks.render import raster_gpu

    def rasterization(
        means: Any, quats: Any, scales: Any, opacities: Any, colors: Any, viewmats: Any, Ks: Any,
        width: int, height: int, near_plane: float, eps2d: float, sh_degree: int, packed: bool,
        tile_size: int,
    ) -> tuple[Any, Any, dict[str, Any]]:  # fmt: skip
        assert tile_size == 16 and not packed and colors.shape[1] == (sh_degree + 1) ** 2
        lens = torch.stack((Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2]), dim=1)
        radiance, transmittance, *_ = reference.rasterize(
            means, quats, scales, opacities, colors, viewmats, lens, width, height,
            sh_degree=sh_degree, near=near_plane, eps2d=eps2d,
        )  # fmt: skip
        return radiance if equal else 0.9 * radiance, 1 - transmittance, {}

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    workload = benchmark.workloads.make_workload("W0b", toy=True)
    figures = raster_gpu.time_workload(workload, repeats=1, peer=True)
    assert figures["agrees"] == equal
    raster_gpu.print_workload(workload, figures)
    printed = capsys.readouterr().out
    assert ("  equal work" in printed) == equal and ("NOT equal work" in printed) != equal
    ratio = figures["gsplat"]["forward"] / figures["calls"]["forward"]
    assert (f"{ratio:.2f}" in printed) == equal


def test_wrong_arguments_exit_with_2() -> None:
    command = [sys.executable, "-m", "benchmarks.render.raster", "--repeats", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--repeats: expected at least 1" in done.stderr
