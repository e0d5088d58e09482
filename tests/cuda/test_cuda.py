"""Tests that need a GPU: streams, two devices, graphs, failing launches, training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import GAUSSIAN, REPOSITORY, flat, random_prints
from helpers.calls import OPERATORS, arguments, copies, run
from helpers.training import assert_same, options, ring_scene, stop_at
from torch import Tensor

from splatrender.errors import InputError
from splatrender.io.checkpoint import load_checkpoint
from splatrender.model import Splats
from splatrender.model.draws import draw
from splatrender.operators.bin import bin
from splatrender.operators.render import render
from splatrender.training import Interrupted, train
from splatrender.training.run import Run

pytestmark = pytest.mark.cuda
flat_bin = flat.bin(bin)


@pytest.mark.parametrize("operator", [*OPERATORS, "bin"])
def test_runs_on_the_current_stream(operator: str) -> None:
    """Make the input late, on a side stream: a reader on another stream is too early."""
    if operator == "bin":
        args = random_prints(300, 2).to(torch.float32).bin_args()
        args = [value.cuda() if isinstance(value, Tensor) else value for value in args]
    else:
        args = arguments(operator)
    expected = [value.clone() for value in run(operator, copies(args))]
    late = copies(args)
    for value in late:
        if isinstance(value, Tensor):
            value.zero_()
    if operator == "blend_backward":  # lists of zeros would be no lists
        late[5:9] = args[5:9]
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        for value, source in zip(late, args, strict=True):
            if isinstance(value, Tensor):
                value.copy_(source)
        results = run(operator, late)
    done = side.record_event()
    torch.cuda.current_stream().wait_event(done)
    for one, two in zip(results, expected, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("operator", OPERATORS)
def test_can_be_captured_in_a_graph(operator: str) -> None:
    """Compare a replayed graph with the operator on the present numbers."""
    static, fresh = arguments(operator), arguments(operator)
    inputs = [i for i, v in enumerate(static) if isinstance(v, Tensor) and v.is_floating_point()]
    warm_up = torch.cuda.Stream()
    with torch.cuda.stream(warm_up):
        run(operator, copies(static))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    before = copies(static)
    with torch.cuda.graph(graph):
        results = run(operator, static)
    for scale in (1.0, 0.97):
        for position, value in enumerate(before):
            if isinstance(value, Tensor):
                static[position].copy_(value)
                fresh[position].copy_(value)
        if operator != "blend_backward":  # whose inputs belong together
            static[inputs[0]].mul_(scale)
            fresh[inputs[0]].mul_(scale)
        graph.replay()
        for one, two in zip(results, run(operator, fresh), strict=True):
            assert torch.equal(one, two), scale


def test_binning_refuses_to_be_captured() -> None:
    """Count the waits: the number of pairs sets the size of the lists, so the CPU waits for it."""
    args = [
        value.cuda() if isinstance(value, Tensor) else value
        for value in random_prints(30).to(torch.float32).bin_args()
    ]
    flat_bin(*args)
    torch.cuda.synchronize()
    with (
        torch.cuda.graph(torch.cuda.CUDAGraph()),
        pytest.raises(RuntimeError, match=r"^bin: .*captur"),
    ):
        flat_bin(*args)
    flat_bin(*args)  # nothing is broken by it


@pytest.fixture
def two_devices() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, got {torch.cuda.device_count()}")


@pytest.mark.parametrize("operator", OPERATORS)
def test_runs_where_its_tensors_are(two_devices: None, operator: str) -> None:
    expected = run(operator, arguments(operator, "cuda:0"))
    with torch.cuda.device(0):
        results = run(operator, arguments(operator, "cuda:1"))
        assert torch.cuda.current_device() == 0
    for one, two in zip(results, expected, strict=True):
        assert one.device == torch.device("cuda:1")
        assert torch.equal(one.cpu(), two.cpu())


def test_refuses_tensors_of_two_gpus(two_devices: None) -> None:
    args = random_prints(30).to(torch.float32).bin_args()
    args = [value.to("cuda:0") if isinstance(value, Tensor) else value for value in args]
    args[1] = args[1].to("cuda:1")
    with pytest.raises(InputError, match="conics: expected device cuda:0, got device cuda:1"):
        flat_bin(*args)
    with pytest.raises(RuntimeError, match=r"conics: expected .*cuda:0, got .*cuda:1"):
        torch.ops.splatrender.bin(*args)


def in_new_process(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script that leaves CUDA unusable for its process."""
    folders = os.pathsep.join((str(REPOSITORY / "tests"), str(REPOSITORY)))
    variables = {**os.environ, "PYTHONPATH": folders, **environment}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=variables)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_failed_launch_names_kernel_and_error(operator: str) -> None:
    """In a process of its own: an index out of bounds breaks CUDA for good, and launches fail."""
    script = f"""
import torch
from helpers.calls import arguments, copies, run
args = arguments({operator!r})
run({operator!r}, copies(args))  # memory for all that follows
spare = copies(args)
torch.cuda.synchronize()
try:
    torch.zeros(3, device="cuda")[torch.tensor([7], device="cuda")]
    torch.cuda.synchronize()
except RuntimeError:
    pass
try:
    run({operator!r}, spare)
except RuntimeError as error:
    print("caught:", str(error).splitlines()[0])
"""
    done = in_new_process(script)
    message = done.stdout.partition("caught: ")[2]
    expected = rf"{operator}: (\w+_kernel|cudaMemsetAsync): CUDA error \d+ \(.*assert.*\)"
    assert re.match(expected, message), done.stdout + done.stderr[-2000:]


