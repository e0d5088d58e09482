"""Relocation, growth, noise and regularisers of the MCMC strategy, and the state they change."""

from __future__ import annotations

import math

import pytest
import torch

from splatrender.errors import InputError
from splatrender.flow import MCMC, TrainState, create_strategy
from splatrender.flow.strategies.mcmc import DEAD_OPACITY, MAX_SHARERS, shared
from splatrender.model import Splats
from splatrender.model.quaternions import rotate
from splatrender.reference import rasterize

ITERATIONS = 7000
LAST_PARAMETERS = ("means", "quats", "log_scales", "opacity_logits", "sh")


def logit(opacity: float) -> float:
    return math.log(opacity / (1 - opacity))


def make_state(count: int = 40, seed: int = 0, dead: int = 0) -> TrainState:
    """Return a state in the middle of a run: moments and step counts are not zero."""
    splats = Splats.random(count, seed=seed, degree=1)
    splats.opacity_logits.fill_(logit(0.5))
    splats.opacity_logits[:dead] = logit(0.001)
    state = TrainState.start(splats, ITERATIONS, torch.Generator().manual_seed(seed))
    for name in LAST_PARAMETERS:
        state.moments[name].exp_avg.normal_()
        state.moments[name].exp_avg_sq.uniform_(0.1, 1)
    state.steps += torch.arange(1, count + 1, dtype=torch.int32)
    state.iteration = 1000
    return state


def picture(splats: Splats, size: int = 48) -> torch.Tensor:
    """Radiance [size, size, 3] of splats around (0, 0, 4)."""
    splats = splats.detach()
    intrinsics = torch.tensor([[1.0 * size, 1.0 * size, size / 2, size / 2]])
    arguments = (splats.means, splats.quats, splats.scales, splats.opacities, splats.sh)
    lens = (torch.eye(4)[None], intrinsics, size, size)
    return rasterize(*arguments, *lens, sh_degree=splats.degree)[0][0]


class TestShared:
    def test_one_sharer_changes_nothing(self) -> None:
        opacities = torch.tensor([0.01, 0.5, 0.99])
        new, factors = shared(opacities, torch.ones(3, dtype=torch.int64))
        torch.testing.assert_close(new, opacities)
        torch.testing.assert_close(factors, torch.ones(3))

    def test_equals_the_double_sum_of_the_paper(self) -> None:
        for opacity, n in ((0.3, 2), (0.9, 3), (0.6, 7)):
            new = 1 - (1 - opacity) ** (1 / n)
            total = sum(
                math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1)
                for i in range(1, n + 1)
                for k in range(i)
            )
            found = shared(torch.tensor([opacity], dtype=torch.float64), torch.tensor([n]))
            assert found[0].item() == pytest.approx(new, rel=1e-12)
            assert found[1].item() == pytest.approx(opacity / total, rel=1e-12)

    @pytest.mark.parametrize("n", [2, 5, 20, MAX_SHARERS])
    @pytest.mark.parametrize("opacity", [0.05, 0.5, 0.95, 0.999])
    def test_keeps_transmittance_and_the_integral_along_a_line(
        self, n: int, opacity: float
    ) -> None:
        new, factor = shared(torch.tensor([opacity], dtype=torch.float64), torch.tensor([n]))
        assert (1 - new.item()) ** n == pytest.approx(1 - opacity, rel=1e-9)
        x = torch.linspace(-40, 40, 20_001, dtype=torch.float64)
        one = torch.trapezoid(opacity * torch.exp(-0.5 * x**2), x)
        twins = 1 - (1 - new * torch.exp(-0.5 * (x / factor) ** 2)) ** n
        assert torch.trapezoid(twins, x).item() == pytest.approx(one.item(), rel=1e-6)

    def test_more_sharers_than_the_table_holds_are_capped(self) -> None:
        opacities = torch.tensor([0.9, 0.9])
        new, factors = shared(opacities, torch.tensor([MAX_SHARERS, 10 * MAX_SHARERS]))
        assert new[0] == new[1] and factors[0] == factors[1]


