"""Checks of the estimator's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splatrender.errors import InputError

Array = NDArray[np.float64]


class InputTypeError(InputError, TypeError):
    """Input of a type that cannot be converted to numbers."""


class NotFittedError(InputError, AttributeError):
    """Use of an estimator before it was fitted."""

    @staticmethod
    def create(name: str) -> Exception:
        """Return the error, also of scikit-learn's class where that is loaded."""
        message = f"{name} is not fitted yet: expected a call of `fit` before, got none"
        import sys

        module = sys.modules.get("sklearn.exceptions")
        if module is None:
            return NotFittedError(message)
        kind: type[Exception] = type("NotFittedError", (NotFittedError, module.NotFittedError), {})
        return kind(message)


def check_inputs(
    X: Any, features: int | None = None, owner: str = "SplatRegressor"
) -> tuple[Array, NDArray[np.object_] | None]:
    """Return inputs as finite float64 [n, d], and the names of their columns if they have any.

    Args:
        X: array, list or data frame.
        features: expected number of columns, None for any.
        owner: name of the estimator, for the message.

    Raises:
        InputError: X is something else; scikit-learn's checks expect the words of the messages.
    """
    names = getattr(X, "columns", None)
    if names is not None:
        names = np.asarray(names, dtype=object)
        if not all(isinstance(name, str) for name in names):
            names = None
    if hasattr(X, "tocsr"):
        raise InputError("X: expected a dense array, got a sparse matrix")
    array = _numbers(X, "X")
    if array.ndim == 1:
        raise InputError(
            "X: Expected 2D array, got 1D array instead. Reshape your data either using "
            "array.reshape(-1, 1) if it has a single feature or array.reshape(1, -1) if it is a "
            "single sample"
        )
    if array.ndim != 2:
        raise InputError(f"X: expected 2 axes (n, d), got {array.ndim} (dim {array.ndim})")
    if array.shape[0] == 0:
        raise InputError("X: expected a minimum of 1 sample, got array with 0 sample(s)")
    if array.shape[1] == 0:
        raise InputError(
            f"X: found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is "
            "required."
        )
    if features is not None and array.shape[1] != features:
        raise InputError(
            f"X has {array.shape[1]} features, but {owner} is expecting {features} features "
            "as input"
        )
    return array, names


def check_targets(y: Any, count: int) -> Array:
    """Return targets as finite float64 [n] or [n, p].

    Raises:
        InputError: y is something else.
    """
    if y is None:
        raise InputError("y: fit requires y to be passed, but the target y is None")
    array = _numbers(y, "y")
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(f"y: expected shape (n,) or (n, p), got {array.shape}")
    if len(array) != count:
        raise InputError(
            f"y: expected {count} rows as X has, got {len(array)} (inconsistent lengths)"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        import warnings

        warnings.warn(
            "y: a column-vector y was passed when a 1d array was expected; predictions will be a "
            "column as well",
            _conversion_warning(),
            stacklevel=3,
        )
    return array


def check_weights(weights: Any, count: int) -> Array | None:
    """Return sample weights as float64 [n] >= 0 with a positive sum, or None.

    Raises:
        InputError: the weights are something else.
    """
    if weights is None:
        return None
    array = _numbers(weights, "sample_weight")
    if array.ndim == 0:
        array = np.full(count, float(array))
    if array.shape != (count,):
        raise InputError(f"sample_weight: expected shape ({count},), got {array.shape}")
    if (array < 0).any():
        raise InputError("sample_weight: expected weights >= 0, got a negative one")
    if not array.sum() > 0:
        raise InputError("sample_weight: expected a positive weight, got zero for all samples")
    return array


def _numbers(values: Any, name: str) -> Array:
    if callable(getattr(values, "detach", None)):  # a tensor, which may carry a gradient
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
        if np.iscomplexobj(array):
            raise InputError(f"{name}: Complex data not supported: expected real numbers")
        array = np.ascontiguousarray(array, dtype=np.float64)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        if isinstance(error, TypeError):  # objects, not strings, for scikit-learn
            raise InputTypeError(f"{name}: expected numbers, got others ({error})") from error
        raise InputError(f"{name}: expected numbers, got others ({error})") from error
    if not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0]
        place = f"row {first[0]}" + (f", column {first[1]}" if len(first) > 1 else "")
        raise InputError(
            f"{name}: expected finite numbers, got NaN, inf or a number too large at {place} "
            f"(Input {name} contains NaN or infinity)"
        )
    return array


def _conversion_warning() -> type[Warning]:
    import sys

    module = sys.modules.get("sklearn.exceptions")
    return UserWarning if module is None else module.DataConversionWarning
