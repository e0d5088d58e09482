"""The sweep: what every death and every birth alone would change, over a set of training views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow.views.footprints import residual_of, see
from splatrender.flow.views.probes import Probes
from splatrender.model import Splats
from splatrender.model.quaternions import rotations_from_quats
from splatrender.model.splats import SH_C0
from splatrender.model.view import View
from splatrender.operators.flow_statistics import MASSES, flow_statistics, levels_of
from splatrender.operators.render import RenderOptions, peak_amplitudes, rasterize
from splatrender.runtime.devices import to_device

PROBES_AT_ONCE = 4096  # what is held for each view and mass would take most memory of a run


@dataclass(frozen=True, eq=False)
class Births:
    """Probes at the mass and in the colour that gain most.

    Attributes:
        splats: [M] of degree 0, as they would be born.
        gains: [V, M] decrease of F in each view.
        held_out: [V, M] the same in the colour that all other views would choose.
        significance: [M] mean held-out gain of a view over its standard error.
    """

    splats: Splats
    gains: Tensor
    held_out: Tensor
    significance: Tensor


@dataclass(frozen=True, eq=False)
class Sweep:
    """Changes of F = 1/2 Σ |radiance - photo|², view by view.

    Attributes:
        views: V swept views.
        error: [V] F.
        costs: [V, N] change when a splat is removed.
        seen: int64 [N] how many of the views can see a splat.
        births: the probes.
        places: [V, N + M, 2] centres of footprints, splats and behind them probes [px].
        sizes: [V, N + M] their standard deviations [px], 0 where a view does not see them.
    """

    views: Sequence[View]
    error: Tensor
    costs: Tensor
    seen: Tensor
    births: Births
    places: Tensor
    sizes: Tensor


@torch.no_grad()
def sweep(
    splats: Splats,
    probes: Probes,
    views: Sequence[View],
    background: Tensor,
    options: RenderOptions,
    masses: Sequence[float] = MASSES,
) -> Sweep:
    """Judge all splats and all probes in one pass over the views.

    Args:
        splats: N of them.
        probes: M of them; where they are, how large, and a guess of their colour.
        views: at least one.
        background, options: as the splats are rendered with.
        masses: peak optical depths at which probes are tried, increasing.

    Returns:
        Exact changes of F by each alone.
    """
    splats = splats.detach()
    largest = -math.expm1(-masses[-1])
    tried = probes.splats.detach()
    logits = torch.full_like(tried.opacity_logits, math.log(largest / (1 - largest)))
    tried = replace(tried, opacity_logits=logits)
    levels = torch.tensor(levels_of(masses, options.response))
    levels = to_device(levels, splats.device, splats.dtype)
    errors, costs, quadratics, places, sizes = [], [], [], [], []
    seen_by = torch.zeros(len(splats), dtype=torch.int64, device=splats.device)
    for view in views:
        seen = see(splats, tried, view.camera, background, options)
        mask = None if view.mask is None else to_device(view.mask, splats.device)[None]
        found = flow_statistics(
            seen.prints, seen.bins, to_device(view.photo, splats.device)[None], mask, levels,
            view.camera.width, view.camera.height, seen.response,
        )  # fmt: skip
        errors.append(found.error[0])
        costs.append(found.removal[0])
        quadratics.append(found.insertion[0])
        xx, xy, yy = seen.prints.conics[0].unbind(dim=1)
        det = (xx * yy - xy * xy).clamp(min=1e-30)
        places.append(seen.prints.means2d[0])
        sizes.append(torch.where(seen.visible, det.pow(-0.25), 0))
        seen_by += seen.visible[: len(splats)]
    births = best_births(tried, torch.stack(quadratics), masses)
    return Sweep(
        views,
        torch.stack(errors),
        torch.stack(costs),
        seen_by,
        births,
        torch.stack(places),
        torch.stack(sizes),
    )


def best_births(probes: Splats, quadratics: Tensor, masses: Sequence[float]) -> Births:
    """The mass and the colour of each probe that lower F most.

    F changes by e + ⟨g, δ⟩ + 1/2 a |δ|² when a probe is inserted in its colour + δ, so the best
    colour of a mass is at δ = -g / a, within [0, 1]. The mass is that of the largest held-out gain.

    Args:
        probes: [M] in the colours that the quadratics refer to.
        quadratics: [V, M, K, 5] (e, g, a) by view and mass.
        masses: K peak optical depths.

    Returns:
        Probes as they would be born, and what they gain.
    """
    parts = []
    for first in range(0, max(1, len(probes)), PROBES_AT_ONCE):
        rows = torch.arange(first, min(first + PROBES_AT_ONCE, len(probes)), device=probes.device)
        parts.append(_best_births(probes.index(rows), quadratics[:, rows], masses))
    return Births(
        Splats.cat([part.splats for part in parts]),
        torch.cat([part.gains for part in parts], dim=1),
        torch.cat([part.held_out for part in parts], dim=1),
        torch.cat([part.significance for part in parts]),
    )


def _best_births(probes: Splats, quadratics: Tensor, masses: Sequence[float]) -> Births:
    start = (0.5 + SH_C0 * probes.sh[:, 0])[:, None]

    def shift_of(total: Tensor) -> Tensor:
        """δ at the minimum of the quadratics [..., 5]."""
        slope, curvature = total[..., 1:4], total[..., 4:]
        return (start - slope / curvature.clamp(min=1e-12)).clamp(0, 1) - start

    def gain(q: Tensor, shift: Tensor) -> Tensor:
        linear = (q[..., 1:4] * shift).sum(dim=-1)
        return -(q[..., 0] + linear + 0.5 * q[..., 4] * shift.square().sum(dim=-1))

    total = quadratics.sum(dim=0)
    shift, views = shift_of(total), len(quadratics)
    rest = total - quadratics
    blind = rest[..., 4] <= 1e-3 * total[..., 4]  # the other views know nothing
    held_out = gain(quadratics, shift_of(rest)).masked_fill_(blind, 0)
    best = held_out.sum(dim=0).argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    held_out = held_out[:, rows, best]
    mean = held_out.mean(dim=0)
    deviation = (held_out - mean).square().sum(dim=0) / max(1, views * (views - 1))
    significance = mean / deviation.sqrt().clamp(min=1e-12)
    logits = logits_of_depths(to_device(torch.tensor(masses), mean.device, mean.dtype)[best])
    color = (start + shift)[rows, best]
    born = replace(probes, opacity_logits=logits, sh=((color - 0.5) / SH_C0)[:, None])
    gains = gain(quadratics[:, rows, best], shift[rows, best])
    return Births(born, gains, held_out, significance)


def covariance_gradients(
    splats: Splats,
    views: Sequence[View],
    background: Tensor,
    options: RenderOptions,
) -> Tensor:
    """∂F/∂Σ of each splat at fixed mass: m S / 2 with the splitting matrix S = 2 ∂V/∂Σ.

    m is the optical mass of a splat, V = ∂F/∂m its potential, Σ = A Aᵀ its covariance. Dividing a
    splat pays, at second order, along directions e with eᵀ S e < 0. As factors are transported
    too, by the gradient m S A, S vanishes where they are at rest.

    Args:
        splats: N of them.
        views: at least one; F = 1/2 Σ |radiance - photo|² over all of them.
        background, options: as the splats are rendered with.

    Returns:
        [N,3,3], symmetric.
    """
    splats = splats.detach()
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
                background=background.to(factors), options=options,
            ).radiance[0]  # fmt: skip
            loss = 0.5 * residual_of(radiance, view).square().sum()
            (part,) = torch.autograd.grad(loss, leaf)
        slope += part
    widths = splats.scales.clamp(min=1e-12)  # no slope along an axis of length 0
    half = 0.5 * slope @ (turns / widths[:, None, :]).mT  # ∂F/∂A = 2 (∂F/∂Σ) A
    return 0.5 * (half + half.mT)


def logits_of_depths(depths: Tensor) -> Tensor:
    """Opacity logits of peak optical depths: o = 1 - e^{-m}."""
    return torch.logit(-torch.expm1(-depths))
