"""Checks of the operators' arguments: an `InputError` that names the argument."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from splatrender.arguments import described, dtype_name, require_integer, require_tensors
from splatrender.errors import InputError
from splatrender.model.splats import MAX_DEGREE
from splatrender.operators.stages import Colors, Lens, SplatTensors
from splatrender.runtime.devices import to_device

P = ParamSpec("P")
R = TypeVar("R")

_REFUSED = re.compile(r"\w+: .+: expected .+, got .+")  # as csrc/check.h writes it
_UNFIT = re.compile(  # as torch's dispatcher writes it
    r"splatrender::(\w+)\(\) Expected a value of type '(.+)' for argument '(\w+)' but .*"
    r"found type '(.+)'\.\n(?:.*\n)?Value: (.*)"
)
_KINDS = {"int": "an integer of at most 64 bits", "float": "a number", "bool": "True or False"}


def input_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a call of an operator: a refusal of its kernel becomes an `InputError`.

    Kernels refuse by RuntimeErrors; those about anything but an argument stay as they are.
    """

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            message = _refusal(str(error))
            if message is None:
                raise
            raise InputError(message) from None

    return checked


def _refusal(message: str) -> str | None:
    """Return the sentence of a refusal; None if the message is about something else."""
    first = message.partition("\n")[0]
    if _REFUSED.fullmatch(first):
        return first
    unfit = _UNFIT.match(message)
    if unfit is None:
        return None
    operator, wanted, name, kind, value = unfit.groups()
    found = value if kind in ("int", "float", "str", "NoneType") else kind
    return f"{operator}: {name}: expected {_KINDS.get(wanted, wanted)}, got {found:.60}"


_SHAPES: dict[str, tuple[str | int, ...]] = {
    "means": ("N", 3),
    "quats": ("N", 4),
    "scales": ("N", 3),
    "factors": ("N", 3, 3),
    "amplitudes": ("N",),
    "viewmats": ("C", 4, 4),
    "intrinsics": ("C", 4),
}
_OF_CAMERAS = ("viewmats", "intrinsics")  # any floating-point dtype


class Unset(Enum):
    """Value of an argument that was not given, where None means something else."""

    UNSET = "not given"


UNSET = Unset.UNSET


