"""Physics-informed fitting: conditions that exact solutions fulfil, and fits that get close."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from splatrender.errors import InputError
from splatrender.model import SplatMeasure
from splatrender.operators.differential import identity, operator_rows
from splatrender.regression.problems import evolving, solution, steady
from splatrender.regression.problems.collocation import stratified
from splatrender.regression.problems.evolving import Marching, fit_evolving
from splatrender.regression.problems.solution import PdeFit
from splatrender.regression.problems.steady import fit_steady
from splatrender.regression.problems.tasks import steady_profile, task
from splatrender.regression.report import Round

F64 = torch.float64
QUICK = Marching(windows=10, rounds=5, iterations=15, polish=10, until=0.1)


def profile_of(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(steady_profile(x))


def relative(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(predicted - truth) / np.linalg.norm(truth))


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the steady problem to a third of the points and fewer starts."""
    monkeypatch.setattr(steady, "CELLS", (20, 20))
    monkeypatch.setattr(steady, "BOUNDARY_POINTS", 41)
    monkeypatch.setattr(steady, "STARTS", 2)


@pytest.mark.usefixtures("few_points")
def test_steady_equation_is_solved() -> None:
    grid = task("allen-cahn-steady").grid()
    fitted = fit_steady(14, seed=0, rounds=3)
    assert fitted.splats <= 14 and fitted.parameters == 6 * fitted.splats
    assert relative(fitted.predict(grid.x), grid.y) < 5e-3
    assert fitted.history[-1][1].loss < fitted.history[0][1].loss


