"""Tasks with known answers, the spectral reference solution, and tables from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from splatrender.errors import InputError
from splatrender.regression.problems.etdrk4 import allen_cahn_initial, etdrk4, solve_allen_cahn
from splatrender.regression.problems.table import read_table
from splatrender.regression.problems.tasks import TASKS, cell_centres, rough_lipschitz, task

GOOD = "x,y,u\n" + "".join(f"{i},{i * i},{3 * i + 1}\n" for i in range(10))


def logistic(t: float, start: float) -> float:
    """Return the solution of u' = u − u³."""
    return float(start * np.exp(t) / np.sqrt(1 + start**2 * (np.exp(2 * t) - 1)))


def test_etdrk4_is_of_fourth_order() -> None:
    exact = logistic(1.0, 0.1)
    errors = []
    for steps in (4, 8, 16):
        u = etdrk4(np.full(8, 0.1), np.zeros(5), lambda u: u - u**3, 1 / steps, steps)
        errors.append(abs(u[-1, 0] - exact))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all(np.abs(orders - 4) < 0.35), orders


def test_etdrk4_is_exact_for_heat() -> None:
    x = 2 * np.pi * np.arange(32) / 32
    wavenumber = np.arange(17.0)
    u = etdrk4(np.sin(3 * x), -0.5 * wavenumber**2, lambda u: 0 * u, 0.25, 4)
    np.testing.assert_allclose(u[-1], np.exp(-4.5) * np.sin(3 * x), atol=1e-13)


def test_reference_solution_converges_and_solves_the_equation() -> None:
    coarse = solve_allen_cahn(modes=1024, steps=200, snapshots=100, columns=256)
    fine = solve_allen_cahn(modes=4096, steps=400, snapshots=100, columns=256)
    assert fine.refinement < 1e-6 < coarse.refinement < 1e-4
    change = np.linalg.norm(fine.values - coarse.values) / np.linalg.norm(fine.values)
    assert change < 2e-5
    np.testing.assert_allclose(fine.values[0], allen_cahn_initial(fine.points), atol=1e-15)
    u, dt = fine.values, 0.01
    near = np.abs(np.abs(fine.points) - 0.25) < 0.05  # smooth there: diffusion is negligible
    rate = (u[51] - u[49])[near] / (2 * dt)
    np.testing.assert_allclose(rate, 5 * (u[50] - u[50] ** 3)[near], rtol=3e-3, atol=3e-3)
    assert np.all(np.abs(u) <= 1)


def test_etdrk4_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="linear: expected n // 2"):
        etdrk4(np.zeros(8), np.zeros(4), lambda u: u, 0.1, 4)
    with pytest.raises(InputError, match="every: expected a divisor"):
        etdrk4(np.zeros(8), np.zeros(5), lambda u: u, 0.1, 5, every=2)
    with pytest.raises(InputError, match="columns and snapshots"):
        solve_allen_cahn(modes=512, columns=500)


@pytest.mark.parametrize("name", [n for n, t in TASKS.items() if not t.is_pde])
def test_data_are_the_truth_plus_noise(name: str) -> None:
    problem = task(name)
    data, again, other = problem.data(1), problem.data(1), problem.data(2)
    assert np.array_equal(data.x, again.x) and np.array_equal(data.y, again.y)
    assert not np.array_equal(data.x, other.x)
    assert data.x.shape == (problem.samples, problem.dimensions)
    assert problem.truth is not None
    rest = data.y - problem.truth(data.x)
    if problem.noise:
        assert abs(rest.std() / problem.noise - 1) < 0.1
    else:
        assert not rest.any()
    grid = problem.grid()
    np.testing.assert_array_equal(grid.y, problem.truth(grid.x))


