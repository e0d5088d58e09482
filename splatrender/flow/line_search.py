"""Carrying out an exchange: the splats after it, their error, and how much of it to do.

The changes by single births and deaths are exact, their sum is not: what overlaps does not add up.
So an exchange is tried before it is made, and halved while it does not lower what is minimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow.birth_death import Exchange
from splatrender.flow.state import TrainState
from splatrender.flow.views.footprints import picture_of, residual_of, see
from splatrender.flow.views.sweep import Sweep, logits_of_depths
from splatrender.model import Splats
from splatrender.model.view import View
from splatrender.operators.render import RenderOptions

THINNINGS = 3  # times the masses of the newborn are halved before their number is


@dataclass(frozen=True)
class Rules:
    """What bounds an exchange.

    Attributes:
        max_splats: number of splats never to exceed.
        price: of a splat, in units of F of all swept views; None for a balanced flow.
    """

    max_splats: int
    price: float | None


def descend(
    state: TrainState, found: Sweep, chosen: Exchange, rules: Rules
) -> tuple[Sweep, Exchange, float, int]:
    """The longest part of an exchange, by halving, that lowers F (plus the price of splats).

    A part is taken if F + λ N does not rise. Where splats become more, the masses of the newborn
    are halved first: births of small mass always add up. Then births and deaths are halved in
    number; those of the largest gains and the smallest costs come first and stay.

    Args:
        state: what there is; not changed.
        found: the sweep that the exchange comes from.
        chosen: rows of splats that are to die, and of probes that are to be born.
        rules: see `Rules`.

    Returns:
        The sweep with the masses that were taken, the part, its realised change of F over the
        swept views, and how many parts were tried.
    """
    before, trials, price = float(found.error.sum()), 0, rules.price or 0.0
    thinnings = THINNINGS if len(chosen.births) > len(chosen.deaths) else 0
    while len(chosen.births) + len(chosen.deaths):
        if 0 < trials <= thinnings:
            found = thinned(found)
        elif trials:
            chosen = _half(found, chosen, len(state), rules)
        tried = exchanged(state.splats, found, chosen)
        realised = error_of(tried, found.views, state.background, state.options) - before
        trials += 1
        cost = price * (len(tried) - len(state))
        if realised + cost <= 0:
            return found, chosen, realised, trials
    return found, chosen, 0.0, trials


def thinned(found: Sweep) -> Sweep:
    """The same with births of half the mass."""
    born = found.births.splats
    logits = logits_of_depths(0.5 * born.optical_depths)
    born = replace(born, opacity_logits=logits)
    return replace(found, births=replace(found.births, splats=born))


def _half(found: Sweep, chosen: Exchange, count: int, rules: Rules) -> Exchange:
    births = chosen.births[: len(chosen.births) // 2]
    if rules.price is None:
        deaths = chosen.deaths[: max(0, len(births) + count - rules.max_splats)]
    else:
        deaths = chosen.deaths[: len(chosen.deaths) // 2]
    change = found.costs[:, deaths].sum() - found.births.gains[:, births].sum()
    return Exchange(deaths, births, float(change))


def error_of(
    splats: Splats, views: Sequence[View], background: Tensor, options: RenderOptions
) -> float:
    """F = 1/2 Σ |radiance - photo|² over the pixels of some views."""
    squares = []
    for view in views:
        picture = picture_of(see(splats, None, view.camera, background, options))
        squares.append(residual_of(picture, view).square().sum())
    return sum(0.5 * square for square in torch.stack(squares).tolist())


def exchanged(splats: Splats, found: Sweep, chosen: Exchange) -> Splats:
    """The splats without the dead, and the newborn behind them."""
    born = found.births.splats.index(chosen.births).with_degree(splats.degree)
    return Splats.cat([splats.detach().index(_others(len(splats), chosen.deaths)), born])


def carry_out(state: TrainState, found: Sweep, chosen: Exchange) -> None:
    """Let the chosen splats die and the chosen probes be born, in their rows while there are any.

    Args:
        state: changed in place; newborn splats have no moments.
        found: the sweep that the exchange comes from.
        chosen: rows of splats and of probes.
    """
    born = found.births.splats.index(chosen.births).with_degree(state.splats.degree)
    rows = torch.arange(len(born), device=born.device)
    swaps = min(len(chosen.deaths), len(born))
    state.overwrite(chosen.deaths[:swaps], born.index(rows[:swaps]))
    if swaps < len(born):
        state.append(born.index(rows[swaps:]))
    if swaps < len(chosen.deaths):
        state.select(_others(len(state), chosen.deaths[swaps:]))


def _others(count: int, rows: Tensor) -> Tensor:
    """All rows below `count` but these."""
    kept = torch.ones(count, dtype=torch.bool, device=rows.device)
    kept[rows] = False
    return kept.nonzero()[:, 0]  # once for all fields: to index by a mask is to wait for each
