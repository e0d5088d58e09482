"""Checks of numbers: impossible or implausible ones are named before the image is black.

The check costs a pass over all numbers and a wait for the GPU, so it is off by default:
`RenderOptions(check=True)` enables it for one call, `splatrender.debug()` for all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from splatrender.errors import InputError, InputWarning
from splatrender.operators.inputs import SceneTensors, require_cameras
from splatrender.operators.options import RESPONSES

ARGUMENTS: Mapping[str, str] = MappingProxyType({})
SPLATS = MappingProxyType(
    {
        "means": "Splats.means",
        "quats": "Splats.quats",
        "scales": "Splats.log_scales",
        "amplitudes": "Splats.opacity_logits",
        "colors": "Splats.sh",
        "viewmats": "cameras",
        "intrinsics": "cameras",
    }
)
"""Names in `render` of the arguments of `rasterize`."""

MOST_COLOR = 8.0  # brighter than any radiance relative to white, far below 255
MOST_HARMONIC = 30.0  # 8 / Y_0
BLIND = 0.01  # a camera sees fewer of the splats than this part: about nothing
SAMPLE = 4096  # splats that stand for all where cameras are tried
FLIP = (1.0, -1.0, -1.0, 1.0)  # between OpenGL's axes (y up, z backward) and OpenCV's

_debugging = False


class debug:  # noqa: N801, used like a function
    """Check the numbers of all renderings, from now on or within a `with` block.

    Impossible ones (NaN, zero quaternions, negative scales, opacities outside 0..1, matrices that
    are no rigid motion) raise an `InputError`, implausible ones (cameras that see no splat,
    camera-to-world matrices, colours of 0..255, normalised intrinsics) give an `InputWarning`; both
    name the argument and the likely mistake. It costs a pass over all numbers and a wait for a GPU.
    Compiled calls (torch.compile) are not checked.

    Args:
        enabled: False switches off.

    Example:
        >>> with debug():
        ...     pass  # render(...)
    """

    def __init__(self, enabled: bool = True) -> None:
        global _debugging
        self._before, _debugging = _debugging, bool(enabled)

    def __enter__(self) -> debug:
        return self

    def __exit__(self, *_: object) -> None:
        global _debugging
        _debugging = self._before


def wanted(check: bool) -> bool:
    """Return True if the options or the switch enable the check."""
    return (check or _debugging) and not torch.compiler.is_compiling()


@torch.no_grad()
def check_numbers(
    scene: SceneTensors, background: Tensor, names: Mapping[str, str] = ARGUMENTS
) -> None:
    """Refuse impossible numbers, warn of implausible ones.

    Args:
        scene: splats and cameras, of fitting shapes.
        background: [C,D].
        names: names of arguments in messages, where they differ from those in `scene`.

    Raises:
        InputError: a number is impossible.

    Warns:
        InputWarning: numbers are implausible; one warning for all of them.
    """
    for name, tensor in (*scene.tensors(), ("background", background)):
        _require_finite(names.get(name, name), tensor)
    require_cameras(scene.lens.viewmats, scene.lens.intrinsics)
    _require_rotations(names.get("viewmats", "viewmats"), scene.lens.viewmats)
    _require_splats(scene, names)
    found = (
        *_doubts_of_splats(scene, background, names),
        *_doubts_of_lenses(scene, names),
        *_doubts_of_poses(scene, names),
    )
    if found:
        warnings.warn("\n".join(found), InputWarning, stacklevel=4)  # no_grad adds a frame


def _require_finite(name: str, tensor: Tensor) -> None:
    if not len(tensor):
        return
    bad = ~tensor.isfinite().reshape(len(tensor), -1).all(dim=1)
    if bool(bad.any()):
        raise InputError(f"{name}: expected finite numbers, got NaN or infinity in {_rows(bad)}")


def _require_splats(scene: SceneTensors, names: Mapping[str, str]) -> None:
    """Refuse impossible splats."""
    if not len(scene.splats.means):
        return
    if scene.splats.quats is not None:
        zero = scene.splats.quats.norm(dim=1) == 0
        if bool(zero.any()):
            name = names.get("quats", "quats")
            raise InputError(f"{name}: expected norms > 0, got 0 in {_rows(zero)}")
    if scene.splats.scales is not None and bool((scene.splats.scales < 0).any()):
        raise InputError(
            f"{names.get('scales', 'scales')}: expected standard deviations >= 0, got "
            f"{_range(scene.splats.scales)} (logarithms? scales.exp() makes scales of them)"
        )
    is_gaussian = scene.lens.response == RESPONSES["gaussian"]
    most = 1.0 if is_gaussian else torch.inf
    peaks = scene.splats.amplitudes
    if bool(((peaks < 0) | (peaks > most)).any()):
        expected = "opacities in 0..1" if is_gaussian else "extinctions >= 0"
        raise InputError(
            f"{names.get('amplitudes', 'amplitudes')}: expected {expected}, got "
            f"{_range(peaks)} (logits? amplitudes.sigmoid() makes opacities of them)"
        )


def _require_rotations(name: str, viewmats: Tensor) -> None:
    rotations = viewmats[:, :3, :3].double().cpu()
    gram = rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)
    bad = (gram.abs().amax(dim=(1, 2)) > 1e-3) | (torch.linalg.det(rotations) <= 0)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise InputError(
            f"{name}: expected rotations as their first 3x3 numbers, got "
            f"{rotations[first].tolist()} of camera {first}"
        )


def _doubts_of_splats(
    scene: SceneTensors, background: Tensor, names: Mapping[str, str]
) -> Iterator[str]:
    """Yield doubts about colours and sizes."""
    count, channels = len(scene.splats.means), background.shape[-1]
    harmonic = scene.colors.degree is not None
    if count and channels == 3:
        brightest = float(scene.colors.values.abs().max())
        if brightest > (MOST_HARMONIC if harmonic else MOST_COLOR):
            kind = "coefficients of colours" if harmonic else "colours"
            yield (
                f"{names.get('colors', 'colors')}: expected {kind} in 0..1, got "
                f"{_range(scene.colors.values)} (counted to 255? divide by 255)"
            )
    if channels == 3 and background.numel() and float(background.max()) > MOST_COLOR:
        yield (
            f"background: expected a colour in 0..1, got up to {float(background.max()):g} "
            "(counted to 255? divide by 255)"
        )
    if scene.splats.scales is not None and count >= 8:
        typical = float(scene.splats.scales.amax(dim=1).median())
        spread = float(
            (scene.splats.means - scene.splats.means.median(dim=0).values).norm(dim=1).median()
        )
        if 0 < 2 * spread < typical:
            yield (
                f"{names.get('scales', 'scales')}: expected splats smaller than the scene, got a "
                f"median scale of {typical:.3g} where means are {spread:.3g} from their middle "
                "(exp taken once too often? another unit of length?)"
            )
    logits = (
        torch.logit(scene.splats.amplitudes)
        if names is SPLATS
        else scene.splats.amplitudes.new_zeros(0)
    )
    if count >= 8 and len(logits) and 0 <= float(logits.min()) < float(logits.max()) <= 1:
        yield (
            f"{names['amplitudes']}: expected logits, got {_range(logits)} "
            "(opacities? torch.logit makes logits of them)"
        )


def _doubts_of_lenses(scene: SceneTensors, names: Mapping[str, str]) -> Iterator[str]:
    """Yield doubts about intrinsics; the first camera stands for all of a kind."""
    name, w, h = names.get("intrinsics", "intrinsics"), scene.lens.width, scene.lens.height
    doubts: dict[str, str] = {}
    for i, row in enumerate(scene.lens.intrinsics.tolist()):
        fx, fy, cx, cy = row
        what = f"got fx, fy, cx, cy = {row} of camera {i} for an image of {w}x{h}"
        if min(w, h) > 8 and (fx < max(2, w / 50) or fy < max(2, h / 50)):
            doubts.setdefault(
                "focal",
                f"{name}: expected focal lengths in pixels, {what} "
                "(normalised? multiply by width and height)",
            )
        elif cx == cy == 0:
            doubts.setdefault(
                "corner",
                f"{name}: expected a principal point from the image's corner, {what} "
                "(its middle is width / 2, height / 2)",
            )
        elif w != h and max(abs(2 * cx - h), abs(2 * cy - w)) < 0.05 * abs(w - h):
            doubts.setdefault("turned", f"{name}: {what} (width and height exchanged?)")
        elif not (-w <= cx <= 2 * w and -h <= cy <= 2 * h):
            doubts.setdefault(
                "outside",
                f"{name}: expected a principal point near the image, {what} "
                "(intrinsics of another size?)",
            )
    yield from doubts.values()


def _doubts_of_poses(scene: SceneTensors, names: Mapping[str, str]) -> Iterator[str]:
    """Yield doubts about cameras that see nothing, with the likely reading of their matrices."""
    if not len(scene.splats.means) or not len(scene.lens.viewmats):
        return
    name, count = names.get("viewmats", "viewmats"), len(scene.splats.means)
    points = scene.splats.means[:: -(-count // SAMPLE)].double()
    matrices = scene.lens.viewmats.double()
    seen, places = _seen(scene, points, matrices)
    blind = seen < BLIND
    if not bool(blind.any()):
        return
    flip = torch.diag(matrices.new_tensor(FLIP))
    inverse = torch.linalg.inv(matrices)
    others = {
        "camera-to-world matrices? torch.linalg.inv(viewmats)": inverse,
        "axes of OpenGL? diag(1, -1, -1, 1) @ viewmats": flip @ matrices,
        "camera-to-world with axes of OpenGL? diag(1, -1, -1, 1) @ inv(viewmats)": flip @ inverse,
    }
    shares = {hint: _seen(scene, points, other)[0] for hint, other in others.items()}
    hint = max(shares, key=lambda key: float(shares[key].mean()))
    first = int(blind.nonzero()[0])
    told = (
        f"{name}: expected world-to-camera poses that see splats, got {int(blind.sum())} of "
        f"{len(blind)} cameras that see none, the first is {first}"
    )
    if 2 * int(blind.sum()) >= len(blind) and float((shares[hint] < BLIND).double().mean()) <= 0.1:
        yield f"{told} ({hint} would see {float(shares[hint].mean()):.0%} of them)"
    else:
        behind, near, beside = (f"{float(part[first]):.0%}" for part in places)
        yield f"{told}: {behind} are behind it, {near} nearer than near, {beside} beside it"


def _seen(
    scene: SceneTensors, points: Tensor, viewmats: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return shares [C] of the points [M,3] in the images; behind, too near, and beside."""
    local = points @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
    x, y, z = local.unbind(dim=-1)
    fx, fy, cx, cy = scene.lens.intrinsics.double()[:, :, None].unbind(dim=1)
    front = (z > scene.lens.near) & (z < scene.lens.far)
    depth = z.clamp(min=torch.finfo(z.dtype).tiny)
    u, v = fx * x / depth + cx, fy * y / depth + cy
    inside = front & (u >= 0) & (u <= scene.lens.width) & (v >= 0) & (v <= scene.lens.height)
    parts = (inside, z <= 0, (z > 0) & (z <= scene.lens.near), front & ~inside)
    seen, *places = (part.double().mean(dim=1) for part in parts)
    return seen, (places[0], places[1], places[2])


def _rows(bad: Tensor) -> str:
    return f"{int(bad.sum())} of {len(bad)} rows, the first is {int(bad.nonzero()[0])}"


def _range(tensor: Tensor) -> str:
    return f"{float(tensor.min()):.3g} to {float(tensor.max()):.3g}"
