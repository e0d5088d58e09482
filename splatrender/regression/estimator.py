"""The estimator: splat regression with scikit-learn's conventions, without importing it."""

from __future__ import annotations

import inspect
import math
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SplatMeasure, create_parent, evaluate
from splatrender.operators.differential import Condition
from splatrender.operators.sampling import observations
from splatrender.regression.checks import NotFittedError, check_inputs, check_targets, check_weights
from splatrender.regression.descent import METHODS, DescentOptions, fit_first_order
from splatrender.regression.noise import neighbour_noise
from splatrender.regression.prior import Prior
from splatrender.regression.report import Progress, Round, Solution
from splatrender.regression.scaling import Scaling
from splatrender.regression.selection import (
    budget_of,
    corrected_akaike,
    requested,
    smallest_scale,
)
from splatrender.regression.solver import SolverOptions, fit
from splatrender.regression.starts import initial_measure
from splatrender.regression.storage import read_content, write_content
from splatrender.regression.watch import Watch

LARGEST_SCALE = 3.0  # largest width in ranges of the inputs: wider splats are constant anyway
STEPS = 100  # steps of a first-order method for each of `max_rounds`
FORMAT = "splatrender-regressor-2"


class SplatRegressor:
    """Regression by a mixture of splats that move, are born and die until they fit the data.

        f(x) = ȳ + Σ_i c_i ρ(A_i⁻¹ (x − b_i))

    with the targets' mean ȳ. Inputs and targets are centred and scaled inside; units and offsets of
    the data do not matter. Splats are born where they gain most and die where they cost least;
    Levenberg–Marquardt steps with exact amplitudes move them in between. The corrected Akaike
    criterion decides how many are kept; a larger budget does not overfit.

    Args:
        n_splats: maximum number of splats, or "auto".
        parent: shape of the splats, a key of `PARENTS`.
        method: "levenberg", or "wfr", "wasserstein" or "adam" for first-order descent with a
            fixed number of splats.
        max_rounds: maximum number of rounds of births and deaths (or hundreds of first-order
            steps).
        patience: rounds without progress after which the search ends.
        time_limit: seconds after which no round begins, None for no limit. With a limit, results
            depend on the speed of the machine.
        selection: factor of the criterion's parameter count; 0 uses the whole budget.
        shrinkage: prior standard deviation of amplitudes, relative to their own; 0 for none.
        roughness: power of a splat's steepness by which its amplitude is expected to be smaller.
        mass_l1: weight of Σ |c|, relative to the targets' root mean square.
        entropy: weight of the masses' entropy (only for method "wfr").
        min_scale: smallest standard deviation of a splat, relative to the inputs' ranges; "auto"
            is 0.3 n^(−1/d), a third of the spacing of samples spread evenly.
        learning_rate: step size of the first-order methods.
        validation_fraction: share of the data that is held out to stop early; 0 for none.
        random_state: random seed.
        verbose: print every tenth round.

    Attributes:
        measure_: fitted SplatMeasure, in the units of the data.
        intercept_: [p] ȳ, which is added to it.
        history_: a `Round` for each round.
        n_splats_: number of splats.
        n_features_in_: number of inputs.
        feature_names_in_: names of the inputs, if the data had any.
        target_names_: names of the targets, if the data had any.

    Source:
        Splat Regression Models, ICLR 2026; criterion: Hurvich and Tsai, Biometrika 76, 1989.

    Example:
        >>> x = np.linspace(0, 1, 200)[:, None]
        >>> model = SplatRegressor(n_splats=8).fit(x, np.sin(6 * x[:, 0]))
        >>> model.score(x, np.sin(6 * x[:, 0])) > 0.999
        True
    """

    def __init__(  # noqa: PLR0913, scikit-learn reads parameters from the signature
        self,
        n_splats: int | str = 50,
        *,
        parent: str = "gaussian",
        method: str = "levenberg",
        max_rounds: int = 100,
        patience: int = 25,
        time_limit: float | None = None,
        selection: float = 1.0,
        shrinkage: float = 0.7,
        roughness: float = 2.0,
        mass_l1: float = 0.0,
        entropy: float = 0.0,
        min_scale: float | str = "auto",
        learning_rate: float = 1e-3,
        validation_fraction: float = 0.0,
        random_state: int | None = 0,
        verbose: bool = False,
    ) -> None:
        self.n_splats = n_splats
        self.parent = parent
        self.method = method
        self.max_rounds = max_rounds
        self.patience = patience
        self.time_limit = time_limit
        self.selection = selection
        self.shrinkage = shrinkage
        self.roughness = roughness
        self.mass_l1 = mass_l1
        self.entropy = entropy
        self.min_scale = min_scale
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    # Fitting

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> SplatRegressor:
        """Fit the splats to data.

        Args:
            X: [n, d] inputs.
            y: [n] or [n, p] targets.
            sample_weight: [n] weights >= 0, all 1 if None.
            progress: called after each round with its report and the best measure so far;
                returning True ends the search.

        Returns:
            This estimator.

        Raises:
            InputError: data or settings are invalid.
        """
        x, names = check_inputs(X)
        targets = check_targets(y, len(x))
        weights = check_weights(sample_weight, len(x))
        self._check_settings()
        self.n_features_in_ = x.shape[1]
        for name in ("feature_names_in_", "target_names_"):
            self.__dict__.pop(name, None)
        if names is not None:
            self.feature_names_in_ = names
        outputs = _names_of(y)
        if outputs is not None:
            self.target_names_ = outputs
        self._flat = targets.ndim == 1
        points = torch.from_numpy(x)
        values = torch.from_numpy(targets.reshape(len(x), -1))
        if weights is not None:
            used = torch.from_numpy(weights > 0)
            points, values = points[used], values[used]
        if len(points) < 2:
            raise InputError("X: expected at least 2 samples, got 1 sample")
        weight = None if weights is None else torch.from_numpy(weights)[used]
        scaling = self._scaling = Scaling.of(points, values, weight)
        points, values = scaling.inputs(points), scaling.targets(values)
        generator = torch.Generator().manual_seed(self._seed())
        train, validation = self._parts(points, values, weight, generator)
        watch = Watch(scaling, self.patience, validation, progress, self.verbose)
        solution = self._solve(train, watch, generator)
        self._adopt(solution.measure, scaling.unit * math.sqrt(2 * solution.loss))
        self.history_ = solution.history
        return self

    def _adopt(self, scaled: SplatMeasure, residual: float) -> None:
        """Set the attributes that follow from a fitted measure in the solver's units."""
        self._scaled, self._residual = scaled, residual
        self.measure_ = self._scaling.splats(scaled)
        self.intercept_ = self._scaling.centre.numpy().copy()
        self.n_splats_ = len(scaled)
        self.loss_ = 0.5 * residual * residual

    def _check_settings(self) -> None:
        if self.n_splats != "auto" and (
            not isinstance(self.n_splats, (int, np.integer)) or self.n_splats < 1
        ):
            raise InputError(f"n_splats: expected 'auto' or at least 1, got {self.n_splats!r}")
        if self.method != "levenberg" and self.method not in METHODS:
            known = ", ".join(("levenberg", *METHODS))
            raise InputError(f"method: expected one of {known}; got {self.method!r}")
        if self.entropy and self.method != "wfr":
            raise InputError(f"entropy: expected method 'wfr' with it, got {self.method!r}")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction: expected a number in [0, 1), got {self.validation_fraction}"
            )
        names = ["selection", "shrinkage", "roughness", "mass_l1", "entropy"]
        for name in names + ["min_scale"] * (self.min_scale != "auto"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        create_parent(self.parent).check_dims(1 if self.parent in ("box", "hat") else 2)

    def _seed(self) -> int:
        if self.random_state is None:
            return int(np.random.default_rng().integers(2**31))
        if hasattr(self.random_state, "randint"):
            return int(self.random_state.randint(2**31 - 1))
        return int(self.random_state)

    def _parts(
        self, points: Tensor, values: Tensor, weights: Tensor | None, generator: torch.Generator
    ) -> tuple[Condition, Condition | None]:
        """Divide the samples into training data and held-out data."""
        held = int(self.validation_fraction * len(points))
        if held == 0:
            return observations(points, values, weights), None
        order = torch.randperm(len(points), generator=generator)
        parts = [
            observations(points[ids], values[ids], None if weights is None else weights[ids])
            for ids in (order[held:], order[:held])
        ]
        return parts[0], parts[1]

    def _solve(self, train: Condition, watch: Watch, generator: torch.Generator) -> Solution:
        """Fit by the method that was asked for."""
        if self.method == "levenberg":
            return watch.outcome(self._solve_by_rounds(train, watch, generator))
        assert train.target is not None
        outputs, count = train.target.shape[1], requested(self.n_splats)
        start = initial_measure(train.points, count, outputs, generator, self.parent)
        options = DescentOptions(
            self.method, STEPS * self.max_rounds, self.learning_rate, entropy=self.entropy
        )
        return watch.outcome(fit_first_order([train], start, options, generator, watch))

    def _solve_by_rounds(
        self, train: Condition, watch: Watch, generator: torch.Generator
    ) -> Solution:
        """Fit by the solver, with sizes, criterion, prior and noise from the data."""
        assert train.target is not None
        count, dims = train.points.shape
        outputs = train.target.shape[1]
        budget = budget_of(self.n_splats, count, dims, outputs)
        starts = [
            initial_measure(train.points, budget.first, outputs, generator, self.parent)
            for _ in range(budget.starts)
        ]
        signal = float(train.target.square().mean().sqrt())
        first = budget.first * budget.each
        options = SolverOptions(
            n_splats=budget.most,
            rounds=self.max_rounds,
            seconds=math.inf if self.time_limit is None else self.time_limit,
            patience=self.patience,
            support=budget.each,
            penalty=corrected_akaike(count * outputs, self.selection, first),
            shrinkage=self.shrinkage,
            signal=signal,
            noise=neighbour_noise(train.points, train.target),
            racing=True,
        )
        prior = Prior(
            roughness=self.roughness,
            lasso=self.mass_l1 * signal,
            smallest=smallest_scale(self.min_scale, count, dims),
            largest=LARGEST_SCALE,
        )
        return fit([train], starts, options, generator, prior, watch)

    # Prediction

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return f at new inputs.

        Args:
            X: [n, d].

        Returns:
            [n], or [n, p] if the targets had two axes.
        """
        self._check_fitted()
        x, names = check_inputs(X, self.n_features_in_, type(self).__name__)
        expected = getattr(self, "feature_names_in_", None)
        if names is not None and expected is not None and list(names) != list(expected):
            raise InputError(
                f"X: The feature names should match those that were passed during fit: expected "
                f"{list(expected)}, got {list(names)}"
            )
        with torch.no_grad():
            inputs = self._scaling.inputs(torch.from_numpy(x))
            values = self._scaling.outputs(evaluate(self._scaled, inputs).value).numpy()
        return values[:, 0] if self._flat else values

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean R² = 1 − Σ w |y − f|² / Σ w |y − ȳ|² of the outputs."""
        predicted = self.predict(X)
        targets = check_targets(y, len(predicted)).reshape(len(predicted), -1)
        weights = check_weights(sample_weight, len(predicted))
        w = np.ones(len(predicted)) if weights is None else weights
        rest = w @ (targets - predicted.reshape(targets.shape)) ** 2
        total = w @ (targets - np.average(targets, axis=0, weights=w)) ** 2
        ratio = np.where(total > 0, rest / np.where(total > 0, total, 1), (rest > 0).astype(float))
        return float(np.mean(1 - ratio))

    def summary(self) -> str:
        """Return a text of a few lines: splats, parameters, residual, scales and rounds."""
        self._check_fitted()
        scales = torch.linalg.svdvals(self.measure_.factors)
        mass = self.measure_.amplitudes.norm(dim=1)
        rounds = self.history_
        lines = [
            f"{self.n_splats_} {self.measure_.parent.name} splats, "
            f"{self.measure_.parameters} parameters, {self.n_features_in_} inputs, "
            f"{self.measure_.outputs} outputs",
            f"root mean square residual {self._residual:.4g}",
            f"standard deviations of splats {float(scales.min()):.4g} to {float(scales.max()):.4g}",
            f"amplitudes up to {float(mass.max()):.4g}, sum {float(mass.sum()):.4g}",
        ]
        if rounds:
            kept = sum(entry.kept for entry in rounds)
            births = sum(entry.births for entry in rounds if entry.kept)
            deaths = sum(entry.deaths for entry in rounds if entry.kept)
            lines.append(
                f"{len(rounds)} rounds, {kept} kept, {births} births and {deaths} deaths in them, "
                f"{rounds[-1].seconds:.1f} s"
            )
        return "\n".join(lines)

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings, splats and history to a file, atomically."""
        self._check_fitted()
        parent = self.measure_.parent
        content = {
            "format": FORMAT,
            "settings": self.get_params(),
            "measure": dict(self._scaled.items()),
            "scaling": vars(self._scaling),
            "parent": {"name": parent.name, **vars(parent)},
            "normalised": self._scaled.normalised,
            "history": [asdict(entry) for entry in self.history_],
            "names": list(map(str, getattr(self, "feature_names_in_", []))),
            "targets": list(map(str, getattr(self, "target_names_", []))),
            "flat": self._flat,
            "residual": self._residual,
        }
        write_content(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SplatRegressor:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing or holds something else.
        """
        content = read_content(path, FORMAT, "a fitted model")
        model = cls(**content["settings"])
        parent = dict(content["parent"])
        kind = type(create_parent(parent.pop("name")))
        model._scaling = Scaling(**content["scaling"])
        model._adopt(
            SplatMeasure(
                **content["measure"], parent=kind(**parent), normalised=content["normalised"]
            ),
            content["residual"],
        )
        model.history_ = [Round(**entry) for entry in content["history"]]
        model.n_features_in_ = model.measure_.dims
        model._flat = content["flat"]
        if content["names"]:
            model.feature_names_in_ = np.array(content["names"], dtype=object)
        if content["targets"]:
            model.target_names_ = np.array(content["targets"], dtype=object)
        return model

    # scikit-learn's conventions

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all settings by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> SplatRegressor:
        """Change settings, and return this estimator."""
        for name, value in params.items():
            if name not in self._names():
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}: expected "
                    f"one of {', '.join(self._names())}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name in self._names()
            if getattr(self, name) != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "measure_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            # the check for good scores has 10 inputs, 66 parameters a splat, and 200 samples
            regressor_tags=RegressorTags(poor_score=True),
            input_tags=InputTags(),
        )

    def _check_fitted(self) -> None:
        if not hasattr(self, "measure_"):
            raise NotFittedError.create(type(self).__name__)


def _names_of(y: Any) -> NDArray[np.object_] | None:
    """Return the names of a frame's columns, or of a series, if they are strings."""
    names = getattr(y, "columns", None)
    names = [getattr(y, "name", None)] if names is None else list(names)
    return np.array(names, dtype=object) if all(isinstance(n, str) for n in names) else None