def test_a_fault_at_an_allocation_is_not_reported_as_a_lack_of_memory() -> None:
    """In a process of its own, without torch's pool: the first call that fails is cudaMalloc."""
    script = """
import torch
from helpers.calls import arguments, run
args = arguments("shade")
torch.cuda.synchronize()
torch.zeros(3, device="cuda")[torch.tensor([7], device="cuda")]
try:
    run("shade", args)
except RuntimeError as error:
    print("caught:", str(error).splitlines()[0])
"""
    done = in_new_process(script, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    message = done.stdout.partition("caught: ")[2]
    assert re.match(r"CUDA error \d+ \(.*assert.*\) on cuda:0", message), done.stdout + done.stderr
    assert "out of memory" not in message


def test_rendering_waits_for_the_gpu_in_no_other_place() -> None:
    """torch reports every wait but that of `bin`, which reads the number of pairs."""
    scene = ring_scene()
    splats = Splats.random(40, seed=3).to("cuda").requires_grad_()
    background = torch.rand(3, device="cuda")
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            radiance = render(splats, scene.train[0].camera, background=background).radiance
            radiance.backward(torch.ones_like(radiance))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("strategy", ["none", "mcmc", "adc", "adc-absgrad", "wfr"])
def test_a_training_step_waits_for_the_gpu_in_no_other_place(tmp_path: Path, strategy: str) -> None:
    settings: dict[str, Any] = {"iterations": 7000, "strategy": strategy}
    run = Run(options(tmp_path, **settings), ring_scene(), torch.device("cuda", 0))
    for mode, steps in (("default", 4), ("error", 5)):  # every tenth step reads the losses
        torch.cuda.set_sync_debug_mode(mode)
        try:
            for _ in range(steps):
                run.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_draws_are_the_same_each_time() -> None:
    weights = torch.rand(3_000_000, generator=torch.Generator().manual_seed(0)).cuda() ** 8
    generator = torch.Generator("cuda")
    rows = [draw(weights, 100_000, generator.manual_seed(1)) for _ in range(5)]
    assert all(torch.equal(rows[0], again) for again in rows[1:])


def test_out_of_memory_is_reported_as_torch_reports_it() -> None:
    free = torch.cuda.mem_get_info()[0]
    taken = torch.empty(free - (256 << 20), dtype=torch.uint8, device="cuda")
    emission = torch.zeros(1, 1, 3, device="cuda").expand(1, 1, 3)
    one = torch.ones(1, 1, device="cuda")
    conics = torch.ones(1, 1, 3, device="cuda")
    extents = 0 * conics[..., :2]
    bins = flat_bin(one[..., None].expand(1, 1, 2), conics, one, one, extents, 9, 9)
    tiles = 2048 * 2048
    offsets = torch.zeros(tiles + 1, dtype=torch.int32, device="cuda")
    shape = (one[..., None].expand(1, 1, 2), conics, one, emission, emission[0])
    options = (32768, 32768, GAUSSIAN, False, None)
    with pytest.raises(RuntimeError, match=r"CUDA out of memory\. Tried to allocate"):
        torch.ops.splatrender.blend(*shape, offsets, *bins[1:], *options)
    del taken


def test_trains(tmp_path: Path) -> None:
    scene = ring_scene()
    start = train(options(tmp_path / "a", iterations=1, backend="cuda"), scene).results
    result = train(options(tmp_path / "b", iterations=250, backend="cuda"), scene)
    assert result.results["psnr"] > start["psnr"] + 3 and result.results["psnr"] > 22
    assert result.results["splats"] == 60 and result.results["peak_device_memory_mb"] > 0
    assert result.splats is not None and result.splats.device.type == "cuda"
    for name in ("config.json", "results.json"):
        assert json.loads((tmp_path / "b" / name).read_text())["backend"] == "cuda"


def test_resumes_to_the_same_bits(tmp_path: Path) -> None:
    scene = ring_scene()
    settings: dict[str, Any] = {"iterations": 120, "max_splats": 50, "backend": "cuda"}
    train(options(tmp_path / "whole", **settings), scene)
    with pytest.raises(Interrupted):
        train(options(tmp_path / "parts", **settings), scene, stop_at(57))
    train(options(tmp_path / "parts", **settings), scene)
    one, two = (load_checkpoint(tmp_path / p / "checkpoint.pt") for p in ("whole", "parts"))
    for key in ("splats", "moments", "steps", "rows", "generator", "device_generator", "order"):
        assert_same(one[key], two[key])


@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")], ids=" to ".join)
def test_resumes_on_another_device(tmp_path: Path, devices: tuple[str, str]) -> None:
    scene = ring_scene()
    with pytest.raises(Interrupted):
        train(options(tmp_path, iterations=200, backend=devices[0]), scene, stop_at(60))
    result = train(options(tmp_path, iterations=200, backend=devices[1]), scene)
    assert result.results["backend"] == devices[1] and result.results["psnr"] > 20


def test_the_first_steps_are_those_of_the_cpu(tmp_path: Path) -> None:
    scene, losses = ring_scene(), {}
    for backend in ("cpu", "cuda"):
        settings: dict[str, Any] = {"iterations": 10, "strategy": "none", "backend": backend}
        train(options(tmp_path / backend, **settings), scene)
        losses[backend] = load_checkpoint(tmp_path / backend / "checkpoint.pt")["loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-4)


def test_commands_choose_the_gpu_by_themselves(tmp_path: Path) -> None:
    scene, out = REPOSITORY / "scenes/still_life", tmp_path / "out"
    for command in (
        ["train.py", str(scene), "-m", str(out), "-r", "8", "--iterations", "20", "--quiet"],
        ["render.py", str(out), "--path", "orbit", "--frames", "2", "--no-video"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert json.loads((out / "results.json").read_text())["backend"] == "cuda"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Release the memory of a test for the next one."""
    yield
    torch.cuda.empty_cache()
