"""Steps of the flow itself in the renderer: against the flow of measures, and in training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers.training as ring
import pytest
import torch
from torch import Tensor

from splatrender.flow import TrainState
from splatrender.flow.schedules import LearningRates
from splatrender.flow.transports import wasserstein
from splatrender.flow.transports.velocity import splitting_matrix, wasserstein_velocity
from splatrender.flow.transports.wasserstein import WassersteinOptimizer
from splatrender.model import Splats
from splatrender.model.quaternions import rotations_from_quats, slope_of_turns, turned
from splatrender.operators.adam import adam_step
from splatrender.training.options import TRANSPORTS
from splatrender.training.run import Run

TURN = torch.tensor([[0.8, 0.0, 0.6, 0.0]])


def factors_of(splats: Splats) -> Tensor:
    return rotations_from_quats(splats.quats) * splats.scales[:, None, :]


def some(count: int = 6) -> Splats:
    splats = Splats.random(count, extent=0.5, seed=5, degree=1)
    splats.log_scales.copy_(
        torch.randn(count, 3, generator=torch.Generator().manual_seed(1)) * 0.5 - 2
    )
    return splats


def started(splats: Splats, scaled: bool = False) -> TrainState:
    memory = WassersteinOptimizer(LearningRates(), scaled).memory(splats)
    state = TrainState.start(splats, 100, torch.Generator().manual_seed(0), memory)
    state.means_lr = 1e-6  # so small that only the first order counts
    return state


def loss_of(means: Tensor, factors: Tensor, sh: Tensor, opacities: Tensor) -> Tensor:
    """Anything smooth."""
    spread = (factors @ factors.mT + means[:, :, None] * means[:, None, :]).cos().sum(dim=(1, 2))
    return ((opacities * spread).sin() * (1 + sh.square().sum(dim=(1, 2)))).sum()


def grad_of(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def slopes(state: TrainState) -> None:
    splats = state.splats
    loss_of(splats.means, factors_of(splats), splats.sh, splats.opacities).backward()


def test_slope_of_turns_is_that_of_autograd() -> None:
    quats = torch.nn.functional.normalize(some().quats.double(), dim=1)
    direction = torch.randn(6, 4, generator=torch.Generator().manual_seed(2)).double()
    turns = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad((turned(quats, turns) * direction).sum(), turns)
    # `turned` normalises, so that the part of the slope along q itself must not count
    torch.testing.assert_close(slope_of_turns(quats, direction), expected)


def test_a_plain_step_is_that_of_the_flow_of_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasserstein, "STIFFNESS", 0.0)
    monkeypatch.setattr(wasserstein, "THINNEST", 0.0)
    before = some()
    state = started(before.clone())
    state.splats = state.splats.map(lambda t: t.detach().double()).requires_grad_()
    state.memory = state.memory.map(lambda _, tensor: tensor.double())
    start = state.splats.detach().clone()
    slopes(state)
    rates = replace(LearningRates(), sh_constant=1e-6, opacity_logits=1e-6)
    WassersteinOptimizer(rates, scaled=False).step(state, torch.ones(6, dtype=torch.bool))
    end = state.splats.detach()

    factors = factors_of(start).requires_grad_()
    leaves = [t.clone().requires_grad_() for t in (start.means, start.sh, start.opacities)]
    loss_of(leaves[0], factors, leaves[1], leaves[2]).backward()
    mass = -torch.log1p(-start.opacities)
    slope = [grad_of(leaf) for leaf in (*leaves, factors)]
    velocity = wasserstein_velocity(mass, slope[1].reshape(6, -1), slope[0], slope[3])
    splitting = splitting_matrix(factors.detach(), velocity.factors)
    moved = end.means - start.means
    time = (moved * velocity.means).sum() / velocity.means.square().sum()
    torch.testing.assert_close(moved, time * velocity.means, rtol=1e-5, atol=1e-12)
    covariances = [f @ f.mT for f in (factors_of(start), factors_of(end))]
    flow = -splitting @ covariances[0]
    torch.testing.assert_close(
        covariances[1] - covariances[0], time * (flow + flow.mT), rtol=1e-4, atol=1e-11
    )
    lengths = (
        mass * (velocity.means.square().sum(1) + velocity.factors.square().sum((1, 2)))
    ).sum()
    assert float(time * (lengths / mass.sum()).sqrt()) == pytest.approx(1e-7, rel=1e-6)
    potential = slope[2] * (1 - start.opacities)  # dm = do / (1 - o)
    grown = (torch.log1p(-end.opacities) / torch.log1p(-start.opacities)).log()
    ratio = grown / potential
    torch.testing.assert_close(ratio, ratio[:1].expand(6), rtol=1e-4, atol=0)
    assert float(ratio[0]) < 0
    length = (mass * grown.square()).sum() / mass.sum()
    assert float(length.sqrt()) == pytest.approx(0.3e-6, rel=1e-3)
    colors = (end.sh - start.sh).reshape(6, -1)
    time = (colors * velocity.weights).sum() / velocity.weights.square().sum()
    torch.testing.assert_close(colors, time * velocity.weights, rtol=1e-5, atol=1e-12)
    length = (mass[:, None] * colors.square()).sum() / mass.sum()
    assert float(length.sqrt()) == pytest.approx(1e-6, rel=1e-5)


def test_factors_that_a_splats_gradients_share_cancel_in_adam() -> None:
    """So Adam takes the same steps whether gradients were divided by the mass or not."""
    results = []
    for mass in (torch.ones(5, 1), torch.tensor([[0.01], [0.1], [0.5], [2.0], [9.0]])):
        place, moment, square = torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 3)
        count = torch.zeros(5, dtype=torch.int32)
        generator = torch.Generator().manual_seed(3)
        for _ in range(20):
            gradient = torch.randn(5, 3, generator=generator) / mass
            adam_step(place, gradient, moment, square, count, None, 0.01)
        results.append(place)
    torch.testing.assert_close(*results)


def test_the_mass_of_a_splat_cancels_in_the_scaled_form() -> None:
    """Gradients of one photo's loss are m ∇V; multiplied by any m they give the same steps."""
    results = []
    for factor in (1.0, 0.01):
        state = started(some(), scaled=True)
        state.means_lr = 0.01
        for turn in range(5):
            generator = torch.Generator().manual_seed(turn)
            for _, parameter in state.splats.items():
                parameter.grad = factor * torch.randn(parameter.shape, generator=generator)
            WassersteinOptimizer(LearningRates(), scaled=True).step(
                state, torch.ones(6, dtype=torch.bool)
            )
        results.append(state.splats.detach())
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, getattr(results[1], name), rtol=1e-4, atol=1e-6)


