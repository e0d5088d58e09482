"""Compares every operator on the GPU with the CPU backend, in float32 and float64.

Both get the CPU's inputs, so the first wrong stage shows. Each operator also runs twice and must
return the same bits. Exits with 1 if anything differs.
"""

from __future__ import annotations

import math
import sys
import traceback
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import splatrender.operators  # noqa: F401  (loads the kernels)
from benchmarks.render.workloads import Workload, make_workload
from tools.gpu.common import DEVICE, TOY, record, wait

OPS = torch.ops.splatrender
GAUSSIAN = 0  # the response
# relative difference in the 2-norm that is allowed; sums that cancel may have three times as much
LIMITS = {torch.float32: 3e-4, torch.float64: 1e-9}
FEW = 3e-4  # part of integer outputs that may differ: decisions within rounding of a cut-off
PAIRS = 2e-5  # part of the pairs of splat and tile that may differ, likewise
PROBES = 2000


class Comparison:
    """Runs operators on both devices and prints a line for each output.

    Args:
        dtype: of the inputs, for the limits.

    Attributes:
        wrong: names of the outputs that differ by more than they may.
    """

    def __init__(self, dtype: torch.dtype) -> None:
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
            operator: name in torch.ops.splatrender.
            args: on the CPU.
            outputs: names of what it returns, or of its arguments if `in_place`; "-" skips one.
            factor: times the limit of the dtype is allowed.
            integers: outputs that are compared number by number.
            in_place: compare the arguments after the call.

        Returns:
            What the CPU returned.
        """
        cpu = _copies(args, "cpu")
        expected = getattr(OPS, operator)(*cpu)
        try:
            found, again = self._twice(operator, args, in_place)
        except Exception:
            traceback.print_exc()
            self._line(operator, "", "raised", good=False)
            return expected
        listed = cpu if in_place else _listed(expected)
        for name, x, y, z in zip(outputs.split(), listed, found, again, strict=True):
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
        """The tile lists of both devices, compared as sets of pairs; the CPU's are returned."""
        expected = OPS.bin(*args)
        try:
            found, again = self._twice("bin", args, in_place=False)
        except Exception:
            traceback.print_exc()
            self._line("bin", "", "raised", good=False)
            return expected
        found = [tensor.cpu() for tensor in found]
        mine, other = pairs(found), pairs(expected)
        off = len(mine ^ other)
        slots = found[2].sort().values
        permutation = torch.equal(slots, torch.arange(len(slots), dtype=slots.dtype))
        same = all(torch.equal(x, y.cpu()) for x, y in zip(found, again, strict=True))
        text = f"{off} of {len(other)} pairs differ"
        text += "" if permutation else ", slots are no permutation"
        text += "" if same else ", not the same bits twice"
        self._line("bin", "lists", text, off <= PAIRS * len(other) and permutation and same)
        return expected

    def _twice(self, operator: str, args: list[Any], in_place: bool) -> list[list[Any]]:
        results = []
        for _ in range(2):
            mine = _copies(args, DEVICE)
            returned = getattr(OPS, operator)(*mine)
            wait()
            results.append(mine if in_place else _listed(returned))
        return results

    def _line(self, operator: str, output: str, text: str, good: bool) -> None:
        print(f"  {operator:18} {output:14} {text}{'' if good else '   <<< WRONG'}", flush=True)
        dtype = str(self.dtype).removeprefix("torch.")
        figures = {"operator": operator, "output": output, "difference": text, "good": good}
        record("smoke", dtype=dtype, **figures)
        if not good:
            self.wrong.append(f"{operator}.{output} ({dtype})")


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative difference in the 2-norm; infinite where a number is not finite."""
    x, y = found.double().cpu(), expected.double()
    off = float((x - y).norm() / y.norm().clamp(min=1e-30))
    return off if math.isfinite(off) else math.inf


def pairs(lists: list[Tensor]) -> set[tuple[int, int]]:
    """The pairs (tile, splat) of tile lists."""
    tiles = torch.repeat_interleave(torch.arange(len(lists[0]) - 1), lists[0].diff().long())
    return set(zip(tiles.tolist(), lists[1].tolist(), strict=True))


def _copies(args: list[Any], device: str) -> list[Any]:
    return [a.detach().clone().to(device) if isinstance(a, Tensor) else a for a in args]


def _listed(returned: Any) -> list[Any]:
    return [returned] if isinstance(returned, Tensor) else list(returned)


def compare_all(w: Workload) -> list[str]:
    """Compare every operator on a workload, in the order of a training step.

    Returns:
        The names of the wrong outputs.
    """
    torch.manual_seed(0)
    dtype = w.means.dtype
    check, size = Comparison(dtype), [w.width, w.height]
    splats = [w.means, w.quats, w.scales, None, w.opacities, w.viewmats, w.intrinsics]
    lens = [*size, 0.01, math.inf, 0.3, False, GAUSSIAN]
    means2d, conics, depths, peaks, extents = check.run(
        "project", [*splats, *lens], "means2d conics depths peaks extents"
    )
    direction = [w.means, w.sh, w.viewmats, extents]
    emission = check.run("shade", [*direction, 3], "emission")
    lists = check.lists([means2d, conics, depths, peaks, extents, *size])
    shape = [means2d, conics, peaks, emission, torch.rand(1, 3, dtype=dtype), *lists]
    radiance, transmittance, _, hits, last = check.run(
        "blend", [*shape, *size, GAUSSIAN, True, False],
        "radiance transmittance visibility hits last", integers=("hits", "last"),
    )  # fmt: skip
    grads = [w.grad_radiance, torch.randn(1, w.height, w.width, dtype=dtype)]
    backward = [*shape, transmittance, hits, last, *grads, *size, GAUSSIAN]
    to_means2d, to_conics, to_peaks, to_emission, _ = check.run(
        "blend_backward", [*backward, False], "means2d conics peaks emission -"
    )
    check.run("blend_backward", [*backward, True], "means2d - - - absgrad")
    check.run("shade_backward", [*direction, emission, to_emission, 3], "means sh viewmats")
    incoming = [extents, to_means2d, to_conics, torch.randn_like(depths), to_peaks]
    check.run(
        "project_backward", [*splats, *incoming, *lens],
        "means quats scales - amplitudes viewmats intrinsics",
    )  # fmt: skip
    photo = (255 * radiance[0].clamp(0, 1)).round().to(torch.uint8).roll(3, 0)
    mask = (torch.rand(w.height, w.width) > 0.1).to(torch.uint8)
    for kept in (None, mask):
        check.run("photometric_loss", [radiance[0], photo, kept, 0.2, True], "loss l1 ssim grad")
    probes = min(PROBES, len(w) // 5)
    levels = torch.tensor([0.15, 0.5, 1.0], dtype=dtype)
    check.run(
        "flow_statistics", [*shape, photo[None], mask[None], levels, probes, *size, GAUSSIAN],
        "error removal insertion colors", factor=3.0,
    )  # fmt: skip
    if dtype == torch.float32:
        compare_adam(check)
    return check.wrong


def compare_adam(check: Comparison) -> None:
    """Compare a step of Adam, which is in float32 alone and works in place."""
    rows = 5000
    moments = [torch.randn(rows, 16, 3), torch.rand(rows, 16, 3)]
    steps = torch.arange(rows, dtype=torch.int32)
    check.run(
        "adam_step",
        [torch.randn(rows, 16, 3), torch.randn(rows, 16, 3), *moments, steps, steps % 3 > 0,
         torch.full((48,), 0.1), 0.9, 0.999, 1e-15, 48, True],
        "param - exp_avg exp_avg_sq steps - - - - - - -", integers=("steps",), in_place=True,
    )  # fmt: skip


def main() -> int:
    wrong = []
    for dtype in LIMITS:
        print(dtype)
        w = make_workload("W0b", toy=TOY)
        tensors = {name: v.to(dtype) for name, v in vars(w).items() if isinstance(v, Tensor)}
        wrong += compare_all(replace(w, **tensors))
    print("smoke:", f"WRONG: {', '.join(wrong)}" if wrong else "every operator agrees")
    if DEVICE == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
