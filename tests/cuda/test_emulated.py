"""The emulated CUDA kernels: in the place of the CPU's, in any order of threads, in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import RESPONSES, random_prints, random_world
from helpers.backends import ANY_ORDER, EMULATED, PTX, opened_backend
from helpers.compare import gradients, outputs_of
from helpers.emulation import in_place_of_cpu_kernels
from helpers.training import options, ring_scene
from torch import Tensor

from splatrender.io.checkpoint import load_checkpoint
from splatrender.model import Splats
from splatrender.operators.shade import shade
from splatrender.training import run as run_module
from splatrender.training import train
from splatrender.training.initial import initial_splats


@pytest.mark.parametrize("name", [EMULATED, PTX])
def test_stands_in_for_the_cpu_kernels_and_leaves_again(name: str) -> None:
    args = (torch.ones(1, 3), torch.rand(1, 1, 3), torch.eye(4)[None], torch.ones(1, 1, 2), 0)
    before = shade(*args)
    with in_place_of_cpu_kernels(name) as emulation:
        launches = emulation.launches()
        torch.testing.assert_close(shade(*args), before)
        assert emulation.launches() == launches + 1
    launches = emulation.launches()
    assert torch.equal(shade(*args), before)
    assert emulation.launches() == launches


def test_number_of_multiprocessors_is_checked() -> None:
    with (
        in_place_of_cpu_kernels(EMULATED) as emulation,
        pytest.raises(ValueError, match="expected 1 to 1024, got '0'"),
    ):
        emulation.set_multiprocessors(0)


def everything(name: str, response: int) -> list[Tensor]:
    """Return all outputs and all gradients of the four stages, float32."""
    results = []
    with opened_backend(name) as kernel:
        project_args = random_world(150, cameras=2, seed=3).to(torch.float32)
        prints = random_prints(150, 2, seed=6, response=response).to(torch.float32)
        bins = kernel.bin(*prints.bin_args())
        extents = kernel.project(*project_args.project_args(response))[4]
        shade_args = [project_args.means, project_args.sh, project_args.viewmats, extents, 3]
        results += bins
        calls: list[tuple[Any, list[Any], list[int], list[int]]] = [
            (kernel.project, project_args.project_args(response), [0, 1, 2, 4, 5, 6], [0, 1, 2, 3]),
            (kernel.shade, shade_args, [0, 1, 2], [0]),
            (kernel.blend, prints.blend_args(bins, response), [0, 1, 2, 3, 4], [0, 1]),
        ]
        for stage, args, inputs, outputs in calls:
            values = outputs_of(stage, args)
            weights = {i: torch.linspace(-1, 1, values[i].numel()).reshape(values[i].shape)
                       for i in outputs}  # fmt: skip
            results += [*values, *gradients(stage, args, inputs, weights)]
    return results


@pytest.mark.parametrize("response", RESPONSES)
def test_same_bits_for_any_order_of_threads(response: int) -> None:
    first, *others = (everything(name, response) for name in ANY_ORDER)
    for other in others:
        for position, (one, two) in enumerate(zip(first, other, strict=True)):
            assert torch.equal(one, two), f"result {position} depends on the order of threads"


def squashed(splats: Splats) -> Splats:
    """Return splats of other shapes than round."""
    make = torch.Generator().manual_seed(0)
    splats.log_scales.add_(0.5 * torch.randn(splats.log_scales.shape, generator=make))
    splats.quats.add_(torch.randn(splats.quats.shape, generator=make))
    return splats


@pytest.mark.parametrize("strategy", ["wfr", "mcmc", "none"])
def test_training_goes_as_on_the_cpu(
    tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train a few steps, births among them."""
    # Round splats have no gradient of rotation but rounding, whose sign Adam would follow.
    monkeypatch.setattr(run_module, "initial_splats", lambda *a: squashed(initial_splats(*a)))
    scene = ring_scene()
    states, results = [], []
    for name in ("cpu", EMULATED):
        with opened_backend(name):
            folder = tmp_path / name
            settings: dict[str, Any] = {"strategy": strategy, "iterations": 8, "sh_degree": 3}
            results.append(train(options(folder, **settings, backend="cpu"), scene).results)
            states.append(load_checkpoint(folder / "checkpoint.pt"))
    cpu, emulated = states
    assert emulated["loss"] == pytest.approx(cpu["loss"], rel=1e-4)
    assert results[1]["psnr"] == pytest.approx(results[0]["psnr"], abs=0.01)
    assert torch.equal(emulated["steps"], cpu["steps"])
    for field, values in cpu["splats"].items():
        difference = (emulated["splats"][field] - values).abs().flatten()
        # one wrong sign would be off by the step size, which is 1e-3 and more
        assert float(difference.median()) < 1e-4, field
        if strategy != "wfr" or field != "quats":  # newborn splats on rays are round
            assert float(difference.mean()) < 1e-3 * float(values.abs().mean()), field
    assert (results[1]["splats"] > len(scene.points)) == (strategy != "none")
