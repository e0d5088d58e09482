"""Old forms of the stages, with all tensors and sizes in one list, for one release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from splatrender.interfaces import Footprints, Lens, Projected, SplatTensors, TileLists

P = ParamSpec("P")
R = TypeVar("R")

SIZE = ["width", "height"]
SPLATS = ["means", "quats", "scales", "factors", "amplitudes"]
FOOTPRINTS = ["means2d", "conics", "peaks", "emission", "backgrounds"]
PROJECT = [*SPLATS, *(field.name for field in fields(Lens))]
BIN = [*(field.name for field in fields(Projected)), *SIZE]
LISTS = [field.name for field in fields(TileLists)]
BLEND = [*FOOTPRINTS, *LISTS, *SIZE, "response", "with_visibility", "with_absgrad"]


def accepts_old_form(
    sign: str, old: Callable[..., Any]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a stage with at most three positional parameters: it also accepts its old form.

    Args:
        sign: keyword that only the old form has.
        old: function that calls the stage, its first argument, with arguments of the old form.

    Returns:
        A decorator of the stage.
    """

    def decorate(stage: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(stage)
        def both(*args: Any, **options: Any) -> Any:
            if len(args) > 3 or sign in options:
                warn_of_old_form(f"{stage.__name__} with a flat list of arguments")
                return old(stage, *args, **options)
            return stage(*args, **options)

        return cast(Callable[P, R], both)

    return decorate


def warn_of_old_form(form: str) -> None:
    """Warn that a form ends with the next release."""
    warnings.warn(
        f"{form} ends with the next release: pass the types of splatrender.operators.stages",
        DeprecationWarning,
        stacklevel=3,
    )


def project(stage: Callable[..., Projected], *args: Any, **options: Any) -> tuple[Tensor, ...]:
    """Return means2d, conics, depths, peaks and extents as a tuple."""
    a = _by_name(PROJECT, args, options)
    splats = SplatTensors(**{name: a[name] for name in SPLATS})
    return stage(splats, Lens(*(a[name] for name in PROJECT[5:]))).arguments


def bin_splats(stage: Callable[..., TileLists], *args: Any, **options: Any) -> tuple[Tensor, ...]:
    """Return tile_offsets, splat_ids, slots and splat_offsets as a tuple."""
    a = _by_name(BIN, args, options)
    projected = Projected(*(a[name] for name in BIN[:5]))
    return stage(projected, _lens(a)).arguments


def blend(stage: Callable[..., Any], *args: Any, **options: Any) -> tuple[Tensor, ...]:
    """Return radiance, transmittance, visibility and hits as a tuple."""
    a = _by_name(BLEND, args, {"with_absgrad": False, **options})
    means2d = a["means2d"]
    projected = Projected(means2d, a["conics"], a["peaks"], a["peaks"], means2d)
    footprints = Footprints(projected, a["emission"], a["backgrounds"])
    lists = TileLists(*(a[name] for name in LISTS))
    out = stage(
        footprints, lists, _lens(a), visibility=a["with_visibility"], absgrad=a["with_absgrad"]
    )
    return out.radiance, out.transmittance, out.visibility, out.hits


def _by_name(names: list[str], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    given = {**options, **dict(zip(names, args, strict=False))}
    if len(args) > len(names) or set(given) != set(names):
        raise TypeError(f"expected the arguments {', '.join(names)}, got {len(given)} of them")
    return given


def _lens(a: dict[str, Any]) -> Lens:
    nothing = torch.empty(0)
    return Lens(nothing, nothing, a["width"], a["height"], response=a.get("response", 0))
