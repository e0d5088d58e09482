"""Quadrature of the transfer equation on a mixture of splats: the first truth.

    C(o, d) = ∫ j(o + t d, d) T(t) dt + T(t_far) background,   T(t) = exp(-∫ σ from t_near to t)

No splat is sorted and none is taken apart from the others. T is closed form at every node (error
functions); j T is integrated by Gauss–Kronrod rules with 15 nodes on segments of each ray. The
first segments are at most eight standard deviations long for every splat within reach, so that no
splat is missed; then segments are halved until the sum of |K15 - G7| is below the tolerance. That
sum is the reported error. It is the error of the rule with 7 nodes, which the value of the rule
with 15 undercuts by orders of magnitude where the integrand is smooth.

Legend: R rays, L splats on a ray at most, S segments, A splats that a segment meets at most,
D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from splatrender.arguments import described, require_number, require_type
from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.fields import evaluate_harmonics
from splatrender.model.medium import Medium
from splatrender.model.rays import REACH, ROOT_TWO_PI, Crossings, Rays, cross, padded

TOLERANCE = 1e-6
"""Default bound of the error of a ray's radiance: 1/4000 of a step of 8-bit images."""

LONGEST = 8.0
"""Length of a first segment, in standard deviations of any splat that it meets."""

HALVINGS = 60
"""Rounds of halving, at most: what is left then is rounding."""

ROUNDING = 1e-13
"""Relative error that is added for rounding and for bumps beyond REACH."""

RAYS_AT_ONCE = 512
NUMBERS_AT_ONCE = 1 << 21  # entries of a table of segments x nodes x splats

_K15_NODES = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851,
    0.864864423359769072789712788640926, 0.741531185599394439863864773280788,
    0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.0,
)  # fmt: skip
_K15_WEIGHTS = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204,
    0.104790010322250183839876322541518, 0.140653259715525918745189590510238,
    0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
)  # fmt: skip
_G7_WEIGHTS = (
    0.129484966168869693270611432679082, 0.279705391489276667901467771423780,
    0.381830050505118944950369775488975, 0.417959183673469387755102040816327,
)  # fmt: skip


class Marched(NamedTuple):
    """Light along rays.

    Attributes:
        radiance: [R, D] C, background included.
        transmittance: [R] T(t_far), in closed form.
        error: [R] bound of the error of the radiance, for the channel where it is largest.
    """

    radiance: Tensor
    transmittance: Tensor
    error: Tensor


def march(
    medium: Medium,
    origins: Tensor,
    directions: Tensor,
    t_near: Tensor | float = 0.0,
    t_far: Tensor | float = math.inf,
    tolerance: float = TOLERANCE,
    background: Tensor | None = None,
) -> Marched:
    """Integrate the transfer equation along rays, in float64.

    Gradients pass to every tensor of the medium, to rays and background, through the nodes of the
    final segments, which themselves are constants; none passes to t_near and t_far.

    Args:
        medium: the fields.
        origins, directions: [R, 3] o and d, |d| = 1.
        t_near, t_far: numbers or [R] ends [length]; infinite ends are allowed.
        tolerance: bound of the absolute error of each radiance, > 0. Where rounding does not
            allow it (below some 1e-13 of the light on the ray) the reported error is larger.
        background: [D], black by default.

    Returns:
        See `Marched`; float64.

    Raises:
        InputError: an argument has another type, shape or range.

    Example:
        >>> from splatrender.model.splats import Splats
        >>> medium = Medium.from_splats(Splats.random(10))
        >>> origin, axis = torch.tensor([[0.0, 0, -3]]), torch.tensor([[0.0, 0, 1]])
        >>> bool(march(medium, origin, axis).error < 1e-6)
        True
    """
    require_type("medium", medium, Medium)
    tolerance = require_number("tolerance", tolerance, least=0, open_=True)
    rays = Rays.checked(origins, directions, t_near, t_far).double()
    behind = require_background(background, medium)
    medium = medium.to(torch.float64)
    inverses = medium.splats.inverse_factors()
    parts = []
    for first in range(0, max(1, len(rays)), RAYS_AT_ONCE):
        part = rays[slice(first, first + RAYS_AT_ONCE)]
        lines = Lines.meeting(medium, inverses, part)
        parts.append(_march(lines, tolerance))
    radiance, transmittance, error = (torch.cat(values) for values in zip(*parts, strict=True))
    return Marched(radiance + transmittance[:, None] * behind, transmittance, error)


def require_background(background: Tensor | None, medium: Medium) -> Tensor:
    """Return the background [D] in float64, black if None; refuse another shape."""
    device = medium.harmonics.device
    if background is None:
        return torch.zeros(medium.channels, dtype=torch.float64, device=device)
    values = torch.as_tensor(background)
    if values.shape != (medium.channels,):
        raise InputError(
            f"background: expected {medium.channels} numbers, got {described(background)}"
        )
    return values.to(device, torch.float64)


