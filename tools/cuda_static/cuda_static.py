"""Report on the compiled CUDA kernels, without a GPU.

Registers, memory, occupancy, machine instructions per pair of splat and pixel, and bytes per pair
of splat and tile; for other rasterizers too, compiled by the same nvcc with the same flags from
sources that the user has. Needs nvcc, and `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`
where the CUDA installation is without them.

    python -m tools.cuda_static.cuda_static
    python -m tools.cuda_static.cuda_static --gsplat FOLDER --markdown docs/results/cuda_static.md
    python -m tools.cuda_static.cuda_static --update-limits  # tests/cuda/cuda_resources.json
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tools.cuda_static.cuda_build import (
    ROOT,
    Compiled,
    compile_all,
    cuda_sources,
    disassemble,
    nvcc_release,
    threads_per_block,
)
from tools.cuda_static.gsplat_kernels import DESIGNS as GSPLAT
from tools.cuda_static.gsplat_kernels import prepare, version
from tools.cuda_static.kernel_loops import OURS, Design, count, find_kernel
from tools.cuda_static.occupancy import Request, occupancies
from tools.cuda_static.records import Loops, Row
from tools.cuda_static.sass import parse
from tools.cuda_static.static_tables import markdown

ARCHS = ("sm_80", "sm_90")
THREADS = 256  # of a block, where a kernel was compiled for any number: launch_over's, and gsplat's
LIMITS = ROOT / "tests" / "cuda" / "cuda_resources.json"


def our_kernels(archs: tuple[str, ...] = ARCHS) -> list[Compiled]:
    """Compile every kernel of csrc/cuda but those of libraries."""
    return compile_all(cuda_sources(), archs)


def loops_of(
    name: str, designs: Mapping[str, tuple[Design, ...]], compiled: list[Compiled]
) -> list[Loops]:
    """Count the blend loops of a rasterizer.

    Args:
        name: name of the rasterizer.
        designs: designs of its kernels by direction.
        compiled: its kernels.

    Returns:
        A count per direction and architecture.
    """
    found = []
    for arch in dict.fromkeys(c.arch for c in compiled):
        codes, names = {}, {}
        for one in compiled:
            wanted = [d.pattern for ds in designs.values() for d in ds]
            if one.arch == arch and any(_has(one, pattern) for pattern in wanted):
                codes.update(parse(disassemble(one.cubin, "-sass")))
                names.update({mangled: r.kernel for mangled, r in one.kernels.items()})
        for direction, kernels in designs.items():
            counts = [
                c for design in kernels
                for c in count(codes[find_kernel(names, design.pattern)], design)
            ]  # fmt: skip
            found.append(Loops(name, direction, arch, tuple(counts)))
    return found


def rows_of(compiled: list[Compiled], designs: Mapping[str, tuple[Design, ...]]) -> list[Row]:
    """Collect resources and occupancy of every kernel.

    Args:
        compiled: the kernels.
        designs: source of the dynamic shared memory.

    Returns:
        A row per kernel and architecture.
    """
    extra = {d.pattern: d.dynamic_shared for ds in designs.values() for d in ds}
    rows, requests = [], []
    for one in compiled:
        blocks = threads_per_block(one.cubin)
        for mangled, r in sorted(one.kernels.items(), key=lambda item: item[1].kernel):
            dynamic = next((n for p, n in extra.items() if re.fullmatch(p, r.kernel)), 0)
            block = blocks.get(mangled, THREADS)
            rows.append((one.arch, r, block, dynamic))
            requests.append(Request(one.arch, block, r.registers, r.shared + dynamic))
    return [Row(*row, o) for row, o in zip(rows, occupancies(requests), strict=True)]


def limits_of(compiled: list[Compiled]) -> dict[str, dict[str, dict[str, int]]]:
    """Return registers and static shared memory by architecture and kernel, as in the limits file.

    Raises:
        ValueError: two kernels have one name.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for one in compiled:
        kernels = found.setdefault(one.arch, {})
        for r in one.kernels.values():
            if r.kernel in kernels:
                raise ValueError(
                    f"expected one kernel {r.kernel}, got another in {one.source.name}"
                )
            kernels[r.kernel] = {"registers": r.registers, "shared": r.shared}
    return {arch: dict(sorted(kernels.items())) for arch, kernels in found.items()}


def write_limits(compiled: list[Compiled]) -> None:
    """Rewrite the limits file, a kernel a line; its limits of instructions are kept."""
    kept = json.loads(LIMITS.read_text())
    lines = [f'  "instructions_per_pair": {json.dumps(kept["instructions_per_pair"])}']
    lines.append(f'  "nvcc": {json.dumps(nvcc_release())}')
    for arch, kernels in limits_of(compiled).items():
        inner = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in kernels.items())
        lines.append(f'  "{arch}": {{\n{inner}\n  }}')
    LIMITS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    options = _parser().parse_args()
    compiled = our_kernels(tuple(options.arch))
    if options.update_limits:
        if tuple(options.arch) != ARCHS:
            raise SystemExit(f"--update-limits: expected --arch {' '.join(ARCHS)}")
        write_limits(compiled)
    loops, rows = loops_of("splatrender", OURS, compiled), rows_of(compiled, OURS)
    peers: list[Row] = []
    if options.gsplat:
        with tempfile.TemporaryDirectory() as folder:
            sources, extra = prepare(options.gsplat, Path(folder))
            theirs = compile_all(sources, options.arch, extra=extra, cache=Path(folder))
            loops += loops_of(f"gsplat {version(options.gsplat)}", GSPLAT, theirs)
            peers = rows_of(theirs, GSPLAT)
    text = markdown(loops, rows, peers, nvcc_release())
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        figures = {
            "nvcc": nvcc_release(),
            "loops": [
                {
                    **{key: getattr(x, key) for key in ("rasterizer", "direction", "arch")},
                    "per_pixel": x.per_pixel(),
                    "per_entry": x.per_entry(),
                    "flops": x.flops("pixel"),
                    "missed": x.missed(),
                    "bytes": x.bytes(),
                }
                for x in loops
            ],
            "kernels": [asdict(row) for row in [*rows, *peers]],
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _has(compiled: Compiled, pattern: str) -> bool:
    try:
        find_kernel({m: r.kernel for m, r in compiled.kernels.items()}, pattern)
    except ValueError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Report on the compiled CUDA kernels; no GPU is needed."
    )
    parser.add_argument(
        "--arch",
        nargs="+",
        default=list(ARCHS),
        help="architectures to compile for, such as sm_80 sm_90",
    )
    parser.add_argument("--gsplat", type=Path, help="folder with gsplat's sources, for comparison")
    parser.add_argument("--markdown", type=Path, help="file to which the tables are also written")
    parser.add_argument("--json", type=Path, help="file to which all figures are written")
    parser.add_argument(
        "--update-limits", action="store_true", help="rewrite tests/cuda/cuda_resources.json"
    )
    return parser


if __name__ == "__main__":
    main()
