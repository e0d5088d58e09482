"""The comparison with other models: tables, figures, resumption, and peers that do learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.regression import table
from benchmarks.regression.peers import networks, series, splines
from benchmarks.regression.peers.problem import Problem
from splatrender.regression.problems.tasks import TASKS


def problem(name: str, seconds: float) -> Problem:
    """Make the problem of a task, as the table does."""
    task = TASKS[name]
    return Problem(task, task.data(0, 200), task.grid(), 0, seconds, quick=True)


def test_command_writes_tables_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    arguments = ["--tasks", "chirp,chirp-rough", "--methods", "haar, 1", "--out", str(tmp_path)]
    try:
        assert table.main(arguments) == 0
        first = capsys.readouterr().out
        assert table.main(arguments) == 0
        second = capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    assert "[1/2] chirp: Haar, 128" in first
    assert "[1/2]" not in second  # everything was there already
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["label"] for row in results["medians"]] == ["chirp", "chirp-rough"]
    assert 0.05 < results["medians"][0]["rmse"] < 0.2
    assert "| Haar, 128 | 128 |" in (tmp_path / "results.md").read_text()
    pytest.importorskip("matplotlib")
    assert (tmp_path / "pareto_chirp.png").stat().st_size > 5000


def test_table_shows_medians_and_the_worst() -> None:
    run = {"label": "t", "method": "m", "ours": True, "budget": 1.0, "parameters": 3, "note": ""}
    run |= {"linf": 1.0, "relative_l2": 1.0, "cpu_seconds": 2.0, "wall_seconds": 2.0}
    rows = table.summarise([{**run, "rmse": e} for e in (0.5, 0.1, 0.2)])
    assert (rows[0]["rmse"], rows[0]["worst_rmse"], rows[0]["seeds"]) == (0.2, 0.5, 3)
    assert "**2.00e-01**" in table.markdown(rows)


def test_unknown_tasks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table.main(["--tasks", "chrip"])
    assert "got ['chrip']" in capsys.readouterr().err


class Steps:
    """Deadline in steps in place of CPU seconds: the same on every machine."""

    def __init__(self, seconds: float) -> None:
        self._left, self._given = 120, 120

    @property
    def share(self) -> float:
        self._left -= 1
        return 1 - self._left / self._given

    @property
    def over(self) -> bool:
        return self.share >= 1


def test_peers_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "Deadline", Steps)
    wave = problem("noisy2d", 1.0)
    spread = float(np.std(wave.grid.y))
    for method in (
        networks.siren(16, 16, frequency=10),
        networks.radial_net(40),
        splines.bivariate_spline(200),
    ):
        fitted = method(wave)
        assert fitted.predict(wave.grid.x).shape == wave.grid.y.shape
        assert wave.rmse(fitted.predict) < 0.5 * spread
    chirp = problem("chirp", 1.0)
    assert chirp.rmse(series.chebyshev_series(90)(chirp).predict) < 1e-12
    assert chirp.rmse(splines.cubic_spline(90)(chirp).predict) < 2e-2