@pytest.mark.usefixtures("few_points")
def test_a_run_does_not_depend_on_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points and boundary values are changed by 1e-13 of themselves."""
    grid, generator = task("allen-cahn-steady").grid(), torch.Generator()
    monkeypatch.setattr(steady, "CELLS", (14, 14))

    def changed(values: torch.Tensor, size: float) -> torch.Tensor:
        return values * (1 + size * torch.randn(values.shape, generator=generator, dtype=F64))

    errors = []
    for size in (0.0, 1e-13):
        profile = partial(lambda size, x: changed(profile_of(x), size).numpy(), size)
        points = partial(lambda size, *grid: changed(stratified(*grid), size), size)
        monkeypatch.setattr(steady, "steady_profile", profile)
        monkeypatch.setattr(steady, "stratified", points)
        fitted = fit_steady(12, seed=0, rounds=1)
        errors.append(relative(fitted.predict(grid.x), grid.y))
    assert errors[0] != errors[1]  # the changes arrived
    assert max(errors) < 2 * min(errors)


@pytest.mark.usefixtures("few_points")
def test_steps_of_the_loss_never_rise_without_resampling() -> None:
    fitted = fit_steady(11, seed=1, rounds=2)  # fresh points come at round 5
    losses = [entry.loss for _, entry in fitted.history]
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(losses))


@pytest.fixture(scope="module")
def first_window() -> PdeFit:
    """Solve the evolving equation up to t = 0.1."""
    return fit_evolving(180, 0, QUICK)


def test_evolving_equation_is_solved_for_a_while(first_window: PdeFit) -> None:
    grid = task("allen-cahn").grid()
    early = grid.x[:, 1] <= 0.1
    assert relative(first_window.predict(grid.x[early]), grid.y[early]) < 2e-2
    frozen = np.tile(grid.y[:512], int(early.sum()) // 512)
    assert relative(frozen, grid.y[early]) > 5e-2  # what the initial values alone would give


def test_solution_is_periodic_and_even(first_window: PdeFit) -> None:
    random = np.random.default_rng(0).random((200, 2)) * [2, 0.1] - [1, 0]
    here = first_window.predict(random)
    for change in (random + np.array([2, 0]), random - np.array([4, 0]), random * [-1, 1]):
        np.testing.assert_allclose(first_window.predict(change), here, atol=1e-9)
    t = np.linspace(0, 0.1, 7)
    left, right = (first_window.predict(np.stack([0 * t + s, t], 1)) for s in (-1.0, 1.0))
    np.testing.assert_allclose(left, right, atol=1e-9)


def test_images_that_are_left_out_are_nothing(
    first_window: PdeFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = np.random.default_rng(1).random((200, 2)) * [2, 0.1] - [1, 0]
    monkeypatch.setattr(solution, "IMAGES", 6)
    whole = replace(first_window, value=solution.symmetric(identity()))
    np.testing.assert_allclose(first_window.predict(points), whole.predict(points), atol=1e-5)
    for window in first_window.windows:
        assert float(window.measure.factors[:, 0].norm(dim=1).max()) <= evolving.WIDEST * (1 + 1e-9)


def test_windows_and_images_are_drawn(first_window: PdeFit, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from splatrender.plots import regression as pictures

    grid = task("allen-cahn").grid()
    shown = pictures.Shown("", ("x", "t"), grid.x, grid.y, grid.y, (201, 512))
    measure = solution.with_images(first_window.windows[0].measure)
    means = measure.means[:, 0]
    assert float(means.abs().max()) <= 1  # within the period
    torch.testing.assert_close(means.sort().values, (-means).sort().values)
    pictures.draw_splats(tmp_path / "a.png", [measure], shown, 18, [(0.0, 0.1)])
    pictures.draw_splats(tmp_path / "b.png", [measure], shown, 18)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_time_outside_of_the_windows_is_nan(first_window: PdeFit) -> None:
    assert np.isnan(first_window.predict(np.array([[0.0, 0.5]]))).all()


def test_solution_is_saved_and_loaded(first_window: PdeFit, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    first_window.save(path)
    points = np.random.default_rng(0).random((50, 2)) * [2, 0.1] - [1, 0]
    again = PdeFit.load(path)
    np.testing.assert_array_equal(again.predict(points), first_window.predict(points))
    with pytest.raises(InputError, match="expected a fitted solution, got no file"):
        PdeFit.load(tmp_path / "none.pt")
    torch.save({"format": "other"}, path)
    with pytest.raises(InputError, match="got something else"):
        PdeFit.load(path)


def test_residual_vanishes_for_a_uniform_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 33, dtype=torch.float64)
    window = evolving._WindowProblem(0.0, 0.1, x, torch.ones_like(x), generator)
    one = torch.ones(1, dtype=torch.float64)
    wide = SplatMeasure(  # u = 1 to within 1e-6 in the window, summed over ten images
        one,
        one[:, None] / 10,
        torch.zeros(1, 2, dtype=torch.float64),
        1e4 * torch.eye(2, dtype=torch.float64)[None],
    )
    for condition in window.conditions(window.draw()):
        rows = [operator_rows(op, wide, condition.points).value for op in condition.operators]
        residual = condition.residuals([row @ wide.weights for row in rows])
        assert float(residual.abs().max()) < 1e-6


@pytest.mark.usefixtures("few_points")
def test_a_fit_can_be_ended_early() -> None:
    seen: list[tuple[int, int]] = []

    def enough(entry: Round, window: int, measure: SplatMeasure) -> bool:
        assert len(measure) == entry.splats
        seen.append((entry.round, window))
        return len(seen) >= 2

    fitted = fit_steady(12, 0, rounds=50, progress=enough)
    assert len(fitted.history) <= 4 and seen[0] == (0, 0)


def test_senseless_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="splats: expected at least 1"):
        fit_steady(0)
    with pytest.raises(InputError, match="expected at least 40, four for each of 10 windows"):
        fit_evolving(20)


@pytest.mark.slow
def test_steady_equation_is_solved_to_four_digits() -> None:
    """Less than half of the usual rounds, and any rounding: the error is 10⁻⁵ then."""
    grid = task("allen-cahn-steady").grid()
    fitted = fit_steady(50, seed=0, rounds=8)
    assert relative(fitted.predict(grid.x), grid.y) < 2e-4
