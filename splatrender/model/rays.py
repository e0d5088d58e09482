"""Gaussian bumps along rays: where they meet, and their line integrals in closed form.

On the ray r(t) = o + t d, |d| = 1, the bump g(x) = exp(-½ |A⁻¹ (x - b)|²) is a Gaussian in t:

    g(r(t)) = G exp(-½ ((t - t*)/s)²),    G = e^{-D²/2},

with the least distance D in standard deviations, its place t* and the width s = 1 / |A⁻¹ d|.

Legend: R rays, N splats, P pairs of a ray and a splat, b mean, A factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.arguments import described, require_tensors
from splatrender.errors import InputError

REACH = 8.0
"""Standard deviations beyond which a bump counts as 0: there g < e^{-32} = 1.3e-14, and a line has
less than 6.3e-16 of its integral on each side."""

ROOT_TWO_PI = math.sqrt(2 * math.pi)

AT_ONCE = 1 << 21
"""Numbers in the largest intermediate table of a search for pairs."""

_FAR = 38.0  # the normal distribution function is 0 or 1 there, in float64 too
_NODES = (0.2386191860831969, 0.6612093864662645, 0.9324695142031521)  # Gauss–Legendre, 6 points
_WEIGHTS = (0.4679139345726910, 0.3607615730481386, 0.1713244923791704)
_SHORT = 0.25  # bound of half-width times (1 + |middle|): the rule above errs by 1e-15 there


@dataclass(frozen=True)
class Crossings:
    """Gaussians in t that bumps leave on rays, all of one shape.

    Attributes:
        peaks: G in [0, 1], the bump's largest value on the ray.
        places: t* [length], the place of it.
        widths: s [length], the standard deviation along the ray.
    """

    peaks: Tensor
    places: Tensor
    widths: Tensor

    def lengths(self, t_a: Tensor, t_b: Tensor) -> Tensor:
        """Return ∫ g dt from t_a to t_b >= t_a [length], both of a shape that broadcasts.

        Infinite ends are allowed.
        """
        ends = [self.standardise(t) for t in (t_a, t_b)]
        return ROOT_TWO_PI * self.widths * self.peaks * normal_mass(ends[0], ends[1])

    def standardise(self, t: Tensor) -> Tensor:
        """Return (t - t*)/s, kept within ±38: infinite ends have finite gradients."""
        with torch.no_grad():
            low, high = self.places - _FAR * self.widths, self.places + _FAR * self.widths
        inside = torch.minimum(torch.maximum(t, low), high)
        return (inside - self.places) / self.widths


def cross(inverses: Tensor, means: Tensor, origins: Tensor, directions: Tensor) -> Crossings:
    """Return what bumps leave on rays; the leading dimensions broadcast.

    The origin is first moved to the point nearest to the mean: far cameras lose no digits.

    Args:
        inverses: [..., 3, 3] A⁻¹ [1/length].
        means: [..., 3] b.
        origins, directions: [..., 3] o, d with |d| = 1.
    """
    nearest = ((means - origins) * directions).sum(-1)
    offsets = torch.addcmul(origins, nearest[..., None], directions) - means
    start = (inverses @ offsets[..., None])[..., 0]
    step = (inverses @ directions[..., None])[..., 0]
    squared = step.square().sum(-1)
    shift = -(start * step).sum(-1) / squared
    least = torch.addcmul(start, shift[..., None], step)
    peaks = torch.exp(-0.5 * least.square().sum(-1))
    return Crossings(peaks, nearest + shift, squared.rsqrt())


def normal_mass(a: Tensor, b: Tensor) -> Tensor:
    """Return Φ(b) - Φ(a) for a <= b, with small relative error in the tails and for close ends.

    Both ends are mirrored into the right half, where Φ(b) - Φ(a) = ½ erfc(a/√2) - ½ erfc(b/√2)
    does not cancel; close ends take Gauss–Legendre with six points instead.

    Example:
        >>> ends = torch.tensor([-1.0, 8.0, 0.0], dtype=torch.float64)
        >>> normal_mass(ends, ends + torch.tensor([2.0, 1e9, 1e-9]))
        tensor([6.8269e-01, 6.2210e-16, 3.9894e-10], dtype=torch.float64)
    """
    mirrored = a + b < 0
    low, high = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
    half = 0.5 * (high - low)
    middle = low + half
    short = half * (1 + middle.abs()) < _SHORT
    h, m = torch.where(short, half, 0), torch.where(short, middle, 0)
    root = math.sqrt(0.5)
    long = 0.5 * (torch.erfc(low * root) - torch.erfc(high * root))
    terms = torch.zeros_like(h)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        for u in (m - node * h, m + node * h):
            terms = terms + weight * torch.exp(-0.5 * u.square())
    return torch.where(short, h * terms / ROOT_TWO_PI, long)


def invert_factors(name: str, factors: Tensor) -> Tensor:
    """Return A⁻¹ [N, 3, 3].

    Raises:
        InputError: a factor is singular or not finite.
    """
    inverses: Tensor
    inverses, info = torch.linalg.inv_ex(factors)
    good = (info == 0) & inverses.isfinite().flatten(1).all(dim=1)
    if not bool(good.all()):
        first = int((~good).nonzero()[0, 0])
        raise InputError(
            f"{name}: expected invertible matrices, got a singular one at splat {first}"
        )
    return inverses


def radii(factors: Tensor) -> Tensor:
    """Return the largest standard deviation of each splat [N]; no gradient."""
    norms: Tensor = torch.linalg.matrix_norm(factors.detach(), ord=2)
    return norms


@torch.no_grad()
def meeting_points(means: Tensor, sizes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs (point, splat) [P], [P] within `sizes` [N] of the means, sorted by point."""
    rows = max(1, AT_ONCE // max(1, len(means)))
    found = []
    for first in range(0, len(points), rows):
        part = points[first : first + rows]
        distances = torch.cdist(part, means, compute_mode="donot_use_mm_for_euclid_dist")
        pairs = (distances <= sizes).nonzero()
        pairs[:, 0] += first
        found.append(pairs)
    pairs = torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.long, device=means.device)
    return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True)
