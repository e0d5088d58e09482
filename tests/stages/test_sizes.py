"""Sizes that 32-bit numbers of rows, tiles and pairs do not hold end in one sentence."""

from __future__ import annotations

from typing import Any

import torch
from helpers import GAUSSIAN, random_world
from helpers.backends import Backend
from helpers.compare import assert_refuses
from torch import Tensor

SIDE = 65535  # px, the largest; 4096² tiles


def covering(count: int) -> list[Any]:
    """Return arguments of `bin`: splats that meet every tile of the largest image."""
    one = torch.ones(1, count)
    conics = torch.tensor([1e-12, 0.0, 1e-12]).expand(1, count, 3)
    extents = torch.full((1, count, 2), 1e6)
    return [torch.full((1, count, 2), SIDE / 2), conics, one, one, extents, SIDE, SIDE]


def test_too_many_pairs(kernel: Backend) -> None:
    # 128 splats are 2^31 pairs: counted, not made.
    assert_refuses(kernel.bin, covering(128), {}, "fewer than 2^31 splat-tile pairs",
                   "got 2147483648")  # fmt: skip


def test_too_many_tiles(kernel: Backend) -> None:
    none = [torch.zeros(200, 0, n) for n in (2, 3)] + [torch.zeros(200, 0)] * 2
    args = [*none, torch.zeros(200, 0, 2), SIDE, SIDE]
    assert_refuses(kernel.bin, args, {}, "2^31 tiles", "200 images of 65535 x 65535")


def test_too_many_rows(kernel: Backend) -> None:
    cameras, count = 1 << 16, 1 << 15

    def rows(*shape: int) -> Tensor:
        return torch.zeros(()).expand(cameras, count, *shape)  # takes no memory

    sentence = "fewer than 2^31 splats times cameras", "32768 splats in 65536 cameras"
    args: list[Any] = [rows(2), rows(3), rows(), rows(), rows(2), 16, 16]
    assert_refuses(kernel.bin, args, {}, "means2d", *sentence)
    world = random_world(1, cameras=1).to(torch.float32)
    view = torch.zeros(()).expand(cameras, 4, 4)
    args = [world.means.expand(count, 3), world.sh.expand(count, 16, 3), view, rows(2), 0]
    assert_refuses(kernel.shade, args, {}, "extents", *sentence)
    args = world.project_args(GAUSSIAN)
    many = {i: args[i].expand(count, *args[i].shape[1:]) for i in (0, 1, 2, 4)}
    many |= {5: view, 6: torch.zeros(()).expand(cameras, 4)}
    assert_refuses(kernel.project, args, many, "means", *sentence)


def test_a_list_longer_than_float32_counts(cpu_kernel: Backend) -> None:
    pairs = (1 << 24) + 1
    zeros, ones = torch.zeros(pairs, dtype=torch.int32), torch.ones(1, 1)
    args: list[Any] = [torch.ones(1, 1, 2), torch.ones(1, 1, 3), ones, torch.ones(1, 1, 3)]
    ends = torch.tensor([0, pairs], dtype=torch.int32)
    args += [torch.zeros(1, 3), ends, zeros, zeros, ends, 16, 16, 0, False]
    assert_refuses(cpu_kernel.blend, args, {}, "tile_offsets", "at most 2^24", f"got {pairs}")
