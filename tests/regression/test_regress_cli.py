"""The command `regress`: what it writes, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splatrender.cli.main import main
from splatrender.plots import regression as pictures
from splatrender.regression import job as job_module
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.job import RegressJob, errors, run
from splatrender.regression.problems.solution import PdeFit
from splatrender.regression.problems.tasks import task

Run = Callable[..., tuple[int, str, str]]
KEYS = {"task", "splats", "parameters", "seed", "seconds", "rmse", "linf", "relative_l2", "history"}
FAST = ("--samples", 120, "--splats", 6, "--rounds", 3)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return exit code, stdout and stderr."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["regress", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_it


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def write_csv(path: Path, count: int = 60) -> Path:
    random = np.random.default_rng(0)
    x, y = random.random((2, count))
    lines = [f"{a},{b},{np.sin(3 * a) + b}, {a * b}" for a, b in zip(x, y, strict=True)]
    path.write_text("\n".join(["x,y,u,v", *lines]), encoding="utf-8")
    return path


def test_task_is_fitted_measured_and_written(call: Run, tmp_path: Path) -> None:
    code, out, err = call("noisy2d", *FAST, "--out", tmp_path / "o", "--no-pictures", "--seed", 3)
    assert code == 0 and "RMSE" in out and "round" in err, err
    results = results_of(tmp_path / "o")
    assert results.keys() >= KEYS
    assert results["task"] == "noisy2d" and results["seed"] == 3
    assert 1 <= results["splats"] <= 6 and results["parameters"] == 6 * results["splats"]
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["model.pt", "results.json"]
    model, grid = SplatRegressor.load(tmp_path / "o/model.pt"), task("noisy2d").grid()
    again = errors(model.predict(grid.x), grid.y)
    for name in ("rmse", "linf", "relative_l2"):
        assert results[name] == pytest.approx(again[name], rel=1e-12)
    losses = [entry["loss"] for entry in results["history"]]
    assert len(losses) >= 2 and all(np.isfinite(losses))


def test_one_seed_gives_one_result(call: Run, tmp_path: Path) -> None:
    for name in "ab":
        assert call("chirp", *FAST, "--out", tmp_path / name, "--no-pictures", "-q")[0] == 0
    first, second = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert first["rmse"] == second["rmse"]


def test_quiet_prints_nothing(call: Run, tmp_path: Path) -> None:
    assert call("chirp", *FAST, "--out", tmp_path, "--no-pictures", "-q") == (0, "", "")


def test_table_is_fitted_and_measured_on_rows_held_out(call: Run, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "data.csv")
    arguments = ("--splats", 8, "--rounds", 10, "--out", tmp_path / "o", "--no-pictures")
    code, out, err = call(path, "--inputs", "x,y", "--outputs", "u,v", *arguments)
    assert code == 0, err
    results = results_of(tmp_path / "o")
    assert results.keys() >= KEYS
    assert results["measured_on"] == "rows held out" and "rows held out" in out
    assert (results["points"], results["samples"]) == (12, 48)
    assert results["relative_l2"] < 0.2
    model = SplatRegressor.load(tmp_path / "o/model.pt")
    assert model.predict(np.array([[0.5, 0.5]])).shape == (1, 2)


def test_differential_equation_is_fitted(call: Run, tmp_path: Path) -> None:
    arguments = ("--splats", 6, "--rounds", 1, "--no-pictures", "-q", "--out", tmp_path)
    assert call("allen-cahn-steady", *arguments)[0] == 0
    results, grid = results_of(tmp_path), task("allen-cahn-steady").grid()
    fitted = PdeFit.load(tmp_path / "model.pt")
    assert results["measured_on"] == "exact solution"
    expected = errors(fitted.predict(grid.x), grid.y)["relative_l2"]
    assert results["relative_l2"] == pytest.approx(expected)
    assert results["relative_l2"] < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chrip",), "task: expected one of chirp, .*got 'chrip'"),
        (("chirp", "--splats", 0), "expected a whole number from 1 on, or auto"),
        (("chirp", "--splats", "many"), "got 'many'"),
        (
            ("nowhere.csv", "--inputs", "x", "--outputs", "u"),
            r"nowhere\.csv: expected a \.csv file",
        ),
        (("DATA",), "expected names for --inputs and --outputs out of x, y, u, v"),
        (("DATA", "--inputs", "x,w", "--outputs", "u"), "expected a column 'w', got x, y, u, v"),
        (
            ("DATA", "--inputs", "x", "--outputs", "u", "--holdout", 1.5),
            "holdout: expected a share",
        ),
        (("DATA", "--inputs", "x", "--outputs", "u", "--samples", 3), "samples: expected with a"),
        (("allen-cahn", "--splats", 20), "expected at least 40, four for each of 10 windows"),
        (("allen-cahn", "--splats", "auto"), "splats: expected a number"),
        (("allen-cahn-steady", "--method", "adam"), "method: expected levenberg"),
        (("allen-cahn-steady", "--samples", 5), "samples: expected none, allen-cahn"),
        (("chirp", "--parent", "cube"), "cube"),
        ((), "Usage"),
    ],
)
def test_bad_input_gets_one_clear_line(
    call: Run, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    path = write_csv(tmp_path / "data.csv")
    arguments = tuple(path if a == "DATA" else a for a in arguments)
    extra = ("--out", tmp_path / "o", "--no-pictures") if arguments else ()
    code, _, err = call(*arguments, *extra)
    assert code == 2
    last = [line for line in err.splitlines() if "error:" in line or "Usage" in line]
    assert len(last) == 1, err
    import re

    assert re.search(message, last[0]), err
    assert not (tmp_path / "o").exists()


def test_output_must_be_a_folder(call: Run, tmp_path: Path) -> None:
    (tmp_path / "o").write_text("mine")
    code, _, err = call("chirp", *FAST, "--out", tmp_path / "o", "--no-pictures")
    assert code == 2 and "expected a folder to write to, got a file" in err
    assert (tmp_path / "o").read_text() == "mine"


def test_missing_matplotlib_is_said_before_the_fit(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(pictures, "have_matplotlib", lambda: False)
    code, _, err = call("chirp", *FAST, "--out", tmp_path / "o", "--pictures")
    assert code == 2 and 'pip install "splatrender[plots]"' in err
    assert call("chirp", *FAST, "--out", tmp_path / "o", "-q")[0] == 0  # without pictures
    assert not list((tmp_path / "o").glob("*.png"))


@pytest.mark.parametrize("name", ["chirp", "noisy2d", "rates-3d", "allen-cahn-steady"])
def test_pictures_are_drawn(name: str, call: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    fast = FAST if name != "allen-cahn-steady" else FAST[2:]
    code, _, err = call(name, *fast, "--out", tmp_path, "--animation", "-q")
    assert code == 0, err
    for picture in ("fit.png", "splats.png", "loss.png"):
        with Image.open(tmp_path / picture) as image:
            assert min(image.size) > 300
            low, high = image.convert("L").getextrema()
            assert low < 128 < high  # something is drawn
    with Image.open(tmp_path / "animation.gif") as animation:
        assert animation.format == "GIF"


def test_masses_do_not_depend_on_the_normalisation() -> None:
    import torch

    from splatrender.model import SplatMeasure

    random = torch.Generator().manual_seed(0)
    factors = torch.randn(4, 2, 2, generator=random, dtype=torch.float64)
    means = torch.randn(4, 2, generator=random, dtype=torch.float64)
    heights = torch.randn(4, 1, generator=random, dtype=torch.float64)
    peaks = SplatMeasure.from_amplitudes(heights, means, factors)
    densities = SplatMeasure.from_amplitudes(heights, means, factors, normalised=True)
    np.testing.assert_allclose(pictures.masses(peaks), pictures.masses(densities), rtol=1e-12)
    np.testing.assert_allclose(pictures.masses(densities), densities.mass.numpy(), rtol=1e-12)


class Interrupting:
    """A watcher that sends SIGINT after the first round."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked, self.rounds = asked, 0

    def begin(self, title: str, rounds: int) -> None:
        assert title and rounds == 100

    def round(self, report: object, window: int) -> bool:
        self.rounds += 1
        if self.rounds == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return self.asked()