def test_the_scaled_form_does_not_know_the_axes_of_the_world() -> None:
    """Turning the world before some steps is the same as turning it afterwards."""
    target = torch.tensor([0.3, -0.2, 0.5])
    results = []
    for turn in (torch.tensor([[1.0, 0, 0, 0]]), TURN):
        matrix = rotations_from_quats(turn)[0]
        splats = some()
        splats.means.copy_(splats.means @ matrix.T)
        u, half = turn[:, 1:].expand(6, 3), splats.quats[:, 1:]
        real = turn[:, :1] * splats.quats[:, :1] - (u * half).sum(dim=1, keepdim=True)
        rest = turn[:, :1] * half + splats.quats[:, :1] * u + torch.linalg.cross(u, half)
        splats.quats.copy_(torch.cat([real, rest], dim=1))
        state = started(splats, scaled=True)
        state.means_lr = 0.01
        for _ in range(10):
            s = state.splats
            away = s.means - matrix @ target
            shape = factors_of(s) @ factors_of(s).mT
            energy = (away[:, None] @ shape @ away[..., None]).sum() + away.square().sum()
            (energy + (s.opacities.sum() + s.sh.sum())).backward()
            WassersteinOptimizer(LearningRates(), scaled=True).step(
                state, torch.ones(6, dtype=torch.bool)
            )
        means, factors = state.splats.detach().means, factors_of(state.splats.detach())
        results.append((means @ matrix, matrix.T @ factors @ factors.mT @ matrix))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_splats_out_of_sight_stay(scaled: bool) -> None:
    state = started(some(), scaled)
    state.means_lr = 0.01
    before = state.splats.detach().clone()
    visible = torch.tensor([True, False, True, False, True, True])
    for _ in range(3):
        slopes(state)
        WassersteinOptimizer(LearningRates(), scaled).step(state, visible)
    assert state.steps.tolist() == [3, 0, 3, 0, 3, 3]
    for name, tensor in state.splats.detach().items():
        changed = (tensor != getattr(before, name)).reshape(6, -1).any(dim=1)
        assert changed.tolist() == visible.tolist(), name
        assert getattr(state.splats, name).grad is None


@pytest.mark.parametrize("scaled", [False, True])
def test_wild_gradients_give_bounded_finite_steps(scaled: bool) -> None:
    state = started(some(), scaled)
    state.means_lr = 1e3
    state.splats.opacity_logits.data[:3] = torch.tensor([-40.0, 40.0, 0.0])
    before = state.splats.detach().clone()
    for _, parameter in state.splats.items():
        parameter.grad = torch.full_like(parameter, 1e6)
    grad_of(state.splats.means)[0] = 0
    rates = replace(LearningRates(), log_scales=1e3, opacity_logits=1e3)
    WassersteinOptimizer(rates, scaled).step(state, torch.ones(6, dtype=torch.bool))
    after = state.splats.detach()
    assert bool(after.finite().all())
    assert float((after.log_scales - before.log_scales).abs().max()) == pytest.approx(0.5)
    far = (after.means - before.means).norm(dim=1) / before.scales.amax(dim=1)
    assert float(far.max()) == pytest.approx(0.5, rel=1e-3) and float(far[0]) == 0


