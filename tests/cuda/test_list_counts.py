"""Counts of `tools/cuda_static/roofline.py` in tile lists."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.backends import require_extension


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the modules of tools.cuda_static that count."""
    require_extension()
    from benchmarks.render import workloads
    from tools.cuda_static import list_counts

    return SimpleNamespace(lists=list_counts, workloads=workloads)


def test_quadrants_that_an_ellipse_meets(counting: SimpleNamespace) -> None:
    """Compare with a fine grid of points in each quadrant."""
    count = 400
    factors = torch.randn(count, 2, 2, dtype=torch.float64) * 3
    covariances = factors @ factors.mT + 0.3 * torch.eye(2, dtype=torch.float64)
    inverse = torch.linalg.inv(covariances)
    conics = torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], dim=1)
    peaks = torch.rand(count, dtype=torch.float64) * 0.98 + 0.01
    offsets = torch.rand(count, 2, dtype=torch.float64) * 40 - 30
    found = counting.lists._meets(offsets, conics, peaks)
    steps = torch.linspace(0, 7, 71, dtype=torch.float64)
    level = 2 * (255 * peaks).log()[:, None, None]
    for quadrant in range(4):
        x = offsets[:, :1] + 8 * (quadrant % 2) + steps
        y = offsets[:, 1:] + 8 * (quadrant // 2) + steps
        xx, xy, yy = (q[:, None, None] for q in conics.unbind(1))
        dx, dy = x[:, None, :], y[:, :, None]
        inside = (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy <= level).flatten(1).any(dim=1)
        assert 0.1 < float(inside.double().mean()) < 0.9
        assert not bool((inside & ~found[:, quadrant]).any())
        # the grid may step over a thin tip
        assert float((found[:, quadrant] & ~inside).double().mean()) < 0.01


def test_counts_of_a_picture(counting: SimpleNamespace) -> None:
    workload = counting.workloads.scatter("test", 3000, -4.0, (100, 60))
    c = counting.lists.count_lists(workload)
    assert c.splats == 3000 and 0 < c.visible <= 3000 and c.pixels == 6000
    assert 0 < c.pairs_hit <= c.backward_entries <= c.forward_entries <= c.pairs
    assert 0 < c.block_pixels <= c.backward_pixels <= c.forward_pixels
    assert c.backward_pixels <= c.chunk_pixels < 4 * c.backward_pixels
    assert c.tile_passes == 1 and math.ceil(100 / 16) * math.ceil(60 / 16) <= 256
    # every changed block is in a quadrant, every quadrant in a tile, of which there is one a pair
    assert c.forward_pixels <= 256 * c.forward_entries


def test_a_lone_splat(counting: SimpleNamespace) -> None:
    """Count one opaque splat, of standard deviation 3 pixels, in the middle of the fourth tile."""
    workload = counting.workloads.scatter("test", 1, -4.0, (32, 32))
    workload.means.copy_(torch.tensor([[0.5, 0.5, 0.0]]))  # z = 2 m, 16 px a metre: pixel 24
    workload.quats.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    workload.scales.fill_(3 / 16)
    workload.opacities.fill_(0.9)
    c = counting.lists.count_lists(workload)
    # its ellipse reaches 3 sqrt(2 ln(255·0.9)) = 9.9 px: beyond tile 4 on the left and above, past
    # the image on the right and below
    assert (c.pairs, c.pairs_hit, c.visible) == (3, 3, 1)
    assert c.forward_pixels == c.backward_pixels == 64 * (4 + 2 + 2)
    assert c.chunk_pixels == 8 * c.backward_pixels  # sums over 8 splats, of which there is one
