"""The two fields of the transfer equation as splat models: extinction σ(x) and source s(x, ω).

Every bump has peak 1, g_i(x) = exp(-½ |A_i⁻¹ (x - b_i)|²), and counts as 0 beyond REACH = 8
standard deviations, which changes a sum Σ a_i g_i by less than 1.3e-14 Σ |a_i|.

ω is the direction of view, from the eye to the point, in which 3DGS files give their harmonics;
light travels along -ω.

Legend: N splats of ν (extinction), M splats of μ (sources), P points, R rays, K harmonics,
κ peak extinction, b mean, A factor, Σ = A Aᵀ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.arguments import described
from splatrender.errors import InputError
from splatrender.model.harmonics import harmonics
from splatrender.model.quaternions import rotations_from_quats
from splatrender.model.rays import (
    AT_ONCE,
    REACH,
    ROOT_TWO_PI,
    Rays,
    cross,
    invert_factors,
    meeting_points,
    radii,
)
from splatrender.model.record import Record

SIZES = (1, 4, 9, 16)
"""Numbers K of harmonics of degree 0 to 3."""


def require_points(name: str, values: Tensor, like: Tensor) -> Tensor:
    """Refuse anything but points or directions [P, 3] of the dtype and device of `like`."""
    if not isinstance(values, Tensor):
        raise InputError(f"{name}: expected a torch tensor, got {described(values)}")
    if values.dim() != 2 or values.shape[1] != 3 or values.dtype != like.dtype:
        kind = str(like.dtype).removeprefix("torch.")
        raise InputError(f"{name}: expected {kind} of shape (P, 3), got {described(values)}")
    if values.device != like.device:
        raise InputError(f"{name}: expected device {like.device}, got device {values.device}")
    return values


def require_harmonics(name: str, values: Tensor, count: int) -> None:
    """Refuse coefficients of another shape than [count, K, D] with K = 1, 4, 9 or 16."""
    shape = tuple(values.shape)
    if len(shape) != 3 or shape[0] != count or shape[1] not in SIZES or shape[2] < 1:
        raise InputError(
            f"{name}: expected shape ({count}, K, D) with K = 1, 4, 9 or 16, got {shape}"
        )


def evaluate_harmonics(coefficients: Tensor, directions: Tensor) -> Tensor:
    """Return Σ_k Y_k(ω) h_k for rows of both: [P, K, D] and [P, 3] to [P, D]."""
    degree = math.isqrt(coefficients.shape[1]) - 1
    return torch.einsum("pk,pkd->pd", harmonics(directions, degree), coefficients)


@dataclass(frozen=True, eq=False)
class ExtinctionField(Record):
    """The extinction σ(x) = Σ_i κ_i g_i(x) [1/length] of N splats.

    Attributes:
        means: [N, 3] centres b.
        factors: [N, 3, 3] A, invertible; the covariance is A Aᵀ.
        peaks: [N] κ >= 0 [1/length], the splat's extinction at its centre.

    Raises:
        InputError: a field has another shape, dtype or device, or κ is negative or not finite.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> field = ExtinctionField(torch.zeros(1, 3).double(), torch.eye(3).double()[None], one)
        >>> field.extinction(torch.zeros(1, 3).double())
        tensor([1.], dtype=torch.float64)
    """

    means: Tensor
    factors: Tensor
    peaks: Tensor

    def __post_init__(self) -> None:
        self.check_kinds()
        count = self.means.shape[0] if self.means.dim() else 0
        self.check_shapes({"means": (count, 3), "factors": (count, 3, 3), "peaks": (count,)})
        peaks = self.peaks.detach()
        bad = ~((peaks >= 0) & peaks.isfinite())
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            raise InputError(
                f"ExtinctionField.peaks: expected finite numbers >= 0, "
                f"got {float(peaks[first])} at splat {first}"
            )

    @classmethod
    def from_scales(
        cls, means: Tensor, quats: Tensor, scales: Tensor, peaks: Tensor
    ) -> ExtinctionField:
        """Return the field of splats with A = R(q/|q|) diag(s).

        Args:
            means: [N, 3].
            quats: [N, 4] wxyz, of any norm > 0.
            scales: [N, 3] standard deviations > 0.
            peaks: [N] κ.
        """
        return cls(means, rotations_from_quats(quats) * scales[:, None], peaks)

    def inverse_factors(self) -> Tensor:
        """Return A⁻¹ [N, 3, 3].

        Raises:
            InputError: a factor is singular or not finite.
        """
        return invert_factors("ExtinctionField.factors", self.factors)

    def bumps(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs that meet: points [Q], splats [Q] and values g [Q], by point."""
        require_points("points", points, self.means)
        return _bumps(self.means, self.factors, self.inverse_factors(), points)

    def extinction(self, points: Tensor) -> Tensor:
        """Return σ [P] [1/length] at points [P, 3]."""
        p, n, g = self.bumps(points)
        return g.new_zeros(len(points)).index_add(0, p, self.peaks[n] * g)

    def optical_depth(
        self,
        origins: Tensor,
        directions: Tensor,
        t_a: Tensor | float = 0.0,
        t_b: Tensor | float = math.inf,
    ) -> Tensor:
        """Return ∫ σ(o + t d) dt from t_a to t_b [R], in closed form.

        Σ_i κ_i e^{-D²/2} √(2π) s [Φ((t_b - t*)/s) - Φ((t_a - t*)/s)], with small relative error for
        short segments and in the tails. Pairs with D > 8, or without overlap of t* ± 8 s and the
        segment, are left out: each less than 1.3e-14 √(2π) s κ.

        Args:
            origins, directions: [R, 3] o, d with |d| = 1.
            t_a, t_b: numbers or [R], t_a <= t_b; infinite ends are allowed.

        Raises:
            InputError: an argument has another shape, or a direction another length.
        """
        require_points("origins", origins, self.means)
        rays = Rays.checked(origins, directions, t_a, t_b)
        inverses = self.inverse_factors()
        r, n = rays.meeting(self.means, self.factors, inverses)
        crossings = cross(inverses[n], self.means[n], rays.origins[r], rays.directions[r])
        depths = self.peaks[n] * crossings.lengths(rays.t_near[r], rays.t_far[r])
        return depths.new_zeros(len(rays)).index_add(0, r, depths)

    @property
    def thickness(self) -> Tensor:
        """[N] path length √(2π) |det A|^{1/3} of a line through the centre, on average."""
        volumes: Tensor = torch.linalg.det(self.factors).abs()
        return ROOT_TWO_PI * volumes.pow(1 / 3)


