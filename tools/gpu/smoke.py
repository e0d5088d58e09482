"""Compare every operator on the GPU with the CPU backend, in float32 and float64.

Both get the CPU's inputs, so the first wrong stage shows. Each operator also runs twice and must
return the same bits. The program exits with 1 if anything differs.
"""

from __future__ import annotations

import math
import sys
import traceback
from typing import Any

import torch
from torch import Tensor

import splatrender.operators  # noqa: F401  (loads the kernels)
from benchmarks.render.workloads import EPS2D, NEAR, Workload, make_workload
from tools.gpu.target import Target

OPS = torch.ops.splatrender
GAUSSIAN = 0  # the response
# relative difference in the 2-norm that is allowed; sums that cancel may have three times as much
LIMITS = {torch.float32: 3e-4, torch.float64: 1e-9}
FEW = 3e-4  # part of integer outputs that may differ: decisions within rounding of a cut-off
PAIRS = 2e-5  # part of the pairs of splat and tile that may differ, likewise
PROBES = 2000


class Comparison:
    """Comparison of operators on two devices, with a printed line per output.

    Args:
        target: Device to compare with the CPU.
        dtype: Precision of the inputs, for the limits.

    Attributes:
        wrong: Names of the outputs that exceed their limits.
    """

    def __init__(self, target: Target, dtype: torch.dtype) -> None:
        self.target = target
        self.dtype = dtype
        self.wrong: list[str] = []

    def run(
        self,
        operator: str,
        args: list[Any],
        outputs: str,
        *,
        factor: float = 1.0,
        integers: tuple[str, ...] = (),
        in_place: bool = False,
    ) -> Any:
        """Call an operator on both devices.

        Args:
            operator: Name in torch.ops.splatrender.
            args: Arguments on the CPU.
            outputs: Names of its results, or of its arguments if `in_place`; "-" skips one.
            factor: Multiple of the dtype's limit that is allowed.
            integers: Outputs that are compared number by number.
            in_place: Compare the arguments after the call.

        Returns:
            Result of the CPU.
        """
        cpu = _copies(args, "cpu")
        expected = getattr(OPS, operator)(*cpu)
        try:
            results, again = self._twice(operator, args, in_place)
        except Exception:
            traceback.print_exc()
            self._line(operator, "", "raised", good=False)
            return expected
        listed = cpu if in_place else _listed(expected)
        for name, x, y, z in zip(outputs.split(), listed, results, again, strict=True):
            if name == "-" or not isinstance(x, Tensor) or not x.numel():
                continue
            if name in integers:
                count = int((y.cpu() != x).sum())
                text, good = f"{count} of {x.numel()} differ", count <= FEW * x.numel()
            else:
                off = relative(y, x)
                text, good = f"{off:.1e}", off <= factor * LIMITS[self.dtype]
            if not torch.equal(y, z):
                text, good = f"{text}, not the same bits twice", False
            self._line(operator, name, text, good)
        return expected

    def lists(self, args: list[Any]) -> Any:
        """Compare the tile lists of both devices as sets of pairs, and return the CPU's."""
        expected = OPS.bin(*args)
        try:
            results, again = self._twice("bin", args, in_place=False)
        except Exception:
            traceback.print_exc()
            self._line("bin", "", "raised", good=False)
            return expected
        lists = [tensor.cpu() for tensor in results]
        mine, other = pairs(lists), pairs(expected)
        off = len(mine ^ other)
        slots = lists[2].sort().values
        permutation = torch.equal(slots, torch.arange(len(slots), dtype=slots.dtype))
        same = all(torch.equal(x, y.cpu()) for x, y in zip(lists, again, strict=True))
        text = f"{off} of {len(other)} pairs differ"
        text += "" if permutation else ", slots are no permutation"
        text += "" if same else ", not the same bits twice"
        self._line("bin", "lists", text, off <= PAIRS * len(other) and permutation and same)
        return expected

    def _twice(self, operator: str, args: list[Any], in_place: bool) -> list[list[Any]]:
        results = []
        for _ in range(2):
            mine = _copies(args, self.target.device)
            returned = getattr(OPS, operator)(*mine)
            self.target.wait()
            results.append(mine if in_place else _listed(returned))
        return results

    def _line(self, operator: str, output: str, text: str, good: bool) -> None:
        print(f"  {operator:18} {output:14} {text}{'' if good else '   <<< WRONG'}", flush=True)
        dtype = str(self.dtype).removeprefix("torch.")
        figures = {"operator": operator, "output": output, "difference": text, "good": good}
        self.target.record("smoke", dtype=dtype, **figures)
        if not good:
            self.wrong.append(f"{operator}.{output} ({dtype})")


def relative(value: Tensor, expected: Tensor) -> float:
    """Return the relative difference in the 2-norm; infinite where a number is not finite."""
    x, y = value.double().cpu(), expected.double()
    off = float((x - y).norm() / y.norm().clamp(min=1e-30))
    return off if math.isfinite(off) else math.inf


