"""The splats of a scene and their initial values."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from splatrender.arguments import (
    MOST_SEED,
    described,
    require_integer,
    require_number,
    require_tensors,
)
from splatrender.errors import InputError
from splatrender.model.neighbors import nearest_distances
from splatrender.model.record import Record

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))
MAX_DEGREE = 3
MOST_SPLATS = 2**31 - 1  # kernels count them in int32

DEEPEST = 53 * math.log(2)
"""Optical depth of the largest opacity below 1 in float64, 36.7: that of an infinite logit."""


def optical_depths(logits: Tensor) -> Tensor:
    """Return peak optical depths τ = -ln(1 - o) of splats with opacities o, from their logits.

    τ = ln(1 + e^logit) keeps its precision where o rounds to 1, and is at most `DEEPEST`.

    Args:
        logits: any shape; ±inf are opacities 1 and 0.

    Returns:
        Depths of the same shape. Gradients are finite everywhere, and 0 from `DEEPEST` on.

    Example:
        >>> optical_depths(torch.tensor([0.0, 20.0, torch.inf]))
        tensor([ 0.6931, 20.0000, 36.7368])
    """
    return softplus(logits.clamp(max=DEEPEST), threshold=2 * DEEPEST)


@dataclass(frozen=True, eq=False)
class Splats(Record):
    """N Gaussian splats in the parameters that are optimised.

    Splat n stands for the Gaussian with mean `means[n]` and covariance A Aᵀ, A = R(q/|q|) diag(s),
    seen with opacity o and the colour 1/2 + Σ_k Y_k(ω) sh[n, k] in direction ω.

    Splats do not know which frame they are in. Those of `load` and `save` are in the world of the
    .ply file; those that fit the cameras of a loaded scene are in the scene's inside frame, and
    `Scene.load_splats` and `Scene.save_splats` move between the two.

    Attributes:
        means: [N, 3] centres, in scene units.
        quats: [N, 4] rotations q as wxyz, of any norm > 0.
        log_scales: [N, 3] logarithms of the standard deviations s, in scene units; -inf is flat.
        opacity_logits: [N] logits of the opacities o in [0, 1]; +inf is opaque.
        sh: [N, K, 3] coefficients of real spherical harmonics, K = (degree + 1)², degree <= 3.

    All are of one floating-point dtype and on one device.

    Raises:
        InputError: a field has another shape, dtype or device than it should have.

    Example:
        >>> splats = Splats.random(100, seed=1)
        >>> len(splats), splats.degree, tuple(splats.sh.shape)
        (100, 3, (100, 16, 3))
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        self.check_kinds()
        count = self.means.shape[0] if self.means.dim() else 0
        self.check_shapes(
            {
                "means": (count, 3),
                "quats": (count, 4),
                "log_scales": (count, 3),
                "opacity_logits": (count,),
            }
        )
        shape = tuple(self.sh.shape)
        if len(shape) != 3 or shape[0] != count or shape[1] not in (1, 4, 9, 16) or shape[2] != 3:
            raise InputError(
                f"Splats.sh: expected shape ({count}, K, 3) with K = 1, 4, 9 or 16, got {shape}"
            )

    def __repr__(self) -> str:
        return f"Splats({len(self):,} splats, degree {self.degree}, {self.dtype}, {self.device})"

    @property
    def scales(self) -> Tensor:
        """[N, 3] standard deviations along the splats' own axes, in scene units."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """[N] opacities in [0, 1]."""
        return self.opacity_logits.sigmoid()

    @property
    def optical_depths(self) -> Tensor:
        """[N] peak optical depths -ln(1 - o), see `optical_depths`."""
        return optical_depths(self.opacity_logits)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.sh.shape[1]) - 1

    def finite(self) -> Tensor:
        """Return bool [N]: true if every number of a splat is finite, or the end of its range.

        Such ends are opacities of 0 and 1 (logits -inf and +inf) and scales of 0 (logarithm -inf).
        """
        opacities = self.opacity_logits.isnan().logical_not()
        scales = self.log_scales < torch.inf
        others = (self.means.isfinite(), self.quats.isfinite(), self.sh.flatten(1).isfinite())
        return torch.stack([t.all(dim=1) for t in (opacities[:, None], scales, *others)]).all(dim=0)

    def with_degree(self, degree: int) -> Splats:
        """Return the splats with harmonics up to `degree`: cut off, or filled up with zeros."""
        degree = require_integer("degree", degree, 0, MAX_DEGREE)
        size = (degree + 1) ** 2
        sh = self.sh[:, :size]
        sh = torch.cat([sh, sh.new_zeros(len(self), size - sh.shape[1], 3)], dim=1)
        return Splats(self.means, self.quats, self.log_scales, self.opacity_logits, sh)

    @classmethod
    def check_alike(cls, parts: Sequence[Splats]) -> None:
        """Check that sets of splats agree in their degree of harmonics."""
        degrees = sorted({part.degree for part in parts})
        if len(degrees) > 1:
            raise InputError(f"Splats.cat: expected one degree of harmonics, got {degrees}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Splats:
        """Read splats from a 3DGS .ply file, plain or compressed, in the file's own frame.

        That is the world of the photos' cameras as COLMAP wrote it. The cameras of `load_scene`
        are in the scene's inside frame instead: `Scene.load_splats` reads splats for those.

        Args:
            path: file to read.

        Returns:
            Splats on the CPU. float32; float64 if positions are doubles that float32 does not
            hold, or relative to an offset because they are far from the origin.

        Raises:
            InputError: the file is missing, is not PLY, lacks a property, or has no usable splat.

        Example:
            >>> Splats.load("output/demo/point_cloud/iteration_5000/point_cloud.ply")
            ... # doctest: +SKIP
            Splats(49,145 splats, degree 3, torch.float32, cpu)
        """
        from splatrender.model.ply import read_ply  # late: the format is made of splats

        return read_ply(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the splats as a 3DGS .ply file, as they are: in the frame that they are in.

        Splats of a loaded scene are in its inside frame; `Scene.save_splats` writes them in the
        world of the scene's files. Positions in float64 that float32 would move by more than 1 %
        of a splat's size are written relative to an offset, which is kept in the file's header.

        Args:
            path: file to write, atomically; its folder is made.

        Raises:
            InputError: the file cannot be made.

        Example:
            >>> Splats.random(10).save("ten.ply")  # doctest: +SKIP
        """
        from splatrender.model.ply import write_ply  # late: the format is made of splats

        write_ply(path, self)

    @classmethod
    def from_points(
        cls, points: Tensor, colors: Tensor, degree: int = 3, opacity: float = 0.1
    ) -> Splats:
        """Make a round splat for each point, as wide as the distance to its neighbours.

        The scale is the root mean square of the distances to the three nearest points, kept
        within a factor of 100 of the median scale: points that coincide or are far out give no
        degenerate splats. Colour is the same from all sides: sh_0 = (rgb - 1/2) / Y_0.

        Args:
            points: [P, 3] floating-point centres, P >= 1, in scene units.
            colors: [P, 3] uint8 RGB.
            degree: degree of the harmonics to make room for, 0 to 3.
            opacity: opacity of every splat, in (0, 1).

        Returns:
            P splats in float32 on the device of `points`; no gradient flows back to points.

        Raises:
            InputError: an argument is out of shape or range, or a point is not finite.

        Source:
            Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023,
            section 5.1 (initialisation from structure from motion).

        Example:
            >>> points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
            >>> splats = Splats.from_points(points, torch.full((4, 3), 255, dtype=torch.uint8))
            >>> splats.scales[0]
            tensor([1., 1., 1.])
        """
        require_tensors(points=points)
        if not isinstance(colors, Tensor):
            raise InputError(f"colors: expected a torch tensor, got {described(colors)}")
        if points.dim() != 2 or points.shape[1] != 3 or len(points) == 0:
            found = tuple(points.shape)
            raise InputError(f"points: expected shape (P, 3) with P >= 1, got {found}")
        if not points.is_floating_point() or not points.isfinite().all():
            raise InputError("points: expected finite floating-point numbers, got others")
        if colors.shape != points.shape or colors.dtype != torch.uint8:
            raise InputError(
                f"colors: expected uint8 of shape {tuple(points.shape)}, "
                f"got {colors.dtype} of shape {tuple(colors.shape)}"
            )
        if not 0 < require_number("opacity", opacity) < 1:
            raise InputError(f"opacity: expected a number between 0 and 1, got {opacity}")
        degree = require_integer("degree", degree, 0, MAX_DEGREE)
        device, count = points.device, len(points)
        scales = _initial_scales(points.detach().cpu().float()).to(device)
        sh = torch.zeros(count, (degree + 1) ** 2, 3, device=device)
        sh[:, 0] = (colors.to(device).float() / 255 - 0.5) / SH_C0
        return cls(
            means=points.detach().float().clone(),
            quats=torch.tensor([1.0, 0, 0, 0], device=device).repeat(count, 1),
            log_scales=scales.log()[:, None].repeat(1, 3),
            opacity_logits=torch.full((count,), math.log(opacity / (1 - opacity)), device=device),
            sh=sh,
        )

    @classmethod
    def random(cls, count: int, extent: float = 1.0, seed: int = 0, degree: int = 3) -> Splats:
        """Make splats of random place and colour, for scenes without points and for tests.

        Args:
            count: number of splats, >= 1.
            extent: half the side of the cube around the origin that they fill, in scene units.
            seed: seed of the random numbers; the same seed gives the same splats.
            degree: degree of the harmonics to make room for, 0 to 3.

        Returns:
            `count` splats as of `from_points`.

        Raises:
            InputError: `count` or `extent` is not positive, or an argument is out of range.
        """
        count = require_integer("count", count, 1, MOST_SPLATS)
        extent = require_number("extent", extent, least=0, open_=True)
        seed = require_integer("seed", seed, 0, MOST_SEED)
        generator = torch.Generator().manual_seed(seed)
        points = (torch.rand(count, 3, generator=generator) * 2 - 1) * extent
        colors = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
        return cls.from_points(points, colors, degree=degree)


def _initial_scales(points: Tensor) -> Tensor:
    """Return root mean square distances [P] to three neighbours, kept near their median."""
    squared = nearest_distances(points, 3).square()
    scales = squared.mean(dim=1).sqrt() if squared.shape[1] else torch.zeros(len(points))
    positive = scales[scales > 0]
    if len(positive) == 0:  # a single place: any width will do
        return torch.full_like(scales, 0.1)
    typical = float(positive.median())
    return scales.clamp(typical / 100, typical * 100)
