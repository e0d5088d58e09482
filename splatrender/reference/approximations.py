"""Approximations of the transfer equation on rays: sort the splats, pretend that they are apart.

Splat i on a ray has optical depth τ_i, would emit E_i = ∫ e_i g_i dt if nothing absorbed, and shows
E_i φ(τ_i) alone, φ(τ) = (1 - e^{-τ})/τ. In order of the list, with C_i = Σ_{j<i} τ_j:

    C ≈ Σ_i w_i E_i,      w_i = e^{-C_i} φ(τ_i)

Total transmittance e^{-Σ τ} is exact for any overlap with response beer_lambert. The pair exchange
corrects what each of two overlapping splats shows. With Φ the chance that j is in front of i,
Φ = Φ((t_i - t_j)/√(s_i² + s_j²)), and q = 2 min(Φ, 1 - Φ), the pair takes the share 1 - q of its
order on this ray and q of a perfect mixture, in which both show E φ(τ_i + τ_j).

Legend: R rays, L splats on a ray at most, D channels, t place, s width, κ extinction.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.arguments import described, require_integer, require_number, require_type
from splatrender.errors import InputError
from splatrender.model.medium import Medium
from splatrender.model.rays import Rays, normal_mass
from splatrender.reference.march import Lines, require_background
from splatrender.reference.thresholds import ALPHA_MAX

CHOICES = {
    "response": ("gaussian", "beer_lambert"),
    "footprint": ("ray",),
    "order": ("center", "pixel"),
    "overlap": ("none", "exchange", "absorption"),
}
MOST_WINDOW = 1 << 20

_LOG_DEPTHS = (-7.0, 12.0)  # range of ln τ in the table of absorption depths
_ENTRIES = 1025


@dataclass(frozen=True)
class Approximation:
    """Method to replace the transfer equation by a sum over sorted splats.

    Attributes:
        response: "beer_lambert" (α = 1 - e^{-τ}, τ = κ times the length of the path within the
            splat) or "gaussian" (3DGS: α = o G <= 0.99, o = 1 - e^{-κ thickness}, see
            `ExtinctionField.thickness`).
        footprint: "ray": D, length and t* exact on each ray. The affine footprint of 3DGS belongs
            to a camera: `reference.render.rasterize`.
        order: "center" (depth of the means along the axis, as 3DGS) or "pixel" (t* on each ray).
        overlap: "none", "exchange" (pairs) or "absorption": pairs with t and s replaced by mean and
            deviation of the depth at which a splat absorbs, also in the order "pixel".
        window: number of splats behind each one with which it forms pairs, >= 1.
        faintest: optical depth on the ray below which a splat forms no pairs and takes no place in
            the window; it is blended in order.

    Raises:
        InputError: an unknown choice, or a number out of range.
    """

    response: str = "beer_lambert"
    footprint: str = "ray"
    order: str = "pixel"
    overlap: str = "none"
    window: int = 4
    faintest: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"{name}: expected {' or '.join(choices)}, got {described(value)}")
        require_integer("window", self.window, 1, MOST_WINDOW)
        require_number("faintest", self.faintest, least=0)


@dataclass(frozen=True)
class Sorted:
    """Splats on rays, in the order of blending.

    Attributes:
        depths: [R, L] τ, 0 where a row is filled up.
        lights: [R, L, D] E.
        places, widths: [R, L] of pairs.
    """

    depths: Tensor
    lights: Tensor
    places: Tensor
    widths: Tensor


def approximate(
    medium: Medium,
    origins: Tensor,
    directions: Tensor,
    approximation: Approximation,
    t_near: Tensor | float = 0.0,
    t_far: Tensor | float = math.inf,
    background: Tensor | None = None,
    axis: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend splats along rays, in float64; gradients to all tensors but t_near and t_far.

    Sources of kind `independent` are averaged over each splat, `Medium.averaged`; harmonics are
    evaluated in the direction of the ray.

    Args:
        medium: the fields.
        origins, directions: [R, 3] o and d, |d| = 1.
        approximation: see `Approximation`.
        t_near, t_far: numbers or [R]; optical depths are those of the segment.
        background: [D], black by default.
        axis: [3], along which order "center" measures depth; each ray's own direction by default.

    Returns:
        radiance [R, D] and transmittance [R].

    Raises:
        InputError: an argument has another type, shape or range.
    """
    require_type("medium", medium, Medium)
    require_type("approximation", approximation, Approximation)
    rays = Rays.checked(origins, directions, t_near, t_far).double()
    behind = require_background(background, medium)
    medium = medium.to(torch.float64).averaged()
    lines = Lines.meeting(medium, medium.splats.inverse_factors(), rays)
    if lines.splats.shape[1] == 0:
        ones = torch.ones(len(rays), dtype=torch.float64, device=behind.device)
        return ones[:, None] * behind, ones
    axis = rays.directions if axis is None else axis.double().expand_as(rays.directions)
    row = sort(lines, approximation, axis)
    weights = ordered_weights(row.depths)
    if approximation.overlap != "none":
        weights = weights + exchange(row, approximation.window, approximation.faintest)
    transmittance = torch.exp(-row.depths.sum(1))
    radiance = torch.einsum("rl,rld->rd", weights, row.lights)
    return radiance + transmittance[:, None] * behind, transmittance