class TestRelocation:
    def test_dead_splats_join_live_ones_and_forget(self) -> None:
        state, strategy = make_state(dead=10), MCMC(ITERATIONS, max_splats=40)
        places = state.splats.means.detach().clone()
        report = strategy.step(state)
        assert report is not None
        assert (report.relocated, report.born, report.splats) == (10, 0, 40)
        assert bool((state.splats.opacities > DEAD_OPACITY).all())
        parents = torch.cdist(state.splats.means.detach()[:10], places[10:]).argmin(dim=1) + 10
        torch.testing.assert_close(state.splats.means.detach()[:10], places[parents])
        touched = torch.cat([torch.arange(10), parents.unique()])
        for name in LAST_PARAMETERS:
            assert not state.moments[name].exp_avg[touched].any()
            assert not state.moments[name].exp_avg_sq[touched].any()
        assert not state.steps[touched].any()
        untouched = torch.ones(40, dtype=torch.bool)
        untouched[touched] = False
        assert bool((state.steps[untouched] > 0).all())
        assert bool((state.moments["means"].exp_avg_sq[untouched] > 0).all())

    def test_the_picture_keeps(self) -> None:
        splats = Splats.random(30, extent=0.8, seed=2, degree=0)
        splats.means[:, 2] += 4
        splats.log_scales.clamp_(max=math.log(0.3))
        splats.opacity_logits.fill_(logit(0.6))
        splats.opacity_logits[:8] = logit(0.001)
        state = TrainState.start(splats, ITERATIONS, torch.Generator().manual_seed(0))
        state.iteration = 1000
        before = picture(splats.clone())
        strategy = MCMC(ITERATIONS, max_splats=30)
        report = strategy.step(state)
        assert report is not None and report.relocated == 8
        error = float((picture(state.splats) - before).square().mean().sqrt())
        assert error < 0.02, error

    def test_opaque_splats_are_chosen_more_often(self) -> None:
        state = make_state(count=1000, dead=500)
        state.splats.opacity_logits.data[500:750] = logit(0.9)
        state.splats.opacity_logits.data[750:] = logit(0.1)
        before = state.steps.clone()
        MCMC(ITERATIONS, max_splats=1000).step(state)
        changed = state.steps != before
        assert int(changed[500:750].sum()) > 2 * int(changed[750:].sum())

    def test_all_dead_is_left_alone(self) -> None:
        state = make_state(count=10, dead=10)
        assert MCMC(ITERATIONS, max_splats=10).step(state) is None

    def test_nothing_happens_off_schedule(self) -> None:
        strategy = MCMC(ITERATIONS, max_splats=100)
        for iteration in (1, 400, 550, 1001, 5951, 6000, 7000):
            state = make_state(dead=5)
            state.iteration = iteration
            assert strategy.step(state) is None, iteration
        state = make_state(dead=5)
        state.iteration = 5900
        assert strategy.step(state) is not None

    def test_short_runs_have_short_intervals(self) -> None:
        strategy = MCMC(700, max_splats=100)
        assert (strategy.first, strategy.interval, strategy.last) == (50, 10, 595)

    def test_splats_that_no_view_sees_die(self) -> None:
        state, strategy = make_state(count=30), MCMC(ITERATIONS, max_splats=30)
        state.views = [None] * 20  # type: ignore[list-item]
        moved = 0
        for iteration in range(1000, 1101):
            state.iteration = iteration
            state.steps[5:] += 1  # splats 0 to 4 are never visible
            report = strategy.step(state)
            moved += report.relocated if report else 0
        assert moved == 5

    def test_splats_born_lately_are_not_taken_for_unseen(self) -> None:
        state, strategy = make_state(count=20), MCMC(ITERATIONS, max_splats=100)
        state.views = [None] * 45  # type: ignore[list-item]
        for iteration in range(1000, 1201):  # growth at 1000 and 1100, the window ends at 1090
            state.iteration = iteration
            if iteration % 2:
                state.steps += 1
            report = strategy.step(state)
            assert report is None or report.relocated == 0


class TestGrowth:
    def test_five_percent_up_to_the_budget(self) -> None:
        state, strategy = make_state(count=100), MCMC(ITERATIONS, max_splats=109)
        counts = []
        for iteration in (1000, 1100, 1200):
            state.iteration = iteration
            strategy.step(state)
            counts.append(len(state))
        assert counts == [105, 109, 109]
        assert len(state.steps) == 109
        assert all(len(tensor) == 109 for tensor in state.rows.values())
        for name, tensor in state.splats.items():
            assert tensor.is_leaf and tensor.requires_grad
            assert state.moments[name].exp_avg.shape == tensor.shape

    def test_the_same_seed_gives_the_same_splats(self) -> None:
        results = []
        for _ in range(2):
            state = make_state(count=50, dead=5)
            MCMC(ITERATIONS, max_splats=60).step(state)
            results.append(dict(state.splats.items()))
        for name in LAST_PARAMETERS:
            assert torch.equal(results[0][name], results[1][name])


