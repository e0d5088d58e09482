"""Every CUDA kernel, emulated on small scenes, is clean under the sanitizers.

`test_planted_bugs.py` shows that they would speak up.
"""

from __future__ import annotations

import pytest
from helpers.toys import run_program

STAGES = ("radiance", "grad emission", "grad sh", "grad means", "grad factors", "loss", "param")


@pytest.mark.parametrize("sanitizer", ["asan", "ubsan", "tsan"])
def test_every_stage_is_clean(sanitizer: str) -> None:
    done = run_program(sanitizer)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "finished"
    assert {name for name in STAGES if any(line.strip().startswith(name) for line in lines)} == set(
        STAGES
    )
