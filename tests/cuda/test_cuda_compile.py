"""nvcc compiles every CUDA kernel without spills, within the limits of cuda_resources.json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import REPOSITORY

LIMITS = json.loads(Path(__file__).with_name("cuda_resources.json").read_text())
ARCHS = ("sm_80", "sm_90")
UPDATE = "after a wanted change: python -m tools.cuda_static.cuda_static --update-limits"
LOOP = """
Function : kernel
    /*0000*/  MOV R1, RZ ;
    /*0010*/  LDS R2, [R1] ;
    /*0020*/  BSSY B0, 0x60 ;
    /*0030*/  @P1 BRA 0x50 ;
    /*0040*/  MUFU.EX2 R3, R2 ;
    /*0050*/  BSYNC B0 ;
    /*0060*/  @!P0 CALL.REL.NOINC 0x90 ;
    /*0070*/  @P2 BRA 0x10 ;
    /*0080*/  BRA 0x0 ;
    /*0090*/  STG.E.128 desc[UR4][R4.64], R8 ;
    /*00a0*/  EXIT ;
    /*00b0*/  BRA 0xb0;
"""


@pytest.fixture(scope="module")
def static() -> SimpleNamespace:
    """Return the modules of tools.cuda_static."""
    from tools.cuda_static import (
        cuda_build,
        cuda_static,
        gsplat_kernels,
        kernel_loops,
        occupancy,
        sass,
    )

    return SimpleNamespace(
        build=cuda_build,
        main=cuda_static,
        gsplat=gsplat_kernels,
        loops=kernel_loops,
        occupancy=occupancy,
        sass=sass,
    )


@pytest.fixture(scope="module")
def compiled(static: SimpleNamespace) -> list[Any]:
    """Compile every kernel file for both architectures, once per version of the sources."""
    if static.build.find_tool("nvcc") is None:
        pytest.skip("no nvcc on the PATH or in CUDA_HOME: the CUDA kernels are not compiled")
    kernels: list[Any] = static.main.our_kernels(ARCHS)
    return kernels


@pytest.fixture(scope="module")
def disassembler(static: SimpleNamespace, compiled: list[Any]) -> None:
    """Skip where machine code cannot be read."""
    for tool in ("cuobjdump", "nvdisasm"):
        if static.build.find_tool(tool) is None:
            pytest.skip(f"no {tool} (pip install nvidia-cuda-{tool}): instructions are not counted")


def test_no_kernel_spills(compiled: list[Any]) -> None:
    kernels = [(one.arch, r) for one in compiled for r in one.kernels.values()]
    assert len(kernels) > 10
    spilling = [(arch, r.kernel, r.spills) for arch, r in kernels if r.spills]
    assert not spilling, f"(architecture, kernel, bytes): {spilling}"


@pytest.mark.parametrize("arch", ARCHS)
def test_registers_and_shared_memory_are_those_on_file(
    static: SimpleNamespace, compiled: list[Any], arch: str
) -> None:
    release = static.build.nvcc_release()
    if release != LIMITS["nvcc"]:
        pytest.skip(f"limits are those of nvcc {LIMITS['nvcc']}, this is {release}")
    found, on_file = static.main.limits_of(compiled)[arch], LIMITS[arch]
    drift = {
        kernel: (on_file.get(kernel), found.get(kernel))
        for kernel in sorted({*found, *on_file})
        if on_file.get(kernel) != found.get(kernel)
    }
    assert not drift, f"kernel: (on file, found): {drift}; {UPDATE}"


@pytest.mark.parametrize("arch", ARCHS)
def test_blocks_fit_a_multiprocessor(static: SimpleNamespace, arch: str) -> None:
    most = {"sm_80": 163 << 10, "sm_90": 227 << 10}[arch]
    for kernel, limit in LIMITS[arch].items():
        assert limit["registers"] <= 255 and limit["shared"] <= min(most, 48 << 10), kernel


def test_inner_loops_stay_short(
    static: SimpleNamespace, compiled: list[Any], disassembler: None
) -> None:
    loops = static.main.loops_of("ours", static.loops.OURS, compiled)
    assert {(x.direction, x.arch) for x in loops} == {
        (direction, arch) for direction in ("forward", "backward") for arch in ARCHS
    }
    for x in loops:
        classes = x.per_pixel()
        found, most = sum(classes.values()), LIMITS["instructions_per_pair"][x.direction]
        assert 10 < found <= most, (x.direction, x.arch, classes)
        assert "RED/ATOM" not in classes and "LDL/STL" not in classes
        assert classes["MUFU"] >= 1  # 2^x, or the loop is not the one it is taken for


def test_a_design_that_does_not_fit_is_refused(
    static: SimpleNamespace, compiled: list[Any], disassembler: None
) -> None:
    kernel_loops = static.loops
    one = next(x for x in compiled if x.source.name == "blend_cuda.cu")
    names = {mangled: r.kernel for mangled, r in one.kernels.items()}
    design = kernel_loops.OURS["forward"][0]
    code = static.sass.parse(static.build.disassemble(one.cubin, "-sass"))
    function = code[kernel_loops.find_kernel(names, design.pattern)]
    blend = kernel_loops.Phase("blend", "", marker="MUFU.EX2", markers=3, pairs=3)
    with pytest.raises(ValueError, match=r"multiple of 3 MUFU\.EX2, got 2"):
        kernel_loops.count(function, kernel_loops.Design(design.pattern, (blend,)))
    fetch = kernel_loops.Phase("fetch", "", marker="BAR", entries=1, threads=1)
    with pytest.raises(ValueError, match="no loops within but those of the table"):
        kernel_loops.count(function, kernel_loops.Design(design.pattern, (fetch,)))
    with pytest.raises(ValueError, match="one kernel nonesuch, got 0"):
        kernel_loops.find_kernel(names, "nonesuch")


def test_loops_are_found_by_control_flow(static: SimpleNamespace) -> None:
    function = static.sass.parse(LOOP)["kernel"]
    outer, inner = function.all_loops()
    assert outer.children == [inner] and (outer.head, inner.head) == (0x0, 0x10)
    assert [i.word for i in inner.own] == ["LDS", "BSSY", "BRA", "MUFU", "BSYNC", "CALL", "BRA"]
    assert [i.word for i in outer.own] == ["MOV", "BRA"]  # not what lies behind the way out
    assert static.sass.count_by_class(inner.own) == {"MUFU": 1, "LDS/STS": 1, "CTRL": 5}
    way = static.sass.longest_without(function, inner, "MUFU.EX2")
    assert [i.word for i in way] == ["LDS", "BSSY", "BRA", "BSYNC", "CALL", "BRA"]
    assert static.sass.longest_without(function, inner, "LDS") is None
    store = next(i for i in function.instructions if i.word == "STG")
    assert store.width == 16 and store.kind == "LDG/STG"


def test_report_of_a_spill_is_read(static: SimpleNamespace) -> None:
    words = """ptxas info    : Compiling entry function '_Z1kv' for 'sm_90'
