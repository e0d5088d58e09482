"""Fixtures of the commands: a function that runs one, and a model to render."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import Run, make_model

from splatrender.cli.main import main


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return exit code, stdout and stderr."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a scene folder as of COLMAP whose photos are renderings, and a model folder."""
    pytest.importorskip("plyfile")
    return make_model(tmp_path_factory.mktemp("cli"))
