"""Run each kernel of W3 and the loss once: the target of a kernel profiler such as ncu."""

from __future__ import annotations

import torch

from benchmarks.render.kernels import Kernels
from benchmarks.render.timing import Laps
from benchmarks.render.workloads import make_workload
from tools.gpu.target import Target


def main() -> None:
    """Run the kernels."""
    target = Target.from_environment()
    kernels = Kernels(make_workload("W3", toy=target.toy).to(torch.device(target.device)))
    kernels.run(Laps())
    photo = (255 * kernels.radiance.clamp(0, 1)).to(torch.uint8)
    torch.ops.splatrender.photometric_loss(kernels.radiance.contiguous(), photo, None, 0.2, True)
    target.wait()


if __name__ == "__main__":
    main()
