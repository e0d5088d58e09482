"""Loads the extension and runs one operator on the GPU; exits with 42 without torch's stream."""

from __future__ import annotations

import sys
import time

from tools.gpu.common import DEVICE, record

NO_STREAM = 42
EXPECTED = [[0, 1, 1], [0], [0], [0, 1]]  # offsets of two tiles, ids, slots, offsets of one splat


def main() -> int:
    start = time.perf_counter()
    import torch

    import splatrender.operators  # noqa: F401  (loads the kernels)
    from splatrender.runtime.devices import missing_for_cuda

    seconds = time.perf_counter() - start
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, imports in {seconds:.1f} s")
    print("missing for CUDA:", missing_for_cuda() or "nothing")
    one = torch.ones(1, 1, device=DEVICE)
    mean = torch.full((1, 1, 2), 8.5, device=DEVICE)
    conic = torch.tensor([[[1.0, 0.0, 1.0]]], device=DEVICE)
    try:
        lists = torch.ops.splatrender.bin(mean, conic, one, one, torch.ones_like(mean), 32, 16)
    except RuntimeError as error:
        print(error)
        return NO_STREAM if "current CUDA stream" in str(error) else 1
    found = [tensor.tolist() for tensor in lists]
    print("bin:", found)
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE
    record("load", device=name, torch=torch.__version__, cuda=torch.version.cuda, lists=found)
    return int(found != EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
