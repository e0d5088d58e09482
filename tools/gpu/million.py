"""Trains a million splats at 1600x1066 for 500 steps, and prints milliseconds a step and memory."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.render.training_step import ITERATIONS, START, crowded, synthetic_scene
from splatrender.training import TrainOptions
from splatrender.training.run import Run
from tools.gpu.common import DEVICE, OUT, TOY, record, wait

STEPS, SECONDS = 500, 20  # whichever comes first


def main() -> None:
    splats, seeds, size = (2000, 500, (160, 107)) if TOY else (1_000_000, 150_000, (1600, 1066))
    scene = crowded(synthetic_scene(seeds, *size), splats)
    options = TrainOptions(
        scene.path, Path(OUT) / "never", iterations=ITERATIONS, max_splats=splats, quiet=True,
        strategy="none",
    )  # fmt: skip
    run = Run(options, scene, torch.device(DEVICE))
    run.state.iteration = START + 1  # full pictures, all harmonics
    for _ in range(2 if TOY else 10):
        run.step()
    wait()
    start, steps = time.perf_counter(), 0
    while steps < (3 if TOY else STEPS) and time.perf_counter() - start < SECONDS:
        run.step()
        steps += 1
    wait()
    ms = 1e3 * (time.perf_counter() - start) / steps
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else 0.0
    print(f"{splats:,} splats at {size[0]}x{size[1]}: {steps} steps of {ms:.3f} ms, "
          f"loss {run.loss:.4f}, peak {peak:.0f} MiB")  # fmt: skip
    record("million", splats=splats, size=size, steps=steps, ms=ms, peak_mib=peak)


if __name__ == "__main__":
    main()
