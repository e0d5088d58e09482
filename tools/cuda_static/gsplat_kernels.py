"""gsplat's rasterization kernels, compiled by our nvcc with our flags from the user's sources.

Nothing of gsplat is part of this repository. Its kernel files include torch for their launch
functions; those headers are replaced by stand-ins written here, which have just what the two files
name, so that neither a CUDA build of torch nor minutes of compilation are needed. The kernels stay
as they are, apart from two questions that they ask in the innermost loop and that ours do not have:
whether gradients of absolute means are wanted (no), and whether there is a background (backward:
no). Answered at compile time, gsplat is counted without them.
"""

from __future__ import annotations

import re
from pathlib import Path

from tools.cuda_static.cuda_build import FLAGS
from tools.cuda_static.kernel_loops import Design, Phase

CHANNELS = 3
FORWARD_FILE, BACKWARD_FILE = "RasterizeToPixels3DGSFwd.cu", "RasterizeToPixels3DGSBwd.cu"
THREADS = 256  # its tiles are 16x16, a thread each
_WHY = "a thread owns one pixel: 1 pair and 1 power of two a splat; 8 warps a tile"
_FORWARD, _BACKWARD = (
    Phase(
        "blend",
        _WHY,
        marker="MUFU.EX2",
        pairs=1,
        uses={"LDG": 8, "RED": 8, "REDG": 8},
        contributes=opcode,
    )
    for opcode in ("LDG", "SHFL")  # forward reads the colour, backward sums over the warp
)
_FETCH = Phase(
    "fetch", "256 threads fetch 256 entries, one each", around="blend", entries=256, threads=256
)
# Dynamic shared memory as its launch functions request: id, mean and opacity, conic of a splat per
# thread; backward the colour too.
DESIGNS = {
    "forward": (
        Design(
            r"rasterize_to_pixels_3dgs_fwd_kernel<3u, float>",
            (_FORWARD, _FETCH),
            THREADS * (4 + 12 + 12),
        ),
    ),
    "backward": (
        Design(
            r"rasterize_to_pixels_3dgs_bwd_kernel<3u, float>",
            (_BACKWARD, _FETCH),
            THREADS * (4 + 12 + 12 + 4 * CHANNELS),
        ),
    ),
}

_TORCH = """
#pragma once
#include <cstdint>
#include <optional>
#include <cuda_runtime.h>
namespace at {
struct Tensor {
  int64_t dim() const, size(int64_t) const, numel() const;
  template <class T> T* data_ptr() const { return nullptr; }
};
template <class T> using optional = std::optional<T>;
namespace cuda { cudaStream_t getCurrentCUDAStream(); }
}
#define AT_ERROR(...) ((void)0)
template <class T> __device__ __forceinline__ void gpuAtomicAdd(T* to, T x) { atomicAdd(to, x); }
"""
_HEADERS = (
    "ATen/Dispatch.h",
    "ATen/core/Tensor.h",
    "ATen/cuda/Atomic.cuh",
    "c10/cuda/CUDAStream.h",
)
_CONSTANTS = {"v_means2d_abs != nullptr": "false", "backgrounds != nullptr": "false"}


def prepare(path: Path, folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Lay out what nvcc needs in an empty folder outside of the repository.

    Args:
        path: a folder with gsplat's sources, such as an unpacked wheel.
        folder: to write to.

    Returns:
        The kernel files, and nvcc's flags for them.

    Raises:
        SystemExit: the sources are not found.
    """
    found = next(iter(sorted(path.rglob(FORWARD_FILE))), None) if path.is_dir() else None
    if found is None or not found.with_name(BACKWARD_FILE).exists():
        raise SystemExit(
            f"--gsplat: expected a folder that contains {FORWARD_FILE} and {BACKWARD_FILE} "
            f"(pip download gsplat --no-deps; unzip it), got {path}"
        )
    glm = next(iter(sorted(path.rglob("glm/glm.hpp"))), None)
    if glm is None:
        raise SystemExit(
            f"--gsplat: expected its third_party/glm below the folder, got none in {path}"
        )
    includes = [found.parent.parent / "include", found.parent, glm.parent.parent]
    for header in _HEADERS:
        stand_in = folder / "stand_ins" / header
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text('#include "torch_stand_in.h"\n')
    (folder / "stand_ins/torch_stand_in.h").write_text(_TORCH)
    sources = []
    for name in (FORWARD_FILE, BACKWARD_FILE):
        text = _only_channels(found.with_name(name).read_text(), CHANNELS)
        for question, answer in _CONSTANTS.items() if name == BACKWARD_FILE else ():
            text = _in_kernel(text, question, answer)
        (folder / name).write_text(text)
        sources.append(folder / name)
    flags = [f"-I{p}" for p in (folder / "stand_ins", *includes)]
    blend_flags = FLAGS["flags_of_file"]["blend_cuda.cu"]
    return sources, (*blend_flags, *flags, "-diag-suppress=20012,20013,20015")


def version(path: Path) -> str:
    """Read the version of the gsplat at this path, if its package has one."""
    for file in sorted(path.rglob("version.py")):
        match = re.search(r"__version__\s*=\s*[\"']([^\"']+)", file.read_text())
        if match:
            return match[1]
    return "unknown version"


def _only_channels(text: str, channels: int) -> str:
    """Leave out the instances for other numbers of channels."""
    return re.sub(
        r"^__INS__\((\d+)\)$",
        lambda m: m[0] if int(m[1]) == channels else "",
        text,
        flags=re.MULTILINE,
    )


def _in_kernel(text: str, question: str, answer: str) -> str:
    """Answer a question in the kernel, behind its masks, and not in the launch function."""
    begin, end = text.index("for (uint32_t b = 0; b < num_batches"), text.index("void launch_")
    if question not in text[begin:end]:
        raise SystemExit(
            f"--gsplat: expected {question!r} in its backward kernel; another version?"
        )
    return text[:begin] + text[begin:end].replace(question, answer) + text[end:]
