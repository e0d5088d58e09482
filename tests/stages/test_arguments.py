"""Arguments of a wrong type, device or size: one sentence names the argument."""

from __future__ import annotations

import doctest
import importlib
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import flat

from splatrender import Camera, RenderOptions, Splats, load_scene, metrics, render, train
from splatrender.arguments import (
    require_flag,
    require_integer,
    require_number,
    require_tensors,
    require_type,
)
from splatrender.errors import InputError
from splatrender.operators.adam import adam_step
from splatrender.operators.bin import bin
from splatrender.operators.flow_statistics import flow_statistics
from splatrender.operators.inputs import input_errors
from splatrender.operators.loss import photometric_gradient, photometric_loss
from splatrender.operators.sampling import observations
from splatrender.operators.shade import shade
from splatrender.rendering.trajectories import bounding_sphere, interpolate, orbit, orbit_sphere

BINS: list[Any] = [torch.ones(1, 1, 2), torch.ones(1, 1, 3), *2 * [torch.ones(1, 1)]]
BINS += [torch.ones(1, 1, 2), 8, 8]


MODULES = (
    *(
        "arguments",
        "model.quaternions",
        "metrics",
        "model.camera",
        "model.splats",
        "rendering.trajectories",
        "runtime.devices",
    ),
    *(f"operators.{name}" for name in ("adam", "bin", "flow_statistics", "loss", "options")),
    *(f"operators.{name}" for name in ("plausible", "project", "render", "shade", "stages")),
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    module = importlib.import_module(f"splatrender.{name}")
    found = doctest.testmod(module, extraglobs={"torch": torch, "math": math})
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize("value", [3, 3.0, np.int16(3), np.float64(3), torch.tensor(3)])
def test_integers(value: Any) -> None:
    found = require_integer("n", value, 0, 9)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3.5, "3.5"),
        (-1, "-1"),
        (10, "10"),
        (2**70, "1180591620717411303424"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (True, "True"),
        (None, "None"),
        ("3", "'3'"),
        ([3], "a list"),
        (torch.ones(2), r"a float32 tensor of shape \[2\]"),
        (torch.ones(2, dtype=torch.int64), r"an int64 tensor of shape \[2\]"),
        (np.ones(2, dtype=int), "a numpy array"),
    ],
)
def test_no_integers(value: Any, found: str) -> None:
    with pytest.raises(InputError, match=f"^n: expected an integer from 0 to 9, got {found}"):
        require_integer("n", value, 0, 9)


def test_numbers() -> None:
    assert require_number("x", np.float32(0.5)) == require_number("x", torch.tensor(0.5)) == 0.5
    assert require_number("x", 0, least=0) == 0.0
    for value in (math.nan, math.inf, "0.5", None, True, 10**400, torch.ones(2), object()):
        with pytest.raises(InputError, match=r"^x: expected a finite number, got "):
            require_number("x", value)
    for value in (-1, 0):
        with pytest.raises(InputError, match=f"^x: expected a finite number > 0, got {value}$"):
            require_number("x", value, least=0, open_=True)


def test_tensors_and_types() -> None:
    one = torch.ones(1)
    require_tensors({"b": None, "c": one}, a=one)
    with pytest.raises(InputError, match=r"^a: .* torch tensor, got a numpy array .*from_numpy"):
        require_tensors(a=np.ones(1), b=one)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^b: expected a torch tensor, got None$"):
        require_tensors(a=one, b=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^b: expected device cpu, got device meta$"):
        require_tensors(a=one, b=one.to("meta"))
    with pytest.raises(InputError, match=r"^x: expected a dict, got a list$"):
        require_type("x", [], dict)


flat_bin = flat.bin(bin)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (3, None, "peaks: expected a torch tensor, got None"),
        (1, np.ones((1, 1, 3)), "conics: expected a torch tensor, got a numpy array"),
        (1, torch.ones(1, 1, 3).double(), "bin: conics: expected float32, got float64"),
        (5, 8.5, "bin: width: expected an integer of at most 64 bits, got 8.5"),
        (5, 2**70, "bin: width: expected an integer of at most 64 bits, got 11805916"),
        (6, "8", "bin: height: expected an integer of at most 64 bits, got '8'"),
        (6, None, "bin: height: expected an integer of at most 64 bits, got None"),
        (6, 70_000, "bin: height: expected 1 to 65535, got 70000"),
    ],
)
def test_an_operator_refuses(position: int, value: Any, message: str) -> None:
    flat_bin(*BINS)
    args = [value if i == position else arg for i, arg in enumerate(BINS)]
    with pytest.raises(InputError, match=f"^{message}"):
        flat_bin(*args)


