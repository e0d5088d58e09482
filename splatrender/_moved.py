"""Old names of modules and objects, importable for one release with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # importlib.abc takes a quarter of the time of `import splatrender`

MOVED = {
    "camera": "model.camera",
    "flow.adc": "flow.strategies.adc",
    "flow.exchange": "flow.line_search",
    "flow.footprints": "flow.views.footprints",
    "flow.mcmc": "flow.strategies.mcmc",
    "flow.neighbourhood": "flow.views.neighbourhood",
    "flow.probes": "flow.views.probes",
    "flow.strategy": "flow.strategies.base",
    "flow.sweep": "flow.views.sweep",
    "flow.transport": "flow.transports.velocity",
    "flow.twins": "model.splitting",
    "flow.wfr": "flow.step",
    "flow.wfr_strategy": "flow.strategies.exchange",
    "io.cameras": "scenes.cameras",
    "memory": "runtime.malloc",
    "operators.devices": "runtime.devices",
    "paths": "rendering.trajectories",
    "regression.etdrk4": "regression.problems.etdrk4",
    "regression.levenberg": "regression.lm",
    "regression.pde": "regression.problems",
    "regression.pictures": "plots.regression",
    "regression.table": "regression.problems.table",
    "regression.tasks": "regression.problems.tasks",
    "schedules": "flow.schedules",
    "training.flow_picture": "plots.flow",
    "training.interruption": "runtime.interruption",
    "training.optimizer": "flow.transports.adam",
    "training.stopwatch": "runtime.stopwatch",
    "training.wasserstein": "flow.transports.wasserstein",
}


class _Finder(Loader):
    """Finder and loader of modules by their old names, last of all finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for old names only."""
        old = name.removeprefix("splatrender.")
        if old == name or old not in MOVED:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of `module`."""
        new = f"splatrender.{MOVED[module.__name__.removeprefix('splatrender.')]}"
        warnings.warn(
            f"{module.__name__} has moved to {new}; the old name ends with the next release",
            DeprecationWarning,
            stacklevel=2,  # frames of the import system do not count
        )
        sys.modules[module.__name__] = importlib.import_module(new)


def install() -> None:
    """Make old names importable."""
    if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that finds objects by their old names, with a warning.

    Args:
        module: `__name__` of the module that had the old names.
        names: full new names, such as `splatrender.model.view.View`, by old ones.

    Returns:
        A function that imports the object from its new module.

    Example:
        >>> find = renamed("splatrender.flow", {"TrainingView": "splatrender.model.view.View"})
        >>> find("TrainingView").__name__  # with a DeprecationWarning
        'View'
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} is {names[name]} now; the old name ends with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        home, _, new = names[name].rpartition(".")
        return getattr(importlib.import_module(home), new)

    return find


def renamed_attribute(old: str, new: str, value: Callable[[Any], Any] | None = None) -> property:
    """Return a property that gives an attribute or a method under its old name, with a warning.

    Args:
        old: full old name, such as `StepReport.moved`.
        new: new name of the attribute, a path with dots where it is in another object now.
        value: value for an object; the attribute of the new name by default.
    """

    def find(owner: Any) -> Any:
        warnings.warn(
            f"{old} is {new} now; the old name ends with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return attrgetter(new)(owner) if value is None else value(owner)

    return property(find)


def renamed_method(cls: type, old: str, new: str) -> None:
    """Let a class that defines a method under its old name override the new one, with a warning."""
    method = cls.__dict__.get(old)
    if method is None or isinstance(method, property):
        return
    warnings.warn(
        f"{cls.__name__}.{old} overrides {new} now; the old name ends with the next release",
        DeprecationWarning,
        stacklevel=3,
    )
    setattr(cls, new, method)