class TestNoise:
    def test_only_faint_splats_move(self) -> None:
        state = make_state(count=20, dead=10)
        state.iteration, state.means_lr = 1, 1.6e-4
        before = state.splats.means.detach().clone()
        MCMC(ITERATIONS, max_splats=20).step(state)
        moved = (state.splats.means.detach() != before).any(dim=1)
        assert moved.tolist() == [True] * 10 + [False] * 10

    def test_has_the_shape_of_the_covariance(self) -> None:
        count, deviations = 4000, torch.tensor([0.2, 0.05, 0.1])
        quat = torch.tensor([0.5, -0.1, 0.7, 0.3])
        splats = Splats(
            means=torch.zeros(count, 3),
            quats=(quat * 3).repeat(count, 1),
            log_scales=deviations.log().repeat(count, 1),
            opacity_logits=torch.full((count,), -20.0),
            sh=torch.zeros(count, 1, 3),
        )
        state = TrainState.start(splats, ITERATIONS, torch.Generator().manual_seed(3))
        state.iteration, state.means_lr = 1, 2e-6
        MCMC(ITERATIONS, max_splats=count).step(state)
        axes = rotate(torch.nn.functional.normalize(quat, dim=0).expand(3, 4), torch.eye(3)).T
        covariance = axes @ torch.diag(deviations**2) @ axes.T
        gate = torch.sigmoid(torch.tensor(100 * 0.005))
        expected = (gate * covariance) @ (gate * covariance)  # 5e5 * 2e-6 = 1
        found = state.splats.means.detach().T.cov()
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05 * float(expected.max()))

    def test_rotation_and_its_inverse(self) -> None:
        quats = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1)
        vectors = torch.randn(5, 3, dtype=torch.float64)
        turned = rotate(quats, vectors)
        torch.testing.assert_close(turned.norm(dim=1), vectors.norm(dim=1))
        torch.testing.assert_close(rotate(quats, turned, inverse=True), vectors)
        half = torch.tensor([[math.sqrt(0.5), 0, 0, math.sqrt(0.5)]])  # 90 degrees about z
        torch.testing.assert_close(
            rotate(half, torch.tensor([[1.0, 0, 0]])), torch.tensor([[0.0, 1, 0]])
        )


def test_regularisers_add_their_gradients() -> None:
    state = make_state(count=10)
    splats = state.splats
    loss = splats.means.square().sum() + splats.log_scales.sum() + splats.opacity_logits.sum()
    (loss + 0.01 * splats.opacities.mean() + 0.01 * splats.scales.mean()).backward()
    expected = {n: t.grad for n, t in splats.items() if t.grad is not None}
    for _, tensor in splats.items():
        tensor.grad = None
    loss = splats.means.square().sum() + splats.log_scales.sum() + splats.opacity_logits.sum()
    loss.backward()
    MCMC(ITERATIONS, max_splats=10).after_backward(state)
    for name, gradient in expected.items():
        torch.testing.assert_close(getattr(splats, name).grad, gradient)


class TestFactory:
    def test_none_does_nothing(self) -> None:
        state, strategy = make_state(dead=5), create_strategy("none", ITERATIONS, 10)
        before = state.splats.clone()
        strategy.after_backward(state)
        assert strategy.step(state) is None
        strategy.load_state_dict(strategy.state_dict())
        assert torch.equal(state.splats.means, before.means)

    def test_unknown_names_are_told_the_known_ones(self) -> None:
        with pytest.raises(
            InputError, match=r"strategy: expected one of adc, adc-absgrad, mcmc, none, wfr.*'best'"
        ):
            create_strategy("best", ITERATIONS, 10)


class TestState:
    def test_select_takes_everything_along(self) -> None:
        state = make_state(count=6)
        state.rows["test/id"] = torch.arange(6)
        ids = torch.tensor([4, 0, 2])
        expected = {n: m.exp_avg[ids].clone() for n, m in state.moments.items()}
        places, steps = state.splats.means.detach()[ids], state.steps[ids]
        state.select(ids)
        assert torch.equal(state.splats.means, places)
        assert torch.equal(state.steps, steps)
        assert state.rows["test/id"].tolist() == [4, 0, 2]
        for name in LAST_PARAMETERS:
            assert torch.equal(state.moments[name].exp_avg, expected[name])

    def test_degree_grows_with_zeros_and_keeps_what_is_there(self) -> None:
        state = make_state(count=4)
        before, moments = state.splats.sh.detach().clone(), state.moments["sh"].exp_avg.clone()
        state.set_degree(2)
        assert state.splats.sh.shape == (4, 9, 3) == state.moments["sh"].exp_avg_sq.shape
        assert torch.equal(state.splats.sh[:, :4], before)
        assert torch.equal(state.moments["sh"].exp_avg[:, :4], moments)
        assert not state.splats.sh[:, 4:].any()
        assert state.splats.sh.is_leaf and state.splats.sh.requires_grad
