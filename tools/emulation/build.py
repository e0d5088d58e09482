"""Compile the CUDA kernels for the CPU: `python -m tools.emulation.build KIND...` prints the paths.

Kinds:
    emulated           torch library: the .cu files as C++, operators in `splatrender_emulated`
    ptx                the same with the kernels' bodies translated from the PTX that nvcc makes of
                       them, operators in `splatrender_ptx`
    asan, ubsan, tsan  program: every stage on small scenes (exercise.cpp) under a sanitizer
    toys               Python module: small kernels that test the emulation; needs pybind11
    toys-ptx           the same by way of PTX
    toys-ucontext      the same on the stacks for CPUs that fiber.cpp has no assembly for
    toys-asan, toys-ubsan, toys-tsan  program: one of the small kernels under a sanitizer

Objects are kept in build/emulation under a hash of their sources, headers and flags. Environment:
CXX, and MAX_JOBS, the number of compilers at a time (default: the number of CPUs).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "csrc/cuda"
HERE = ROOT / "tools/emulation"
OUTPUT = ROOT / "build/emulation"

WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-maybe-uninitialized")
BASE = (
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-DSPLATRENDER_EMULATED",
    f"-I{HERE}",
    *WARNINGS,
)
# The linker must never mix two of these libraries in one process: only the settings are visible.
LIBRARY = ("-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-ipa-icf")
# Every result of a PTX instruction is rounded, registers are reinterpreted, and many stay unused.
TRANSLATED = ("-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
SANITIZERS = {
    "asan": ("-fsanitize=address",),
    "ubsan": ("-fsanitize=undefined,bounds-strict", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
}
# Settings of the runtime, which is compiled without instrumentation, for each of them.
SANITIZER_MACROS = {
    "asan": ("-DSIMT_ASAN", "-DSIMT_PLAIN_SHARED"),
    "ubsan": ("-DSIMT_PLAIN_SHARED",),
    "tsan": ("-DSIMT_TSAN",),
}
RUNTIME = ("simt.cpp", "fiber.cpp", "settings.cpp", "symbols.cpp")


class BuildError(RuntimeError):
    """Error of a compiler; the message is its output."""


@dataclass(frozen=True)
class Job:
    """One source file and the flags it is compiled with."""

    source: Path
    flags: tuple[str, ...]


def build(kind: str) -> Path:
    """Compile what is out of date for `kind`, one of those listed above.

    Returns:
        The library, module or program.

    Raises:
        BuildError: a compiler fails; the message is its output.

    Example:
        >>> torch.ops.load_library(build("emulated"))
    """
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with (OUTPUT / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for what the first one compiles
        return _build(kind)


def _build(kind: str) -> Path:
    toys = kind.startswith("toys")
    variant = kind.removeprefix("toys").removeprefix("-") if toys else kind
    if variant in SANITIZERS:
        return _sanitized(kind, variant, toys)
    if toys and variant in ("", "ptx", "ucontext"):
        return _module(variant)
    if kind in ("emulated", "ptx"):
        return _torch_library(kind)
    raise ValueError(f"kind: expected one of those in the docstring, got {kind!r}")


def has_nvcc() -> bool:
    """Check that nvcc is there, which makes PTX."""
    return shutil.which("nvcc") is not None


def kernel_sources() -> list[Path]:
    """List the kernel files, without prims.cu: prims.cpp replaces CUB here."""
    return sorted(p for p in CUDA.glob("*.cu") if p.name != "prims.cu")


def _torch_library(kind: str) -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("torch is not installed")
    torch = Path(spec.origin).parent
    plain = (*BASE, *LIBRARY, *_cpu_flags())
    host = (
        *plain,
        "-O0",  # torch's headers take longer to optimise than to run
        f"-isystem{torch}/include",
        f"-isystem{torch}/include/torch/csrc/api/include",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
    )
    namespace = f"-DSPLATRENDER_NAMESPACE=splatrender_{kind}"
    jobs = [
        Job(source, (*host, namespace) if source.name == "ops.cpp" else host)
        for source in sorted((ROOT / "csrc").glob("*.cpp"))
    ]
    jobs += [Job(HERE / name, (*plain, "-O2")) for name in (*RUNTIME, "prims.cpp")]
    jobs += _kernel_jobs(kernel_sources(), by_ptx=kind == "ptx")
    link = (
        "-shared",
        "-Wl,-Bsymbolic",
        "-Wl,--no-undefined",
        f"-L{torch}/lib",
        "-ltorch",
        "-ltorch_cpu",
    )
    return _link(OUTPUT / f"libsplatrender_{kind}.so", jobs, link)


def _module(variant: str) -> Path:
    import pybind11

    name = f"simt_toys_{variant or 'plain'}"  # pybind11 loads one module of a name
    python = sysconfig.get_paths()["include"]
    flags = (*BASE, *LIBRARY, *_cpu_flags())
    include = (f"-isystem{pybind11.get_include()}", f"-isystem{python}")
    bind = (*flags, *include, f"-DMODULE={name}", "-O0")
    stacks = ("-DSIMT_UCONTEXT",) if variant == "ucontext" else ()
    jobs = [Job(HERE / source, (*flags, "-O2", *stacks)) for source in RUNTIME]
    jobs += [Job(HERE / "toys_module.cpp", bind)]
    jobs += _kernel_jobs([HERE / "toys.cu"], by_ptx=variant == "ptx")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return _link(OUTPUT / f"{name}{suffix}", jobs, ("-shared", "-Wl,-Bsymbolic"))


def _sanitized(kind: str, sanitizer: str, toys: bool) -> Path:
    macros = SANITIZER_MACROS[sanitizer]
    plain = (*BASE, *_cpu_flags(), *macros, "-O0", "-g1", "-fno-omit-frame-pointer")
    checked = (*plain, *SANITIZERS[sanitizer])
    sources = [HERE / "toys.cu", HERE / "toys_main.cpp"]
    if not toys:
        sources = [*kernel_sources(), HERE / "prims.cpp", HERE / "exercise.cpp"]
    jobs = [Job(HERE / name, (*plain, "-O2")) for name in RUNTIME]
    jobs += [Job(source, (*checked, *_contraction(source))) for source in sources]
    return _link(OUTPUT / kind, jobs, SANITIZERS[sanitizer])


def _kernel_jobs(sources: list[Path], by_ptx: bool) -> list[Job]:
    flags = (*BASE, *LIBRARY, *_cpu_flags())
    if not by_ptx:
        return [Job(source, (*flags, "-O2", *_contraction(source))) for source in sources]
    with ThreadPoolExecutor(_workers()) as pool:
        translated = list(pool.map(_translate, sources))
    # The C++ bodies of the kernels are there for their addresses only.
    return [Job(source, (*flags, "-O0")) for source in sources] + [
        Job(source, (*flags, *TRANSLATED, f"-I{HERE}")) for source in translated
    ]


def _nvcc_flags(source: Path) -> list[str]:
    """Return the flags of csrc/cuda/flags.json, which the wheel is built with too."""
    settings = json.loads((CUDA / "flags.json").read_text())
    return [*settings["flags"], *settings["flags_of_file"].get(source.name, [])]


def _contraction(source: Path) -> tuple[str, ...]:
    """Return the flags that fuse multiplications and additions where nvcc fuses them."""
    return ("-ffp-contract=off",) if "--fmad=false" in _nvcc_flags(source) else ()


def _translate(source: Path) -> Path:
    """Translate the PTX of a kernel file to C++."""
    command = ["nvcc", *_nvcc_flags(source), "-arch=compute_90", "-ptx", "-diag-suppress=177,550"]
    key = _key(source, (*command, _version("nvcc")))
    ptx = OUTPUT / f"ptx/{source.stem}-{key}.ptx"
    if not ptx.exists():
        _run([*command, str(source), "-o"], ptx)
    translator = b"".join(p.read_bytes() for p in sorted(HERE.glob("ptx_*.py")))
    target = ptx.with_name(f"{ptx.stem}-{hashlib.sha256(translator).hexdigest()[:12]}.cpp")
    if not target.exists():
        from tools.emulation.ptx_to_cpp import translate

        _replace(target, translate(ptx.read_text(), f"{source.stem}.ptx"))
    return target


def _link(target: Path, jobs: list[Job], flags: tuple[str, ...]) -> Path:
    with ThreadPoolExecutor(_workers()) as pool:
        objects = list(pool.map(_compile, jobs))
    command = [_compiler(), *map(str, objects), *flags, "-lpthread", "-ldl", "-o"]
    stamp = target.with_name(target.name + ".link")
    recipe = " ".join(command)
    if not target.exists() or not stamp.exists() or stamp.read_text() != recipe:
        _run(command, target)
        _replace(stamp, recipe)
    return target


def _compile(job: Job) -> Path:
    key = _key(job.source, (*job.flags, _version(_compiler())))
    target = OUTPUT / f"objects/{job.source.stem}-{key}.o"
    if not target.exists():
        _run([_compiler(), *job.flags, "-x", "c++", "-c", str(job.source), "-o"], target)
    return target


def _run(command: list[str], target: Path) -> None:
    """Run a command that ends with `-o`; its output appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{os.getpid()}-{target.name}")
    done = subprocess.run([*command, str(draft)], capture_output=True, text=True)
    if done.returncode != 0:
        draft.unlink(missing_ok=True)
        raise BuildError(f"{' '.join(command)} {draft}\n{done.stderr}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    os.replace(draft, target)


def _replace(target: Path, text: str) -> None:
    draft = target.with_name(f".{os.getpid()}-{target.name}")
    draft.write_text(text)
    os.replace(draft, target)


def _key(source: Path, flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for file in sorted(_with_headers(source)):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _with_headers(source: Path) -> set[Path]:
    """Return the file and all that it includes in quotes, directly or not."""
    found: set[Path] = set()
    todo = [source]
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', file.read_text(), re.MULTILINE):
            todo += [p for p in ((file.parent / name).resolve(), HERE / name) if p.exists()]
    return found


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


def _workers() -> int:
    return int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)


@cache
def _cpu_flags() -> tuple[str, ...]:
    """Return the flags for fused multiply-add where the CPU has it: the library's fma is slow."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    capable = platform.machine() == "x86_64" and {"fma", "avx2", "bmi2", "movbe"} <= words
    return ("-march=x86-64-v3",) if capable else ()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    try:
        for kind in sys.argv[1:]:
            print(build(kind))
    except (BuildError, ValueError) as error:
        raise SystemExit(str(error)) from None