def test_steady_profile_solves_its_equation() -> None:
    truth = task("allen-cahn-steady").truth
    assert truth is not None
    x, h = np.random.default_rng(0).random((200, 2)), 1e-3
    steps = [np.array(s) * h for s in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    u = truth(x)
    laplacian = (sum(truth(x + s) for s in steps) - 4 * u) / h**2
    assert np.abs(0.1**2 * laplacian + u - u**3).max() < 1e-4


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_rough_function_is_lipschitz_and_rough(dims: int) -> None:
    random = np.random.default_rng(0)
    x = random.random((2000, dims))
    near = x + 1e-4 * random.standard_normal(x.shape)
    slopes = np.abs(rough_lipschitz(x) - rough_lipschitz(near)) / np.linalg.norm(x - near, axis=1)
    assert 1 < slopes.max() < 6.01  # one octave has slope 1, and there are six


def test_allen_cahn_grid_is_the_solver_s_own() -> None:
    grid = task("allen-cahn").grid()
    start = grid.x[:, 1] == 0
    assert grid.x[start, 0].min() == -1 and grid.x[:, 0].max() < 1  # no endpoint twice
    np.testing.assert_allclose(grid.y[start], allen_cahn_initial(grid.x[start, 0]), atol=1e-15)


def test_cell_centres_run_through_the_last_input_first() -> None:
    points = cell_centres(((0, 1), (0, 2)), 2)
    assert points.tolist() == [[0.25, 0.5], [0.25, 1.5], [0.75, 0.5], [0.75, 1.5]]


def test_unknown_tasks_and_senseless_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"task: expected one of chirp, .*got 'chrip'"):
        task("chrip")
    with pytest.raises(InputError, match="samples: expected at least 1"):
        task("chirp").data(0, samples=0)
    with pytest.raises(InputError, match="with samples, got an equation"):
        task("allen-cahn").data(0)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table_is_read(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "a.csv", "\ufeff" + GOOD.replace(",", delimiter) + "\n\n")
    table = read_table(path, ["y", "x"], ["u"])
    assert table.x.tolist() == [[i * i, i] for i in range(10)]
    assert table.y.tolist() == [[3 * i + 1] for i in range(10)]


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        ("", ["x"], "expected a first line with names"),
        (GOOD, ["z"], "expected a column 'z', got x, y, u"),
        (GOOD.replace("x,y", "height,y"), ["heigth"], "did you mean 'height'"),  # codespell:ignore
        (GOOD, [], "expected names for --inputs"),
        (GOOD, ["x", "x"], "got 'x' twice"),
        (GOOD.replace("x,y", "x,x"), ["x"], "got 'x' twice"),
        (GOOD.replace("4,16", "4,nan"), ["y"], "line 6, column 'y': expected a finite .* 'nan'"),
        (GOOD.replace("4,16", "4,"), ["y"], "line 6, column 'y': .* got nothing"),
        (GOOD.replace("4,16", "4,inf"), ["y"], "column 'y': expected a finite number"),
        (GOOD.replace("4,16", "4,abc"), ["y"], "got 'abc'"),
        (GOOD.replace("4,16", '4,"16,5"'), ["y"], "got '16,5' .a decimal comma: write numbers"),
        (
            GOOD.replace(",", ";").replace("4;16", "4;1,6e1"),
            ["y"],
            "got '1,6e1' .a decimal comma",
        ),
        (
            GOOD.replace(",", " "),
            ["x"],
            "fields separated by commas, semicolons or tabs, got spaces",
        ),
        (GOOD.replace("x,y", "x,"), ["x"], "expected a first line with names"),
        (GOOD.replace("4,16", "4"), ["y"], "line 6: expected 3 fields, got 2"),
        ("x,y,u\n1,2,3\n", ["x"], "expected at least 8 rows, got 1"),
        ("x,u\n" + "".join(f"2,{i}\n" for i in range(9)), ["x"], "column 'x': .*got 2 in every"),
        ("1,2\n" * 10, ["x"], "expected names of columns .* got numbers"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, inputs: list[str], message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path, inputs, ["u"])
    assert str(path) in str(caught.value)


def test_index_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    text = "\n".join([f",{lines[0]}", *(f"{i},{line}" for i, line in enumerate(lines[1:]))])
    table = read_table(write(tmp_path / "a.csv", text), ["x", "y"], ["u"])
    np.testing.assert_array_equal(table.x[3], [3, 9])
    with pytest.raises(InputError, match=r"expected a column '', got .*x, y, u"):
        read_table(tmp_path / "a.csv", [""], ["u"])


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.csv file, got none"):
        read_table(tmp_path / "no.csv", ["x"], ["u"])
    with pytest.raises(InputError, match="expected a readable file"):
        read_table(tmp_path, ["x"], ["u"])
    (tmp_path / "b.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="expected a text file"):
        read_table(tmp_path / "b.csv", ["x"], ["u"])
