"""Load the extension and run one operator on the GPU; exit with 42 without torch's stream."""

from __future__ import annotations

import sys
import time

import torch

import splatrender.operators  # noqa: F401  (loads the kernels)
from splatrender.runtime.devices import missing_for_cuda
from tools.gpu.target import Target

NO_STREAM = 42
EXPECTED = [[0, 1, 1], [0], [0], [0, 1]]  # offsets of two tiles, ids, slots, offsets of one splat


def main() -> int:
    """Print versions, run `bin`, and return the exit code."""
    seconds = time.process_time()  # since the process began
    target = Target.from_environment()
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, imports in {seconds:.1f} CPU s")
    print("missing for CUDA:", missing_for_cuda() or "nothing")
    one = torch.ones(1, 1, device=target.device)
    mean = torch.full((1, 1, 2), 8.5, device=target.device)
    conic = torch.tensor([[[1.0, 0.0, 1.0]]], device=target.device)
    try:
        lists = torch.ops.splatrender.bin(mean, conic, one, one, torch.ones_like(mean), 32, 16)
    except RuntimeError as error:
        print(error)
        return NO_STREAM if "current CUDA stream" in str(error) else 1
    values = [tensor.tolist() for tensor in lists]
    print("bin:", values)
    name = torch.cuda.get_device_name() if target.device == "cuda" else target.device
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    target.record("load", device=name, **versions, lists=values)
    return int(values != EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
