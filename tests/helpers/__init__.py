"""Small random scenes and footprints with the difficult cases of large ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from splatrender.interfaces import Footprints, Lens, Projected, SplatTensors
from splatrender.reference.thresholds import ALPHA_MAX, CUTOFF, T_MIN

__all__ = ["ALPHA_MAX", "CUTOFF", "T_MIN"]

REPOSITORY = Path(__file__).resolve().parents[2]
Bundle = TypeVar("Bundle", bound="Fields")
GAUSSIAN, BEER_LAMBERT = 0, 1
RESPONSES = (GAUSSIAN, BEER_LAMBERT)
NEAR, FAR, EPS2D = 0.05, 50.0, 0.3


def cast(values: Iterable[Any], dtype: torch.dtype) -> list[Any]:
    """Return the values with floating tensors in `dtype`."""
    return [
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in values
    ]


def rounded(values: Iterable[Any]) -> list[Any]:
    """Round float64 values to numbers that float32 holds: both precisions then share one input."""
    return cast(cast(values, torch.float32), torch.float64)


@dataclass(frozen=True)
class Fields:
    """Record of tensors and sizes that is cast as one."""

    def to(self: Bundle, dtype: torch.dtype) -> Bundle:
        names = [field.name for field in fields(self)]
        values = cast((getattr(self, name) for name in names), dtype)
        changes: dict[str, Any] = dict(zip(names, values, strict=True))
        return replace(self, **changes)


@dataclass(frozen=True)
class World(Fields):
    """Splats and the cameras that look at them."""

    means: Tensor  # [N,3]
    quats: Tensor  # [N,4]
    scales: Tensor  # [N,3]
    opacities: Tensor  # [N]
    extinctions: Tensor  # [N]
    sh: Tensor  # [N,16,3]
    viewmats: Tensor  # [C,4,4]
    intrinsics: Tensor  # [C,4]
    backgrounds: Tensor  # [C,3]
    width: int
    height: int

    @property
    def factors(self) -> Tensor:
        """Matrix A = R diag(s); the columns of R are the axes rotated by q."""
        q = self.quats / self.quats.norm(dim=1, keepdim=True)
        axes = torch.eye(3, dtype=q.dtype, device=q.device).expand(len(q), 3, 3)
        v = q[:, None, 1:].expand(len(q), 3, 3)
        across = 2 * torch.cross(v, axes, dim=2)
        turned = axes + q[:, :1, None] * across + torch.cross(v, across, dim=2)
        factors: Tensor = turned.mT * self.scales[:, None, :]
        return factors

    def amplitudes(self, response: int) -> Tensor:
        return self.extinctions if response == BEER_LAMBERT else self.opacities

    def splats(self, response: int = GAUSSIAN, *, with_factors: bool = False) -> SplatTensors:
        """Return the splats, by quats and scales or by factors."""
        amplitudes = self.amplitudes(response)
        if with_factors:
            return SplatTensors(self.means, amplitudes, factors=self.factors)
        return SplatTensors(self.means, amplitudes, self.quats, self.scales)

    def lens(self, response: int = GAUSSIAN, **optics: Any) -> Lens:
        """Return the cameras; optics: antialiased, near, far, eps2d."""
        optics = {"near": NEAR, "far": FAR, "eps2d": EPS2D, "response": response, **optics}
        return Lens(self.viewmats, self.intrinsics, self.width, self.height, **optics)

    def project_args(
        self, response: int = GAUSSIAN, *, with_factors: bool = False, **optics: Any
    ) -> list[Any]:
        """Return the flat arguments of `project`, in the order of the op schema."""
        splats = self.splats(response, with_factors=with_factors)
        return [*splats.arguments, *self.lens(response, **optics).arguments]

    def take(self, ids: Tensor) -> World:
        """Return the world with the splats `ids` alone."""
        names = ("means", "quats", "scales", "opacities", "extinctions", "sh")
        return replace(self, **{name: getattr(self, name)[ids] for name in names})

    def moved(self, rotation: Tensor, translation: Tensor, turn: Tensor) -> World:
        """Move splats and cameras by x -> R x + t; `turn` is the quaternion of R."""
        motion = torch.eye(4, dtype=rotation.dtype)
        motion[:3, :3], motion[:3, 3] = rotation, translation
        return replace(
            self,
            means=self.means @ rotation.T + translation,
            quats=quaternion_product(turn.expand_as(self.quats), self.quats),
            viewmats=self.viewmats @ torch.linalg.inv(motion),
        )


def quaternion_product(p: Tensor, q: Tensor) -> Tensor:
    """Return p q, wxyz, [N,4]."""
    pw, pv, qw, qv = p[:, :1], p[:, 1:], q[:, :1], q[:, 1:]
    vector = pw * qv + qw * pv + torch.cross(pv, qv, dim=1)
    return torch.cat((pw * qw - (pv * qv).sum(dim=1, keepdim=True), vector), dim=1)


def look_at(eye: Tensor, target: Tensor) -> Tensor:
    """Return world-to-camera [4,4], OpenCV axes, z up in the world."""
    forward = (target - eye) / (target - eye).norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0], dtype=eye.dtype))
    right = right / right.norm()
    viewmat = torch.eye(4, dtype=eye.dtype)
    viewmat[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward))
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    return viewmat


def random_world(
    count: int = 120, cameras: int = 2, width: int = 43, height: int = 37, seed: int = 0
) -> World:
    """Make cameras around a ball of anisotropic splats, float64.

    One splat in ten is anywhere (behind a camera, outside every image), one in twenty is huge,
    one in twenty is tiny, one in twenty is flat.
    """
    make = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=make, dtype=torch.float64)

    index = torch.arange(count)
    means = 0.6 * normal(count, 3)
    means[index % 10 == 3] *= 6
    scales = 0.12 * torch.exp(0.6 * normal(count, 3))
    scales[index % 20 == 5] *= 8
    scales[index % 20 == 6] *= 0.02
    scales[index % 20 == 7, 2] *= 0.05
    optical_depths = 3 * uniform(count) ** 2 + 0.02
    turns = 2 * math.pi * (torch.arange(cameras) + 0.25 * uniform(cameras)) / max(cameras, 1)
    eyes = torch.stack((3 * turns.cos(), 3 * turns.sin(), normal(cameras)), dim=1)
    viewmats = [look_at(eye, 0.2 * normal(3)) for eye in eyes]
    focal = width * (1 + 0.2 * uniform(cameras, 2))
    center = torch.tensor([width, height]) * (0.5 + 0.05 * normal(cameras, 2))
    return World(
        means=means,
        quats=normal(count, 4) * (0.5 + uniform(count, 1)),
        scales=scales,
        opacities=0.02 + 0.975 * uniform(count),
        extinctions=optical_depths / (math.sqrt(2 * math.pi) * scales.log().mean(dim=1).exp()),
        sh=0.3 * normal(count, 16, 3),
        viewmats=torch.stack(viewmats),
        intrinsics=torch.cat((focal, center), dim=1),
        backgrounds=uniform(cameras, 3),
        width=width,
        height=height,
    )


@dataclass(frozen=True)
class Prints(Fields):
    """Footprints as `project` and `shade` would return them, made directly."""

    means2d: Tensor  # [C,N,2]
    conics: Tensor  # [C,N,3]
    depths: Tensor  # [C,N]
    peaks: Tensor  # [C,N]
    extents: Tensor  # [C,N,2]
    emission: Tensor  # [C,N,D]
    backgrounds: Tensor  # [C,D]
    width: int
    height: int

    @property
    def projected(self) -> Projected:
        """Footprints without their colours."""
        return Projected(self.means2d, self.conics, self.depths, self.peaks, self.extents)

    def footprints(self, probes: int = 0) -> Footprints:
        """Return the footprints with their colours."""
        return Footprints(self.projected, self.emission, self.backgrounds, probes)

    def lens(self, response: int = GAUSSIAN) -> Lens:
        """Return size and response; stages behind `project` read no cameras."""
        nothing = torch.empty(0)
        return Lens(nothing, nothing, self.width, self.height, response=response)

    def bin_args(self) -> list[Any]:
        """Return the flat arguments of `bin`, in the order of the op schema."""
        return [*self.projected.arguments, self.width, self.height]

    def blend_args(
        self,
        bins: Iterable[Tensor],
        response: int = GAUSSIAN,
        with_visibility: bool = True,
        with_absgrad: bool = False,
    ) -> list[Any]:
        """Return the arguments of `blend`, in the order of the op schema."""
        size = (self.width, self.height)
        flags = (with_visibility, with_absgrad)
        return [*self.footprints().arguments, *bins, *size, response, *flags]

    def dense_args(self, response: int = GAUSSIAN) -> list[Any]:
        """Return the flat arguments of `blend_dense`."""
        shape = (self.means2d, self.conics, self.depths, self.peaks, self.emission)
        return [*shape, self.backgrounds, self.width, self.height, response]


def prints_from(
    means2d: Tensor,
    covariances: Tensor,
    depths: Tensor,
    peaks: Tensor,
    emission: Tensor,
    **rest: Any,
) -> Prints:
    """Make footprints of covariances [C,N,3] (xx, xy, yy) px²; rest: backgrounds, width, height."""
    xx, xy, yy = covariances.unbind(dim=-1)
    conics = torch.stack((yy, -xy, xx), dim=-1) / (xx * yy - xy * xy)[..., None]
    level = 2 * torch.log(peaks / CUTOFF)
    extents = (level[..., None] * torch.stack((xx, yy), dim=-1)).clamp(min=0).sqrt()
    return Prints(means2d, conics, depths, peaks, extents, emission, **rest)


def random_prints(
    count: int = 60,
    cameras: int = 2,
    channels: int = 3,
    width: int = 43,
    height: int = 37,
    seed: int = 0,
    sigma: float = 3.0,
    response: int = GAUSSIAN,
) -> Prints:
    """Make footprints of all sizes in and around the image, one in nine culled, float64."""
    make = torch.Generator().manual_seed(seed)
    shape = (cameras, count)

    def uniform(*last: int) -> Tensor:
        return torch.rand(*shape, *last, generator=make, dtype=torch.float64)

    size = torch.tensor([width, height], dtype=torch.float64)
    angle = math.pi * uniform()
    axes = sigma * torch.exp(1.6 * (uniform(2) - 0.5))
    c, s, (a, b) = angle.cos(), angle.sin(), axes.square().unbind(dim=-1)
    covariances = torch.stack((c * c * a + s * s * b, c * s * (a - b), s * s * a + c * c * b), -1)
    peaks = 0.01 + (3.0 if response == BEER_LAMBERT else 0.99) * uniform()
    prints = prints_from(
        (1.4 * uniform(2) - 0.2) * size,
        covariances,
        1 + 5 * uniform(),
        peaks,
        uniform(channels),
        backgrounds=torch.rand(cameras, channels, generator=make, dtype=torch.float64),
        width=width,
        height=height,
    )
    kept = (torch.arange(count) % 9 != 4).to(torch.float64)
    return replace(
        prints,
        means2d=prints.means2d * kept[:, None],
        conics=prints.conics * kept[:, None],
        depths=prints.depths * kept,
        peaks=prints.peaks * kept,
        extents=prints.extents * kept[:, None],
    )


def wide_prints(
    count: int = 4,
    cameras: int = 1,
    channels: int = 2,
    width: int = 5,
    height: int = 4,
    seed: int = 0,
    peak: float = 0.5,
) -> Prints:
    """Make footprints so wide that each reaches every pixel, far from any threshold."""
    prints = random_prints(count, cameras, channels, width, height, seed, sigma=8.0)
    make = torch.Generator().manual_seed(seed + 1)
    spread = torch.rand(cameras, count, 3, generator=make, dtype=torch.float64)
    covariances = torch.tensor([60.0, 8.0, 50.0], dtype=torch.float64) * (0.8 + 0.4 * spread)
    return prints_from(
        spread.flip(-1)[..., :2] * torch.tensor([width, height]),
        covariances,
        1 + torch.rand(cameras, count, generator=make, dtype=torch.float64),
        peak * (0.6 + 0.4 * spread[..., 0]),
        prints.emission,
        backgrounds=prints.backgrounds,
        width=width,
        height=height,
    )