@dataclass(frozen=True, eq=False)
class SourceField(Record):
    """A coarse field S(x, ω) of light of D channels, linear in its harmonics.

        S(x, ω) = Σ_j w_j(x) Σ_k Y_k(ω) h_jk,      w_j = g_j   or   g_j / Σ_l g_l  (normalised)

    The values may have either sign; `Medium` says what is added. Normalised weights sum to 1
    everywhere, also far from all sources, where the source nearest in standard deviations decides.

    Attributes:
        means: [M, 3] centres b.
        factors: [M, 3, 3] A, invertible.
        harmonics: [M, K, D] coefficients h, K = 1, 4, 9 or 16.
        normalised: use normalised weights.

    Raises:
        InputError: a field has another shape, dtype or device, or there is no source.
    """

    means: Tensor
    factors: Tensor
    harmonics: Tensor
    normalised: bool = True

    def __post_init__(self) -> None:
        self.check_kinds()
        count = self.means.shape[0] if self.means.dim() else 0
        if count == 0:
            raise InputError("SourceField.means: expected at least one source, got none")
        self.check_shapes({"means": (count, 3), "factors": (count, 3, 3)})
        require_harmonics("SourceField.harmonics", self.harmonics, count)

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """Return the names of the tensors: all but the normalisation."""
        return "means", "factors", "harmonics"

    @classmethod
    def check_alike(cls, parts: Sequence[SourceField]) -> None:
        """Check that fields have one normalisation and shape of harmonics."""
        if len({(part.normalised, *part.harmonics.shape[1:]) for part in parts}) > 1:
            raise InputError("SourceField.cat: expected one normalisation and shape, got several")

    def source(self, points: Tensor, directions: Tensor) -> Tensor:
        """Return S [P, D] at points [P, 3] in directions ω [P, 3] of length 1."""
        require_points("points", points, self.means)
        require_points("directions", directions, self.means)
        inverses = invert_factors("SourceField.factors", self.factors)
        if self.normalised:
            weights = self._shares(points, inverses)
            basis = harmonics(directions, math.isqrt(self.harmonics.shape[1]) - 1)
            return torch.einsum("pm,pk,mkd->pd", weights, basis, self.harmonics)
        p, m, g = _bumps(self.means, self.factors, inverses, points)
        values = g[:, None] * evaluate_harmonics(self.harmonics[m], directions[p])
        return values.new_zeros(len(points), values.shape[1]).index_add(0, p, values)

    def _shares(self, points: Tensor, inverses: Tensor) -> Tensor:
        """Return g_j / Σ_l g_l [P, M], also where all bumps vanish."""
        offsets = torch.einsum("mij,pmj->pmi", inverses, points[:, None] - self.means)
        return torch.softmax(-0.5 * offsets.square().sum(-1), dim=1)

    def averaged(self, means: Tensor, factors: Tensor) -> Tensor:
        """Return the harmonics [N, K, D] of S averaged over splats: what each splat shows of it.

        With the density ρ_i of splat i, E_{X∼ρ_i}[g_j(X)] = (2π)^{3/2} |det A_j| N(b_i; b_j, Σ_i +
        Σ_j) exactly. Normalised weights take the ratio of the averages of g_j and of Σ_l g_l, which
        is exact where splat i is small against the sources.

        Args:
            means, factors: [N, 3] and [N, 3, 3] of the splats.
        """
        logs = log_expected_densities(means, factors, self.means, self.factors)
        logs = logs + torch.linalg.slogdet(self.factors).logabsdet + 3 * math.log(ROOT_TWO_PI)
        weights = torch.softmax(logs, dim=1) if self.normalised else logs.exp()
        return torch.einsum("nm,mkd->nkd", weights, self.harmonics)


