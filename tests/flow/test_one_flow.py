"""One flow for photos and for point samples: the same deaths and births for the same image.

The toy is an image of bumps that do not overlap. Photos of it by far pinhole cameras, which are
almost orthographic, go through `PhotoObjective`; the values of its pixels at their places go
through `PointObjective`. Everything else is the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import pytest
import torch
from torch import Tensor

from splatrender.flow.birth_death import Exchange, ExchangeLimits, Prices, exchange
from splatrender.flow.line_search import line_search
from splatrender.flow.objective import Objective
from splatrender.flow.step import Flow
from splatrender.flow.views.objective import PhotoObjective
from splatrender.model import SplatMeasure, Splats
from splatrender.model.camera import Camera
from splatrender.model.record import Record
from splatrender.model.splats import SH_C0
from splatrender.model.view import View
from splatrender.operators.options import RenderOptions
from splatrender.operators.sampling import observations
from splatrender.operators.stages import Look
from splatrender.regression.objective import PointObjective
from splatrender.regression.prior import Prior

SIDE = 64  # pixels on a side of the image, which is the unit square around the origin
WIDTH = 0.04  # standard deviation of the bumps: 2.6 pixels
OPACITY = 0.8  # of the splats that are there; their colour is amplitude / opacity
DISTANCES = (1000.0, 1500.0)  # of the cameras, in sides of the image
CENTRES = [(-0.3, -0.3), (0.0, -0.3), (0.3, -0.3), (-0.3, 0.1), (0.0, 0.1), (0.3, 0.1)]
AMPLITUDES = [0.60, 0.08, 0.30, 0.05, 0.45, 0.70]
COLOURS = [[1.0, 0.5, 0.2], [0.3, 1.0, 0.6], [0.8, 0.2, 1.0]] * 2
MODEL, CANDIDATES = [0, 1, 2, 3], [5, 4, 3]  # bumps that are there; the last candidate gains little
EMPTY = (0.3, 0.4)  # a place without a bump, where one more candidate is
M = TypeVar("M", bound=Record)


@dataclass(frozen=True)
class Step(Generic[M]):
    """State of the flow: a measure, and what the latest step did."""

    measure: M
    planned: Exchange | None = None
    done: Exchange | None = None
    trials: int = 0
    value: float = math.nan


def halved(planned: Exchange) -> Iterator[Exchange]:
    """Yield an exchange and halves of it."""
    while len(planned.deaths) + len(planned.births):
        yield planned
        deaths, births = (ids[: len(ids) // 2] for ids in (planned.deaths, planned.births))
        planned = Exchange(deaths, births, math.nan)


def after(measure: M, newborn: M, part: Exchange) -> M:
    """Return the measure without the dead, and the newborn behind it."""
    alive = torch.ones(len(measure), dtype=torch.bool)
    alive[part.deaths] = False
    return type(measure).cat([measure.index(alive), newborn.index(part.births)])


def birth_death(
    objective: Objective[M], candidates: M, limits: ExchangeLimits, step: Step[M]
) -> Step[M]:
    """Exchange splats for candidates: the part of the flow that both problems share."""
    measure = step.measure
    insertions = objective.insertions(measure, candidates)
    planned = exchange(objective.removals(measure).costs, insertions.gains, limits)
    outcome = line_search(
        halved(planned),
        lambda part: objective.value(after(measure, insertions.newborn, part)),
        before=objective.value(measure),
    )
    if outcome.attempt is not None:
        measure = after(measure, insertions.newborn, outcome.attempt)
    return Step(measure, planned, outcome.attempt, outcome.trials, outcome.value)


def image() -> tuple[Tensor, Tensor]:
    """Return places [n, 2] and values [n, 3] of the pixels."""
    at = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE - 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    points = torch.stack([x, y], dim=2).reshape(-1, 2)
    values = torch.zeros(len(points), 3, dtype=torch.float64)
    for centre, amplitude, colour in zip(CENTRES, AMPLITUDES, COLOURS, strict=True):
        squares = (points - torch.tensor(centre, dtype=torch.float64)).square().sum(dim=1)
        bump = amplitude * (-0.5 * squares / WIDTH**2).exp()
        values += bump[:, None] * torch.tensor(colour, dtype=torch.float64)
    return points, values


def outputs(rows: list[int]) -> Tensor:
    """Return [k, 3] amplitudes by channel."""
    return torch.tensor([[AMPLITUDES[i] * c for c in COLOURS[i]] for i in rows])


def centres(rows: list[int], more: tuple[tuple[float, float], ...] = ()) -> Tensor:
    return torch.tensor([*(CENTRES[i] for i in rows), *more])


def photos() -> tuple[PhotoObjective, Splats, Splats]:
    """Return objective, splats and candidates of the image as photos."""
    _, values = image()
    photo = (255 * values).round().to(torch.uint8).reshape(SIDE, SIDE, 3)
    views = []
    for distance in DISTANCES:
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = distance
        focal, middle = SIDE * distance, SIDE / 2
        views.append(View(Camera(pose, focal, focal, middle, middle, SIDE, SIDE), photo))
    look = Look(options=RenderOptions(eps2d=0.0, far=1e4))

    def splats(places: Tensor, amplitudes: Tensor) -> Splats:
        count = len(places)
        return Splats(
            torch.cat([places, torch.zeros(count, 1)], dim=1),
            torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            torch.full((count, 3), math.log(WIDTH)),
            torch.full((count,), math.log(OPACITY / (1 - OPACITY))),
            ((amplitudes / OPACITY - 0.5) / SH_C0)[:, None],
        )

    grey = torch.full((len(CANDIDATES) + 1, 3), 0.5 * OPACITY)  # the sweep finds the best colour
    model = splats(centres(MODEL), outputs(MODEL))
    return PhotoObjective(views, look), model, splats(centres(CANDIDATES, (EMPTY,)), grey)


def samples() -> tuple[PointObjective, SplatMeasure, SplatMeasure]:
    """Return objective, splats and candidates of the image as point samples."""
    points, values = image()

    def measure(places: Tensor, amplitudes: Tensor) -> SplatMeasure:
        factors = WIDTH * torch.eye(2, dtype=torch.float64).repeat(len(places), 1, 1)
        ones = torch.ones(len(places), dtype=torch.float64)
        return SplatMeasure(ones, amplitudes.double(), places.double(), factors, normalised=False)

    places = centres(CANDIDATES, (EMPTY,))
    candidates = measure(places, torch.zeros(len(places), 3))
    model = measure(centres(MODEL), outputs(MODEL))
    return PointObjective([observations(points, values)], Prior()), model, candidates


PROBLEMS: list[Any] = [photos(), samples()]
SCALES = [len(DISTANCES) * SIDE**2, 1]  # sum over views and pixels; mean over points


def test_values_costs_and_gains_agree() -> None:
    found = []
    for (objective, model, candidates), scale in zip(PROBLEMS, SCALES, strict=True):
        gains = objective.insertions(model, candidates).gains / scale
        costs = objective.removals(model).costs / scale
        found.append((objective.value(model) / scale, costs.double(), gains.double()))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.01)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.03, atol=3e-7)
    torch.testing.assert_close(found[0][2][:2], found[1][2][:2], rtol=0.03, atol=0)


LIMITS = {
    "balanced, no free place": ExchangeLimits(deaths=2, births=2, growth=0),
    "balanced, one free place": ExchangeLimits(deaths=2, births=3, growth=1),
    "one exchange": ExchangeLimits(deaths=1, births=1, growth=0),
    "priced": ExchangeLimits(deaths=4, births=4, prices=Prices(1e-4, 1e-4)),
    "explorative": ExchangeLimits(deaths=1, births=2, prices=Prices(math.inf, 1e-4)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_same_deaths_and_births(name: str) -> None:
    steps = []
    for (objective, model, candidates), scale in zip(PROBLEMS, SCALES, strict=True):
        limits = LIMITS[name]
        if limits.prices is not None:
            limits = replace(limits, prices=Prices(*(scale * p for p in limits.prices)))
        part = partial(birth_death, objective, candidates, limits)
        flow: Flow[Any] = Flow(transport=lambda step: step, birth_death=part)
        step = flow.step(Step(model))
        assert step.value < objective.value(model)
        assert objective.value(step.measure) == pytest.approx(step.value)
        steps.append(step)
    one, other = steps
    assert one.planned.deaths.tolist() == other.planned.deaths.tolist()
    assert one.planned.births.tolist() == other.planned.births.tolist()
    assert one.planned.predicted == pytest.approx(SCALES[0] * other.planned.predicted, rel=0.03)
    assert one.done.deaths.tolist() == other.done.deaths.tolist()
    assert one.trials == other.trials == 1 and len(one.measure) == len(other.measure)
    assert len(one.planned.births) > 0


def test_what_the_exchange_chooses() -> None:
    """The faintest splats die for the brightest bumps that are missing."""
    objective, model, candidates = PROBLEMS[1]
    step = birth_death(objective, candidates, LIMITS["balanced, no free place"], Step(model))
    assert step.done is not None
    assert step.done.deaths.tolist() == [3, 1] and step.done.births.tolist() == [0, 1]


def test_two_steps_leave_the_image_and_nothing_else() -> None:
    """Births fill the missing bumps; then no exchange gains more than rounding."""
    for (objective, model, candidates), scale in zip(PROBLEMS, SCALES, strict=True):
        limits = ExchangeLimits(deaths=0, births=2, growth=2)
        part = partial(birth_death, objective, candidates, limits)
        flow: Flow[Any] = Flow(transport=lambda step: step, birth_death=part)
        first = flow.step(Step(model))
        assert objective.value(first.measure) < 0.01 * objective.value(model)
        again = flow.step(Step(first.measure))
        assert objective.value(first.measure) - again.value < 1e-5 * scale