@dataclass(frozen=True)
class SceneTensors:
    """Splats, colours and cameras as tensors that fit each other, see `rasterize`.

    Attributes:
        splats: N splats.
        colors: their colours; the degree is that of the stored harmonics.
        lens: C cameras; all tensors have one dtype.
    """

    splats: SplatTensors
    colors: Colors
    lens: Lens

    @property
    def channels(self) -> int:
        """Number D of channels of the images."""
        return self.colors.values.shape[-1]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and values of the tensors that are given."""
        s, lens = self.splats, self.lens
        named = zip(("means", "quats", "scales", "factors", "amplitudes"), s.arguments, strict=True)
        yield from ((name, tensor) for name, tensor in named if tensor is not None)
        yield "colors", self.colors.values
        yield "viewmats", lens.viewmats
        yield "intrinsics", lens.intrinsics


def require_scene(tensors: Mapping[str, Any]) -> None:
    """Refuse splats and cameras of another type, dtype, device or shape than `rasterize` takes.

    Args:
        tensors: means, quats, scales, factors, amplitudes, viewmats, intrinsics by these names.

    Raises:
        InputError: names the first that does not fit.
    """
    shape = {name: tensors[name] for name in ("quats", "scales", "factors")}
    given = [name for name, tensor in shape.items() if tensor is not None]
    if given not in (["quats", "scales"], ["factors"]):
        found = " and ".join(given) or "none of them"
        raise InputError(
            f"quats, scales, factors: expected either quats and scales or factors, got {found}"
        )
    kept = {name: t for name, t in tensors.items() if name in given or name not in shape}
    require_tensors(**kept)
    means, viewmats = kept["means"], kept["viewmats"]
    if means.dtype not in (torch.float32, torch.float64):
        raise InputError(f"means: expected float32 or float64, got {dtype_name(means.dtype)}")
    sizes: dict[str | int, int] = {
        "N": means.shape[0] if means.dim() else 0,
        "C": viewmats.shape[0] if viewmats.dim() else 0,
    }
    for name, tensor in kept.items():
        letter, *rest = _SHAPES[name]
        if tensor.dtype != means.dtype:
            require_dtype(name, tensor, None if name in _OF_CAMERAS else means)
        if tensor.shape != (sizes[letter], *rest):
            _refuse_shape(name, tuple(tensor.shape), sizes)


def require_dtype(name: str, tensor: Tensor, means: Tensor | None, hint: str = "") -> None:
    """Refuse a tensor whose dtype is not that of means, or is no floating-point one."""
    if means is not None and tensor.dtype != means.dtype:
        expected = f"{dtype_name(means.dtype)} as of means"
    elif not tensor.is_floating_point():
        expected = "a floating-point dtype"
    else:
        return
    raise InputError(f"{name}: expected {expected}, got {dtype_name(tensor.dtype)}{hint}")


def _refuse_shape(name: str, found: tuple[int, ...], sizes: dict[str | int, int]) -> None:
    first = name in ("means", "viewmats")  # they set N and C
    shape = _SHAPES[name]
    words = (f"{a}={sizes[a]}" if a in sizes and not first else str(a) for a in shape)
    hint = _hint(name, found, shape)
    raise InputError(f"{name}: expected shape [{', '.join(words)}], got {list(found)}{hint}")


def _hint(name: str, found: tuple[int, ...], shape: tuple[str | int, ...]) -> str:
    """Return a hint that repairs the shape of a usual mistake."""
    if name == "intrinsics" and found[-2:] == (3, 3):
        return " (of camera matrices K: K[:, (0, 1, 0, 1), (0, 1, 2, 2)], which is fx, fy, cx, cy)"
    if name == "viewmats" and found[-2:] == (3, 4):
        return " (append the row 0, 0, 0, 1)"
    if name in _OF_CAMERAS and found == shape[1:]:
        return f" (of one camera: {name}[None])"
    if found[1:] == (*shape[1:], 1):
        return f" ({name}.squeeze(-1) has it)"
    return ""


def require_cameras(viewmats: Tensor, intrinsics: Tensor) -> None:
    """Refuse numbers that describe no camera. Waits for the GPU if they are there.

    Args:
        viewmats: [C,4,4].
        intrinsics: [C,4].

    Raises:
        InputError: a number is not finite, a focal length is not positive, or the last row of a
            viewmat is not 0, 0, 0, 1.
    """
    try:
        lenses, poses = intrinsics.tolist(), viewmats.tolist()
    except RuntimeError:  # within a transform of torch.func, or fake: there are no numbers
        return
    for i, row in enumerate(lenses):
        if not (all(map(math.isfinite, row)) and row[0] > 0 and row[1] > 0):
            raise InputError(
                f"intrinsics: expected finite numbers fx > 0, fy > 0, cx, cy, got {row} "
                f"of camera {i}"
            )
    for i, rows in enumerate(poses):
        if not all(math.isfinite(x) for row in rows for x in row):
            raise InputError(f"viewmats: expected finite numbers, got {rows} of camera {i}")
        if max(abs(a - b) for a, b in zip(rows[3], (0, 0, 0, 1), strict=True)) > 1e-3:
            raise InputError(
                f"viewmats: expected 0, 0, 0, 1 as the last row, got {rows[3]} of camera {i}: "
                "points are columns here, p_camera = viewmat p_world; transpose matrices for rows"
            )


def require_background(background: Tensor | Sequence[float] | None, scene: SceneTensors) -> Tensor:
    """Return the background of each camera, [C,D], with the dtype and device of the scene.

    Args:
        background: [D] or [C,D], or as many numbers; None for black.
        scene: sets C, D, dtype and device.

    Raises:
        InputError: it has another type or shape, or counts to 255.
    """
    means, cameras = scene.splats.means, len(scene.lens.viewmats)
    channels = scene.channels
    if background is None:
        return means.new_zeros(cameras, channels)
    try:
        values = torch.as_tensor(background)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"background: expected a tensor or {channels} numbers, got {described(background)}"
        ) from None
    if values.shape not in ((channels,), (cameras, channels)):
        raise InputError(
            f"background: expected [{channels}] or [{cameras}, {channels}], "
            f"got {list(values.shape)}"
        )
    whole = not values.is_floating_point() and values.device.type == "cpu"
    if whole and values.numel() and int(values.max()) > 1:
        raise InputError(
            f"background: expected colours in 0..1, got {values.tolist()} (divide by 255)"
        )
    return to_device(values, means.device, means.dtype).expand(cameras, channels)


def require_colors(
    colors: Tensor, means: Tensor, cameras: int, sh_degree: int | Unset | None
) -> int | None:
    """Refuse colours that do not fit `sh_degree`.

    Args:
        colors: [N,K,3] harmonics with a degree; [N,D] or [C,N,D] values with None.
        means: [N,3], for their number, dtype and device.
        cameras: C.
        sh_degree: argument of `rasterize`.

    Returns:
        The degree, or None for values.

    Raises:
        InputError: colors have another type, dtype, device or shape, or sh_degree is not given
            where the shape fits both meanings.
    """
    require_tensors(means=means, colors=colors)
    hint = "" if colors.is_floating_point() else " (colours are in 0..1: colors.float() / 255)"
    require_dtype("colors", colors, means, hint)
    count, found = len(means), list(colors.shape)
    fits = found[:-1] in ([count], [cameras, count]) and found[-1] >= 1
    if sh_degree is UNSET:
        sh_degree = _guessed_degree(found, count, fits)
    if sh_degree is None:
        if not fits:
            raise InputError(
                f"colors: expected [N, D] or [C, N, D] with N = {count} and C = {cameras}, got "
                f"{found} (sh_degree makes them spherical harmonics [N, K, 3])"
            )
        return None
    degree = require_integer("sh_degree", sh_degree, 0, MAX_DEGREE)
    least, most = (degree + 1) ** 2, (MAX_DEGREE + 1) ** 2
    if not (len(found) == 3 and found[::2] == [count, 3] and least <= found[1] <= most):
        raise InputError(
            f"colors: expected harmonics [N, K, 3] with N = {count} and K from {least} "
            f"(sh_degree {degree}) to {most}, got {found}"
        )
    return degree


def _guessed_degree(found: list[int], count: int, fits: bool) -> int | None:
    """Return the degree of colours that are given without `sh_degree`; None for values."""
    harmonic = len(found) == 3 and found[::2] == [count, 3] and found[1] in (1, 4, 9, 16)
    if not harmonic:
        return None
    degree = math.isqrt(found[1]) - 1
    if fits:
        raise InputError(
            f"sh_degree: expected it to be given, as colors of shape {found} may be spherical "
            f"harmonics [N, K, 3] (sh_degree={degree}) or values [C, N, 3] (sh_degree=None)"
        )
    warnings.warn(
        f"rasterize: colors of shape {found} are taken for spherical harmonics; this guess will "
        f"be removed: pass sh_degree={degree}",
        DeprecationWarning,
        stacklevel=4,
    )
    return degree