def log_expected_densities(
    means: Tensor, factors: Tensor, source_means: Tensor, source_factors: Tensor
) -> Tensor:
    """Return ln E_{X∼ρ_i}[N(X; b_j, Σ_j)] = ln N(b_i; b_j, Σ_i + Σ_j), dense, in chunks of rows.

    Args:
        means, factors: [N, 3], [N, 3, 3] of the splats over which is averaged.
        source_means, source_factors: [M, 3], [M, 3, 3] of the densities.

    Returns:
        [N, M], differentiable in all arguments.

    Example:
        >>> zero, one = torch.zeros(1, 3).double(), torch.eye(3).double()[None]
        >>> round(float(log_expected_densities(zero, one, zero, one).exp()), 9)  # (4π)^(-3/2)
        0.02244839
    """
    require_points("means", means, source_means)
    covariances = source_factors @ source_factors.mT
    rows = max(1, AT_ONCE // (9 * max(1, len(source_means))))
    parts = []
    for first in range(0, max(1, len(means)), rows):
        part = factors[first : first + rows]
        joint = (part @ part.mT)[:, None] + covariances
        lower = torch.linalg.cholesky(joint)
        offsets = means[first : first + rows, None] - source_means
        whitened = torch.linalg.solve_triangular(lower, offsets[..., None], upper=False)[..., 0]
        log_det = lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        parts.append(-0.5 * whitened.square().sum(-1) - log_det)
    return torch.cat(parts) - 3 * math.log(ROOT_TWO_PI)


def expected_densities(
    means: Tensor, factors: Tensor, source_means: Tensor, source_factors: Tensor
) -> Tensor:
    """Return E_{X∼ρ_i}[N(X; b_j, Σ_j)] = N(b_i; b_j, Σ_i + Σ_j) [N, M].

    See `log_expected_densities`, which does not underflow.
    """
    return log_expected_densities(means, factors, source_means, source_factors).exp()


def _bumps(
    means: Tensor, factors: Tensor, inverses: Tensor, points: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pairs within REACH standard deviations, and g."""
    p, n = meeting_points(means.detach(), REACH * radii(factors), points.detach())
    offsets = (inverses[n] @ (points[p] - means[n])[..., None])[..., 0]
    squared = offsets.square().sum(-1)
    near = squared.detach() <= REACH**2
    return p[near], n[near], torch.exp(-0.5 * squared[near])
