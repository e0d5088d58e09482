"""The estimator: accuracy, model selection, conventions, files and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

from splatrender.errors import InputError
from splatrender.operators.sampling import observations
from splatrender.regression import SplatRegressor
from splatrender.regression.amplitudes import as_peaks
from splatrender.regression.lm import levenberg_marquardt
from splatrender.regression.starts import initial_measure

Array = NDArray[np.float64]

# Checks of scikit-learn that cannot apply, with the reason.
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "the search draws random candidates among the rows: repeated rows and weights give "
        "different draws; the loss itself is the same (test_weights_act_like_repetitions)"
    ),
}


def chirp(x: Array) -> Array:
    return np.asarray(np.sin(20 * np.pi * x[:, 0] * (2 - x[:, 0])))


def wave(x: Array) -> Array:
    return np.asarray(np.sin(5 * x[:, 0]) * np.cos(4 * x[:, 1]))


def noisy(count: int = 300, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.random((count, 2))
    return x, wave(x) + 0.05 * random.standard_normal(count)


def rmse(model: SplatRegressor, function: Callable[[Array], Array], dims: int) -> float:
    x = np.random.default_rng(99).random((5000, dims))
    return float(np.sqrt(np.mean((model.predict(x) - function(x)) ** 2)))


@pytest.mark.slow
def test_chirp_is_fitted_to_five_digits() -> None:
    x = np.random.default_rng(0).random((1000, 1))
    model = SplatRegressor(n_splats=30, max_rounds=25).fit(x, chirp(x))
    assert model.n_splats_ <= 30
    assert rmse(model, chirp, 1) < 1e-3


def test_more_splats_do_not_overfit() -> None:
    x, y = noisy()
    few = SplatRegressor(n_splats=10, max_rounds=12).fit(x, y)
    many = SplatRegressor(n_splats=200, max_rounds=12).fit(x, y)
    assert many.n_splats_ < 25  # 300 rows cannot tell more apart
    assert rmse(few, wave, 2) < 0.03  # the noise is 0.05
    assert rmse(many, wave, 2) < 1.5 * rmse(few, wave, 2)


def test_outputs_share_their_splats() -> None:
    x, y = noisy()
    both = np.stack([y, 2 - 3 * y], axis=1)
    model = SplatRegressor(n_splats=8, max_rounds=4).fit(x, both)
    predicted = model.predict(x)
    assert predicted.shape == (300, 2)
    assert model.score(x, both) > 0.95
    assert model.measure_.outputs == 2


def test_weights_of_zero_leave_rows_out() -> None:
    x, y = noisy()
    spoiled = y.copy()
    spoiled[:100] += 50
    weights = np.r_[np.zeros(100), np.ones(200)]
    model = SplatRegressor(n_splats=8, max_rounds=2).fit(x, spoiled, sample_weight=weights)
    clean = SplatRegressor(n_splats=8, max_rounds=2).fit(x[100:], y[100:])
    np.testing.assert_allclose(model.predict(x), clean.predict(x), atol=1e-8)
    assert model.score(x, spoiled, weights) > 0.9 > model.score(x, spoiled)


def test_weights_act_like_repetitions() -> None:
    x, y = noisy(60)
    counts = np.random.default_rng(1).integers(1, 4, 60)
    points, values = torch.from_numpy(x), torch.from_numpy(y)[:, None]
    rows = torch.from_numpy(np.repeat(np.arange(60), counts))
    start = as_peaks(initial_measure(points, 3, generator=torch.Generator().manual_seed(0)))
    weighted = observations(points, values, torch.from_numpy(counts).double())
    repeated = observations(points[rows], values[rows])
    ends = [levenberg_marquardt(start, [data]) for data in (weighted, repeated)]
    assert ends[0].loss == pytest.approx(ends[1].loss, rel=1e-6)
    torch.testing.assert_close(ends[0].measure.means, ends[1].measure.means, atol=1e-5, rtol=1e-5)


def test_early_stopping_watches_data_that_was_held_out() -> None:
    x, y = noisy()
    model = SplatRegressor(
        n_splats=60, selection=0, validation_fraction=0.3, patience=4, max_rounds=40
    ).fit(x, y)
    held = [entry.validation for entry in model.history_ if entry.validation is not None]
    assert len(held) == len(model.history_)
    assert int(np.argmin(held)) <= len(held) - 1
    assert rmse(model, wave, 2) < 0.1


def test_auto_needs_no_number() -> None:
    x, y = noisy()
    model = SplatRegressor("auto", max_rounds=8).fit(x, y)
    assert 2 < model.n_splats_ < 25
    assert rmse(model, wave, 2) < 0.04


def test_parents_of_one_dimension() -> None:
    x = np.linspace(0, 1, 200)[:, None]
    y = np.where(x[:, 0] < 0.4, 1.0, -0.5)
    for parent in ("box", "hat", "bump", "student-t"):
        model = SplatRegressor(n_splats=8, parent=parent, max_rounds=3).fit(x, y)
        assert model.score(x, y) > 0.8, parent
    with pytest.raises(InputError, match="exists in 1 dimension"):
        SplatRegressor(parent="box").fit(np.random.rand(50, 2), np.random.rand(50))


@pytest.mark.parametrize("method", ["wfr", "adam"])
def test_first_order_methods(method: str) -> None:
    x = np.linspace(0, 1, 100)[:, None]
    y = np.sin(6 * x[:, 0])
    model = SplatRegressor(8, method=method, max_rounds=2, learning_rate=2e-2).fit(x, y)
    assert model.n_splats_ == 8
    assert model.history_[-1].loss < 0.5 * np.var(y) / 2


def test_saved_models_predict_the_same(tmp_path: Path) -> None:
    x, y = noisy()
    model = SplatRegressor(n_splats=6, max_rounds=3, parent="student-t").fit(x, y)
    model.save(tmp_path / "model.pt")
    again = SplatRegressor.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.get_params() == model.get_params()
    assert again.history_ == model.history_
    assert again.summary() == model.summary()
    assert "student-t splats" in model.summary() and "rounds" in model.summary()
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    with pytest.raises(InputError, match="got no file"):
        SplatRegressor.load(tmp_path / "none.pt")
    (tmp_path / "other.pt").write_text("no model")
    with pytest.raises(InputError, match="got something else"):
        SplatRegressor.load(tmp_path / "other.pt")


def test_degenerate_data_give_finite_predictions() -> None:
    random = np.random.default_rng(0)
    x, y = random.random((40, 2)), random.random(40)
    cases = {
        "constant column": (np.c_[x[:, 0], np.full(40, 3.0)], y),
        "constant targets": (x, np.full(40, 2.0)),
        "zero targets": (x, np.zeros(40)),
        "duplicate points": (np.repeat(x[:5], 8, axis=0), y),
        "one place": (np.ones((40, 2)), y),
        "fewer points than parameters": (x[:3], y[:3]),
        "tiny inputs": (1e-9 * x, y),
        "large targets": (x, 1e12 * y),
    }
    for name, (inputs, targets) in cases.items():
        model = SplatRegressor(n_splats=6, max_rounds=1).fit(inputs, targets)
        predicted = model.predict(inputs)
        assert np.isfinite(predicted).all(), name
        spread = max(targets.max() - targets.min(), 0.05 * abs(targets).max(), 1e-12)
        assert abs(predicted - targets).max() <= 2 * spread, name


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0], [np.nan]], [1, 2], "X: expected finite numbers, got NaN.* row 1, column 0"),
        ([[1.0], [2.0]], [1, np.inf], "y: expected finite numbers"),
        ([1.0, 2.0], [1, 2], "Reshape your data"),
        ([[1.0], [2.0]], [1, 2, 3], "y: expected 2 rows"),
        ([["a"], ["b"]], [1, 2], "X: expected numbers"),
        (np.zeros((0, 2)), [], "0 sample"),
        (np.zeros((3, 0)), [1, 2, 3], "0 feature"),
        ([[1.0]], [1], "1 sample"),
    ],
)
def test_bad_data_are_refused(x: ArrayLike, y: ArrayLike, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SplatRegressor().fit(x, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_splats": 0}, "n_splats: expected 'auto' or at least 1"),
        ({"n_splats": "many"}, "n_splats"),
        ({"method": "magic"}, "method: expected one of levenberg"),
        ({"parent": "sinc"}, "parent: expected one of"),
        ({"entropy": 0.1}, "entropy: expected method 'wfr'"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"min_scale": -1.0}, "min_scale"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SplatRegressor(**settings).fit([[0.0], [1.0], [2.0]], [0, 1, 2])


def test_bad_predictions_and_weights_are_refused() -> None:
    x, y = noisy(40)
    model = SplatRegressor(n_splats=3, max_rounds=1)
    with pytest.raises(InputError, match="not fitted"):
        model.predict(x)
    model.fit(x, y)
    with pytest.raises(InputError, match="X has 3 features, but SplatRegressor is expecting 2"):
        model.predict(np.zeros((4, 3)))
    with pytest.raises(InputError, match="negative"):
        model.fit(x, y, sample_weight=-np.ones(40))
    with pytest.raises(InputError, match="Invalid parameter 'splats'"):
        model.set_params(splats=3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(
        SplatRegressor(n_splats=4, max_rounds=2),
        on_fail=None,
        expected_failed_checks=EXPECTED_FAILURES,
    )
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert failed == []
    assert sum(r["status"] == "passed" for r in results) > 40
    expected = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert expected == set(EXPECTED_FAILURES)
