"""The splat container, its beginnings, and nearest neighbours."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.model import SH_C0, Splats
from splatrender.model.neighbors import nearest_distances


def brute_force(points: Tensor, k: int) -> Tensor:
    """Compute all distances, by the definition."""
    distances: Tensor = (points[:, None] - points[None]).norm(dim=2)
    distances.fill_diagonal_(torch.inf)
    return distances.sort(dim=1).values[:, : min(k, len(points) - 1)]


def clouds(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    even = torch.randn(count, 3, generator=generator)
    outliers, doubles = even.clone(), even.clone()
    outliers[::7] *= 1000
    doubles[1::2] = doubles[0]
    return {
        "even": even,
        "flat": even * torch.tensor([1.0, 1.0, 0.0]),
        "outliers": outliers,
        "doubles": doubles,
    }


@pytest.mark.parametrize("count", [2, 3, 4, 47, 48, 49, 97, 700])
def test_nearest_distances_equal_brute_force(count: int) -> None:
    for name, points in clouds(count, seed=count).items():
        found = nearest_distances(points, 3)
        torch.testing.assert_close(
            found, brute_force(points, 3), msg=partial("{}: {}".format, name)
        )


def test_a_single_point_has_no_neighbours() -> None:
    assert nearest_distances(torch.zeros(1, 3)).shape == (1, 0)


@pytest.mark.slow
def test_nearest_distances_of_many_points_are_quick() -> None:
    points = torch.rand(100_000, 3)
    start = time.process_time()
    nearest_distances(points)
    assert time.process_time() - start < 10  # 1 s on a quiet machine; brute force takes minutes


def test_from_points_scales_colour_and_opacity() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    colors = torch.tensor([[255, 0, 51]] * 4, dtype=torch.uint8)
    splats = Splats.from_points(points, colors, degree=2, opacity=0.2)
    assert len(splats) == 4 and splats.degree == 2
    # distances from the origin to the others: 1, 2, 3
    torch.testing.assert_close(splats.scales[0], torch.full((3,), math.sqrt(14 / 3)))
    torch.testing.assert_close(splats.opacities, torch.full((4,), 0.2))
    torch.testing.assert_close(0.5 + SH_C0 * splats.sh[0, 0], torch.tensor([1.0, 0.0, 0.2]))
    assert not splats.sh[:, 1:].any()
    assert splats.quats.tolist() == [[1, 0, 0, 0]] * 4
    points[0] = 7  # not shared
    assert splats.means[0].tolist() == [0, 0, 0]


def test_points_that_coincide_and_outliers_get_sane_scales() -> None:
    points = clouds(200, seed=1)["doubles"]
    points[0] = 1e9
    splats = Splats.from_points(points, torch.zeros(200, 3, dtype=torch.uint8))
    assert splats.scales.isfinite().all() and (splats.scales > 0).all()
    assert splats.scales.max() / splats.scales.min() <= 1e4 * 1.001
    for alike in (1, 2, 5):  # nothing but one place
        one_place = Splats.from_points(
            torch.ones(alike, 3), torch.zeros(alike, 3, dtype=torch.uint8)
        )
        assert (one_place.scales > 0).all()


def test_random_is_repeatable_and_fills_its_cube() -> None:
    splats, again = Splats.random(300, extent=2.0, seed=5), Splats.random(300, extent=2.0, seed=5)
    for (name, a), (_, b) in zip(splats.items(), again.items(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(splats.means, Splats.random(300, extent=2.0, seed=6).means)
    assert 1.9 < float(splats.means.abs().max()) <= 2.0


def test_index_cat_and_conversions() -> None:
    splats = Splats.random(10, degree=1)
    halves = [splats.index(torch.arange(5)), splats.index(torch.arange(10) >= 5)]
    whole = Splats.cat(halves)
    for (name, a), (_, b) in zip(splats.items(), whole.items(), strict=True):
        assert torch.equal(a, b), name
    assert splats.to(torch.float64).dtype == torch.float64
    leaves = splats.clone().requires_grad_()
    (leaves.means.sum() + leaves.scales.sum()).backward()
    assert leaves.means.grad is not None and leaves.log_scales.grad is not None
    assert not leaves.detach().means.requires_grad
    assert "10 splats, degree 1" in repr(splats)


def test_degree_is_cut_off_and_filled_up() -> None:
    splats = Splats.random(4, degree=2).map(torch.randn_like)
    assert torch.equal(splats.with_degree(0).sh, splats.sh[:, :1])
    more = splats.with_degree(3)
    assert torch.equal(more.sh[:, :9], splats.sh) and not more.sh[:, 9:].any()
    with pytest.raises(InputError, match="degree"):
        splats.with_degree(4)


def test_finite_tells_broken_splats() -> None:
    splats = Splats.random(4)
    splats.sh[1, 3, 2] = torch.nan
    splats.log_scales[2, 0] = torch.inf
    assert splats.finite().tolist() == [True, False, False, True]


BAD_FIELDS = {
    "means": torch.zeros(3, 2),
    "quats": torch.zeros(3, 3),
    "log_scales": torch.zeros(2, 3),
    "opacity_logits": torch.zeros(3, 1),
    "sh": torch.zeros(3, 5, 3),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_shapes_are_refused_by_name(name: str) -> None:
    fields = dict(Splats.random(3).items())
    with pytest.raises(InputError, match=rf"Splats\.{name}: expected shape"):
        Splats(**{**fields, name: BAD_FIELDS[name]})


def test_bad_dtypes_are_refused_by_name() -> None:
    fields = dict(Splats.random(3).items())
    with pytest.raises(InputError, match=r"Splats\.quats: expected a floating-point tensor"):
        Splats(**{**fields, "quats": torch.zeros(3, 4, dtype=torch.int32)})
    with pytest.raises(InputError, match=r"Splats\.sh: expected dtype torch.float32"):
        Splats(**{**fields, "sh": fields["sh"].double()})
    with pytest.raises(InputError, match=r"Splats\.sh: expected device cpu"):
        Splats(**{**fields, "sh": fields["sh"].to("meta")})


POINTS, COLORS = torch.rand(3, 3), torch.zeros(3, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((POINTS[:0], COLORS[:0]), "points"),
        ((POINTS[0], COLORS), "points"),
        ((POINTS.int(), COLORS), "points"),
        ((POINTS * torch.nan, COLORS), "points"),
        ((POINTS, COLORS[:2]), "colors"),
        ((POINTS, POINTS), "colors"),
        ((POINTS, COLORS, 4), "degree"),
        ((POINTS, COLORS, 3, 1.0), "opacity"),
    ],
)
def test_from_points_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}: expected"):
        Splats.from_points(*arguments)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="count"):
        Splats.random(0)
    with pytest.raises(InputError, match="extent"):
        Splats.random(1, extent=0.0)
    with pytest.raises(InputError, match="at least one record"):
        Splats.cat([])
    with pytest.raises(InputError, match=r"one degree of harmonics, got \[0, 3\]"):
        Splats.cat([Splats.random(2, degree=0), Splats.random(2)])
