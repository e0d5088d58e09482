"""The estimator in any units: offsets, scales and constants of inputs and targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from splatrender.errors import InputError
from splatrender.model import evaluate
from splatrender.regression import SplatRegressor

X = np.random.default_rng(0).random((80, 1))
Y = np.sin(6 * X[:, 0])


def fitted(x: np.ndarray, y: np.ndarray) -> SplatRegressor:
    return SplatRegressor(5, max_rounds=1).fit(x, y)


@pytest.mark.parametrize("power", [530, -560])  # about 1e160 and 1e-169
def test_units_of_targets_change_nothing_else(power: int) -> None:
    unit = 2.0**power  # exact: so are the results
    np.testing.assert_array_equal(fitted(X, unit * Y).predict(X), unit * fitted(X, Y).predict(X))


def test_offsets_of_targets_do_not_matter() -> None:
    assert fitted(X, Y).score(X, Y) > 0.999
    assert fitted(X, Y + 1e9).score(X, Y + 1e9) > 0.999


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1e150, 0.0), (1.0, 1e9)])
def test_units_and_offsets_of_inputs_do_not_matter(scale: float, offset: float) -> None:
    x = scale * X + offset
    model = fitted(x, Y)
    assert model.score(x, Y) > 0.999
    assert model.predict([[1e300]]) == pytest.approx(model.intercept_, abs=1e-9)  # far outside


def test_targets_that_do_not_vary_are_met_exactly(tmp_path: Path) -> None:
    model = fitted(X, np.full(80, 0.1))
    assert (model.predict(X) == 0.1).all()
    model.save(tmp_path / "model.pt")
    assert (SplatRegressor.load(tmp_path / "model.pt").predict(X) == 0.1).all()


def test_splats_are_in_the_units_of_the_data() -> None:
    x, y = 50 * X - 20, np.stack([300 * Y + 7, 2 - Y], axis=1)
    model = fitted(x, y)
    values = evaluate(model.measure_, torch.from_numpy(x)).value.numpy() + model.intercept_
    np.testing.assert_allclose(values, model.predict(x), rtol=1e-9, atol=1e-9)
    residual = np.square(model.predict(x) - y).sum(axis=1).mean() / 2
    assert model.loss_ == pytest.approx(residual)
    assert model.history_[-1].loss == pytest.approx(residual)


def test_ranges_that_overflow_are_refused() -> None:
    with pytest.raises(InputError, match="X: expected numbers whose range is finite"):
        fitted(np.where(X > 0.5, 1.7e308, -1.7e308), Y)


def test_the_loss_is_that_of_the_measure_that_did_best_on_held_out_data() -> None:
    noise = np.random.default_rng(1).standard_normal(80)
    model = SplatRegressor(
        12, selection=0, shrinkage=0, min_scale=0, max_rounds=4, validation_fraction=0.5
    )
    model.fit(X, Y + 0.5 * noise)
    held = [entry.validation or np.inf for entry in model.history_]
    best = model.history_[int(np.argmin(held))]
    assert model.loss_ == pytest.approx(best.loss)
    assert model.loss_ != pytest.approx(model.history_[-1].loss)  # which fits the noise
    assert f"root mean square residual {np.sqrt(2 * best.loss):.4g}" in model.summary()


def test_tensors_with_gradients_are_data() -> None:
    x, y = torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y).requires_grad_()
    model = SplatRegressor(3, max_rounds=1).fit(x, y)
    np.testing.assert_array_equal(model.predict(x), model.predict(X))
    assert model.score(x, y) == model.score(X, Y)
