"""Arguments of `rasterize` and `render`: meanings never depend on sizes."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import splatrender
from splatrender import Camera, InputError, RenderOptions, Splats, rasterize, render
from splatrender.operators.flow_statistics import levels_of
from splatrender.operators.render import peak_amplitudes
from splatrender.reference import rasterize as reference

WIDTH, HEIGHT = 24, 18


def scene(count: int = 5, cameras: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Return arguments of `rasterize` that fit each other, by name; colours are values [N,3]."""
    generator = torch.Generator().manual_seed(count)
    draw = torch.rand(count, 14, generator=generator, dtype=dtype)
    viewmats = torch.eye(4, dtype=dtype).repeat(cameras, 1, 1)
    viewmats[:, 2, 3] = torch.arange(cameras) + 3
    return {
        "means": draw[:, :3] - 0.5,
        "quats": draw[:, 3:7],
        "scales": 0.1 + 0.2 * draw[:, 7:10],
        "amplitudes": 0.1 + 0.8 * draw[:, 10],
        "colors": draw[:, 11:],
        "viewmats": viewmats,
        "intrinsics": torch.tensor([[20.0, 20, 12, 9]], dtype=dtype).repeat(cameras, 1),
        "width": WIDTH,
        "height": HEIGHT,
    }


def image(**changes: Any) -> Tensor:
    arguments = scene() | changes
    return rasterize(**({"sh_degree": None} | arguments)).radiance


# --- colours: values or harmonics -----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 9])
@pytest.mark.parametrize("cameras", [1, 2, 4, 9])
def test_the_meaning_of_colours_does_not_depend_on_sizes(count: int, cameras: int) -> None:
    """[C,N,3] with C = N, K fitting or not: always values without a degree."""
    given = scene(count, cameras, torch.float64)
    values = given.pop("colors").repeat(cameras, 1, 1)
    expected = rasterize(**given, colors=values[0], sh_degree=None).radiance
    assert torch.equal(rasterize(**given, colors=values, sh_degree=None).radiance, expected)
    # And each camera sees its own.
    values = values * torch.linspace(0.2, 1, cameras, dtype=torch.float64)[:, None, None]
    found = rasterize(**given, colors=values, sh_degree=None).radiance
    for camera in range(cameras):
        alone = rasterize(**given, colors=values[camera], sh_degree=None).radiance[camera]
        torch.testing.assert_close(found[camera], alone)


