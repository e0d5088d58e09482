"""Devices of a run, and errors where memory is not enough."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import assert_same, options, ring_scene

from splatrender import flow
from splatrender.errors import InputError
from splatrender.io.checkpoint import load_checkpoint
from splatrender.runtime import devices
from splatrender.runtime.devices import is_out_of_memory
from splatrender.scenes.scene import Scene
from splatrender.training import TrainingOutOfMemory, train
from splatrender.training import run as run_module


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


# --- the choice of a device ----------------------------------------------------------------------


def test_a_gpu_is_refused_where_there_is_none(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "missing_for_cuda", lambda: ["one thing", "another"])
    train(options(tmp_path), scene)
    message = "^backend: expected 'auto' or 'cpu', got 'cuda': one thing and another$"
    with pytest.raises(InputError, match=message):
        train(options(tmp_path, backend="cuda", overwrite=True), scene)
    assert (tmp_path / "results.json").exists()  # nothing was overwritten yet
    for name in ("config.json", "results.json"):
        assert json.loads((tmp_path / name).read_text())["backend"] == "cpu"


def test_missing_for_cuda_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_cuda_kernels", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    kernels, torch_build = devices.missing_for_cuda()
    assert kernels == "splatrender was built without CUDA kernels"
    assert torch_build == f"torch {torch.__version__} is a build without CUDA"
    monkeypatch.setattr(devices, "has_cuda_kernels", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.missing_for_cuda() == ["torch finds no NVIDIA GPU with a working driver"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 0))
    (old,) = devices.missing_for_cuda()
    assert old == "Tesla P100 has compute capability 6.0, and the kernels need 7.5"
    assert devices.choose_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert devices.missing_for_cuda() == []
    assert devices.choose_device("auto") == devices.choose_device("cuda") == torch.device("cuda:1")
    assert devices.choose_device("cpu") == torch.device("cpu")


# --- not enough memory ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("blend_kernel: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("blend: width: expected 1 to 65535, got 0"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_out_of_memory_saves_the_step_before(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"iterations": 120, "max_splats": 50, "strategy": "mcmc"}
    train(options(tmp_path / "whole", **settings), scene)
    with monkeypatch.context() as patch:
        fail_in(patch, "photometric_gradient", at_call=60)
        message = (
            r"^iteration 60, 50 splats, photos of 72x48: CUDA out of memory\. Tried to allocate "
            r"2\.00 GiB\. Train anew with smaller photos \(--resolution\) or fewer splats "
            r"\(--max-splats\), or .* where there is more memory; saved .*checkpoint\.pt after "
            r"iteration 59\.$"
        )
        with pytest.raises(torch.OutOfMemoryError, match=message):
            train(options(tmp_path / "parts", **settings), scene)
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["iteration"] == 59
    train(options(tmp_path / "parts", **settings), scene)
    one, two = (load_checkpoint(tmp_path / p / "checkpoint.pt") for p in ("whole", "parts"))
    for key in ("splats", "moments", "steps", "rows", "generator", "order", "loss", "mse"):
        assert_same(one[key], two[key])


def test_out_of_memory_in_the_midst_of_a_step_keeps_the_last_checkpoint(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, "_mean_square", at_call=3)  # of iteration 30, after the splats moved
    with pytest.raises(TrainingOutOfMemory, match=r"iteration 30.*the last checkpoint is kept in"):
        train(options(tmp_path, checkpoint_interval=25), scene)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == 25


def fail_in(patch: pytest.MonkeyPatch, name: str, at_call: int) -> None:
    """Let a function of the module `run` find no memory, once."""
    function, calls = getattr(run_module, name), []

    def failing(*args: Any) -> Any:
        calls.append(name)
        if len(calls) == at_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
        return function(*args)

    patch.setattr(run_module, name, failing)


def test_other_errors_are_not_taken_for_want_of_memory(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(run_module, "photometric_gradient", failing)
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        train(options(tmp_path), scene)


def test_random_numbers_are_drawn_on_the_device_of_their_generator() -> None:
    """Refuse to fill tensors of the CPU, as a generator of a GPU does; no CPU run would notice."""
    folder = Path(flow.__file__).parent
    checked = 0
    for name in ("strategies/adc", "strategies/mcmc", "strategies/exchange", "views/probes"):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in ("rand", "randn", "randint", "randperm"):
                continue
            given = {keyword.arg for keyword in node.keywords}
            assert {"generator", "device"} <= given, f"{name}.py:{node.lineno}"
            checked += 1
    assert checked >= 8


def test_devices_load_the_extension_themselves() -> None:
    """In a process of its own, in which nothing has imported the operators yet."""
    code = "from splatrender.runtime.devices import choose_device; choose_device('auto')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