@pytest.mark.parametrize("scaled", [False, True])
def test_views_without_a_gradient_do_not_throw_splats_about(scaled: bool) -> None:
    """A mask may keep nothing of a photo; what moved before must not be scaled up."""
    state = started(some(), scaled)
    state.means_lr = 0.01
    optimizer = WassersteinOptimizer(LearningRates(), scaled)
    everyone = torch.ones(6, dtype=torch.bool)
    slopes(state)
    optimizer.step(state, everyone)
    before = state.splats.detach().clone()
    for _ in range(5):
        for _, parameter in state.splats.items():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(state, everyone)
    after = state.splats.detach()
    assert bool(after.finite().all())
    assert float((after.means - before.means).norm(dim=1).max()) < 0.1
    assert float((after.sh - before.sh).abs().max()) < 0.1


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_are_cleared_when_nothing_is_seen(scaled: bool) -> None:
    state = started(some(), scaled)
    slopes(state)
    before = state.splats.detach().clone()
    WassersteinOptimizer(LearningRates(), scaled).step(state, torch.zeros(6, dtype=torch.bool))
    for name, tensor in state.splats.items():
        assert tensor.grad is None and torch.equal(tensor.detach(), getattr(before, name))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_transport_trains(transport: str, tmp_path: Path) -> None:
    run = Run(ring.options(tmp_path, iterations=120, transport=transport), ring.ring_scene())
    losses = []
    for _ in range(120):
        run.step()
        losses.append(run.loss)
    assert math.isfinite(losses[-1]) and losses[-1] < 0.8 * losses[4]


@pytest.mark.parametrize("transport", TRANSPORTS[1:])
def test_a_resumed_run_ends_as_an_uninterrupted_one(transport: str, tmp_path: Path) -> None:
    scene = ring.ring_scene()
    whole = Run(ring.options(tmp_path, transport=transport), scene)
    for _ in range(40):
        whole.step()
    first = Run(ring.options(tmp_path, transport=transport), scene)
    for _ in range(25):
        first.step()
    second = Run(ring.options(tmp_path, transport=transport), scene)
    second.load_state_dict(first.state_dict())
    for _ in range(15):
        second.step()
    ring.assert_same(
        dict(whole.state.splats.detach().items()), dict(second.state.splats.detach().items())
    )


def as_earlier_versions_saved(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint whose velocities and powers are in tensors that are otherwise Adam's."""
    state = dict(state)
    velocities, powers = state.pop("velocities"), state.pop("powers", {})
    moments = {}
    for name, tensor in state["splats"].items():
        first, second = torch.zeros_like(tensor), torch.zeros_like(tensor)
        if name in velocities:
            first[:, int(name == "quats") :] = velocities[name]
        if name in powers:
            second[:, 0] = powers[name]
        moments[name] = state["moments"].get(name, [first, second])
    return state | {"moments": moments}


@pytest.mark.parametrize("transport", TRANSPORTS[1:])
def test_checkpoints_of_earlier_versions_continue(transport: str, tmp_path: Path) -> None:
    scene, results = ring.ring_scene(), []
    first = Run(ring.options(tmp_path, transport=transport), scene)
    for _ in range(25):
        first.step()
    saved = copy.deepcopy(first.state_dict())
    for state in (saved, as_earlier_versions_saved(saved)):
        run = Run(ring.options(tmp_path, transport=transport), scene)
        run.load_state_dict(copy.deepcopy(state))
        for _ in range(5):
            run.step()
        results.append(dict(run.state.splats.detach().items()))
    ring.assert_same(*results)


def noting(notes: list[Tensor]) -> Callable[[str, Tensor], Tensor]:
    """Return a map that changes nothing and notes copies, harmonics up to degree 1."""

    def note(name: str, tensor: Tensor) -> Tensor:
        notes.append(tensor[:, :4].clone() if name == "sh" else tensor.clone())
        return tensor

    return note


@pytest.mark.parametrize("scaled", [False, True])
def test_memory_follows_its_splats(scaled: bool) -> None:
    state = started(some(), scaled)
    slopes(state)
    WassersteinOptimizer(LearningRates(), scaled).step(state, torch.ones(6, dtype=torch.bool))
    assert bool(state.moments) == scaled and set(state.moments) <= {"opacity_logits", "sh"}
    kept: list[Tensor] = []
    state.memory.map(noting(kept))
    ids = torch.tensor([4, 1])
    state.select(ids)
    state.append(some(3))
    state.forget(torch.tensor([0]))
    state.set_degree(2)
    now: list[Tensor] = []
    state.memory.map(noting(now))
    for before, after in zip(kept, now, strict=True):
        assert len(after) == 5 and torch.equal(after[1], before[1])
        assert not after[0].any() and not after[2:].any()
