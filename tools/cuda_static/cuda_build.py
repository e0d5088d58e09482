"""nvcc on one source at a time: a cubin, and the assembler's report on its kernels.

Results stay in build/cuda_static, by a hash of sources, flags and compiler: a second run is free.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "cuda_static"
FLAGS = json.loads((ROOT / "csrc/cuda/flags.json").read_text())
LIBRARY_SOURCES = ("prims.cu",)  # its kernels are CUB's: not ours to limit, and slow to compile
_ENTRY = re.compile(r"Compiling entry function '(\S+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
_NAMESPACE = re.compile(r"(?:\(anonymous namespace\)::|\b[A-Za-z_]\w*::)+")


@dataclass(frozen=True)
class Resources:
    """Resources of a kernel: per thread registers, stack and spills, per block shared memory.

    Attributes:
        kernel: its short name, such as blend_kernel<float, 3, 0>.
        registers: of 32 bits. shared: static, bytes. stack, spills: bytes of local memory.
    """

    kernel: str
    registers: int
    shared: int
    stack: int
    spills: int


@dataclass(frozen=True)
class Compiled:
    """One source for one architecture: its cubin, and its kernels by mangled name."""

    source: Path
    arch: str
    cubin: Path
    kernels: dict[str, Resources]


def find_tool(name: str) -> str | None:
    """Find a tool of CUDA's on the PATH, in CUDA_HOME, at the usual place or from PyPI.

    Args:
        name: nvcc, cuobjdump or nvdisasm.

    Returns:
        Its path, or None without one.
    """
    places = [Path(p) for p in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if p]
    places += [p for entry in sys.path for p in sorted(Path(entry).glob("nvidia/cu*"))]
    search = [str(p / "bin") for p in places]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(search))


@cache
def disassemble(cubin: Path, *options: str) -> str:
    """Return what cuobjdump prints of a cubin: machine code with -sass, tables with -elf."""
    found = {name: find_tool(name) for name in ("cuobjdump", "nvdisasm")}
    for name, path in found.items():
        if path is None:
            raise SystemExit(
                f"expected {name} on the PATH or in CUDA_HOME, got none; "
                "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
            )
    folders = [str(Path(path).parent) for path in found.values() if path]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])  # cuobjdump calls nvdisasm
    done = subprocess.run(
        [str(found["cuobjdump"]), *options, str(cubin)],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    if done.returncode != 0:
        raise SystemExit(f"cuobjdump {cubin}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def threads_per_block(cubin: Path) -> dict[str, int]:
    """Read the largest block that each kernel was compiled for (__launch_bounds__)."""
    pieces = re.split(r"^\.nv\.info\.(\S+)", disassemble(cubin, "-elf"), flags=re.MULTILINE)[1:]
    found = {}
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        match = re.search(r"EIATTR_(?:MAX_THREADS|REQNTID)\s+Format:\s+\S+\s+Value:\s+(.+)", text)
        if match:
            found[name] = math.prod(int(word, 16) for word in match[1].split())
    return found


@cache
def nvcc_release() -> str:
    """Return the release of nvcc, such as 13.0.88."""
    words = subprocess.run(
        [_nvcc(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"release [\d.]+, V([\d.]+)", words)
    return found[1] if found else words.strip().splitlines()[-1]


def cuda_sources(*, libraries: bool = False) -> list[Path]:
    """List the kernel files; with `libraries` also those that only instantiate library kernels."""
    found = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    return [p for p in found if libraries or p.name not in LIBRARY_SOURCES]


def flags_of(source: Path) -> list[str]:
    """Return nvcc's flags for a kernel file, the same that setup.py uses."""
    return [*FLAGS["flags"], *FLAGS["flags_of_file"].get(source.name, [])]


def compile_all(
    sources: Iterable[Path],
    archs: Iterable[str],
    *,
    extra: tuple[str, ...] = (),
    jobs: int = 2,
    cache: Path = CACHE,
) -> list[Compiled]:
    """Compile every source for every architecture, or reuse what an earlier run has compiled.

    Args:
        sources: kernel files.
        archs: such as sm_80.
        extra: more flags.
        jobs: compilers at a time.
        cache: where the results are kept.

    Returns:
        In the order of sources, then archs.

    Raises:
        SystemExit: a source does not compile; the message is nvcc's.
    """
    pairs = [(source, arch) for source in sources for arch in tuple(archs)]
    headers = _headers_hash()
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda p: _compile(p[0], p[1], extra, headers, cache), pairs))


def short_names(mangled: Iterable[str]) -> dict[str, str]:
    """Return the names without return type, namespaces and arguments, by mangled name."""
    names = list(mangled)
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return dict(zip(names, map(_short_name, done.stdout.splitlines()), strict=True))


def parse_report(words: str) -> dict[str, tuple[int, int, int, int]]:
    """Read registers, static shared memory, stack and spills from `ptxas -v`, by mangled name.

    Example:
        >>> parse_report('''ptxas info : Compiling entry function 'k' for 'sm_90'
        ...     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
        ... ptxas info : Used 32 registers, used 1 barriers, 9216 bytes smem''')
        {'k': (32, 9216, 8, 8)}
    """
    found: dict[str, tuple[int, int, int, int]] = {}
    pieces = _ENTRY.split(words)[1:]
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        used, stack = _USED.search(text), _STACK.search(text)
        if used is None or stack is None:
            raise ValueError(f"ptxas -v: expected registers and stack of {name}, got {text!r}")
        frame, stores, loads = map(int, stack.groups())
        found[name] = (int(used[1]), int(used[2] or 0), frame, stores + loads)
    return found


def _compile(
    source: Path, arch: str, extra: tuple[str, ...], headers: str, cache: Path
) -> Compiled:
    flags = [*flags_of(source), *extra]
    key = repr((headers, source.name, source.read_bytes(), arch, flags, nvcc_release()))
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:16]
    cubin, report = folder / f"{source.stem}.{arch}.cubin", folder / "ptxas.txt"
    if not (cubin.exists() and report.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = cubin.with_suffix(f".{os.getpid()}.tmp")
        command = [_nvcc(), *flags, f"-arch={arch}", "-Xptxas", "-v", "-cubin", str(source)]
        done = subprocess.run([*command, "-o", str(unfinished)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr or done.stdout}")
        report.write_text(done.stderr + done.stdout)
        os.replace(unfinished, cubin)
    numbers = parse_report(report.read_text())
    names = short_names(numbers)
    kernels = {name: Resources(names[name], *numbers[name]) for name in numbers}
    return Compiled(source, arch, cubin, kernels)


def _headers_hash() -> str:
    """Return a hash of everything that a kernel file may include."""
    digest = hashlib.sha256()
    headers = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cuh")]
    for path in sorted(headers):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _nvcc() -> str:
    found = find_tool("nvcc")
    if found is None:
        raise SystemExit("expected nvcc on the PATH or in CUDA_HOME, got none")
    return found


def _short_name(demangled: str) -> str:
    """Shorten a name: void a::k<a::F, 3>(float*) -> k<F, 3>."""
    plain = _NAMESPACE.sub("", demangled)
    depth = 0
    for place, letter in enumerate(plain):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            plain = plain[:place]
            break
    return plain.removeprefix("void ").strip()
