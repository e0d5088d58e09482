"""Predictions for a table by a model fitted to a table."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from splatrender.errors import InputError
from splatrender.regression.estimator import SplatRegressor
from splatrender.regression.problems.table import read_columns


def predict_table(model: str | os.PathLike[str], table: str | os.PathLike[str]) -> str:
    """Return the inputs of a .csv file and a fitted model's predictions for them, as .csv text.

    Args:
        model: file that `SplatRegressor.save` wrote, or the folder of a `regress` run.
        table: file with the columns of the model's inputs, by name.

    Returns:
        A header and a line for each row, with all digits of the numbers.

    Raises:
        InputError: the model, the table or a column is missing, or a file holds something else.

    Example:
        >>> predict_table("output/u", "new.csv")  # doctest: +SKIP
    """
    path = Path(model)
    path = path / "model.pt" if path.is_dir() else path
    fitted = SplatRegressor.load(path)
    names = getattr(fitted, "feature_names_in_", None)
    if names is None:
        raise InputError(
            f"{path}: expected a model that was fitted to a table, got one without names of "
            f"columns (SplatRegressor.load(...).predict(X) needs none)"
        )
    x = read_columns(table, list(names))
    y = fitted.predict(x).reshape(len(x), -1)
    outputs = getattr(fitted, "target_names_", None)
    if outputs is None:
        outputs = (
            ["predicted"] if y.shape[1] == 1 else [f"predicted_{j}" for j in range(y.shape[1])]
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *outputs])
    writer.writerows(map(repr, row) for row in np.hstack([x, y]).tolist())
    return text.getvalue()