def pairs(lists: list[Tensor]) -> set[tuple[int, int]]:
    """Return the pairs (tile, splat) of tile lists."""
    tiles = torch.repeat_interleave(torch.arange(len(lists[0]) - 1), lists[0].diff().long())
    return set(zip(tiles.tolist(), lists[1].tolist(), strict=True))


def _copies(args: list[Any], device: str) -> list[Any]:
    return [a.detach().clone().to(device) if isinstance(a, Tensor) else a for a in args]


def _listed(returned: Any) -> list[Any]:
    return [returned] if isinstance(returned, Tensor) else list(returned)


def compare_all(target: Target, w: Workload) -> list[str]:
    """Compare every operator on a workload, in the order of a training step.

    Args:
        target: Device to compare with the CPU.
        w: Workload on the CPU.

    Returns:
        Names of the wrong outputs.
    """
    torch.manual_seed(0)
    dtype = w.means.dtype
    check, size = Comparison(target, dtype), [w.width, w.height]
    splats = [w.means, w.quats, w.scales, None, w.opacities, w.viewmats, w.intrinsics]
    lens = [*size, NEAR, math.inf, EPS2D, False, GAUSSIAN]
    projected = "means2d conics depths peaks extents"
    means2d, conics, depths, peaks, extents = check.run("project", [*splats, *lens], projected)
    direction = [w.means, w.sh, w.viewmats, extents]
    emission = check.run("shade", [*direction, 3], "emission")
    lists = check.lists([means2d, conics, depths, peaks, extents, *size])
    shape = [means2d, conics, peaks, emission, torch.rand(1, 3, dtype=dtype), *lists]
    blended = "radiance transmittance visibility hits last"
    radiance, transmittance, _, hits, last = check.run(
        "blend", [*shape, *size, GAUSSIAN, True, None], blended, integers=("hits", "last")
    )
    grads = [w.grad_radiance, torch.randn(1, w.height, w.width, dtype=dtype)]
    backward = [*shape, transmittance, hits, last, *grads, *size, GAUSSIAN]
    to_means2d, to_conics, to_peaks, to_emission, _ = check.run(
        "blend_backward", [*backward, False], "means2d conics peaks emission -"
    )
    check.run("blend_backward", [*backward, True], "means2d - - - absgrad")
    check.run("shade_backward", [*direction, emission, to_emission, 3], "means sh viewmats")
    incoming = [extents, to_means2d, to_conics, torch.randn_like(depths), to_peaks]
    leaves = "means quats scales - amplitudes viewmats intrinsics"
    check.run("project_backward", [*splats, *incoming, *lens], leaves)
    compare_photos(check, w, shape, radiance[0])
    if dtype == torch.float32:
        compare_adam(check)
    return check.wrong


def compare_photos(check: Comparison, w: Workload, shape: list[Any], radiance: Tensor) -> None:
    """Compare the operators that see a photo: loss and flow statistics.

    Args:
        check: Comparison.
        w: Workload.
        shape: First arguments of `blend`, lists included.
        radiance: [H,W,3] of the CPU.
    """
    photo = (255 * radiance.clamp(0, 1)).round().to(torch.uint8).roll(3, 0)
    mask = (torch.rand(w.height, w.width) > 0.1).to(torch.uint8)
    for kept in (None, mask):
        check.run("photometric_loss", [radiance, photo, kept, 0.2, True], "loss l1 ssim grad")
    probes = min(PROBES, len(w) // 5)
    levels = torch.tensor([0.15, 0.5, 1.0], dtype=w.means.dtype)
    view = [photo[None], mask[None], levels, probes, w.width, w.height, GAUSSIAN]
    statistics = "error removal insertion"
    check.run("flow_statistics", [*shape, *view], statistics, factor=3.0)


def compare_adam(check: Comparison) -> None:
    """Compare a step of Adam, which is in float32 alone and works in place."""
    rows = 5000
    moments = [torch.randn(rows, 16, 3), torch.rand(rows, 16, 3)]
    steps = torch.arange(rows, dtype=torch.int32)
    state = [torch.randn(rows, 16, 3), torch.randn(rows, 16, 3), *moments, steps, steps % 3 > 0]
    args = [*state, torch.full((48,), 0.1), 0.9, 0.999, 1e-15, 48, True]
    outputs = "param - exp_avg exp_avg_sq steps - - - - - - -"
    check.run("adam_step", args, outputs, integers=("steps",), in_place=True)


def main() -> int:
    """Compare in both precisions and return the exit code."""
    target = Target.from_environment()
    wrong = []
    for dtype in LIMITS:
        print(dtype)
        wrong += compare_all(target, make_workload("W0b", toy=target.toy).to(dtype))
    print("smoke:", f"WRONG: {', '.join(wrong)}" if wrong else "every operator agrees")
    if target.device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
