"""A medium: extinction and emission together, the unknown of the transfer equation.

    C(o, d) = ∫ j(o + t d, d) T(t) dt,      T(t) = exp(-∫₀^t σ),      j = s σ

Three kinds, from special to general; σ = Σ_i κ_i g_i in all of them:

    shared        j = Σ_i κ_i c_i(ω) g_i,   c_i(ω) = max(0, ½ + Σ_k Y_k(ω) h_ik)        as 3DGS
    independent   j = Σ_i κ_i max(0, ½ + Y_0 h_i0 + S(x, ω)) g_i, with a source field S of its own;
                  with h = 0 this is j = σ max(0, ½ + S)
    emissive      j = Σ_i e_i(ω) g_i,       e_i(ω) = max(0, Σ_k Y_k(ω) h_ik)  [radiance/length]

Legend: see `fields`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import described, require_type
from splatrender.errors import InputError
from splatrender.model.fields import (
    ExtinctionField,
    SourceField,
    evaluate_harmonics,
    require_harmonics,
    require_points,
)
from splatrender.model.rays import ROOT_TWO_PI
from splatrender.model.splats import SH_C0, Splats

KINDS = ("shared", "independent", "emissive")

FAINTEST = 0.01
"""Peak optical depth that a bake gives a splat that emits but hardly absorbs."""

THINNEST = 1e-12
"""Least standard deviation [length] of a splat from a file: its factor has an inverse then."""


@dataclass(frozen=True, eq=False)
class Medium:
    """Extinction and emission of N splats, and of M sources with kind `independent`.

    Attributes:
        splats: σ.
        harmonics: [N, K, D] coefficients h of each splat; K = 1 with kind `independent`.
        kind: "shared", "independent" or "emissive", see above.
        sources: S with kind `independent`, else None.

    Raises:
        InputError: shapes, dtypes or devices do not fit, the kind is unknown, sources are missing,
            not wanted, or without any extinction.
    """

    splats: ExtinctionField
    harmonics: Tensor
    kind: str = "shared"
    sources: SourceField | None = None

    def __post_init__(self) -> None:
        require_type("Medium.splats", self.splats, ExtinctionField)
        if self.kind not in KINDS:
            raise InputError(
                f"Medium.kind: expected shared, independent or emissive, got {described(self.kind)}"
            )
        if not isinstance(self.harmonics, Tensor):
            raise InputError(
                f"Medium.harmonics: expected a torch tensor, got {described(self.harmonics)}"
            )
        require_harmonics("Medium.harmonics", self.harmonics, len(self.splats))
        independent = self.kind == "independent"
        if independent != (self.sources is not None):
            wanted = "a SourceField" if independent else "None"
            raise InputError(
                f"Medium.sources: expected {wanted} with kind {self.kind}, "
                f"got {described(self.sources)}"
            )
        if self.sources is not None:
            self._check_sources(self.sources)
        for name, tensor in self.items():
            if (tensor.dtype, tensor.device) != (self.dtype, self.splats.device):
                raise InputError(
                    f"Medium.{name}: expected {self.dtype} on {self.splats.device} as of splats, "
                    f"got {tensor.dtype} on {tensor.device}"
                )

    def _check_sources(self, sources: SourceField) -> None:
        if len(self.splats) == 0:
            raise InputError(
                "Medium.splats: expected extinction where there are sources, got no splats"
            )
        if self.harmonics.shape[1] != 1:
            raise InputError(
                f"Medium.harmonics: expected one coefficient with kind independent, "
                f"got {self.harmonics.shape[1]}"
            )
        if sources.harmonics.shape[2] != self.channels:
            raise InputError(
                f"Medium.sources: expected {self.channels} channels, "
                f"got {sources.harmonics.shape[2]}"
            )

    def __len__(self) -> int:
        return len(self.splats)

    def __repr__(self) -> str:
        sources = f", {len(self.sources):,} sources" if self.sources is not None else ""
        return f"Medium({self.kind}, {len(self):,} splats{sources}, {self.dtype})"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that all tensors share."""
        return self.splats.dtype

    @property
    def channels(self) -> int:
        """Number D of channels of the light."""
        return self.harmonics.shape[2]

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Return names and tensors: those of splats, harmonics, those of sources."""
        yield from ((f"splats.{name}", tensor) for name, tensor in self.splats.items())
        yield "harmonics", self.harmonics
        if self.sources is not None:
            yield from ((f"sources.{name}", tensor) for name, tensor in self.sources.items())

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Medium:
        """Return the medium with other tensors under the names of `items`."""
        known = dict(self.items())
        for name in tensors:
            if name not in known:
                raise InputError(f"Medium: expected one of {', '.join(known)}, got {name}")
        new = {**known, **tensors}
        parts: dict[str, Any] = {"splats": {}, "sources": {}}
        for name, tensor in new.items():
            if name != "harmonics":
                part, field = name.split(".")
                parts[part][field] = tensor
        sources = self.sources.with_tensors(parts["sources"]) if self.sources is not None else None
        splats = self.splats.with_tensors(parts["splats"])
        return replace(self, splats=splats, harmonics=new["harmonics"], sources=sources)

    def map(self, function: Callable[[Tensor], Tensor]) -> Medium:
        """Return the medium whose tensors are those of this one after `function`."""
        return self.with_tensors({name: function(tensor) for name, tensor in self.items()})

    def to(self, *args: Any, **kwargs: Any) -> Medium:
        """Return the medium in another dtype or on another device (arguments of `Tensor.to`)."""
        splats, sources = self.splats.to(*args, **kwargs), self.sources
        sources = sources.to(*args, **kwargs) if sources is not None else None
        harmonics = self.harmonics.to(*args, **kwargs)
        return replace(self, splats=splats, harmonics=harmonics, sources=sources)

    def detach(self) -> Medium:
        """Return the medium outside the autograd graph, sharing memory."""
        return self.map(Tensor.detach)

    def requires_grad_(self, requires_grad: bool = True) -> Medium:
        """Ask autograd for gradients of every tensor (in place), and return the medium."""
        return self.map(lambda tensor: tensor.requires_grad_(requires_grad))

    def extinction(self, points: Tensor) -> Tensor:
        """Return σ [P] [1/length] at points [P, 3]."""
        return self.splats.extinction(points)

    def emission(self, points: Tensor, directions: Tensor) -> Tensor:
        """Return j = s σ [P, D] [radiance/length] at points [P, 3] in directions ω [P, 3]."""
        require_points("directions", directions, self.splats.means)
        p, n, g = self.splats.bumps(points)
        rates = self.rates(n, points[p], directions[p]) * g[:, None]
        return rates.new_zeros(len(points), self.channels).index_add(0, p, rates)

    def source(self, points: Tensor, directions: Tensor) -> Tensor:
        """Return s = j/σ [P, D] at points [P, 3] in directions ω [P, 3]; 0 where σ is 0.

        With kind `emissive` s is unbounded where splats emit and little absorbs.
        """
        sigma = self.extinction(points)[:, None]
        there = sigma > 0
        return torch.where(
            there, self.emission(points, directions) / torch.where(there, sigma, 1), 0
        )

    def optical_depth(
        self,
        origins: Tensor,
        directions: Tensor,
        t_a: Tensor | float = 0.0,
        t_b: Tensor | float = math.inf,
    ) -> Tensor:
        """Return ∫ σ(o + t d) dt from t_a to t_b [R], see `ExtinctionField.optical_depth`."""
        return self.splats.optical_depth(origins, directions, t_a, t_b)

    def rates(self, splats: Tensor, points: Tensor, directions: Tensor) -> Tensor:
        """Return the factors of the bumps in j: κ_i c_i or e_i [Q, D] of pairs.

        Args:
            splats: [Q] indices i.
            points, directions: [Q, 3] x and ω; x is read with kind `independent` only.
        """
        own = evaluate_harmonics(self.harmonics[splats], directions)
        if self.kind == "emissive":
            return own.relu()
        if self.sources is not None:
            own = own + self.sources.source(points, directions)
        return self.splats.peaks[splats, None] * (0.5 + own).relu()

    def averaged(self) -> Medium:
        """Return the medium in which each splat shows its mean source: what blending renders.

        Kind `independent` becomes `shared`, with S averaged over each splat before the maximum
        with 0 is taken; the others are returned as they are.
        """
        if self.sources is None:
            return self
        seen = self.sources.averaged(self.splats.means, self.splats.factors)
        seen = torch.cat([seen[:, :1] + self.harmonics, seen[:, 1:]], dim=1)
        return Medium(self.splats, seen)

    def baked(self) -> Medium:
        """Return the medium of kind `shared` that blending shows the same.

        `independent`: exact, see `averaged`. `emissive`: exact where κ > 0, with c = e/κ; a splat
        of less peak optical depth than FAINTEST gets κ raised to that depth and emits as before.
        """
        if self.kind != "emissive":
            return self.averaged()
        peaks = torch.maximum(self.splats.peaks, FAINTEST / self.splats.thickness.detach())
        colors = self.harmonics / peaks[:, None, None]
        colors = torch.cat([colors[:, :1] - 0.5 / SH_C0, colors[:, 1:]], dim=1)
        return Medium(replace(self.splats, peaks=peaks), colors)

    @classmethod
    def from_splats(cls, splats: Splats) -> Medium:
        """Return the medium of kind `shared` of a 3DGS model.

        The convention of the renderer's response `beer_lambert`: a splat with opacity o has the
        peak optical depth -ln(1 - o) over its thickness √(2π) (s₁ s₂ s₃)^{1/3}, the path of a line
        through the centre in an average direction, so κ = -ln(1 - o) / thickness. Standard
        deviations below THINNEST are raised to it.
        """
        require_type("splats", splats, Splats)
        scales = splats.scales.clamp(min=THINNEST)
        thickness = ROOT_TWO_PI * scales.log().mean(-1).exp()
        peaks = splats.optical_depths / thickness
        field = ExtinctionField.from_scales(splats.means, splats.quats, scales, peaks)
        return cls(field, splats.sh)

    def to_splats(self) -> Splats:
        """Return the 3DGS model of the baked medium, the reverse of `from_splats`; no gradient.

        Rotations and scales are those of the covariance, which may permute a splat's axes.

        Raises:
            InputError: there are more or fewer than three channels.
        """
        if self.channels != 3:
            raise InputError(f"Medium.harmonics: expected 3 channels, got {self.channels}")
        baked = self.detach().baked()
        turns, scales, _ = torch.linalg.svd(baked.splats.factors)
        turns = turns * torch.linalg.det(turns).sign()[:, None, None]
        depths = baked.splats.peaks * ROOT_TWO_PI * scales.log().mean(-1).exp()
        logits = depths + torch.log(-torch.expm1(-depths))
        quats = _quats_from_rotations(turns)
        return Splats(baked.splats.means, quats, scales.log(), logits, baked.harmonics)


def _quats_from_rotations(turns: Tensor) -> Tensor:
    """Return quaternions wxyz [N, 4] of rotations [N, 3, 3]."""
    xx, yy, zz = turns.diagonal(dim1=1, dim2=2).unbind(1)
    ones = torch.ones_like(xx)
    squares = torch.stack(  # 4 w², 4 x², 4 y², 4 z²
        [ones + xx + yy + zz, ones + xx - yy - zz, ones - xx + yy - zz, ones - xx - yy + zz], 1
    )
    a, b, c = turns[:, 2, 1], turns[:, 0, 2], turns[:, 1, 0]
    d, e, f = turns[:, 1, 2], turns[:, 2, 0], turns[:, 0, 1]
    w, x, y, z = squares.unbind(1)
    products = torch.stack(  # row k: 4 q_k q, from the largest component without cancellation
        [
            torch.stack([w, a - d, b - e, c - f], 1),
            torch.stack([a - d, x, c + f, b + e], 1),
            torch.stack([b - e, c + f, y, a + d], 1),
            torch.stack([c - f, b + e, a + d, z], 1),
        ],
        1,
    )
    largest = squares.argmax(1)
    rows = products[torch.arange(len(turns), device=turns.device), largest]
    return torch.nn.functional.normalize(rows, dim=1)
