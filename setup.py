"""Build splatrender/_C.abi3.so, the compiled kernels, on torch's stable ABI.

The CPU kernels are built once per instruction set, the CUDA kernels where nvcc is. CUDA's runtime is linked statically:
the same file also loads on machines without a driver.

torch is needed for its headers only and need not be importable: an isolated `pip install .` finds the one that is
installed beside it; nothing is downloaded and no version has to match. Environment:

    SPLATRENDER_CUDA=0|1         0 leaves the CUDA kernels out, 1 fails when they cannot be built; default: when nvcc is
                                 there
    SPLATRENDER_CUDA_ARCHS=80,90 architectures to compile for; default: those of csrc/cuda/flags.json. The last one is
                                 also kept as PTX, from which a driver makes code for newer GPUs
    MAX_JOBS=N                   compilers at a time (default: the number of CPUs)
"""

import json
import os
import platform
import re
import shutil
import site
import subprocess
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
CUDA_FLAGS = json.loads((ROOT / "csrc/cuda/flags.json").read_text())
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
            "splatrender: torch >= 2.10 must be installed before the extension is built, got none. "
            "CPU: pip install torch --index-url https://download.pytorch.org/whl/cpu; if it is installed and the tool "
            "hides it: --no-build-isolation"
        )
    return Path(spec.origin).parent


def find_nvcc() -> str | None:
    places = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    search = [str(Path(p) / "bin") for p in places if p]
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(search))


def cuda_compiler() -> str | None:
    """Return the path of nvcc, or None where the CUDA kernels are not built."""
    wish = os.environ.get("SPLATRENDER_CUDA", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"splatrender: SPLATRENDER_CUDA: expected 0 or 1, got {wish!r}")
    nvcc = None if wish == "0" else find_nvcc()
    if wish == "1" and nvcc is None:
        raise SystemExit(
            "splatrender: SPLATRENDER_CUDA=1, but nvcc is neither on the PATH nor in CUDA_HOME/bin"
        )
    return nvcc


def cuda_libraries(nvcc: str) -> Path:
    """Find the folder of CUDA's static runtime."""
    homes = [Path(nvcc).resolve().parent.parent]
    homes += [Path(p) for p in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")) if p]
    homes.append(Path("/usr/local/cuda"))
    folders = [h / name for h in homes for name in ("lib64", "lib", "targets/x86_64-linux/lib")]
    for folder in folders:
        if (folder / "libcudart_static.a").exists():
            return folder
    raise SystemExit(
        f"splatrender: nvcc is {nvcc}, but libcudart_static.a was found in none of "
        f"{', '.join(map(str, folders))}; set CUDA_HOME, or SPLATRENDER_CUDA=0 to build without CUDA kernels"
    )


def cuda_architectures() -> list[str]:
    """Return the architectures to compile for, such as ["80", "90"]."""
    wish = os.environ.get("SPLATRENDER_CUDA_ARCHS")
    words = re.split(r"[\s,;]+", wish.strip()) if wish else CUDA_FLAGS["architectures"]
    numbers = [re.sub(r"^(sm_|compute_)", "", w).replace(".", "") for w in words]
    for word, number in zip(words, numbers, strict=True):
        if not re.fullmatch(r"\d{2,3}[af]?", number) or int(re.sub(r"\D", "", number)) < 75:
            raise SystemExit(
                "splatrender: SPLATRENDER_CUDA_ARCHS: expected architectures from 75 on such as 80,90; "
                f"got {word!r}"
            )
    return numbers


def cuda_flags() -> list[str]:
    archs = cuda_architectures()
    flags = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    flags.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    return [*CUDA_FLAGS["flags"], *flags, "-Xcompiler", "-fPIC,-fvisibility=hidden"]


class BuildExtension(build_ext):
    """One compiler flag set per instruction set, objects only rebuilt when a source or header is newer."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Also for `pip install -e`, which would put objects into a folder that it deletes.
        self.build_temp = str(ROOT / "build" / f"objects-{sysconfig.get_platform()}")

    def build_extension(self, ext: Extension) -> None:
        nvcc = cuda_compiler()
        torch = torch_folder()
        ext.include_dirs += [str(torch / "include"), str(torch / "include/torch/csrc/api/include")]
        newest = max(p.stat().st_mtime for p in [*(ROOT / "csrc").rglob("*"), ROOT / "setup.py"])
        macros = [("TORCH_TARGET_VERSION", "0x020a000000000000"), ("Py_LIMITED_API", "0x030a0000")]
        if IS_X86:
            macros.append(("SPLATRENDER_X86", None))
        host = "host"
        if nvcc:
            macros.append(("SPLATRENDER_WITH_CUDA", None))
            host = "host-cuda"
        jobs = [(host, source, []) for source in SOURCES]
        jobs += [
            (isa, source, [*flags, f"-DSPLATRENDER_ISA={isa}"])
            for isa, flags in ISA_FLAGS.items()
            for source in STAGE_SOURCES
        ]
        if nvcc:  # the longest first
            kind = "cuda-" + "-".join(cuda_architectures())
            sources = sorted(CUDA_SOURCES, key=lambda s: s != "csrc/cuda/prims.cu")
            jobs = [
                (kind, s, CUDA_FLAGS["flags_of_file"].get(Path(s).name, [])) for s in sources
            ] + jobs

        def compile_one(job: tuple[str, str, list[str]]) -> str:
            kind, source, flags = job
            folder = Path(self.build_temp) / kind
            target = folder / Path(source).with_suffix(".o")
            if target.exists() and target.stat().st_mtime >= newest:
                return str(target)
            if source.endswith(".cu"):
                target.parent.mkdir(parents=True, exist_ok=True)
                command = [nvcc, *cuda_flags(), *flags, "-c", source, "-o", str(target)]
                self.announce(" ".join(command), level=2)
                subprocess.run(command, check=True, cwd=ROOT)
            else:
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
        if nvcc:
            ext.library_dirs.append(str(cuda_libraries(nvcc)))
            ext.libraries += ["cudart_static", "dl", "rt", "pthread"]
            ext.extra_link_args.append("-Wl,--exclude-libs,libcudart_static.a")
        super().build_extension(ext)
        cuda = f"sm_{', sm_'.join(cuda_architectures())}" if nvcc else "none (no nvcc)"
        print(f"splatrender: built CPU kernels for {', '.join(ISA_FLAGS)}; CUDA kernels for {cuda}")


setup(
    ext_modules=[
        Extension("splatrender._C", sources=["csrc/ops.cpp"], language="c++", py_limited_api=True)
    ],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