@dataclass(frozen=True)
class Lines:
    """Rays with the splats that they meet, in a table whose rows are filled up.

    Attributes:
        medium, rays: as given.
        splats: [R, L] indices; filled: [R, L] bool.
        crossings: [R, L] Gaussians in t; their peaks are 0 where the table is filled up.
        own: [R, L, D] colours or rates from the splats' own harmonics, see `Medium`.
    """

    medium: Medium
    rays: Rays
    splats: Tensor
    filled: Tensor
    crossings: Crossings
    own: Tensor

    @classmethod
    def meeting(cls, medium: Medium, inverses: Tensor, rays: Rays) -> Lines:
        """Return the lines of rays through a medium; inverses [N, 3, 3] of its factors."""
        field = medium.splats
        r, n = rays.meeting(field.means, field.factors, inverses)
        splats, filled = padded(r, n, len(rays))
        found = cross(inverses[n], field.means[n], rays.origins[r], rays.directions[r])
        own = evaluate_harmonics(medium.harmonics[n], rays.directions[r])
        spots = filled.nonzero(as_tuple=True)

        def table(values: Tensor, empty: float) -> Tensor:
            full = values.new_full((*filled.shape, *values.shape[1:]), empty)
            return full.index_put(spots, values)

        crossings = Crossings(
            table(found.peaks, 0.0), table(found.places, 0.0), table(found.widths, 1.0)
        )
        return cls(medium, rays, splats, filled, crossings, table(own, 0.0))

    @property
    def amplitudes(self) -> Tensor:
        """[R, L] largest extinction of each splat on its ray [1/length]."""
        if self.splats.shape[1] == 0:
            return self.crossings.peaks
        return self.medium.splats.peaks[self.splats] * self.crossings.peaks

    def depths(self) -> Tensor:
        """Return optical depths [R] between the ends of the rays, in closed form."""
        near, far = self.rays.t_near[:, None], self.rays.t_far[:, None]
        peaks = self.medium.splats.peaks
        kappas = peaks[self.splats] if self.splats.shape[1] else self.crossings.peaks
        return (kappas * self.crossings.lengths(near, far)).sum(1)


