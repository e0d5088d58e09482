"""The sweep: changes of F by every death and every birth alone, over a set of training views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow.objective import Insertions, Removals
from splatrender.flow.views.footprints import image_of, rasterize_footprints, residual_of
from splatrender.model import Splats
from splatrender.model.quaternions import rotations_from_quats
from splatrender.model.splats import SH_C0
from splatrender.model.view import View
from splatrender.operators.flow_statistics import MASSES, flow_statistics, levels_of
from splatrender.operators.render import peak_amplitudes, rasterize
from splatrender.operators.stages import Look
from splatrender.runtime.devices import to_device

PROBES_AT_ONCE = 4096  # bounds the memory of the sums for each view and mass


@dataclass(frozen=True, eq=False)
class Placement:
    """Places of footprints in V views.

    Attributes:
        centers: [V, K, 2] centres [px].
        sizes: [V, K] standard deviations [px], 0 where a view does not see the row.
    """

    centers: Tensor
    sizes: Tensor

    def index(self, rows: Tensor | slice) -> Placement:
        """Return some of the rows."""
        return Placement(self.centers[:, rows], self.sizes[:, rows])


@dataclass(frozen=True, eq=False)
class PhotoRemovals(Removals):
    """Costs of the deaths of N splats, view by view.

    Attributes:
        by_view: [V, N] change of F in each view when a splat is removed.
        seen: int64 [N] number of the views that can see a splat.
        placement: footprints of the splats.
    """

    by_view: Tensor
    seen: Tensor
    placement: Placement


@dataclass(frozen=True, eq=False)
class PhotoInsertions(Insertions[Splats]):
    """Gains of the births of M candidates, at the mass and in the colour that gain most.

    Attributes:
        by_view: [V, M] decrease of F in each view.
        held_out: [V, M] the same in the colour that all other views would choose.
        significance: [M] mean held-out gain of a view over its standard error.
        placement: footprints of the candidates.
    """

    by_view: Tensor
    held_out: Tensor
    significance: Tensor
    placement: Placement


@dataclass(frozen=True, eq=False)
class Sweep:
    """Changes of F = ½ Σ |radiance − photo|² by each death and by each birth alone.

    Attributes:
        views: V views.
        error: [V] F in each view.
        removals: costs of deaths.
        insertions: gains of births.
    """

    views: Sequence[View]
    error: Tensor
    removals: PhotoRemovals
    insertions: PhotoInsertions


@torch.no_grad()
def sweep(
    splats: Splats,
    candidates: Splats,
    views: Sequence[View],
    look: Look,
    masses: Sequence[float] = MASSES,
) -> Sweep:
    """Score all splats and all candidates in one pass over the views.

    Args:
        splats: N of them.
        candidates: M of degree 0, with a guess of their colour; their opacity is not used.
        views: at least one.
        look: background and options of the rendering.
        masses: peak optical depths at which candidates are tried, increasing.

    Returns:
        Exact changes of F by each alone.
    """
    splats, count = splats.detach(), len(splats)
    largest = -math.expm1(-masses[-1])
    candidates = candidates.detach()
    logits = torch.full_like(candidates.opacity_logits, math.log(largest / (1 - largest)))
    candidates = replace(candidates, opacity_logits=logits)
    levels = torch.tensor(levels_of(masses, look.options.response))
    levels = to_device(levels, splats.device, splats.dtype)
    errors, costs, quadratics, centers, sizes = [], [], [], [], []
    seen_by = torch.zeros(count, dtype=torch.int64, device=splats.device)
    for view in views:
        seen = rasterize_footprints(splats, candidates, view.camera, look)
        mask = None if view.mask is None else to_device(view.mask, splats.device)[None]
        photos = to_device(view.photo, splats.device)[None]
        statistics = flow_statistics(seen.footprints, seen.lists, seen.lens, photos, mask, levels)
        errors.append(statistics.error[0])
        costs.append(statistics.removal[0])
        quadratics.append(statistics.insertion[0])
        xx, xy, yy = seen.projected.conics[0].unbind(dim=1)
        det = (xx * yy - xy * xy).clamp(min=1e-30)
        centers.append(seen.projected.means2d[0])
        sizes.append(torch.where(seen.visible, det.pow(-0.25), 0))
        seen_by += seen.visible[:count]
    placement = Placement(torch.stack(centers), torch.stack(sizes))
    by_view = torch.stack(costs)
    return Sweep(
        views,
        torch.stack(errors),
        PhotoRemovals(by_view.sum(dim=0), by_view, seen_by, placement.index(slice(count))),
        best_insertions(
            candidates, torch.stack(quadratics), masses, placement.index(slice(count, None))
        ),
    )


def best_insertions(
    candidates: Splats, quadratics: Tensor, masses: Sequence[float], placement: Placement
) -> PhotoInsertions:
    """Return the mass and the colour of each candidate that lower F most.

    F changes by e + ⟨g, δ⟩ + ½ a |δ|² when a candidate is inserted in its colour + δ, so the best
    colour of a mass is at δ = −g / a, within [0, 1]. The mass is that of the largest held-out gain.

    Args:
        candidates: [M] in the colours that the quadratics refer to.
        quadratics: [V, M, K, 5] (e, g, a) by view and mass.
        masses: K peak optical depths.
        placement: footprints of the candidates.

    Returns:
        The candidates as they would be born, and their gains.
    """
    newborn, parts = [], []
    for first in range(0, max(1, len(candidates)), PROBES_AT_ONCE):
        last = min(first + PROBES_AT_ONCE, len(candidates))
        rows = torch.arange(first, last, device=candidates.device)
        born, *part = _best_insertions(candidates.index(rows), quadratics[:, rows], masses)
        newborn.append(born)
        parts.append(part)
    by_view, held_out, significance = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return PhotoInsertions(
        Splats.cat(newborn), by_view.sum(dim=0), by_view, held_out, significance, placement
    )


def _best_insertions(
    candidates: Splats, quadratics: Tensor, masses: Sequence[float]
) -> tuple[Splats, Tensor, Tensor, Tensor]:
    """Return newborn, gains [V, M], held-out gains [V, M] and significance [M]."""
    start = (0.5 + SH_C0 * candidates.sh[:, 0])[:, None]

    def shift_of(total: Tensor) -> Tensor:
        """Return δ at the minimum of the quadratics [..., 5]."""
        slope, curvature = total[..., 1:4], total[..., 4:]
        return (start - slope / curvature.clamp(min=1e-12)).clamp(0, 1) - start

    def gain(q: Tensor, shift: Tensor) -> Tensor:
        linear = (q[..., 1:4] * shift).sum(dim=-1)
        return -(q[..., 0] + linear + 0.5 * q[..., 4] * shift.square().sum(dim=-1))

    total = quadratics.sum(dim=0)
    shift, views = shift_of(total), len(quadratics)
    rest = total - quadratics
    blind = rest[..., 4] <= 1e-3 * total[..., 4]  # no other view sees the candidate
    held_out = gain(quadratics, shift_of(rest)).masked_fill_(blind, 0)
    best = held_out.sum(dim=0).argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    held_out = held_out[:, rows, best]
    mean = held_out.mean(dim=0)
    deviation = (held_out - mean).square().sum(dim=0) / max(1, views * (views - 1))
    significance = mean / deviation.sqrt().clamp(min=1e-12)
    logits = logits_of_depths(to_device(torch.tensor(masses), mean.device, mean.dtype)[best])
    color = (start + shift)[rows, best]
    born = replace(candidates, opacity_logits=logits, sh=((color - 0.5) / SH_C0)[:, None])
    gains = gain(quadratics[:, rows, best], shift[rows, best])
    return born, gains, held_out, significance


@torch.no_grad()
def squared_error(splats: Splats, views: Sequence[View], look: Look) -> float:
    """Return F = ½ Σ |radiance − photo|² over the pixels of some views."""
    squares: list[Tensor] = []
    for view in views:
        image = image_of(rasterize_footprints(splats, None, view.camera, look))
        squares.append(residual_of(image, view).square().sum())
    values: list[float] = torch.stack(squares).tolist()
    return sum(0.5 * value for value in values)


def covariance_gradients(
    splats: Splats,
    views: Sequence[View],
    look: Look,
) -> Tensor:
    """Return ∂F/∂Σ of each splat at fixed mass: m S / 2 with the splitting matrix S = 2 ∂V/∂Σ.

    m is the optical mass of a splat, V = ∂F/∂m its potential, Σ = A Aᵀ its covariance. Dividing a
    splat pays, at second order, along directions e with eᵀ S e < 0. As factors are transported
    too, by the gradient m S A, S vanishes where they are at rest.

    Args:
        splats: N of them.
        views: at least one; F = ½ Σ |radiance − photo|² over all of them.
        look: background and options of the rendering.

    Returns:
        [N,3,3], symmetric.
    """
    splats, options = splats.detach(), look.options
    turns = rotations_from_quats(splats.quats)
    factors = turns * splats.scales[:, None, :]
    slope = torch.zeros_like(factors)
    for view in views:
        camera, leaf = view.camera, factors.detach().requires_grad_()
        viewmat, intrinsics = (
            to_device(tensor, factors.device, factors.dtype)
            for tensor in (camera.viewmat, camera.intrinsics())
        )
        with torch.enable_grad():
            sizes = torch.linalg.det(leaf).abs().pow(1 / 3)[:, None].expand(-1, 3)
            amplitudes = peak_amplitudes(splats.opacity_logits, sizes, options.response)
            radiance = rasterize(
                splats.means, None, None, amplitudes, splats.sh, viewmat[None], intrinsics[None],
                camera.width, camera.height, sh_degree=splats.degree, factors=leaf,
                background=look.background.to(factors), options=options,
            ).radiance[0]  # fmt: skip
            loss = 0.5 * residual_of(radiance, view).square().sum()
            (part,) = torch.autograd.grad(loss, leaf)
        slope += part
    widths = splats.scales.clamp(min=1e-12)  # no slope along an axis of length 0
    half = 0.5 * slope @ (turns / widths[:, None, :]).mT  # ∂F/∂A = 2 (∂F/∂Σ) A
    return 0.5 * (half + half.mT)


def logits_of_depths(depths: Tensor) -> Tensor:
    """Return the opacity logits of peak optical depths: o = 1 − e^{−m}."""
    return torch.logit(-torch.expm1(-depths))