@pytest.mark.parametrize("count", [1, 4, 16])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_degree_makes_them_harmonics(count: int, degree: int) -> None:
    """Also where C = N, and with more coefficients than the degree uses."""
    given = scene(count, cameras=count if count < 16 else 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(degree)
    given["colors"] = torch.randn(count, 16, 3, generator=generator, dtype=torch.float64)
    found = rasterize(**given, sh_degree=degree).radiance
    cut = given | {"colors": given["colors"][:, : (degree + 1) ** 2]}
    torch.testing.assert_close(rasterize(**cut, sh_degree=degree).radiance, found)
    torch.testing.assert_close(reference(**cut, sh_degree=degree)[0], found)
    if degree:
        options = RenderOptions(sh_degree=degree - 1)
        lower = rasterize(**given, sh_degree=degree, options=options).radiance
        torch.testing.assert_close(lower, rasterize(**given, sh_degree=degree - 1).radiance)
        assert not torch.equal(lower, found)


def test_any_number_of_channels() -> None:
    assert image(colors=torch.rand(5, 7)).shape == (2, HEIGHT, WIDTH, 7)
    assert image(colors=torch.rand(2, 5, 1)).shape == (2, HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("shape", [(5, 1, 3), (5, 16, 3)])
def test_without_a_degree_harmonics_are_guessed_with_a_warning(shape: tuple[int, ...]) -> None:
    given = scene() | {"colors": torch.rand(shape)}
    degree = math.isqrt(shape[1]) - 1
    with pytest.warns(DeprecationWarning, match=f"harmonics; .*pass sh_degree={degree}") as caught:
        found = rasterize(**given).radiance
    assert caught[0].filename == __file__
    assert torch.equal(found, rasterize(**given, sh_degree=degree).radiance)


@pytest.mark.parametrize("shape", [(5, 3), (5, 4), (2, 5, 3), (2, 5, 1)])
def test_values_need_no_degree_where_nothing_else_fits(shape: tuple[int, ...]) -> None:
    given = scene() | {"colors": torch.rand(shape)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rasterize(**given).radiance
    assert torch.equal(found, rasterize(**given, sh_degree=None).radiance)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_colours_of_two_meanings_are_refused_without_a_degree(count: int) -> None:
    given = scene(count, count) | {"colors": torch.rand(count, count, 3)}
    with pytest.raises(InputError, match=r"^sh_degree: expected it to be given, as colors of"):
        rasterize(**given)


@pytest.mark.parametrize(
    ("shape", "degree", "found"),
    [
        ((5, 16, 3), None, r"\[N, D\] or \[C, N, D\] .* got \[5, 16, 3\] \(sh_degree makes"),
        ((5, 0), None, r"got \[5, 0\]"),
        ((4, 3), None, r"with N = 5 and C = 2, got \[4, 3\]"),
        ((5, 3), 0, r"harmonics \[N, K, 3\] with N = 5 and K from 1 .* got \[5, 3\]"),
        ((5, 8, 3), 2, r"K from 9 \(sh_degree 2\) to 16, got \[5, 8, 3\]"),
        ((5, 25, 3), 3, r"to 16, got \[5, 25, 3\]"),
        ((2, 5, 3), 0, r"got \[2, 5, 3\]"),
    ],
)
def test_colours_that_do_not_fit(shape: tuple[int, ...], degree: int | None, found: str) -> None:
    with pytest.raises(InputError, match=f"^colors: expected .*{found}"):
        image(colors=torch.rand(shape), sh_degree=degree)


@pytest.mark.parametrize("degree", [4, -1, 1.5, "3", True])
def test_degrees_that_are_none(degree: Any) -> None:
    with pytest.raises(InputError, match=r"^sh_degree: expected an integer from 0 to 3, got"):
        image(colors=torch.rand(5, 16, 3), sh_degree=degree)
    with pytest.raises(InputError, match=r"^sh_degree: expected an integer from 0 to 3, got"):
        RenderOptions(sh_degree=degree)


# --- types, dtypes, devices and shapes ------------------------------------------------------------

TENSORS = ("means", "quats", "scales", "amplitudes", "colors", "viewmats", "intrinsics")


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("value", [None, "white", [[1.0]], np.ones((5, 3), dtype=np.float32)])
def test_what_is_no_tensor(name: str, value: Any) -> None:
    shape = name in ("quats", "scales") and value is None
    expected = "quats, scales, factors: expected either" if shape else f"{name}: expected a torch"
    with pytest.raises(InputError, match=f"^{expected} ?.*got"):
        image(**{name: value})


def test_numpy_throughout() -> None:
    arrays: dict[str, Any]
    arrays = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in scene().items()}
    with pytest.raises(InputError, match=r"^means: .*got a numpy array \(torch.from_numpy"):
        rasterize(**arrays)


@pytest.mark.parametrize("name", TENSORS)
def test_integers(name: str) -> None:
    wanted = "float32" if name not in ("viewmats", "intrinsics") else "a floating-point dtype"
    with pytest.raises(InputError, match=f"^{name}: expected {wanted}.*, got int64"):
        image(**{name: scene()[name].long()})


def test_integer_colours_say_what_to_divide_by() -> None:
    with pytest.raises(InputError, match=r"^colors: .*got uint8 \(.*colors.float\(\) / 255"):
        image(colors=torch.full((5, 3), 255, dtype=torch.uint8))


@pytest.mark.parametrize("name", TENSORS[1:5])
def test_two_dtypes_of_splats(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected float32 as of means, got float64"):
        image(**{name: scene()[name].double()})


@pytest.mark.parametrize("name", TENSORS[1:])
def test_two_devices(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected device cpu, got device meta"):
        image(**{name: scene()[name].to("meta")})


def test_half_precision_is_refused_and_cameras_follow_the_splats() -> None:
    with pytest.raises(InputError, match=r"^means: expected float32 or float64, got bfloat16"):
        image(means=scene()["means"].bfloat16())
    given = scene()
    doubles = {name: given[name].double().requires_grad_() for name in ("viewmats", "intrinsics")}
    found = image(**doubles, background=torch.zeros(3, dtype=torch.float64))
    assert found.dtype == torch.float32 and torch.equal(found, image())
    found.square().sum().backward()
    for tensor in doubles.values():
        assert tensor.grad is not None and tensor.grad.dtype == torch.float64
        assert bool(tensor.grad.any())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("means", (5, 2), r"\[N, 3\], got \[5, 2\]"),
        ("quats", (4, 4), r"\[N=5, 4\], got \[4, 4\]"),
        ("scales", (5,), r"\[N=5, 3\], got \[5\]"),
        ("amplitudes", (5, 1), r"\[N=5\], got \[5, 1\] \(amplitudes.squeeze\(-1\)"),
        ("viewmats", (4, 4), r"\[C, 4, 4\], got \[4, 4\] \(of one camera: viewmats\[None\]\)"),
        ("viewmats", (2, 3, 4), r"\[C, 4, 4\], .* \(append the row 0, 0, 0, 1\)"),
        ("intrinsics", (4,), r"\[C=2, 4\], got \[4\] \(of one camera: intrinsics\[None\]\)"),
        ("intrinsics", (2, 3, 3), r"\[C=2, 4\], got \[2, 3, 3\] \(of camera matrices K: K\["),
        ("intrinsics", (3, 4), r"\[C=2, 4\], got \[3, 4\]"),
    ],
)
def test_shapes(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected shape {message}"):
        image(**{name: torch.ones(shape)})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"scales": None}, "quats"),
        ({"quats": None, "scales": None}, "none of them"),
        ({"factors": torch.ones(5, 3, 3)}, "quats and scales and factors"),
    ],
)
def test_shape_is_given_once(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"^quats, scales, factors: expected .*, got {found}$"):
        image(**changes)


