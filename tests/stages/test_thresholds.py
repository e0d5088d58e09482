"""Thresholds: the reference's copy equals the numbers compiled into the kernels."""

from __future__ import annotations

import helpers
from helpers.backends import require_extension

from splatrender.reference import thresholds as truth


def test_both_truths_have_the_same_thresholds() -> None:
    require_extension()
    from splatrender.operators import thresholds

    for name in ("CUTOFF", "ALPHA_MAX", "T_MIN", "TILE"):
        assert getattr(thresholds, name) == getattr(truth, name), name
    assert (truth.CUTOFF, truth.ALPHA_MAX, truth.T_MIN, truth.TILE) == (1 / 255, 0.99, 1e-4, 16)


def test_tests_use_those_of_the_reference() -> None:
    names = ("CUTOFF", "ALPHA_MAX", "T_MIN")
    assert all(getattr(helpers, name) is getattr(truth, name) for name in names)
