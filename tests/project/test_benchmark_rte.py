"""The table of errors of the approximations against quadrature, at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.render.rte import AFFINE, RAYS, main


def test_the_table_has_every_approximation(tmp_path: Path) -> None:
    path = tmp_path / "rte.json"
    options = ["--depths", "1", "--seeds", "1", "--splats", "6", "--side", "3", "--json", str(path)]
    found = CliRunner().invoke(main, options, catch_exceptions=False)
    assert found.exit_code == 0
    rows = {(row["media"], row["name"]): row for row in json.loads(path.read_text("utf-8"))}
    assert len(rows) == 2 * (len(RAYS) + len(AFFINE))
    for name in (*RAYS, *AFFINE):
        assert f"| {name} |" in found.output
    ordered, paired = (
        rows["depth 1", name] for name in ("beer_lambert ray pixel", "exchange, all pairs")
    )
    assert paired["mean"] < ordered["mean"] < 0.1
    assert paired["cosine"] == pytest.approx(1, abs=0.05)
