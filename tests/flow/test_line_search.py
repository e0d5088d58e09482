"""The line search: the first attempt that lowers the objective, and no attempt beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from splatrender.flow.line_search import line_search


def test_the_first_attempt_that_lowers_the_objective_is_taken() -> None:
    made = []

    def attempts() -> Iterator[float]:
        for value in (3.0, 2.5, 1.0, 0.0):
            made.append(value)
            yield value

    outcome = line_search(attempts(), lambda value: value, before=2.0)
    assert (outcome.attempt, outcome.value, outcome.trials) == (1.0, 1.0, 3)
    assert made == [3.0, 2.5, 1.0]  # the last one was never made


def test_without_an_accepted_attempt_the_objective_stays() -> None:
    outcome = line_search([3.0, 2.0], lambda value: value, before=2.0)
    assert outcome.attempt is None and outcome.value == 2.0 and outcome.trials == 2
    none: list[float] = []
    nothing = line_search(none, lambda value: 0.0, before=2.0)
    assert nothing.attempt is None and nothing.value == 2.0 and nothing.trials == 0


def test_ties_are_accepted_only_where_that_is_asked_for() -> None:
    assert line_search([2.0], lambda value: value, 2.0).attempt is None
    assert line_search([2.0], lambda value: value, 2.0, ties=True).attempt == 2.0


def test_what_is_not_a_number_is_never_accepted() -> None:
    assert line_search([math.nan], lambda value: value, 2.0, ties=True).attempt is None
    assert line_search([0.0], lambda value: value, math.nan, ties=True).attempt is None
    assert line_search([math.inf, 1.0], lambda value: value, 2.0).trials == 2