def test_interruption_ends_the_search_and_keeps_what_was_found(tmp_path: Path) -> None:
    from splatrender.runtime.interruption import InterruptionGuard

    job = RegressJob("noisy2d", splats=20, samples=200, out=str(tmp_path), pictures=False)
    with InterruptionGuard() as guard:
        watcher = Interrupting(lambda: guard.received is not None)
        results = run(job, watcher)
    assert watcher.rounds <= 3 < 100
    assert results_of(tmp_path)["rmse"] == results["rmse"]


def test_failure_leaves_earlier_results_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.json").write_text("{}")

    def fail(*_: object) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(job_module, "write_json", fail)
    job = RegressJob("chirp", 4, out=str(tmp_path), samples=60, rounds=1, pictures=False)
    with pytest.raises(RuntimeError):
        run(job)
    assert (tmp_path / "results.json").read_text() == "{}"


def test_errors_are_what_they_say() -> None:
    figures = errors(np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 2.0]))
    assert figures == {"rmse": pytest.approx(3**0.5), "linf": 3.0, "relative_l2": 1.0}
    assert errors(np.ones(2), np.zeros(2))["relative_l2"] == float("inf")


def test_a_model_of_a_table_predicts_another_table(
    call: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = write_csv(tmp_path / "a.csv"), tmp_path / "o"
    columns = ("--inputs", "x,y", "--outputs", "u")
    fast = ("--splats", 4, "--rounds", 2, "--no-pictures", "-q")
    code, _, err = call(table, *columns, *fast, "--out", out)
    assert code == 0, err
    model = SplatRegressor.load(out / "model.pt")
    assert list(model.feature_names_in_) == ["x", "y"] and list(model.target_names_) == ["u"]

    def predict(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["predict", *map(str, arguments)])
        return int(ended.value.code or 0), *capsys.readouterr()

    new = tmp_path / "new.csv"
    new.write_text("y;other;x\n0.25;a;0.5\n0.125;b;1e-3\n", encoding="utf-8")
    code, text, err = predict(out, new)
    first, second = model.predict([[0.5, 0.25], [1e-3, 0.125]]).tolist()
    assert text == f"x,y,u\n0.5,0.25,{first!r}\n0.001,0.125,{second!r}\n", err
    assert predict(out / "model.pt", new, "--out", tmp_path / "p.csv")[0] == 0
    assert (tmp_path / "p.csv").read_text() == text
    new.write_text("x;z\n1;2\n", encoding="utf-8")
    code, _, err = predict(out, new)
    assert code == 2 and "new.csv: expected a column 'y', got x, z" in err
    new.write_text("x,y\n", encoding="utf-8")
    assert "expected at least 1 row, got none" in predict(out, new)[2]
    SplatRegressor(2, max_rounds=1).fit([[0.0], [1.0], [2.0]], [0, 1, 0]).save(tmp_path / "m.pt")
    assert "got one without names of columns" in predict(tmp_path / "m.pt", new)[2]
    assert "expected a fitted model, got no file" in predict(tmp_path / "none.pt", new)[2]
