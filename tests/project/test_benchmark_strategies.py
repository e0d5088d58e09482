"""The benchmarks of strategies and of the sweep run at toy size, and keep their results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.backends import require_extension

from benchmarks.flow import strategies, sweep
from splatrender.flow import STRATEGIES

TOY = ["--resolution", "96", "--iterations", "40", "--threads", "1"]


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    require_extension()
    registered = dict(STRATEGIES)
    yield
    STRATEGIES.clear()
    STRATEGIES.update(registered)


def test_a_table_is_made_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = [*TOY, "--strategies", "wfr,none", "--budgets", "700", "--seeds", "0,1"]
    first = CliRunner().invoke(strategies.main, [*command, "--cache", str(cache)])
    assert first.exit_code == 0, first.output
    runs = [json.loads(file.read_text()) for file in cache.iterdir()]
    assert {(run["strategy"], run["seed"]) for run in runs} == {
        (name, seed) for name in ("wfr", "none") for seed in (0, 1)
    }
    assert all(run["splats"] <= 700 and run["psnr"] > 5 for run in runs)
    times = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    second = CliRunner().invoke(strategies.main, [*command, "--cache", str(cache)])
    assert second.output == first.output
    assert times == {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    table = [line.split() for line in second.stdout.splitlines() if line.startswith("wfr")]
    mean = sum(run["psnr"] for run in runs if run["strategy"] == "wfr") / 2
    assert float(table[0][1]) == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize("kind", ["ablations", "sensitivity", "prices", "half", "baselines"])
def test_variants_differ_from_each_other(kind: str) -> None:
    entries = strategies.variants(kind)
    assert len({entry.label for entry in entries}) == len(entries) > 1
    plans = {(e.strategy, str(e.change), e.price, e.effort, e.transport) for e in entries}
    assert len(plans) == len(entries)


def test_words_in_place_of_numbers_are_refused() -> None:
    result = CliRunner().invoke(strategies.main, ["--budgets", "many"])
    assert result.exit_code == 2 and "expected numbers like 1,2,3, got 'many'" in result.output


def test_the_cost_of_a_sweep_is_printed() -> None:
    result = CliRunner().invoke(
        sweep.main, [*TOY, "--splats", "700", "--rounds", "1", "--iterations", "60"]
    )
    assert result.exit_code == 0, result.output
    assert "700 splats, 700 probes" in result.output and "training steps" in result.output
