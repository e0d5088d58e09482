"""Timing of the CPU kernels beside the scalar peer, and of each instruction set."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.render import report
from benchmarks.render.kernels import Kernels, instruction_set
from benchmarks.render.options import ISAS, ROOT, Options
from benchmarks.render.peers import agreement, check_agreement
from benchmarks.render.scalar import ScalarRasterizer
from benchmarks.render.timing import Laps, time_stages
from benchmarks.render.training_step import time_training_step
from benchmarks.render.workloads import make_workload
from splatrender.runtime.malloc import keep_freed_memory


def time_cpu(options: Options) -> dict[str, Any]:
    """Time the workloads and a training step, and print their tables."""
    if options.isa:
        os.environ["SPLATRENDER_ISA"] = options.isa  # the extension reads it at the first call
    keep_freed_memory()  # as the trainer does
    results: dict[str, Any] = {
        "isa": instruction_set(),
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "repeats": options.repeats,
        "toy": options.toy,
        "workloads": {},
    }
    kernels = f"{os.cpu_count()} CPUs, kernels for {results['isa']}"
    print(f"{results['cpu']}, {kernels}, torch {torch.__version__}; medians of {options.repeats}")
    for name in options.workloads:
        results["workloads"][name] = time_workload(name, options)
        report.print_cpu(name, results["workloads"][name], quoted=not options.toy)
    if options.steps:
        torch.set_num_threads(options.threads[0])
        splats = min(options.splats, 2000) if options.toy else options.splats
        step = time_training_step(options.scene, splats, options.steps, toy=options.toy)
        where = f"{options.threads[0]} thread(s), mean of {options.steps} steps"
        report.print_step(step, where, "CPU ms")
        results["training_step"] = step
    return results


def time_workload(name: str, options: Options) -> dict[str, Any]:
    """Return all figures of one workload."""
    workload = make_workload(name, toy=options.toy)
    kernels = Kernels(workload)
    kernels.run(Laps())  # warms up
    figures: dict[str, Any] = {"threads": {}}
    for threads in options.threads:
        torch.set_num_threads(threads)
        figures["threads"][threads] = time_stages(kernels, options.repeats)
    figures["counts"] = kernels.counts()
    if options.scalar_repeats:
        scalar = ScalarRasterizer(workload)
        scalar.run(Laps())
        figures["agreement"] = agreement(kernels, scalar)
        check_agreement(name, figures["agreement"])
        figures["scalar"] = time_stages(scalar, options.scalar_repeats)
        figures["scalar_counts"] = scalar.counts()
    return figures


def compare_isas(options: Options) -> dict[str, Any]:
    """Time each instruction set that this CPU has, in a process of its own, and print a table."""
    print(f"{'CPU ms, one thread':<20}" + "".join(f"{name:>14}" for name in options.workloads))
    results: dict[str, Any] = {}
    for isa in ISAS:
        figures = time_isa(isa, options)
        if figures is None:
            continue
        results[isa] = figures
        for part in ("forward", "forward + backward"):
            times = [w["threads"]["1"][part]["cpu"] for w in figures["workloads"].values()]
            row = "".join(f"{ms:14.2f}" for ms in times)
            print(f"{isa if part == 'forward' else '':<9}{part:<11.11}" + row)
    return results


def time_isa(isa: str, options: Options) -> Any:
    """Return the figures of one instruction set, or None, with the reason printed."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks.render.raster", "--isa", isa]
        command += ["--threads", "1", "--steps", "0", "--scalar-repeats", "0"]
        command += ["--repeats", str(options.repeats), "--workloads", *options.workloads]
        command += ["--json", str(target), *["--toy"] * options.toy]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"{isa:<20}  {reason}")
            return None
        return json.loads(target.read_text(encoding="utf-8"))


def cpu_name() -> str:
    """Return the model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
