"""Write the results of `run.sh` as a page: python -m tools.gpu.report FOLDER FILE.md."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

Figures = dict[str, list[dict[str, Any]]]
ROOT = Path(__file__).resolve().parents[2]
ROOFLINE = ROOT / "docs" / "results" / "cuda_roofline.md"
NOTABLE = 1.5  # a measured time over its bound by more is marked
# Kernels of a stage of the roofline page, by parts of their names, in the profile of W3.
KERNELS = {
    "project": ("project_kernel",),
    "shade": ("shade_kernel",),
    "blend": ("blend_kernel",),
    "blend backward": ("blend_backward_kernel", "gather_kernel"),
    "shade backward": ("shade_backward_kernel",),
    "project backward": ("project_backward_kernel",),
}


def read(folder: Path) -> Figures:
    """Read the figures of a run, by stage.

    Args:
        folder: OUT of `run.sh`.

    Returns:
        Records in the order of writing; empty where nothing was measured.
    """
    stages: Figures = defaultdict(list)
    path = folder / "figures.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        figures = json.loads(line)
        stages[figures.pop("stage")].append(figures)
    return stages


def bounds(page: str) -> dict[str, float]:
    """Return the microseconds that the roofline page gives for each stage on its last GPU.

    Args:
        page: Text of the roofline page.

    Returns:
        The larger of memory and compute, by stage.
    """
    bound = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        memory, compute = cells[-2:] if len(cells) > 6 else ("", "")
        if re.fullmatch(r"\d+", memory):
            bound[cells[0]] = max(float(memory), float((compute.split() or ["0"])[0]))
    return bound


def write(folder: Path) -> str:
    """Return the page as Markdown."""
    figures = read(folder)
    parts = [
        f"# Results on {_device(figures)}\n\nMade by `bash tools/gpu/run.sh` and "
        "`python -m tools.gpu.report`.\n",
        _block("Stages", _text(folder / "summary.txt")),
        _smoke(figures),
        _block("Tests", _tail(folder / "tests.txt", r"passed|failed|^FAILED|^ERROR|^SKIPPED")),
        _block("Sanitizers", _tail(folder / "sanitizer.txt", r"SUMMARY|agrees|WRONG|#####")),
        _speed(figures),
        _roofline(figures),
        _profiles(figures),
        _training(figures),
        _block("Kernel profiler", _tail(folder / "ncu.txt", r"^\s+\w.*\(|Duration|Throughput|Occ")),
    ]
    return "\n".join(part for part in parts if part)


def _device(figures: Figures) -> str:
    loaded = figures.get("load")
    if not loaded:
        return "a machine where the extension did not load"
    last = loaded[-1]
    return f"{last['device']}, torch {last['torch']}, CUDA {last['cuda']}"


def _smoke(figures: Figures) -> str:
    rows = figures.get("smoke")
    if not rows:
        return ""
    wrong = [r for r in rows if not r["good"]]
    text = f"## Operators beside the CPU backend\n\n{len(rows)} outputs, {len(wrong)} wrong.\n\n"
    names = ("operator", "output", "dtype", "difference")
    table = [[r[n] for n in names] + ["" if r["good"] else "**wrong**"] for r in rows]
    return text + _table([*names, ""], table)


def _speed(figures: Figures) -> str:
    if not figures.get("speed"):
        return ""
    result = figures["speed"][-1]
    workloads = result["workloads"]
    stages = list(next(iter(workloads.values()))["stages"])
    rows = [[s, *(f"{w['stages'][s]:.3f}" for w in workloads.values())] for s in stages]
    for name in next(iter(workloads.values()))["calls"]:
        rows.append(
            [f"whole call: {name}", *(f"{w['calls'][name]:.3f}" for w in workloads.values())]
        )
    text = f"## Operators, milliseconds, medians of {result['repeats']}\n\n"
    text += _table(["", *workloads], rows)
    step = result.get("training_step")
    if step:
        text += f"\nA training step, {step['splats']:,} splats, milliseconds by part:\n\n"
        text += _table(["part", "ms"], [[k, f"{v:.3f}"] for k, v in step["parts"].items()])
    return text


def _roofline(figures: Figures) -> str:
    profiles = [p for p in figures.get("profile", []) if p["name"].startswith("W3:")]
    if not profiles or not ROOFLINE.exists():
        return ""
    expected, rows = bounds(ROOFLINE.read_text(encoding="utf-8")), []
    for stage, names in KERNELS.items():
        kernel = re.compile(rf"\b({'|'.join(names)})\b")
        spent = sum(us for key, us, _ in profiles[-1]["kernels"] if kernel.search(key))
        if spent and stage in expected:
            ratio = spent / expected[stage]
            mark = " **explain**" if ratio > NOTABLE else ""
            rows.append([stage, f"{expected[stage]:.0f}", f"{spent:.0f}", f"{ratio:.2f}{mark}"])
    head = ["stage", "bound [us]", "measured [us]", "ratio"]
    note = "Bounds are those of [the roofline page](../cuda_roofline.md), for its last GPU.\n\n"
    return "## W3 and its bounds\n\n" + note + _table(head, rows) if rows else ""


def _profiles(figures: Figures) -> str:
    text = ""
    for profile in figures.get("profile", []):
        text += (
            f"\n## {profile['name']}\n\n{profile['ms']:.3f} ms elapsed, "
            f"{profile['busy_ms']:.3f} ms of kernels, {profile['launches']:.0f} launches.\n\n"
        )
        rows = [[f"`{k}`", f"{us:.1f}", f"{n:.1f}"] for k, us, n in profile["kernels"][:16]]
        text += _table(["kernel", "us", "calls"], rows)
    return text


def _training(figures: Figures) -> str:
    text = ""
    if figures.get("train"):
        head = list(figures["train"][0])
        text += "## The bundled scene\n\n"
        text += _table(head, [[_number(run[n]) for n in head] for run in figures["train"]])
    if figures.get("sweep"):
        rows = [[s["part"], f"{s['ms']:.1f}"] for s in figures["sweep"]]
        text += "\nParts of an exchange of `wfr`, milliseconds:\n\n" + _table(["part", "ms"], rows)
    for run in figures.get("million", []):
        width, height = run["size"]
        text += (
            f"\n{run['splats']:,} splats at {width}x{height}: {run['ms']:.3f} ms a step, mean of "
            f"{run['steps']}; peak memory {run['peak_mib']:.0f} MiB.\n"
        )
    return text


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _tail(path: Path, pattern: str) -> str:
    return "\n".join(line for line in _text(path).splitlines() if re.search(pattern, line))


def _block(title: str, text: str) -> str:
    return f"## {title}\n\n```\n{text.strip()}\n```\n" if text.strip() else ""


def main() -> None:
    """Write the page that the command line asks for."""
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    target = Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(write(Path(sys.argv[1])), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