class Rays:
    """Segments o + t d, t_near <= t <= t_far, of R rays.

    Attributes:
        origins: [R, 3].
        directions: [R, 3], of length 1.
        t_near, t_far: [R] ends [length]; infinite ends are allowed.
    """

    origins: Tensor
    directions: Tensor
    t_near: Tensor
    t_far: Tensor

    def __len__(self) -> int:
        return int(self.origins.shape[0])

    def __getitem__(self, rows: slice | Tensor) -> Rays:
        return Rays(self.origins[rows], self.directions[rows], self.t_near[rows], self.t_far[rows])

    def double(self) -> Rays:
        """Return the rays in float64; no gradient flows to their ends."""
        near, far = self.t_near.detach().double(), self.t_far.detach().double()
        return Rays(self.origins.double(), self.directions.double(), near, far)

    @classmethod
    def checked(
        cls, origins: Tensor, directions: Tensor, t_near: Tensor | float, t_far: Tensor | float
    ) -> Rays:
        """Return rays after a check of what a caller gave.

        Args:
            origins, directions: [R, 3]; directions of length 1 (to 1e-3 in float32, else 1e-6).
            t_near, t_far: numbers or [R], t_near <= t_far.

        Raises:
            InputError: a shape, a length, a number or the order of the ends is wrong.
        """
        require_tensors(origins=origins, directions=directions)
        for name, values in (("origins", origins), ("directions", directions)):
            if values.dim() != 2 or values.shape[1] != 3 or not values.is_floating_point():
                raise InputError(
                    f"{name}: expected floating-point numbers of shape (R, 3), "
                    f"got {described(values)}"
                )
            if not bool(values.isfinite().all()):
                raise InputError(f"{name}: expected finite numbers, got others")
        if directions.shape != origins.shape or directions.dtype != origins.dtype:
            raise InputError(
                f"directions: expected shape and dtype of origins, got {described(directions)}"
            )
        slack = 1e-3 if origins.dtype != torch.float64 else 1e-6
        lengths = directions.detach().norm(dim=1)
        if not bool(((lengths - 1).abs() < slack).all()):
            worst = float(lengths[(lengths - 1).abs().argmax()])
            raise InputError(f"directions: expected vectors of length 1, got one of {worst:g}")
        ends = []
        for name, value in (("t_near", t_near), ("t_far", t_far)):
            end = torch.as_tensor(value).to(origins)
            if end.shape not in ((), (len(origins),)) or bool(end.isnan().any()):
                raise InputError(
                    f"{name}: expected a number or shape ({len(origins)},), got {described(end)}"
                )
            ends.append(end.expand(len(origins)))
        if not bool((ends[0] <= ends[1]).all()):
            raise InputError("t_near, t_far: expected t_near <= t_far, got the reverse")
        return cls(origins, directions, ends[0], ends[1])

    @torch.no_grad()
    def meeting(self, means: Tensor, factors: Tensor, inverses: Tensor) -> tuple[Tensor, Tensor]:
        """Return pairs (ray, splat) [P], [P], sorted by ray: bumps within REACH of the segment.

        First by spheres around the splats, then by D and the interval t* ± REACH s.
        """
        sizes = REACH * radii(factors)
        count = max(1, AT_ONCE // max(1, len(means)))
        rays, splats = [], []
        for first in range(0, len(self), count):
            part = self[slice(first, first + count)]
            t = part.directions @ means.T - (part.origins * part.directions).sum(1, keepdim=True)
            t = torch.minimum(torch.maximum(t, part.t_near[:, None]), part.t_far[:, None])
            nearest = part.origins[:, None] + t[..., None] * part.directions[:, None]
            near = (nearest - means).square().sum(-1) <= sizes.square()
            r, n = near.nonzero(as_tuple=True)
            crossing = cross(inverses[n], means[n], part.origins[r], part.directions[r])
            margin = REACH * crossing.widths
            meets = crossing.peaks > math.exp(-0.5 * REACH**2)
            meets &= crossing.places + margin > part.t_near[r]
            meets &= crossing.places - margin < part.t_far[r]
            rays.append(r[meets] + first)
            splats.append(n[meets])
        if not rays:
            empty = torch.zeros(0, dtype=torch.long, device=means.device)
            return empty, empty
        return torch.cat(rays), torch.cat(splats)


def padded(rays: Tensor, splats: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return pairs as a table: splats [R, L] and bool [R, L], false where a row is filled up.

    Args:
        rays, splats: [P] pairs, sorted by ray.
        count: R.
    """
    counts = torch.bincount(rays, minlength=count)
    longest = int(counts.max()) if len(rays) else 0
    starts = counts.cumsum(0) - counts
    column = torch.arange(len(rays), device=rays.device) - starts[rays]
    table = torch.zeros(count, longest, dtype=torch.long, device=rays.device)
    table[rays, column] = splats
    filled = torch.arange(longest, device=rays.device) < counts[:, None]
    return table, filled