def sort(lines: Lines, approximation: Approximation, axis: Tensor) -> Sorted:
    """Return depths, lights and places of the splats on each ray in the order of blending.

    Args:
        lines: rays and their splats.
        approximation: response, order and overlap are read.
        axis: [R, 3], see `approximate`.
    """
    depths, lights = respond(lines, approximation.response)
    places, widths = lines.crossings.places, lines.crossings.widths
    if approximation.overlap == "absorption":
        shift, narrowing = absorption_depths(depths)
        places, widths = places + widths * shift, widths * narrowing
    with torch.no_grad():
        keys = places
        if approximation.order == "center":
            offsets = lines.medium.splats.means[lines.splats] - lines.rays.origins[:, None]
            keys = (offsets * axis[:, None]).sum(-1)
        order = torch.argsort(torch.where(lines.filled, keys, math.inf), dim=1, stable=True)
    return Sorted(
        depths.gather(1, order),
        lights.gather(1, order[..., None].expand_as(lights)),
        places.gather(1, order),
        widths.gather(1, order),
    )


def respond(lines: Lines, response: str) -> tuple[Tensor, Tensor]:
    """Return optical depths τ [R, L] and lights E [R, L, D] of splats on rays."""
    medium, crossings = lines.medium, lines.crossings
    kappas = medium.splats.peaks[lines.splats]
    if medium.kind == "emissive":
        rates = lines.own.relu()
    else:
        rates = kappas[..., None] * (0.5 + lines.own).relu()
    near, far = lines.rays.t_near[:, None], lines.rays.t_far[:, None]
    if response == "beer_lambert":
        lengths = crossings.lengths(near, far)
        return kappas * lengths, rates * lengths[..., None]
    thickness = medium.splats.thickness[lines.splats]
    there = normal_mass(crossings.standardise(near), crossings.standardise(far))
    shape = crossings.peaks * there
    alphas = -torch.expm1(-kappas * thickness) * shape
    cut = ALPHA_MAX / alphas.clamp(min=ALPHA_MAX)
    depths = -torch.log1p(-alphas * cut)
    lengths = thickness * absorbed_share(kappas * thickness) * shape * cut  # α/κ
    return depths, rates * (lengths / absorbed_share(depths))[..., None]


def absorbed_share(depths: Tensor) -> Tensor:
    """Return φ(τ) = (1 - e^{-τ})/τ, 1 at 0, with exact derivatives there too.

    Example:
        >>> absorbed_share(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 0.6321])
    """
    small = depths.abs() < 1e-2
    x = torch.where(small, depths, 0)
    series = 1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5 * (1 - x / 6 * (1 - x / 7)))))
    y = torch.where(small, 1, depths)
    return torch.where(small, series, -torch.expm1(-y) / y)


def ordered_weights(depths: Tensor) -> Tensor:
    """Return w_i = e^{-C_i} φ(τ_i) [R, L] from depths in order."""
    return torch.exp(-(depths.cumsum(1) - depths)) * absorbed_share(depths)