def _march(lines: Lines, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return radiance over black [R, D], transmittance [R] and error [R]."""
    transmittance = torch.exp(-lines.depths())
    with torch.no_grad():
        mesh, values, errors = refine(lines, first_mesh(lines), tolerance)
    tensors = (lines.own, lines.crossings.peaks, *(tensor for _, tensor in lines.medium.items()))
    wanted = any(tensor.requires_grad for tensor in tensors)
    if torch.is_grad_enabled() and wanted:
        values, _ = quadrature(lines, mesh)
    count = len(lines.rays)
    radiance = values.new_zeros(count, values.shape[1]).index_add(0, mesh.rays, values)
    error = errors.new_zeros(count).index_add(0, mesh.rays, errors)
    return radiance, transmittance, error + ROUNDING * radiance.detach().abs().amax(1)


@dataclass(frozen=True)
class Mesh:
    """Segments of rays.

    Attributes:
        rays: [S] indices of rays.
        starts, ends: [S] t of both ends [length].
    """

    rays: Tensor
    starts: Tensor
    ends: Tensor

    def __getitem__(self, rows: Tensor) -> Mesh:
        return Mesh(self.rays[rows], self.starts[rows], self.ends[rows])

    def halved(self) -> Mesh:
        """Return both halves of all segments: first all left ones, then all right ones."""
        middle = 0.5 * (self.starts + self.ends)
        return Mesh.joined(Mesh(self.rays, self.starts, middle), Mesh(self.rays, middle, self.ends))

    @staticmethod
    def joined(one: Mesh, other: Mesh) -> Mesh:
        """Return the segments of two meshes."""
        pairs = ((one.rays, other.rays), (one.starts, other.starts), (one.ends, other.ends))
        return Mesh(*(torch.cat(pair) for pair in pairs))


@torch.no_grad()
def first_mesh(lines: Lines) -> Mesh:
    """Return segments at most LONGEST standard deviations of every splat and source within reach.

    They cover the part of each ray between the first and the last splat's end.
    """
    rays, crossings, filled = lines.rays, lines.crossings, lines.filled
    margin = REACH * crossings.widths
    low = torch.where(filled, crossings.places - margin, math.inf)
    high = torch.where(filled, crossings.places + margin, -math.inf)
    if filled.shape[1] == 0:
        none = torch.zeros(0, dtype=torch.float64, device=filled.device)
        return Mesh(none.long(), none, none)
    starts, ends = torch.maximum(low.amin(1), rays.t_near), torch.minimum(high.amax(1), rays.t_far)
    some = (starts < ends).nonzero()[:, 0]
    limits = LONGEST * crossings.widths
    if lines.medium.sources is not None:
        more = _source_intervals(lines)
        low, high, limits = (
            torch.cat(pair, 1) for pair in zip((low, high, limits), more, strict=True)
        )
    open_, done = Mesh(some, starts[some], ends[some]), []
    while len(open_.rays):
        meets = (low[open_.rays] < open_.ends[:, None]) & (high[open_.rays] > open_.starts[:, None])
        limit = torch.where(meets, limits[open_.rays], math.inf).amin(1)
        long = open_.ends - open_.starts > limit
        done.append(open_[~long])
        open_ = open_[long].halved()
    if not done:
        return open_
    return Mesh(*(torch.cat([getattr(m, k) for m in done]) for k in ("rays", "starts", "ends")))


def _source_intervals(lines: Lines) -> tuple[Tensor, Tensor, Tensor]:
    """Return starts, ends and longest segments [R, M] of the sources on rays."""
    sources = lines.medium.sources
    assert sources is not None
    inverses = torch.linalg.inv(sources.factors)
    origins, directions = lines.rays.origins[:, None], lines.rays.directions[:, None]
    found = cross(inverses, sources.means, origins, directions)
    margin = REACH * found.widths
    return found.places - margin, found.places + margin, LONGEST * found.widths


@torch.no_grad()
def refine(lines: Lines, mesh: Mesh, tolerance: float) -> tuple[Mesh, Tensor, Tensor]:
    """Halve segments until the errors of each ray add up to at most `tolerance`.

    Returns:
        The mesh, its values [S, D] and its errors [S].
    """
    count = len(lines.rays)
    values, errors = quadrature(lines, mesh)
    for _ in range(HALVINGS):
        totals = errors.new_zeros(count).index_add(0, mesh.rays, errors)
        numbers = torch.bincount(mesh.rays, minlength=count)
        share = tolerance / numbers[mesh.rays].clamp(min=1)
        fine = errors <= 8e-16 * values.abs().amax(1)  # rounding: halving gains nothing
        split = (totals[mesh.rays] > tolerance) & (errors > share) & ~fine
        if not bool(split.any()):
            break
        halves = mesh[split].halved()
        new_values, new_errors = quadrature(lines, halves)
        mesh = Mesh.joined(mesh[~split], halves)
        values = torch.cat([values[~split], new_values])
        errors = torch.cat([errors[~split], new_errors])
    return mesh, values, errors


def quadrature(lines: Lines, mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Return ∫ j T dt over each segment [S, D] by K15, and |K15 - G7| [S], the largest over D.

    Segments are taken in the order of how many splats they meet, so that tables have few gaps.
    """
    with torch.no_grad():
        margin = REACH * lines.crossings.widths
        low, high = lines.crossings.places - margin, lines.crossings.places + margin
        meets = lines.filled[mesh.rays]
        meets = meets & (low[mesh.rays] < mesh.ends[:, None])
        meets &= high[mesh.rays] > mesh.starts[:, None]
        numbers = meets.sum(1)
        order = torch.argsort(numbers)
    if not len(order):
        empty = lines.own.new_zeros(0, lines.own.shape[2])
        return empty, empty.sum(1)
    values, errors, first = [], [], 0
    while first < len(order):
        rows, widest = _rows_at_once(numbers[order], first)
        batch = order[first : first + rows]
        columns = torch.argsort(meets[batch].int(), dim=1, descending=True)[:, :widest]
        part = mesh[batch]
        gauss_kronrod = _rule(lines, part, columns, meets[batch].gather(1, columns))
        values.append(gauss_kronrod[0])
        errors.append(gauss_kronrod[1])
        first += rows
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(values)[back], torch.cat(errors)[back]


def _rows_at_once(numbers: Tensor, first: int) -> tuple[int, int]:
    """Return how many segments from `first` on fit a table, and the width of it."""
    rows = min(len(numbers) - first, 8192)
    while True:
        widest = max(1, int(numbers[first + rows - 1]))
        if rows == 1 or rows * widest * 15 <= NUMBERS_AT_ONCE:
            return rows, widest
        rows = max(1, min(rows - 1, NUMBERS_AT_ONCE // (15 * widest)))


def _rule(lines: Lines, mesh: Mesh, columns: Tensor, meets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rule's value [S, D] and error [S] from the splats in `columns` [S, A]."""
    like = lines.crossings.peaks
    half = (0.5 * (mesh.ends - mesh.starts))[:, None]
    nodes = like.new_tensor([*(-x for x in _K15_NODES), *_K15_NODES[-2::-1]])
    weights = like.new_tensor([*_K15_WEIGHTS, *_K15_WEIGHTS[-2::-1]])
    inner = torch.zeros_like(weights)
    inner[1::2] = like.new_tensor([*_G7_WEIGHTS, *_G7_WEIGHTS[-2::-1]])
    t = mesh.starts[:, None] + half * (1 + nodes)  # [S, 15]
    rows = mesh.rays[:, None]
    # Optical depth in front of the segment by all splats, and within it by those that it meets.
    reach = lines.crossings
    amplitudes, start = lines.amplitudes, mesh.starts[:, None]
    totals = ROOT_TWO_PI * amplitudes * reach.widths
    entered = (totals * _phi(reach.standardise(lines.rays.t_near[:, None]))).sum(1)
    from_far = _phi((start - reach.places[mesh.rays]) / reach.widths[mesh.rays])
    before = torch.einsum("sl,sl->s", totals[mesh.rays], from_far) - entered[mesh.rays]
    places, widths = reach.places[rows, columns], reach.widths[rows, columns]
    strengths = torch.where(meets, ROOT_TWO_PI * amplitudes[rows, columns] * widths, 0)
    u = (t[:, :, None] - places[:, None]) / widths[:, None]
    at_start = _phi((start - places) / widths)
    within = (strengths[:, None] * (_phi(u) - at_start[:, None])).sum(2)
    bumps = torch.where(meets, reach.peaks[rows, columns], 0)[:, None] * torch.exp(
        -0.5 * u.square()
    )
    light = _emission(lines, mesh, columns, t, bumps)
    light = light * torch.exp(-(before[:, None] + within))[:, :, None] * half[:, :, None]
    kronrod = torch.einsum("s,nsd->nd", weights, light)
    with torch.no_grad():
        error = (kronrod - torch.einsum("s,nsd->nd", inner, light)).abs().amax(1)
    return kronrod, error


def _phi(u: Tensor) -> Tensor:
    """Return the normal distribution function, with absolute accuracy."""
    return 0.5 * torch.erf(math.sqrt(0.5) * u)  # a constant ½ cancels in differences


def _emission(lines: Lines, mesh: Mesh, columns: Tensor, t: Tensor, bumps: Tensor) -> Tensor:
    """Return j [S, 15, D] at nodes t [S, 15] from bumps [S, 15, A] of the splats in `columns`."""
    medium, rows = lines.medium, mesh.rays[:, None]
    own = lines.own[rows, columns]
    kappas = medium.splats.peaks[lines.splats[rows, columns]]
    if medium.kind == "emissive":
        return torch.einsum("sna,sad->snd", bumps, own.relu())
    if medium.sources is None:
        return torch.einsum("sna,sad->snd", bumps, kappas[..., None] * (0.5 + own).relu())
    directions = lines.rays.directions[mesh.rays, None].expand(-1, t.shape[1], -1)
    points = lines.rays.origins[mesh.rays, None] + t[..., None] * directions
    shown = medium.sources.source(points.reshape(-1, 3), directions.reshape(-1, 3))
    shown = shown.reshape(*t.shape, 1, -1)
    colors = (0.5 + own[:, None] + shown).relu()
    return torch.einsum("sna,snad->snd", bumps * kappas[:, None], colors)


def camera_rays(camera: Camera) -> tuple[Tensor, Tensor]:
    """Return origins and directions [H W, 3] of the rays through pixel centres, row by row.

    d = unit(Wᵀ ((x - cx)/fx, (y - cy)/fy, 1)); float64, differentiable in the pose.
    """
    require_type("camera", camera, Camera)
    y, x = torch.meshgrid(
        torch.arange(camera.height, dtype=torch.float64) + 0.5,
        torch.arange(camera.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    local = torch.stack(
        [(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, torch.ones_like(x)], dim=-1
    ).reshape(-1, 3)
    directions = torch.nn.functional.normalize(local, dim=1) @ camera.viewmat[:3, :3]
    return camera.center.expand_as(directions), directions


def march_image(
    medium: Medium,
    camera: Camera,
    t_near: float = 0.0,
    t_far: float = math.inf,
    tolerance: float = TOLERANCE,
    background: Tensor | None = None,
) -> Marched:
    """Integrate the transfer equation for every pixel of a pinhole camera, see `march`.

    Returns:
        radiance [H, W, D], transmittance [H, W] and error [H, W].
    """
    origins, directions = (rays.to(medium.harmonics.device) for rays in camera_rays(camera))
    found = march(medium, origins, directions, t_near, t_far, tolerance, background)
    size = camera.height, camera.width
    return Marched(*(values.reshape(*size, *values.shape[1:]) for values in found))
