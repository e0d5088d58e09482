"""Builds splatrender/_C.abi3.so: the CPU kernels once per instruction set, on torch's stable ABI.

torch is needed for its headers only and need not be importable: an isolated `pip install .` finds the one that is
installed beside it, so nothing is downloaded and no version has to match. Environment:

    SPLATRENDER_CUDA=0|1   0 leaves the CUDA kernels out, 1 fails when they cannot be built; default: when nvcc is there
    MAX_JOBS=N             compilers at a time (default: the number of CPUs)
"""

import os
import platform
import shutil
import site
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SOURCES = [
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").glob("*.cpp")),
    "csrc/cpu/dispatch.cpp",
]
STAGE_SOURCES = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / "csrc/cpu").glob("*.cpp")
    if p.name != "dispatch.cpp"
)
CUDA_SOURCES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc/cuda").glob("*.cu"))
# errno and traps are never read; contraction to fused multiply-add is wanted. NaN and infinity keep their meaning.
FLAGS = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += [
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",
    "-Wno-unknown-pragmas",
]
ISA_FLAGS = {"portable": []}
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
if IS_X86:
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma"]
    ISA_FLAGS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"]


def torch_folder() -> Path:
    places = [sysconfig.get_paths()[k] for k in ("platlib", "purelib")]
    places += [*site.getsitepackages(), site.getusersitepackages()]
    spec = PathFinder.find_spec("torch") or PathFinder.find_spec("torch", places)
    if spec is None or spec.origin is None:
        raise SystemExit(
            "splatrender: torch >= 2.10 must be installed before the extension is built, found none. "
            "CPU: pip install torch --index-url https://download.pytorch.org/whl/cpu; if it is installed and the tool "
            "hides it: --no-build-isolation"
        )
    return Path(spec.origin).parent


def cuda_wanted() -> bool:
    wish = os.environ.get("SPLATRENDER_CUDA", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"splatrender: SPLATRENDER_CUDA: expected 0 or 1, found {wish!r}")
    if wish == "1" and not CUDA_SOURCES:
        raise SystemExit(
            "splatrender: SPLATRENDER_CUDA=1, but this version has no CUDA kernels (csrc/cuda is empty)"
        )
    if wish == "1" and not shutil.which("nvcc"):
        raise SystemExit("splatrender: SPLATRENDER_CUDA=1, but nvcc is not on the PATH")
    return wish != "0" and bool(CUDA_SOURCES) and shutil.which("nvcc") is not None


class BuildExtension(build_ext):
    """One compiler flag set per instruction set, objects only rebuilt when a source or header is newer."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Also for `pip install -e`, which would put objects into a folder that it deletes.
        self.build_temp = str(ROOT / "build" / f"objects-{sysconfig.get_platform()}")

    def build_extension(self, ext: Extension) -> None:
        cuda_wanted()
        torch = torch_folder()
        ext.include_dirs += [str(torch / "include"), str(torch / "include/torch/csrc/api/include")]
        newest = max(p.stat().st_mtime for p in [*(ROOT / "csrc").rglob("*"), ROOT / "setup.py"])
        macros = [("TORCH_TARGET_VERSION", "0x020a000000000000"), ("Py_LIMITED_API", "0x030a0000")]
        if IS_X86:
            macros.append(("SPLATRENDER_X86", None))
        jobs = [("host", source, []) for source in SOURCES]
        jobs += [
            (isa, source, [*flags, f"-DSPLATRENDER_ISA={isa}"])
            for isa, flags in ISA_FLAGS.items()
            for source in STAGE_SOURCES
        ]

        def compile_one(job: tuple[str, str, list[str]]) -> str:
            kind, source, flags = job
            folder = Path(self.build_temp) / kind
            target = folder / Path(source).with_suffix(".o")
            if not target.exists() or target.stat().st_mtime < newest:
                self.compiler.compile(
                    [source],
                    output_dir=str(folder),
                    macros=macros,
                    include_dirs=ext.include_dirs,
                    extra_postargs=[*FLAGS, *flags],
                )
            return str(target)

        workers = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            ext.extra_objects = list(pool.map(compile_one, jobs))
        ext.sources, ext.depends = [], list(ext.extra_objects)  # link again when an object is new
        ext.library_dirs.append(str(torch / "lib"))
        ext.libraries += ["torch", "torch_cpu"]
        super().build_extension(ext)
        print(
            f"splatrender: built CPU kernels for {', '.join(ISA_FLAGS)}; CUDA kernels: none in this version"
        )


setup(
    ext_modules=[
        Extension("splatrender._C", sources=["csrc/ops.cpp"], language="c++", py_limited_api=True)
    ],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
