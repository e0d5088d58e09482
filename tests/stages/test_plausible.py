"""Numbers that give no image are named where the check is requested, and free elsewhere."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import splatrender
from splatrender import Camera, InputError, InputWarning, RenderOptions, Splats, rasterize, render

CHECK = RenderOptions(check=True)
WIDTH, HEIGHT = 32, 24


def lens(**changes: Any) -> Camera:
    camera = Camera.look_at((0, -1, -3), (0, 0, 0), fov_x=70, width=WIDTH, height=HEIGHT)
    return replace(camera, **changes)


def ring(count: int) -> list[Camera]:
    places = [(3 * math.sin(2 * math.pi * i / count), -1.0, 3 * math.cos(2 * math.pi * i / count))
              for i in range(count)]  # fmt: skip
    return [Camera.look_at(eye, (0, 0, 0), fov_x=50, width=WIDTH, height=HEIGHT) for eye in places]


def model(count: int = 40) -> Splats:
    return Splats.random(count, extent=0.5, seed=2)


def scene(cameras: list[Camera] | None = None) -> dict[str, Any]:
    """Arguments of `rasterize` that are beyond suspicion."""
    splats, views = model(), cameras or [lens()]
    return {
        "means": splats.means.clone(),
        "quats": splats.quats.clone(),
        "scales": splats.scales,
        "amplitudes": splats.opacities,
        "colors": splats.sh.clone(),
        "viewmats": torch.stack([view.viewmat for view in views]).float(),
        "intrinsics": torch.stack([view.intrinsics() for view in views]),
        "width": WIDTH,
        "height": HEIGHT,
        "sh_degree": 3,
        "background": torch.zeros(3),
    }


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def changed(name: str, index: Any, value: float) -> Tensor:
    tensor: Tensor = scene()[name]
    tensor[index] = value
    return tensor


# --- what is as it should be ----------------------------------------------------------------------


@pytest.mark.parametrize("response", ["gaussian", "beer_lambert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_said_of_a_good_scene(response: str, dtype: torch.dtype) -> None:
    splats, options = model().to(dtype), RenderOptions(response=response)
    checked = replace(options, check=True)
    with silence():
        for views in (lens(), ring(7)):
            found = render(splats, views, options=checked, depth=True).radiance
            assert torch.equal(found, render(splats, views, options=options, depth=True).radiance)
        rasterize(**scene(ring(5)), options=checked)
        rasterize(**scene() | {"colors": torch.rand(40, 9), "sh_degree": None, "background": None},
                  options=checked)  # fmt: skip
        empty = splats.index(torch.zeros(0, dtype=torch.int64))
        assert not bool(render(empty, lens(), options=checked).radiance.any())


def test_ends_of_logits_and_logarithms_are_possible() -> None:
    splats = model()
    splats.opacity_logits[:5], splats.opacity_logits[5:8] = math.inf, -math.inf
    splats.log_scales[:, 2] = -math.inf
    with silence():
        render(splats, lens(), options=CHECK)


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["means", "quats", "scales", "amplitudes", "colors", "background", "factors"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite(name: str, value: float) -> None:
    given = scene()
    if name == "factors":
        given |= {"quats": None, "scales": None, "factors": 0.1 * torch.eye(3).repeat(40, 1, 1)}
    given[name].view(-1)[-1] = value
    if name != "background":
        rasterize(**given)  # not looked at
        rows = "1 of 40 rows, the first is 39"
    else:
        rows = "1 of 1 rows, the first is 0"
    with pytest.raises(InputError, match=f"^{name}: .*, got NaN or infinity in {rows}$"):
        rasterize(**given, options=CHECK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quats": changed("quats", slice(3, 5), 0)}, "quats: expected norms > 0, got 0 in 2 of"),
        ({"scales": scene()["scales"].log()}, r"scales: .*>= 0, got -.* \(logarithms\? scales.e"),
        ({"amplitudes": torch.linspace(-3, 4, 40)}, r"amplitudes: .* 0..1, got -3 to 4 \(logits"),
        ({"viewmats": 2 * torch.eye(4)[None] - torch.diag(torch.tensor([0.0, 0, 0, 1]))},
         r"viewmats: expected rotations as .* of camera 0"),
        ({"viewmats": torch.diag(torch.tensor([-1.0, 1, 1, 1]))[None]}, "viewmats: .*rotations"),
    ],
)  # fmt: skip
def test_impossible_numbers(changes: dict[str, Tensor], message: str) -> None:
    with silence():
        rasterize(**scene() | changes)
    with pytest.raises(InputError, match=f"^{message}"):
        rasterize(**scene() | changes, options=CHECK)


def test_extinctions_may_exceed_one() -> None:
    options = RenderOptions(response="beer_lambert", check=True)
    amplitudes = torch.linspace(0, 40, 40)
    with silence():
        rasterize(**scene() | {"amplitudes": amplitudes}, options=options)
    with pytest.raises(InputError, match=r"^amplitudes: expected extinctions >= 0, got -1 to 39"):
        rasterize(**scene() | {"amplitudes": amplitudes - 1}, options=options)


@pytest.mark.parametrize(
    ("field", "value"), [("means", math.nan), ("opacity_logits", math.nan), ("sh", math.inf)]
)
def test_a_model_is_named_by_its_fields(field: str, value: float) -> None:
    splats = model()
    getattr(splats, field)[7] = value
    with pytest.raises(InputError, match=rf"^Splats.{field}: .*NaN or infinity in 1 of 40 rows"):
        render(splats, lens(), options=CHECK)
    splats = model()
    splats.quats[:] = 0
    with pytest.raises(InputError, match=r"^Splats.quats: expected norms > 0, got 0 in 40 of 40"):
        render(splats, lens(), options=CHECK)
    splats.quats[:, 0], splats.log_scales[3, 1] = 1, 100.0
    with pytest.raises(InputError, match=r"^Splats.log_scales: expected finite numbers"):
        render(splats, lens(), options=CHECK)


# --- what is hardly meant -------------------------------------------------------------------------


def flipped(viewmats: Tensor) -> Tensor:
    return torch.diag(torch.tensor([1.0, -1, -1, 1])) @ viewmats


@pytest.mark.parametrize("cameras", [1, 6])
@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (torch.linalg.inv, r"\(camera-to-world matrices\? torch.linalg.inv\(viewmats\) would see"),
        (flipped, r"\(axes of OpenGL\? diag\(1, -1, -1, 1\) @ viewmats would see"),
        (lambda v: torch.linalg.inv(flipped(v)), r"\(camera-to-world with axes of OpenGL\? diag"),
    ],
    ids=["inverse", "OpenGL", "both"],
)
def test_poses_of_another_convention(mistake: Any, hint: str, cameras: int) -> None:
    given = scene(ring(6)[-cameras:])
    given["viewmats"] = mistake(given["viewmats"])
    with silence():
        rasterize(**given)
    with pytest.warns(InputWarning, match=rf"^viewmats: expected world-to-camera poses.*{hint}"):
        rasterize(**given, options=CHECK)


def test_a_camera_that_sees_nothing_says_why() -> None:
    views = ring(5)
    views[2] = Camera.look_at((0, -1, 100), (0, -1, 200), width=WIDTH, height=HEIGHT)
    message = (
        r"^cameras: .*got 1 of 5 cameras that see none, the first is 2: "
        r"100% are behind it, 0% nearer than near, 0% beside it$"
    )
    with pytest.warns(InputWarning, match=message) as caught:
        render(model(), views, options=CHECK)
    assert caught[0].filename == __file__ and len(caught) == 1
    near = RenderOptions(near=20.0, check=True)
    with pytest.warns(InputWarning, match="0% are behind it, 100% nearer than near"):
        render(model(), lens(), options=near)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colors": 255 * torch.rand(40, 3), "sh_degree": None},
         r"colors: expected colours in 0..1, got .* \(counted to 255\?"),
        ({"colors": 255 * torch.rand(40, 16, 3)}, r"colors: expected coefficients of colours"),
        ({"background": torch.full((3,), 255.0)}, r"background: .*got up to 255 \(counted"),
        ({"scales": scene()["scales"].exp()}, r"scales: .* smaller than the scene, .*\(exp taken"),
        ({"intrinsics": torch.tensor([[0.7, 0.9, 0.5, 0.5]])},
         r"intrinsics: expected focal lengths in pixels, .*\(normalised\?"),
        ({"intrinsics": torch.tensor([[25.0, 25, 0, 0]])}, r"intrinsics: .*principal point from"),
        ({"intrinsics": torch.tensor([[25.0, 25, 12, 16]])}, r"intrinsics: .*height exchanged\?"),
        ({"intrinsics": torch.tensor([[25.0, 25, 960, 540]])}, r"intrinsics: .*of another size\?"),
    ],
)  # fmt: skip
def test_implausible_numbers(changes: dict[str, Any], message: str) -> None:
    given = scene() | changes
    with silence():
        rasterize(**given)
    with pytest.warns(InputWarning) as caught:
        rasterize(**given, options=CHECK)
    assert len(caught) == 1 and caught[0].filename == __file__
    lines = str(caught[0].message).splitlines()
    assert any(re.match(message, line) for line in lines), lines


def test_a_model_of_opacities_and_scales() -> None:
    splats = model()
    wrong = replace(splats, opacity_logits=torch.linspace(0.1, 0.9, 40))
    with pytest.warns(InputWarning, match=r"^Splats.opacity_logits: .* logits, .*torch.logit"):
        render(wrong, lens(), options=CHECK)
    wrong = replace(splats, log_scales=splats.scales)
    with pytest.warns(InputWarning, match=r"^Splats.log_scales: expected splats smaller than"):
        render(wrong, lens(), options=CHECK)


# --- the switch -----------------------------------------------------------------------------------


def test_debug_is_a_block_or_a_switch() -> None:
    bad = scene() | {"quats": torch.zeros(40, 4)}
    rasterize(**bad)
    with splatrender.debug():
        with pytest.raises(InputError, match=r"^quats"):
            rasterize(**bad)
        with splatrender.debug(False):
            rasterize(**bad)
        with pytest.raises(InputError, match=r"^quats"):
            rasterize(**bad)
    rasterize(**bad)
    splatrender.debug()
    try:
        with pytest.raises(InputError, match=r"^quats"):
            rasterize(**bad)
    finally:
        splatrender.debug(False)
    rasterize(**bad)
    with pytest.raises(ZeroDivisionError), splatrender.debug():
        raise ZeroDivisionError
    rasterize(**bad)


def test_checks_leave_gradients_alone() -> None:
    slopes = []
    for options in (CHECK, RenderOptions()):
        given = scene()
        leaves = {name: given[name].requires_grad_() for name in ("means", "viewmats", "colors")}
        rasterize(**given, options=options).radiance.square().sum().backward()
        slopes.append([leaf.grad for leaf in leaves.values()])
    assert all(torch.equal(one, two) for one, two in zip(*slopes, strict=True))