# --- numbers on the host --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 8.5, 2**70, "8", None, math.nan, True])
@pytest.mark.parametrize("name", ["width", "height"])
def test_sizes_of_images(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected an integer from 1 to 65535, got"):
        image(**{name: value})


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, 0.0, r"intrinsics: expected .*fx > 0.*, got \[0.0, 20.0, 12.0, 9.0\] of camera 1"),
        (1, -20.0, r"intrinsics: expected .*fy > 0.*, got \[20.0, -20.0, 12.0, 9.0\]"),
        (2, math.nan, r"intrinsics: expected finite numbers.*nan"),
        (3, math.inf, r"intrinsics: expected finite numbers.*inf"),
    ],
)
def test_impossible_intrinsics(position: int, value: float, message: str) -> None:
    intrinsics = scene()["intrinsics"]
    intrinsics[1, position] = value
    with pytest.raises(InputError, match=f"^{message}"):
        image(intrinsics=intrinsics)


def test_impossible_viewmats() -> None:
    viewmats = scene()["viewmats"]
    with pytest.raises(InputError, match=r"^viewmats: .*0, 0, 0, 1 as the last row.* camera 0: .*"):
        image(viewmats=viewmats.mT)
    viewmats[1, 0, 3] = math.nan
    with pytest.raises(InputError, match=r"^viewmats: expected finite numbers, .* of camera 1"):
        image(viewmats=viewmats)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"near": 0}, "near: expected a finite number > 0, got 0"),
        ({"near": "close"}, "near: expected a finite number > 0, got 'close'"),
        ({"near": 2, "far": 1}, "near, far: expected near < far, got 2, 1"),
        ({"far": math.nan}, "far: expected a finite number, got nan"),
        ({"far": None}, "far: expected a finite number, got None"),
        ({"eps2d": -0.1}, "eps2d: expected a finite number >= 0, got -0.1"),
        ({"eps2d": math.nan}, "eps2d: expected a finite number >= 0, got nan"),
        ({"response": "beer-lambert"}, "response: expected 'gaussian' or 'beer_lambert', got"),
        ({"response": ["gaussian"]}, "response: expected 'gaussian' or 'beer_lambert', got"),
    ],
)
def test_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        RenderOptions(**changes)


def test_a_response_is_known_everywhere() -> None:
    one = torch.full((1,), 0.5)
    for call in (lambda x: peak_amplitudes(one, one[:, None], x), lambda x: levels_of([1.0], x)):
        with pytest.raises(InputError, match=r"^response: expected 'gaussian' or 'beer_lambert'"):
            call("beer")
    with pytest.raises(InputError, match=r"^options: expected a RenderOptions, got a dict"):
        image(options={"near": 1})


def test_absolute_gradients_of_many_channels() -> None:
    with pytest.raises(InputError, match=r"^absgrad: expected at most 4 channels.*, got 5"):
        image(colors=torch.rand(5, 5), absgrad=True)
    with pytest.raises(InputError, match=r"^absgrad: expected at most 4 channels.*, got 5"):
        image(colors=torch.rand(5, 4), absgrad=True, depth=True)