ptxas info    : Function properties for _Z1kv
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 16 bytes cumulative stack size, 640 bytes smem
"""
    assert static.build.parse_report(words) == {"_Z1kv": (80, 640, 16, 20)}
    with pytest.raises(ValueError, match="registers and stack of _Z1kv"):
        static.build.parse_report(words.splitlines()[0])


def test_flags_are_known_files(static: SimpleNamespace) -> None:
    names = {p.name for p in static.build.cuda_sources(libraries=True)}
    assert set(static.build.FLAGS["flags_of_file"]) <= names
    assert set(static.build.LIBRARY_SOURCES) <= names
    assert set(ARCHS) <= set(static.build.FLAGS["architectures"])


def test_missing_sources_of_a_peer_are_named(static: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"RasterizeToPixels3DGSFwd\.cu"):
        static.gsplat.prepare(tmp_path, tmp_path)


def test_command_writes_tables_and_figures(
    static: SimpleNamespace,
    disassembler: None,
    tmp_path: Path,
) -> None:
    table, figures = tmp_path / "table.md", tmp_path / "figures.json"
    command = [sys.executable, "-m", "tools.cuda_static.cuda_static", "--arch", "sm_80"]
    command += ["--markdown", str(table), "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert table.read_text().strip() == done.stdout.strip()
    found = json.loads(figures.read_text())
    assert [x["direction"] for x in found["loops"]] == ["forward", "backward"]
    assert all(x["per_pixel"]["FP32"] > 5 and x["bytes"] > 30 for x in found["loops"])
    blend = next(k for k in found["kernels"] if k["resources"]["kernel"].startswith("blend_kernel"))
    assert blend["threads"] == 128 and 0 < blend["occupancy"]["share"] <= 1


def test_occupancy_of_a_known_case(static: SimpleNamespace, compiled: list[Any]) -> None:
    """65,536 registers hold 8 blocks of 256 threads with 32 each, and 5 of 48."""
    request = static.occupancy.Request
    full, part, thin = static.occupancy.occupancies(
        [
            request("sm_80", 256, 32, 9216),
            request("sm_90", 256, 48, 10240),
            request("sm_80", 128, 32, 40000),
        ]
    )
    assert (full.blocks, full.share, full.limited_by) == (8, 1.0, "warps, registers")
    assert (part.blocks, part.share, part.limited_by) == (5, 0.625, "registers")
    assert (thin.blocks, thin.limited_by) == (4, "shared memory")  # 4 of 40 KB in 164 KB


def test_tracked_table_is_that_of_the_kernels(
    static: SimpleNamespace, compiled: list[Any], disassembler: None
) -> None:
    release = static.build.nvcc_release()
    if release != LIMITS["nvcc"]:
        pytest.skip(f"the table is that of nvcc {LIMITS['nvcc']}, this is {release}")
    tracked = REPOSITORY.joinpath("docs", "results", "cuda_static.md").read_text()
    loops = static.main.loops_of("splatrender", static.loops.OURS, compiled)
    for x in loops:
        row = next(
            line
            for line in tracked.splitlines()
            if line.startswith(f"| {x.direction} | {x.arch} | **splatrender** |")
        )
        total = sum(x.per_pixel().values())
        assert float(row.split("**")[-2]) == pytest.approx(total, abs=0.051), (row, UPDATE)


def test_roofline_runs_to_the_end(disassembler: None, tmp_path: Path) -> None:
    table = tmp_path / "roofline.md"
    command = [sys.executable, "-m", "tools.cuda_static.roofline", "--markdown", str(table)]
    command += ["--splats", "2000", "--size", "160", "90"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in table.read_text().splitlines() if line.startswith("| ")]
    named = {row[0].removeprefix("| "): row for row in rows}
    assert named["splats"][1].startswith("2,000")
    assert {"project", "blend", "blend backward", "Adam"} <= set(named)
    for stage in ("blend backward", "loss"):
        assert named[stage][-1].removesuffix(" |").endswith("issue")


def test_units_of_instructions(static: SimpleNamespace) -> None:
    lines = ["IADD3 R0, R1, R2, RZ", "IMAD R0, R1, R2, RZ", "FFMA R0, R1, R2, R3", "FLO.U32 R0, R1"]
    lines += [
        "FSEL R0, R1, R2, P0",
        "LDS.128 R4, [R0]",
        "LDS R0, [R1]",
        "SHFL.BFLY PT, R0, R0, 1, 31",
    ]
    text = "".join(f"    /*{16 * k:04x}*/  {line} ;\n" for k, line in enumerate(lines))
    code = static.sass.parse(f"Function : kernel\n{text}")["kernel"].instructions
    assert static.sass.alu(code) == 2  # IADD3 and FSEL: products and sums of products run elsewhere
    assert static.sass.wavefronts(code, {"LDS.128": 4}) == 6
    assert static.sass.count_by_class(code)["MUFU"] == 1