def test_other_operators_name_their_arguments() -> None:
    image, one = torch.zeros(4, 4, 3), torch.ones(1, 3)
    calls: list[Callable[..., Any]] = [photometric_loss, photometric_gradient]
    calls += [metrics.psnr, metrics.ssim]
    for call in calls:
        with pytest.raises(InputError, match=r"^(radiance|image): .*numpy"):
            call(image.numpy(), image)
        with pytest.raises(InputError, match=r"^mask: .*got 'white'"):
            call(image, image, "white")
    with pytest.raises(InputError, match=r"^photometric_loss: ssim_weight: .* a number, got '1'"):
        photometric_loss(image, image, None, "1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^shade: degree: expected .*, got 1.5"):
        shade(one, one[None], torch.eye(4)[None], torch.ones(1, 1, 2), 1.5)  # type: ignore[arg-type]
    state = (one.clone(), one, one.clone(), one.clone(), torch.zeros(1, dtype=torch.int32))
    with pytest.raises(InputError, match=r"^lr: expected a finite number, got 'fast'"):
        adam_step(*state, None, "fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^param: .*numpy"):
        adam_step(one.numpy(), *state[1:], None, 0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^footprints: expected a Footprints, got a dict"):
        flow_statistics({}, *5 * [None])  # type: ignore[arg-type]


def test_errors_about_something_else_stay() -> None:
    def fails() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 MiB")

    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        input_errors(fails)()


def test_flags_and_paths() -> None:
    assert require_flag("depth", np.bool_(True)) is True and require_flag("depth", 0) is False
    value: Any
    for value in (None, "yes", 2, 0.5, [1], np.ones(2), torch.ones(2)):
        with pytest.raises(InputError, match=r"^depth: expected True or False, got "):
            require_flag("depth", value)
    for value in (None, 3, ["scene"], True):
        with pytest.raises(InputError, match=r"^path: expected a path, got "):
            load_scene(value)


NONSENSE: tuple[Any, ...]
NONSENSE = (None, "x", -1, 1.5, 2**70, math.nan, [1], {}, np.ones((3, 3)), torch.ones(2), object())
SPLATS = Splats.random(4, seed=1)
CAMERA = Camera.look_at((0, 0, -3), (0, 0, 0), width=16, height=12)
POINTS, COLORS = torch.rand(4, 3), torch.zeros(4, 3, dtype=torch.uint8)


def _start(name: str | tuple[str, ...]) -> str:
    names = (name,) if isinstance(name, str) else name
    return rf"^({'|'.join(map(re.escape, names))}): expected "


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: Splats.random(x), "count"),
        (lambda x: Splats.random(3, seed=x), "seed"),
        (lambda x: Splats.random(3, degree=x), "degree"),
        (lambda x: Splats.from_points(x, COLORS), "points"),
        (lambda x: Splats.from_points(POINTS, x), "colors"),
        (lambda x: Splats.from_points(POINTS, COLORS, opacity=x), "opacity"),
        (lambda x: Splats(**{**dict(SPLATS.items()), "quats": x}), "Splats.quats"),
        (lambda x: SPLATS.index(x), "ids"),
        (lambda x: SPLATS.with_degree(x), "degree"),
        (lambda x: Splats.cat([x]), "Splats.cat"),
        (lambda x: render(x, CAMERA), "splats"),
        (lambda x: render(SPLATS, x), "cameras"),
        (lambda x: render(SPLATS, CAMERA, options=x), "options"),
        (lambda x: render(SPLATS, CAMERA, depth=x), "depth"),
        (lambda x: render(SPLATS, CAMERA, absgrad=x), "absgrad"),
        (lambda x: RenderOptions(check=x), "check"),
        (lambda x: CAMERA.resized(x, 8), "width"),
        (lambda x: CAMERA.moved(x), "twist"),
        (lambda x: orbit(x, 4), "cameras"),
        (lambda x: interpolate([CAMERA], x), "frames"),
        (lambda x: orbit_sphere(x, 1.0), "center"),
        (lambda x: bounding_sphere(x), "points"),
        (lambda x: train(x), "options"),
        (lambda x: observations(x, COLORS), ("points", "Condition.points")),
    ],
)
def test_nonsense_is_named(call: Any, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=_start(name)):
        call(value)
