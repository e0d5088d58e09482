"""Options of a training run, checked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from splatrender.arguments import require_number, require_type
from splatrender.errors import InputError
from splatrender.flow import create_strategy
from splatrender.flow.schedules import LearningRates
from splatrender.io.home import expand_home
from splatrender.runtime.devices import BACKENDS

# Options that change how a run is watched and not its result: they may differ on resuming.
INCIDENTAL = (
    "source",
    "model",
    "test_iterations",
    "save_iterations",
    "checkpoint_interval",
    "backend",
    "threads",
    "resume",
    "overwrite",
    "quiet",
    "profile",
)
TRANSPORTS = ("adam", "wasserstein", "wasserstein-scaled")
WHOLE_NUMBERS = (  # name, least, most
    ("iterations", 1, 10**9),
    ("max_splats", 1, 2**31 - 1),  # splats are counted in int32
    ("holdout", 1, 10**9),
    ("seed", 0, 2**63 - 1),  # as torch's generators take them
    ("threads", 0, 4096),
    ("checkpoint_interval", 0, 10**9),
    ("resolution", -1, 10**9),
)
COLORS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run.

    Attributes:
        source: scene folder.
        model: output folder.
        resolution: reduction of photos on loading: 1, 2, 4, 8 divide the size, a larger number
            is a width [px], -1 makes the longest side at most 800 px (see `load_scene`).
        images: folder of the photos within `source`.
        iterations: number of optimizer steps; every schedule is proportional to it.
        max_splats: maximum number of splats.
        strategy: rule of births and deaths, a name in `splatrender.flow.STRATEGIES`.
        price: price of a splat, for strategy wfr: births must gain more and deaths cost less than
            that, in squared error 1/2 Σ |r|² of a view at full size; None leaves the number of
            splats to `max_splats`.
        transport: rule by which splats move: "adam"; "wasserstein", the mass-preconditioned flow;
            or "wasserstein-scaled", that with time scales for each splat (see
            `splatrender.flow.transports.wasserstein`).
        seed: random seed.
        eval: hold test views out.
        holdout: interval of the views that are held out.
        sh_degree: highest degree of the spherical harmonics, 0 to 3.
        test_iterations: iterations of further evaluations.
        save_iterations: iterations after which further .ply files are written.
        checkpoint_interval: iterations between checkpoints; 0 for none before the end.
        masks: folder of masks within `source`; None for none.
        background: colour behind the splats: "black", "white", "r,g,b" in [0, 1] or three
            numbers; None for black.
        antialiased: compensate opacity of splats smaller than a pixel.
        random_init: start from random points although the scene has some.
        backend: "cpu", "cuda", or "auto" for CUDA where it works.
        threads: number of CPU threads, 0 for torch's default.
        resume: "auto" continues an interrupted run in `model`, "never" refuses to.
        overwrite: start anew in `model`, and remove the files of an earlier run there after the
            first step of this one; files that no run wrote stay.
        quiet: print nothing but warnings.
        profile: print the milliseconds of each part of a step at the end.
        ssim_weight: weight of 1 - SSIM in the loss; the rest is L1's.
        learning_rates: step sizes of Adam in a long run; `for_run` adapts them to `iterations`.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> TrainOptions("scene", "out", iterations=500).strategy
        'wfr'
    """

    source: str | os.PathLike[str]
    model: str | os.PathLike[str]
    resolution: int = -1
    images: str = "images"
    iterations: int = 7000
    max_splats: int = 50_000
    strategy: str = "wfr"
    price: float | None = None
    transport: str = "adam"
    seed: int = 0
    eval: bool = True
    holdout: int = 8
    sh_degree: int = 3
    test_iterations: Sequence[int] = ()
    save_iterations: Sequence[int] = ()
    checkpoint_interval: int = 1000
    masks: str | None = None
    background: str | Sequence[float] | None = None
    antialiased: bool = False
    random_init: bool = False
    backend: str = "auto"
    threads: int = 0
    resume: str = "auto"
    overwrite: bool = False
    quiet: bool = False
    profile: bool = False
    ssim_weight: float = 0.2
    learning_rates: LearningRates = field(default_factory=LearningRates)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "source", expand_home("source", self.source))
        set_(self, "model", expand_home("model", self.model))
        for name in ("images", "masks"):
            folder = getattr(self, name)
            if folder is not None:
                set_(self, name, os.fspath(expand_home(name, folder)))
        for name, least, most in WHOLE_NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int):
                raise InputError(f"{name}: expected a whole number, got {value!r}")
            if value < least:
                raise InputError(f"{name}: expected at least {least}, got {value}")
            if value > most:
                raise InputError(f"{name}: expected at most {most}, got {value}")
        for name in ("test_iterations", "save_iterations"):
            set_(self, name, tuple(int(i) for i in getattr(self, name)))
            for iteration in getattr(self, name):
                if not 1 <= iteration <= self.iterations:
                    expected = f"iterations between 1 and {self.iterations}"
                    raise InputError(f"{name}: expected {expected}, got {iteration}")
        if self.sh_degree not in range(4):
            raise InputError(f"sh_degree: expected 0, 1, 2 or 3, got {self.sh_degree}")
        if not 0 <= require_number("ssim_weight", self.ssim_weight) <= 1:
            raise InputError(f"ssim_weight: expected 0 to 1, got {self.ssim_weight}")
        require_type("strategy", self.strategy, str)
        if self.price is not None:
            require_number("price", self.price)
        create_strategy(self.strategy, self.iterations, self.max_splats, self.price)  # checks it
        if self.transport not in TRANSPORTS:
            expected = ", ".join(TRANSPORTS)
            raise InputError(f"transport: expected one of {expected}; got {self.transport!r}")
        if self.resume not in ("auto", "never"):
            raise InputError(f"resume: expected 'auto' or 'never', got {self.resume!r}")
        if self.backend not in BACKENDS:
            raise InputError(f"backend: expected 'auto', 'cpu' or 'cuda', got {self.backend!r}")
        require_type("learning_rates", self.learning_rates, LearningRates)
        for name, rate in asdict(self.learning_rates).items():
            require_number(f"learning_rates.{name}", rate, least=0, open_=True)
        set_(self, "background", _color(self.background))

    @property
    def output(self) -> Path:
        """Output folder."""
        return Path(self.model)

    def as_json(self) -> dict[str, Any]:
        """Return all options as plain values, for config.json and for checkpoints."""
        values = asdict(self)
        values["source"], values["model"] = str(self.source), str(self.model)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def check_agrees(self, earlier: dict[str, Any], path: Path) -> None:
        """Refuse to continue a run that was begun with other options.

        Args:
            earlier: `as_json` of the run to continue.
            path: its checkpoint, for the message.

        Raises:
            InputError: an option that decides the result differs; the message names it.
        """
        now = self.as_json()
        for option in fields(self):
            name = option.name
            before = earlier.get(name, option.default)  # the run may be older than the option
            if name in INCIDENTAL or before is MISSING or before == now[name]:
                continue
            raise InputError(
                f"{name}: expected {before!r} as of the run in {path}, got {now[name]!r}; "
                "repeat that value to resume, or choose another folder, or replace that run with "
                "--overwrite (overwrite=True)"
            )


def _color(value: str | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return a background as three numbers in [0, 1], or None."""
    if value is None:
        return None
    expected = "background: expected black, white or three numbers r,g,b in [0, 1]"
    if isinstance(value, str):
        if value.lower() in COLORS:
            return COLORS[value.lower()]
        parts: Sequence[Any] = value.split(",")
    else:
        parts = value
    try:
        color = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(f"{expected}; got {value!r}") from None
    if len(color) != 3 or not all(0 <= c <= 1 for c in color):
        raise InputError(f"{expected}; got {value!r}")
    return color
