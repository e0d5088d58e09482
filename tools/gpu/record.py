"""Append a JSON file to the figures of a stage: python -m tools.gpu.record STAGE FILE [KEY ...]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.gpu.target import Target


def main(arguments: list[str]) -> None:
    """Record the keys that are named, or all, and print the chosen ones."""
    if len(arguments) < 2:
        raise SystemExit(__doc__)
    stage, file, *keys = arguments
    figures = json.loads(Path(file).read_text(encoding="utf-8"))
    if keys:
        figures = {key: figures[key] for key in keys}
        print(figures)
    Target.from_environment().record(stage, **figures)


if __name__ == "__main__":
    main(sys.argv[1:])
