"""What the operators refuse: an `InputError` that names the argument."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from splatrender.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

_REFUSED = re.compile(r"\w+: .+: expected .+, found .+")  # as csrc/check.h writes it
_UNFIT = re.compile(  # as torch's dispatcher writes it
    r"splatrender::(\w+)\(\) Expected a value of type '(.+)' for argument '(\w+)' but .*"
    r"found type '(.+)'\.\n(?:.*\n)?Value: (.*)"
)
_KINDS = {"int": "an integer of at most 64 bits", "float": "a number", "bool": "True or False"}


def input_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a call of an operator: what its kernel refuses is an `InputError` like all else.

    Kernels refuse by RuntimeErrors; those that are about anything but an argument stay as they are.
    """

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            message = _refusal(str(error))
            if message is None:
                raise
            raise InputError(message) from None

    return checked


def _refusal(message: str) -> str | None:
    """The sentence of a refusal; None if the message is about something else."""
    first = message.partition("\n")[0]
    if _REFUSED.fullmatch(first):
        return first
    unfit = _UNFIT.match(message)
    if unfit is None:
        return None
    operator, wanted, name, kind, value = unfit.groups()
    found = value if kind in ("int", "float", "str", "NoneType") else kind
    return f"{operator}: {name}: expected {_KINDS.get(wanted, wanted)}, found {found:.60}"
