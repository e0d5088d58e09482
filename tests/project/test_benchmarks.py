"""The rasterizer benchmark runs, and its scalar peer renders what the kernels render."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import REPOSITORY
from helpers.backends import EMULATED, missing_for_cuda, require_extension
from helpers.emulation import in_place_of_cpu_kernels

from benchmarks.render import gpu, peers, report, scalar
from benchmarks.render.kernels import Kernels
from benchmarks.render.options import parse
from benchmarks.render.timing import BACKWARD, STAGES, Laps
from benchmarks.render.workloads import Workload, make_workload
from splatrender import reference

PARTS = {*STAGES, *BACKWARD}


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.render.raster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


@pytest.fixture
def compiler() -> None:
    """Need the extension, and a compiler for the scalar peer."""
    require_extension()
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        pytest.skip(f"no {name} to compile the scalar peer with")


@pytest.fixture
def workload() -> Workload:
    """Make a small workload."""
    return make_workload("W0b", toy=True)


@pytest.mark.parametrize("name", ["W0b", "W1", "W2"])
def test_scalar_peer_agrees_with_kernels(compiler: None, name: str) -> None:
    workload = make_workload(name, toy=True)
    ours, peer = Kernels(workload), scalar.ScalarRasterizer(workload)
    laps = Laps()
    ours.run(laps)
    peer.run(laps)
    assert set(laps.medians()) == PARTS
    figures = peers.agreement(ours, peer)
    peers.check_agreement(name, figures)
    assert float(ours.radiance.mean()) > 0.01
    assert figures["largest difference"] < 1 / 255
    assert all(v > 0.9999 for k, v in figures.items() if k.startswith("cosine")), figures
    assert 0 < ours.counts()["pairs"] <= peer.counts()["pairs"]  # the exact test leaves out more
    assert peer.counts()["contributions"] <= ours.counts()["evaluations"]


def test_unequal_work_is_refused(compiler: None, workload: Workload) -> None:
    ours, peer = Kernels(workload), scalar.ScalarRasterizer(workload)
    ours.run(Laps())
    peer.run(Laps())
    peer.gradients["quats"] = torch.randn_like(peer.gradients["quats"])
    with pytest.raises(SystemExit, match="expected equal images and gradients"):
        peers.check_agreement("W0b", peers.agreement(ours, peer))


def test_workloads_repeat() -> None:
    first, second = (make_workload("W2", toy=True) for _ in range(2))
    assert torch.equal(first.means, second.means) and torch.equal(first.sh, second.sh)


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="no-such-compiler"):
        scalar.build()


def test_command_prints_tables_and_writes_figures(compiler: None, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    sizes = ("--threads", "1", "--repeats", "1", "--steps", "1")
    done = benchmark("--toy", "--workloads", "W2", *sizes, "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert "forward + backward" in done.stdout and "A training step" in done.stdout
    figures = json.loads(target.read_text())
    assert set(figures["workloads"]["W2"]["threads"]["1"]) > PARTS
    step = figures["training_step"]
    assert step["parts"].keys() > PARTS
    assert sum(step["parts"].values()) == pytest.approx(step["total"])


def test_gpu_tables_run_on_the_emulator(tmp_path: Path) -> None:
    with in_place_of_cpu_kernels(EMULATED):  # builds it, or skips
        pass
    target = tmp_path / "figures.json"
    sizes = ("--workloads", "W0b", "--repeats", "1", "--steps", "1")
    done = benchmark("--device", "emulated", *sizes, "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert "whole calls" in done.stdout and "A training step" in done.stdout
    figures = json.loads(target.read_text())
    assert set(figures["workloads"]["W0b"]["stages"]) > PARTS
    assert figures["workloads"]["W0b"]["calls"].keys() == {"forward", "forward + backward"}
    assert figures["training_step"]["parts"].keys() > PARTS


def test_gpu_tables_need_a_gpu() -> None:
    require_extension()
    if not missing_for_cuda():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="got 'cuda': "), gpu.opened_device("cuda"):
        pass


@pytest.mark.parametrize("equal", [True, False])
def test_gsplat_is_compared_only_where_it_does_equal_work(
    workload: Workload,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    equal: bool,
) -> None:
    """A stand-in has gsplat's interface and renders by the reference."""
    require_extension()

    def rasterization(*args: Any, near_plane: float, eps2d: float, **options: Any) -> Any:
        *splats, viewmats, intrinsics, width, height = args
        degree = options.pop("sh_degree")
        assert options == {"packed": False, "tile_size": 16}
        assert splats[4].shape[1] == (degree + 1) ** 2
        focal, center = intrinsics.diagonal(dim1=1, dim2=2)[:, :2], intrinsics[:, :2, 2]
        lens = torch.cat((focal, center), dim=1)
        cuts: dict[str, Any] = {"sh_degree": degree, "near": near_plane, "eps2d": eps2d}
        truth: Callable[..., Any] = reference.rasterize
        radiance, transmittance, *_ = truth(*splats, viewmats, lens, width, height, **cuts)
        return radiance if equal else 0.9 * radiance, 1 - transmittance, {}

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    figures = gpu.time_workload(workload, repeats=1, peer=True)
    assert figures["agrees"] == equal
    report.print_gpu(workload, figures)
    printed = capsys.readouterr().out
    assert ("  equal work" in printed) == equal and ("NOT equal work" in printed) != equal
    ratio = figures["gsplat"]["forward"] / figures["calls"]["forward"]
    assert (f"{ratio:.2f}" in printed) == equal


def test_wrong_arguments_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("", ["--repeats", "0"])
    assert "--repeats: expected at least 1, got 0" in capsys.readouterr().err
