"""Adaptive density control: splats are cloned, split, removed and reset."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from splatrender.flow import ADC, AbsADC, SeenFootprints, StepReport, Strategy, TrainState
from splatrender.flow.strategies.adc import scene_extent
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.view import View

ITERATIONS = 30_000  # the thresholds' own length of a run
DENSIFY = 600  # an iteration at which densification is due


def view_from(*eye: float) -> View:
    camera = Camera.look_at(eye, (0, 0, 0), width=64, height=48)
    return View(camera, torch.zeros(48, 64, 3, dtype=torch.uint8))


def make_state(count: int = 6) -> TrainState:
    splats = Splats.random(count, seed=0, degree=0)
    splats.log_scales.fill_(math.log(1e-3))
    splats.opacity_logits.fill_(0.0)
    state = TrainState.start(splats, ITERATIONS, torch.Generator().manual_seed(0))
    state.views = [view_from(*eye) for eye in ((1, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1))]
    return state


def see(state: TrainState, strategy: ADC, gradients: Tensor, seen: Tensor | None = None) -> None:
    """Act as if a backward pass had left these gradients [N, 2] of the splats' places [1 / px]."""
    means2d = torch.zeros(1, len(state), 2, requires_grad=True)
    means2d.grad = gradients[None]
    means2d_abs = torch.zeros_like(means2d, requires_grad=True)
    means2d_abs.grad = 10 * gradients[None]
    extents = torch.full((1, len(state), 2), 3.0)
    if seen is not None:
        extents[0, ~seen] = 0
    state.footprints = SeenFootprints(means2d, extents, 64, 48, means2d_abs)
    strategy.after_backward(state)


def reported(strategy: Strategy, state: TrainState) -> StepReport:
    report = strategy.step(state)
    assert report is not None
    return report


def pulled(count: int, rows: list[int], strength: float) -> Tensor:
    gradients = torch.zeros(count, 2)
    gradients[rows, 0] = strength / 32  # in units of half an image: strength
    return gradients


def test_extent_is_that_of_the_cameras() -> None:
    state = make_state()
    assert scene_extent(state) == pytest.approx(1.1)
    state.views = [
        *state.views,
        *state.views,
        *state.views,
        *state.views,
        view_from(60, 0, 0),
    ]  # registered wrong
    assert scene_extent(state) == pytest.approx(1.1, rel=0.1)


def test_small_splats_are_cloned_and_large_ones_split() -> None:
    state, strategy = make_state(), ADC(ITERATIONS, 100)
    state.splats.log_scales.data[1] = math.log(0.05)  # above 1 % of the extent
    before = state.splats.detach().clone()
    state.iteration = DENSIFY
    see(state, strategy, pulled(6, [0, 1], 3e-4))
    report = strategy.step(state)
    assert report is not None and report.born == 2 and report.died == 0 and len(state) == 8
    after = state.splats.detach()
    torch.testing.assert_close(after.means[:1], before.means[:1])
    torch.testing.assert_close(after.means[6], before.means[0])  # the clone
    children = after.log_scales[[1, 7]]
    torch.testing.assert_close(children, before.log_scales[[1, 1]] - math.log(1.6))
    distances = (after.means[[1, 7]] - before.means[1]).norm(dim=1)
    assert float(distances.min()) > 0 and float(distances.max()) < 5 * 0.05 * math.sqrt(3)
    torch.testing.assert_close(after.means[2:6], before.means[2:6])


def test_gradients_are_means_over_the_views_that_saw_a_splat() -> None:
    state, strategy = make_state(), ADC(ITERATIONS, 100)
    seen = torch.tensor([True, False, True, True, True, True])
    state.iteration = DENSIFY
    see(state, strategy, pulled(6, [0], 3e-4))  # mean of row 0 in three views: 1e-4
    see(state, strategy, pulled(6, [1], 3e-4))  # and of row 1 in the one view that saw it: 3e-4
    see(state, strategy, torch.zeros(6, 2), seen)
    see(state, strategy, torch.zeros(6, 2), seen)
    state.rows["adc/views"][1] = 1
    assert reported(strategy, state).born == 1
    torch.testing.assert_close(state.splats.means[6], state.splats.means[1])