# --- the background -------------------------------------------------------------------------------

WHITE: tuple[Any, ...] = (
    (1, 1, 1),
    [1.0, 1.0, 1.0],
    np.ones(3),
    torch.ones(3, dtype=torch.float64),
    torch.ones(3, dtype=torch.uint8),
    torch.ones(2, 3),
)


@pytest.mark.parametrize("white", WHITE, ids=range(len(WHITE)))
def test_backgrounds(white: Any) -> None:
    found = image(background=white)
    assert found.dtype == torch.float32 and torch.equal(found[0, 0, 0], torch.ones(3))
    camera = Camera.look_at((0, 0, -30), (0, 0, 0), width=WIDTH, height=HEIGHT)
    seen = render(Splats.random(4, seed=1), 2 * [camera], background=white).radiance
    assert torch.equal(seen.detach()[0, 0, 0], torch.ones(3))


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("white", "a tensor or 3 numbers, got 'white'"),
        ({}, "a tensor or 3 numbers, got a dict"),
        ([1, "x", 1], "a tensor or 3 numbers, got a list"),
        ([1, 1], r"\[3\] or \[2, 3\], got \[2\]"),
        (1.0, r"\[3\] or \[2, 3\], got \[\]"),
        ((255, 255, 255), r"colours in 0..1, got \[255, 255, 255\] \(divide by 255\)"),
        (torch.full((3,), 255, dtype=torch.uint8), "colours in 0..1, got"),
    ],
)
def test_backgrounds_that_are_none(background: Any, message: str) -> None:
    camera = Camera(torch.eye(4), 20, 20, 12, 9, WIDTH, HEIGHT)
    with pytest.raises(InputError, match=f"^background: expected {message}"):
        image(background=background)
    with pytest.raises(InputError, match=f"^background: expected {message}"):
        render(Splats.random(4, seed=1), 2 * [camera], background=background)


# --- render ---------------------------------------------------------------------------------------


class Shot:
    """Something with a camera, as the views of a scene are."""

    camera = Camera(torch.eye(4), 20, 20, 12, 9, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (Shot(), "a Camera or several, got a Shot, which has one: pass its .camera"),
        ([Shot.camera, Shot()], "a Camera or several, got a Shot, which has one"),
        (None, "a Camera or several, got None"),
        (torch.eye(4), r"a Camera or several, got a float32 tensor of shape \[4\]"),
        ("front", "a Camera or several, got 'f'"),
        ([], "at least one camera, got none"),
    ],
)
def test_what_is_no_camera(cameras: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^cameras: expected {message}"):
        render(Splats.random(4, seed=1), cameras)


def test_what_is_no_model() -> None:
    with pytest.raises(InputError, match=r"^splats: expected a Splats, got a dict"):
        render({}, Shot.camera)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^options: expected a RenderOptions, got None"):
        render(Splats.random(4, seed=1), Shot.camera, options=None)  # type: ignore[arg-type]


def test_a_double_model_is_rendered_with_double_intrinsics() -> None:
    splats = Splats.random(4, seed=1).to(torch.float64)
    one, two = (Camera(torch.eye(4), f, f, 12.0, 9.0, WIDTH, HEIGHT) for f in (20.1, 20.1 + 1e-8))
    assert not torch.equal(*(render(splats, camera).radiance for camera in (one, two)))


def test_it_compiles_without_breaks() -> None:
    given = scene()
    tensors = [given[name] for name in TENSORS]

    def shot(*tensors: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(TENSORS, tensors, strict=True))
        return rasterize(**named, width=WIDTH, height=HEIGHT, sh_degree=None).radiance

    torch.compiler.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(shot, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*tensors), shot(*tensors))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_cameras_under_vmap_are_not_read_and_binning_refuses_them() -> None:
    given = scene(cameras=3)
    viewmats = given.pop("viewmats")
    given["intrinsics"] = given["intrinsics"][:1]

    def shot(viewmat: Tensor) -> Tensor:
        return rasterize(**given, viewmats=viewmat[None], sh_degree=None).radiance[0]

    with pytest.raises(NotImplementedError, match=r"bin does not run under torch\.vmap"):
        torch.func.vmap(shot)(viewmats)


def test_every_public_name_has_a_summary_and_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, ValueError)
    for name in splatrender.__all__:
        assert (inspect.getdoc(getattr(splatrender, name)) or "").strip(), name
