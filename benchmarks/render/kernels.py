"""splatrender's own kernels on a workload, stage by stage, without autograd."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from benchmarks.render.timing import Laps
from benchmarks.render.workloads import EPS2D, NEAR, Workload
from splatrender.operators.bin import bin
from splatrender.operators.blend import blend
from splatrender.operators.project import project
from splatrender.operators.shade import shade
from splatrender.operators.stages import Footprints, Lens, SplatTensors

DEGREE = 3
BLOCK_PIXELS = 16  # the kernels blend blocks of 4x4 pixels
ops = torch.ops.splatrender


def instruction_set() -> str:
    """Return the kernels' instruction set: SPLATRENDER_ISA if set, otherwise this CPU's best."""
    best = {"AVX512": "avx512", "AVX2": "avx2"}
    capability = torch.backends.cpu.get_cpu_capability()
    return os.environ.get("SPLATRENDER_ISA") or best.get(capability, "portable")


class Kernels:
    """The stages on one workload.

    Attributes:
        radiance: [H,W,3] of the last forward pass.
        gradients: Gradients of the last backward pass, by the names of the workload's tensors.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.radiance = torch.empty(0)
        self.gradients: dict[str, Tensor] = {}
        self._pairs = 0
        self._hits = torch.empty(0, dtype=torch.int16)
        zeros = workload.means.new_zeros
        self._background = zeros(1, 3)
        self._grad_transmittance = zeros(1, workload.height, workload.width)
        self._grad_depths = zeros(1, len(workload))

    @torch.no_grad()
    def run(self, laps: Laps) -> None:
        """Run one forward and one backward pass, timed by stage."""
        w, stage = self.workload, laps.measure
        lens = Lens(w.viewmats, w.intrinsics, w.width, w.height, near=NEAR, eps2d=EPS2D)
        splats = SplatTensors(w.means, w.opacities, w.quats, w.scales)
        projected = stage("project", project, splats, lens)
        direction = (w.means, w.sh, w.viewmats, projected.extents)
        emission = stage("shade", shade, *direction, DEGREE)
        footprints = Footprints(projected, emission, self._background)
        lists = stage("bin", bin, projected, lens)
        images = stage("blend", blend, footprints, lists, lens)
        shape = (*footprints.arguments, *lists.arguments)
        incoming = (w.grad_radiance, self._grad_transmittance)
        seen = (images.transmittance, images.hits, images.last, *incoming)
        size = (w.width, w.height, lens.response)
        to_means2d, to_conics, to_peaks, to_emission, _ = stage(
            "blend_backward", ops.blend_backward, *shape, *seen, *size, False
        )
        by_color, to_sh, _ = stage(
            "shade_backward", ops.shade_backward, *direction, emission, to_emission, DEGREE
        )
        grads = (projected.extents, to_means2d, to_conics, self._grad_depths, to_peaks)
        cameras, optics = lens.arguments[:2], lens.arguments[2:]
        to_means, to_quats, to_scales, _, to_opacities, *_ = stage(
            "project_backward",
            ops.project_backward,
            *splats.arguments,
            *cameras,
            *grads,
            *optics,
        )
        self.radiance = images.radiance[0]
        self.gradients = {
            "means": to_means + by_color,
            "quats": to_quats,
            "scales": to_scales,
            "opacities": to_opacities,
            "sh": to_sh,
        }
        self._pairs, self._hits = len(lists.splat_ids), images.hits

    def counts(self) -> dict[str, int]:
        """Count the pairs of the last pass: splat and tile; splat and pixel of changed blocks."""
        blocks = sum(int(((self._hits.int() >> bit) & 1).sum()) for bit in range(16))
        return {"pairs": self._pairs, "evaluations": BLOCK_PIXELS * blocks}