def test_the_largest_gradients_come_first_when_the_budget_is_short() -> None:
    state, strategy = make_state(), ADC(ITERATIONS, 7)
    gradients = pulled(6, [0, 3], 3e-4)
    gradients[3] *= 2
    state.iteration = DENSIFY
    see(state, strategy, gradients)
    assert reported(strategy, state).born == 1 and len(state) == 7
    torch.testing.assert_close(state.splats.means[6], state.splats.means[3])


def test_faint_splats_and_after_a_reset_large_ones_are_removed() -> None:
    state, strategy = make_state(), ADC(ITERATIONS, 100)
    state.splats.opacity_logits.data[2] = math.log(0.004 / 0.996)
    state.splats.log_scales.data[4] = math.log(0.2)  # above 10 % of the extent
    state.iteration = DENSIFY
    see(state, strategy, torch.zeros(6, 2))
    assert reported(strategy, state).died == 1 and len(state) == 5
    state.iteration = 3100
    see(state, strategy, torch.zeros(5, 2))
    assert reported(strategy, state).died == 1 and len(state) == 4
    keeping = make_state()
    keeping.splats.log_scales.data[4] = math.log(0.2)
    keeping.iteration = 3100
    strategy = ADC(ITERATIONS, 100, prune_large=False)
    see(keeping, strategy, torch.zeros(6, 2))
    assert strategy.step(keeping) is None and len(keeping) == 6


@pytest.mark.parametrize("resets", [True, False])
def test_opacities_are_reset(resets: bool) -> None:
    state, strategy = make_state(), ADC(ITERATIONS, 100, resets=resets)
    state.moments["opacity_logits"].exp_avg.fill_(1.0)
    state.iteration = 3000
    see(state, strategy, torch.zeros(6, 2))
    strategy.step(state)
    expected = 0.01 if resets else 0.5
    torch.testing.assert_close(state.splats.opacities.detach(), torch.full((6,), expected))
    assert float(state.moments["opacity_logits"].exp_avg.sum()) == (0.0 if resets else 6.0)


@pytest.mark.parametrize("iterations", [ITERATIONS, 7000, 5000])
def test_nothing_happens_from_half_of_the_run_on(iterations: int) -> None:
    """Half is a multiple of the resets, which the splats would not recover from so soon."""
    state, strategy = make_state(), ADC(iterations, 100)
    assert (iterations // 2) % strategy.reset == 0
    state.iteration = iterations // 2 - strategy.interval
    see(state, strategy, torch.zeros(6, 2))  # as in all iterations before
    for iteration in (iterations // 2, iterations // 2 + strategy.interval):
        state.iteration = iteration
        before = state.rows["adc/gradient"].clone()
        see(state, strategy, pulled(6, [0, 1], 1.0))
        assert torch.equal(state.rows["adc/gradient"], before)
        assert strategy.step(state) is None and len(state) == 6
        torch.testing.assert_close(state.splats.opacities.detach(), torch.full((6,), 0.5))


def test_births_end_one_interval_before_half_of_the_run() -> None:
    state, strategy = make_state(), ADC(ITERATIONS, 100)
    state.iteration = ITERATIONS // 2 - strategy.interval
    see(state, strategy, pulled(6, [0, 1], 1.0))
    assert reported(strategy, state).born == 2


@pytest.mark.parametrize(("kind", "born"), [(ADC, 0), (AbsADC, 1)])
def test_absolute_gradients(kind: type[ADC], born: int) -> None:
    state = make_state()
    strategy = kind(ITERATIONS, 100)
    state.iteration = DENSIFY
    see(state, strategy, pulled(6, [0], 1e-4))  # the absolute ones are ten times as large
    report = strategy.step(state)
    assert (report.born if report else 0) == born
