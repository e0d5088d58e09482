"""Rows drawn by weight: how often, to which bits, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from splatrender.errors import InputError
from splatrender.model.draws import draw, draw_distinct, draw_unchecked

WEIGHTS = torch.tensor([0.0, 3.0, 1.0, 0.0, 6.0, 0.0])


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rows_come_as_often_as_they_weigh() -> None:
    rows = draw(WEIGHTS, 40_000, _random())
    frequency = torch.bincount(rows, minlength=6) / 40_000
    torch.testing.assert_close(frequency, WEIGHTS / 10, rtol=0, atol=0.01)
    assert not bool(frequency[WEIGHTS == 0].any())


def test_the_unit_of_weights_does_not_matter() -> None:
    rows = [draw(WEIGHTS.double() * unit, 500, _random()) for unit in (1.0, 2.0**-900, 2.0**900)]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 1025])
def test_equal_weights_fill_the_integers_without_overflow(count: int) -> None:
    rows = draw(torch.full((count,), 0.7), 2000, _random())
    assert int(rows.min()) >= 0 and int(rows.max()) < count
    assert len(rows.unique()) > 0.7 * min(count, 2000)


def test_light_rows_among_millions_are_drawn() -> None:
    """Check that rows behind 2^24 are drawn, where a running sum in float32 stops growing."""
    count = 2**24 + 2**22  # more than torch.multinomial takes
    rows = draw(torch.ones(count), 1000, _random())
    behind = float((rows >= 2**24).float().mean())
    assert behind == pytest.approx(0.2, abs=0.05)


def test_sums_are_exact_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add up blocks of a running sum in any order, as a GPU does."""
    weights = torch.rand(10_000, generator=_random(1)) ** 8
    expected, cumsum = draw(weights, 5000, _random()), torch.Tensor.cumsum

    def by_blocks(self: torch.Tensor, dim: int) -> torch.Tensor:
        assert not self.is_floating_point()
        blocks = [cumsum(block, dim) for block in self.split(77)]
        sums = torch.stack([block[-1] for block in blocks])
        later = [sums[:i].flip(0).sum() for i in range(len(blocks))]
        return torch.cat([block + first for block, first in zip(blocks, later, strict=True)])

    monkeypatch.setattr(torch.Tensor, "cumsum", by_blocks)
    assert torch.equal(draw(weights, 5000, _random()), expected)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_weights_that_are_refused(wrong: float) -> None:
    weights = WEIGHTS.clone()
    weights[2] = wrong
    for function in (draw, draw_distinct):
        with pytest.raises(InputError, match=r"^weights: expected finite numbers >= 0, at least "):
            function(weights, 1, _random())
    assert draw_unchecked(weights, 3, _random()).tolist() == [-1, -1, -1]


def test_weights_that_are_all_zero_are_refused() -> None:
    message = r"at least 1 of them > 0; got 0 such among 4 from 0\.0 to 0\.0$"
    with pytest.raises(InputError, match=message):
        draw(torch.zeros(4), 2, _random())
    assert draw_unchecked(torch.zeros(4), 2, _random()).tolist() == [-1, -1]
    assert draw(torch.zeros(4), 0, _random()).tolist() == []


def test_distinct_rows_are_distinct_and_come_by_weight() -> None:
    assert draw_distinct(WEIGHTS, 3, _random()).sort().values.tolist() == [1, 2, 4]
    with pytest.raises(InputError, match=r"at least 4 of them > 0; got 3 such among 6"):
        draw_distinct(WEIGHTS, 4, _random())
    generator = _random()
    pairs = torch.stack([draw_distinct(WEIGHTS, 2, generator) for _ in range(4000)])
    first = torch.bincount(pairs[:, 0], minlength=6) / 4000
    torch.testing.assert_close(first, WEIGHTS / 10, rtol=0, atol=0.025)
    second = torch.bincount(pairs[pairs[:, 0] == 4, 1], minlength=6).float()
    torch.testing.assert_close(second[1] / second.sum(), torch.tensor(0.75), rtol=0, atol=0.04)
