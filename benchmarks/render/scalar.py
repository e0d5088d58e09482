"""The scalar peer: scalar_raster.cpp, compiled and called."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.render.timing import Laps
from benchmarks.render.workloads import EPS2D, NEAR, Workload

SOURCE = Path(__file__).resolve().with_name("scalar_raster.cpp")
CACHE = SOURCE.parents[2] / "build" / "benchmarks"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared")


def build() -> Path:
    """Return the compiled library, cached by its source; CXX names the compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise SystemExit(f"raster.py: expected a C++ compiler (CXX or g++), got no {compiler!r}")
    key = hashlib.sha256(SOURCE.read_bytes() + repr((compiler, FLAGS)).encode()).hexdigest()[:16]
    library = CACHE / f"scalar_raster_{key}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}.tmp")
        subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(unfinished)], check=True)
        os.replace(unfinished, library)
    return library


class ScalarRasterizer:
    """The plain scalar C++ rasterizer on one workload.

    Attributes:
        radiance, transmittance: Results of the last forward pass, [H,W,3] and [H,W].
        gradients: Gradients of the last backward pass, by the names of the workload's tensors.
    """

    def __init__(self, workload: Workload) -> None:
        w = self.workload = workload
        self._library = ctypes.CDLL(str(build()))
        self._library.scalar_new.restype = ctypes.c_void_p
        camera = torch.cat([w.intrinsics[0], torch.tensor([NEAR, EPS2D])])
        scene = (w.means, w.quats, w.scales, w.opacities, w.sh, w.viewmats, camera)
        pointers = [_pointer(tensor) for tensor in scene]
        new = self._library.scalar_new
        self._self = ctypes.c_void_p(new(ctypes.c_int64(len(w)), *pointers, w.width, w.height))
        self.radiance = torch.empty(w.height, w.width, 3)
        self.transmittance = torch.empty(w.height, w.width)
        names = ("means", "quats", "scales", "opacities", "sh")
        self.gradients = {name: torch.empty_like(getattr(w, name)) for name in names}

    def __del__(self) -> None:
        if hasattr(self, "_self"):
            self._library.scalar_free(self._self)

    def run(self, laps: Laps) -> None:
        """Run one forward and one backward pass, timed by stage."""
        g = self.gradients
        self._stage(laps, "project")
        self._stage(laps, "shade")
        self._stage(laps, "bin")
        self._stage(laps, "blend", self.radiance, self.transmittance)
        self._stage(laps, "blend_backward", self.transmittance, self.workload.grad_radiance)
        self._stage(laps, "shade_backward", g["means"], g["sh"])
        self._stage(laps, "project_backward", g["means"], g["quats"], g["scales"], g["opacities"])

    def counts(self) -> dict[str, int]:
        """Count the pairs of the last pass: splat and tile, splat and pixel, contributing ones."""
        numbers = (ctypes.c_int64 * 3)()
        self._library.scalar_counts(self._self, numbers)
        return dict(zip(("pairs", "evaluations", "contributions"), numbers, strict=True))

    def _stage(self, laps: Laps, name: str, *tensors: Tensor) -> None:
        function = getattr(self._library, f"scalar_{name}")
        laps.measure(name, function, self._self, *map(_pointer, tensors))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
