"""Train a million splats at 1600x1066 for 500 steps, and print time and memory."""

from __future__ import annotations

import time

import torch

from benchmarks.render.training_step import START, crowded, synthetic_scene
from tools.gpu.target import Target
from tools.gpu.training import start_run

STEPS, SECONDS = 500, 20  # whichever comes first


def main() -> None:
    """Train, print and record milliseconds per step and peak memory."""
    target = Target.from_environment()
    splats, seeds, size = 1_000_000, 150_000, (1600, 1066)
    if target.toy:
        splats, seeds, size = 2000, 500, (160, 107)
    scene = crowded(synthetic_scene(seeds, *size), splats)
    run = start_run(target, scene, splats, "none", START + 1)  # full images, all harmonics
    for _ in range(2 if target.toy else 10):
        run.step()
    target.wait()
    start, steps = time.perf_counter(), 0
    while steps < (3 if target.toy else STEPS) and time.perf_counter() - start < SECONDS:
        run.step()
        steps += 1
    target.wait()
    ms = 1e3 * (time.perf_counter() - start) / steps
    peak = torch.cuda.max_memory_allocated() / 2**20 if target.device == "cuda" else 0.0
    work = f"{splats:,} splats at {size[0]}x{size[1]}: {steps} steps of {ms:.3f} ms"
    print(f"{work}, loss {run.loss:.4f}, peak {peak:.0f} MiB")
    target.record("million", splats=splats, size=size, steps=steps, ms=ms, peak_mib=peak)


if __name__ == "__main__":
    main()