def exchange(row: Sorted, window: int, faintest: float = 0.0) -> Tensor:
    """Return the changes of the weights [R, L] by the exchange between pairs.

    For the pair (i, j), i first in the list, behind everything else in front of either:

        in order         w_i = φ(τ_i),           w_j = e^{-τ_i} φ(τ_j)
        j really first   w_i = e^{-τ_j} φ(τ_i),  w_j = φ(τ_j)
        mixed            w_i = w_j = φ(τ_i + τ_j)

    The change is (1 - q) times what is true on this ray plus q times mixed, less in order. The sum
    of τ w of a pair is the same in all three, so the total opacity is kept.

    Args:
        row: the splats of each ray in order.
        window, faintest: see `Approximation`.
    """
    with torch.no_grad():  # those that form pairs come first, in their order
        pairs = row.depths >= faintest
        order = torch.argsort((~pairs).int(), dim=1, stable=True)
        order = order[:, : int(pairs.sum(1).max())]
    totals = row.depths.cumsum(1)
    # Those that form none follow all others, with depth 0: no factor of theirs may exceed 1.
    passed = torch.where(pairs, totals - row.depths, totals[:, -1:])
    paired = pairs.gather(1, order)
    change = _exchange(
        row.depths.gather(1, order) * paired,
        passed.gather(1, order),
        row.places.gather(1, order),
        row.widths.gather(1, order),
        window,
    )
    return torch.zeros_like(row.depths).scatter(1, order, change * paired)


def _exchange(
    depths: Tensor, passed: Tensor, places: Tensor, widths: Tensor, window: int
) -> Tensor:
    """Return the changes of the weights of splats that all form pairs; `passed` [R, L] is C."""
    shares, change = absorbed_share(depths), torch.zeros_like(depths)
    for step in range(1, min(window, depths.shape[1] - 1) + 1):
        a, b = depths[:, :-step], depths[:, step:]
        share_a, share_b = shares[:, :-step], shares[:, step:]
        joint = torch.hypot(widths[:, :-step], widths[:, step:])
        apart = (places[:, :-step] - places[:, step:]) / joint
        mixed_part = torch.erfc(math.sqrt(0.5) * apart.abs())
        mixed = absorbed_share(a + b)
        behind_a, behind_b = torch.exp(-a) * share_b, torch.exp(-b) * share_a
        ahead = apart <= 0
        true_a = torch.where(ahead, share_a, behind_b)
        true_b = torch.where(ahead, behind_a, share_b)
        front = torch.exp(-(passed[:, step:] - a))  # of all in front of j but i
        change_a = front * (true_a + mixed_part * (mixed - true_a) - share_a)
        change_b = front * (true_b + mixed_part * (mixed - true_b) - behind_a)
        change = change + torch.nn.functional.pad(change_a, (0, step))
        change = change + torch.nn.functional.pad(change_b, (step, 0))
    return change


def absorption_depths(depths: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean μ and standard deviation ω of the depth at which a splat absorbs.

    The density of absorbed light within a Gaussian splat alone is ∝ σ e^{-τ Φ(u)}, u in its
    standard deviations from t*. μ(0) = 0 and ω(0) = 1; an opaque splat absorbs at its front, μ < 0.
    Interpolated in ln τ, from -7 to 12, to 1e-4; constant beyond:
    μ is -2.6e-4 at τ = 0.

    Args:
        depths: τ >= 0, any shape.

    Example:
        >>> absorption_depths(torch.tensor([0.0, 1.0, 30.0]))[0].mul(100).round().div(100)
        tensor([-0.0000, -0.2800, -2.0300])
    """
    first, last = _LOG_DEPTHS
    table = _absorption_table().to(depths)
    logs = depths.clamp(min=math.exp(first)).log().clamp(max=last)
    position = (logs - first) * ((_ENTRIES - 1) / (last - first))
    left = position.detach().floor().long().clamp(0, _ENTRIES - 2)
    share = position - left
    mean, width = (row[left] + share * (row[left + 1] - row[left]) for row in table)
    return mean, width


@functools.lru_cache(maxsize=1)
def _absorption_table() -> Tensor:
    """Return μ and ω [2, _ENTRIES] by the trapezoidal rule; its ends are numerically zero."""
    u = torch.linspace(-9, 9, 3601, dtype=torch.float64)
    tau = torch.linspace(*_LOG_DEPTHS, _ENTRIES, dtype=torch.float64).exp()
    front = 0.5 * torch.erfc(-math.sqrt(0.5) * u)
    density = torch.exp(-0.5 * u.square() - tau[:, None] * front)
    density = density / density.sum(1, keepdim=True)
    mean = density @ u
    return torch.stack([mean, (density @ u.square() - mean.square()).sqrt()])
