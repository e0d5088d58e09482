"""Options of training, and the schedules that follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splatrender.errors import InputError
from splatrender.flow.schedules import (
    LearningRates,
    downscale_at,
    exponential,
    scaled_interval,
    sh_degree_at,
)
from splatrender.training import TrainOptions


class TestOptions:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"iterations": 0}, "iterations: expected at least 1, got 0"),
            ({"max_splats": 0}, "max_splats: expected at least 1, got 0"),
            ({"seed": -1}, "seed: expected at least 0, got -1"),
            ({"threads": -1}, "threads: expected at least 0"),
            ({"seed": 2**63}, "seed: expected at most 9223372036854775807, got"),
            ({"seed": 1.5}, "seed: expected a whole number, got 1.5"),
            ({"iterations": "40"}, "iterations: expected a whole number, got '40'"),
            ({"sh_degree": 4}, "sh_degree: expected 0, 1, 2 or 3, got 4"),
            (
                {"strategy": "best"},
                "strategy: expected one of adc, adc-absgrad, mcmc, none, wfr; got 'best'",
            ),
            (
                {"strategy": "mcmc", "price": 1.0},
                "price: expected strategy wfr with it, got 'mcmc'",
            ),
            ({"strategy": "wfr", "price": -1.0}, "price: expected a number >= 0"),
            (
                {"transport": "rail"},
                "transport: expected one of adam, wasserstein, wasserstein-scaled; got 'rail'",
            ),
            ({"backend": "tpu"}, "backend: expected 'auto', 'cpu' or 'cuda', got 'tpu'"),
            ({"resume": "maybe"}, "resume: expected 'auto' or 'never', got 'maybe'"),
            ({"test_iterations": (50,)}, "test_iterations: .* between 1 and 40, got 50"),
            ({"save_iterations": (0,)}, "save_iterations: .* got 0"),
            ({"ssim_weight": 2.0}, "ssim_weight: expected 0 to 1, got 2"),
            ({"ssim_weight": "x"}, "ssim_weight: expected a finite number, got .x."),
            ({"price": [1]}, "price: expected a finite number, got a list"),
            ({"strategy": ["wfr"]}, "strategy: expected a str, got a list"),
            ({"learning_rates": 0.1}, "learning_rates: expected a LearningRates, got 0.1"),
            ({"background": "mauve"}, "background: expected black, white .* got 'mauve'"),
            ({"background": (0.0, 2.0, 0.0)}, "background: .*2.0"),
        ],
    )
    def test_out_of_range(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            TrainOptions("scene", tmp_path, **{"iterations": 40, **change})

    @pytest.mark.parametrize("value", ["white", "1,1,1", [1, 1, 1]])
    def test_backgrounds(self, tmp_path: Path, value: Any) -> None:
        assert TrainOptions("scene", tmp_path, background=value).background == (1.0, 1.0, 1.0)

    def test_a_run_from_before_an_option_had_its_default(self, tmp_path: Path) -> None:
        earlier = TrainOptions("scene", tmp_path).as_json()
        del earlier["transport"]
        TrainOptions("scene", tmp_path).check_agrees(earlier, tmp_path)
        with pytest.raises(InputError, match="transport: expected 'adam' as of the run"):
            TrainOptions("scene", tmp_path, transport="wasserstein").check_agrees(earlier, tmp_path)

    def test_are_plain_json(self, tmp_path: Path) -> None:
        plain = TrainOptions("scene", tmp_path, background="white").as_json()
        assert json.loads(json.dumps(plain)) == plain


class TestSchedules:
    def test_exponential_ends(self) -> None:
        assert exponential(2.0, 0.5, -1) == 2.0
        assert exponential(2.0, 0.5, 2) == pytest.approx(0.5)

    def test_intervals_never_vanish(self) -> None:
        assert scaled_interval(100, 1) == 1

    def test_every_degree_is_reached(self) -> None:
        assert sh_degree_at(60, 60, 3) == 3
        assert sh_degree_at(1, 60, 3) == 0

    def test_small_photos_are_not_reduced(self) -> None:
        assert downscale_at(1, 1000, 40) == 1
        assert downscale_at(1, 1000, 64) == 2
        assert downscale_at(1, 1000, 128) == 4

    def test_steps_are_larger_in_shorter_runs(self) -> None:
        rates = LearningRates()
        assert rates.for_run(30_000) == rates == rates.for_run(100_000)
        short = rates.for_run(1200)
        assert short.means == pytest.approx(5 * rates.means)
        assert short.means_final == pytest.approx(5 * rates.means_final)
        assert short.opacity_logits == pytest.approx(5**0.5 * rates.opacity_logits)
        assert rates.for_run(1).quats == pytest.approx(10 * rates.quats)

    @pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
    def test_steps_must_be_positive(self, tmp_path: Path, rate: float) -> None:
        with pytest.raises(
            InputError, match=r"learning_rates\.quats: expected a finite number > 0"
        ):
            TrainOptions("scene", tmp_path, learning_rates=LearningRates(quats=rate))
