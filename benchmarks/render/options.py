"""Options of the rasterizer benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ISAS = ("portable", "avx2", "avx512")
WORKLOADS = ("W0b", "W1", "W2")
LARGE = "W3"  # a million splats at 1920x1080, for GPUs


@dataclass(frozen=True)
class Options:
    """Parsed command line; see `--help` for the meaning of each option."""

    device: str
    workloads: list[str]
    threads: list[int]
    repeats: int
    scalar_repeats: int
    isa: str | None
    steps: int
    splats: int
    scene: Path
    toy: bool
    json: Path | None


def parse(description: str, arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; exit with 2 and a message where it is wrong.

    Args:
        description: First paragraph of `--help`.
        arguments: Command line; None for that of the process.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    emulated = "emulated: run the CUDA kernels on the CPU, at toy size"
    add("--device", choices=["cpu", "cuda", "emulated"], default="cpu", help=emulated)
    names = f"{' '.join(WORKLOADS)}, and {LARGE} on a GPU"
    add("--workloads", nargs="+", choices=[*WORKLOADS, LARGE], help=names)
    add("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    add("--repeats", type=int, default=7, help="passes of the kernels (7)")
    add("--scalar-repeats", type=int, default=3, help="passes of the scalar peer; 0: none (3)")
    add("--isa", choices=[*ISAS, "all"], help="instruction set, or each in turn")
    add("--steps", type=int, default=20, help="training steps; 0: none (20)")
    add("--splats", type=int, default=50_000, help="splats in training (50,000)")
    scene = "training scene; a synthetic one if it is missing"
    add("--scene", type=Path, default=ROOT / "scenes" / "still_life", help=scene)
    add("--toy", action="store_true", help="use tiny sizes, to test the program")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    for name, least in (("repeats", 1), ("scalar_repeats", 0), ("steps", 0), ("splats", 1)):
        value = getattr(options, name)
        if value < least:
            parser.error(f"--{name.replace('_', '-')}: expected at least {least}, got {value}")
    if min(options.threads) < 1:
        parser.error(f"--threads: expected at least 1, got {min(options.threads)}")
    if options.workloads is None:
        options.workloads = [*WORKLOADS, *[LARGE] * (options.device == "cuda")]
    elif LARGE in options.workloads and options.device != "cuda":
        parser.error(f"--workloads {LARGE}: expected --device cuda, got {options.device}")
    return Options(**vars(options))
