"""The two fields and their closed forms: optical depth, averages, conversions, refusals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.media import F64, axis_ray, ball, make_field, make_medium, make_rays
from torch import Tensor
from torch.autograd import gradcheck

from splatrender.errors import InputError
from splatrender.model import Splats
from splatrender.model.fields import (
    ExtinctionField,
    SourceField,
    evaluate_harmonics,
    expected_densities,
    log_expected_densities,
)
from splatrender.model.medium import FAINTEST, KINDS, Medium
from splatrender.model.rays import normal_mass
from splatrender.operators.render import peak_amplitudes


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def test_extinction_is_the_sum_of_bumps() -> None:
    field, points = make_field(), torch.rand(20, 3, dtype=F64)
    offsets = torch.linalg.solve(field.factors, (points[:, None] - field.means)[..., None])[..., 0]
    expected = (field.peaks * torch.exp(-0.5 * offsets.square().sum(-1))).sum(1)
    torch.testing.assert_close(field.extinction(points), expected, rtol=1e-12, atol=1e-12)


def test_optical_depth_equals_the_trapezoidal_rule() -> None:
    field, (origins, directions) = make_field(), make_rays()
    near, far = torch.rand(5, dtype=F64) * 2, 3 + torch.rand(5, dtype=F64)
    found = field.optical_depth(origins, directions, near, far)
    share = torch.linspace(0, 1, 20001, dtype=F64)
    for ray in range(5):
        t = near[ray] + (far[ray] - near[ray]) * share
        sigma = field.extinction(origins[ray] + t[:, None] * directions[ray])
        assert float(found[ray]) == pytest.approx(float(torch.trapezoid(sigma, t)), rel=1e-7)


def test_optical_depth_of_a_line_through_a_ball() -> None:
    field = ball(2.0)
    whole = math.sqrt(2 * math.pi) * 0.5 * 2.0
    origins, directions = axis_ray()
    assert float(field.optical_depth(origins, directions)) == pytest.approx(whole, rel=1e-8)
    assert float(field.optical_depth(origins, directions, 3.0)) == pytest.approx(whole / 2)
    aside = origins + torch.tensor([1.0, 0, 0])
    expected = whole * math.exp(-0.5 * 2.0**2)
    assert float(field.optical_depth(aside, directions, -math.inf)) == pytest.approx(expected)
    assert float(field.optical_depth(origins + 100, directions)) == 0


def test_mass_between_ends_is_relatively_exact() -> None:
    mp = pytest.importorskip("mpmath")
    mp.mp.dps = 60
    ends = [(-1, 2), (5, 5.5), (-9, -8), (30, 31), (2, 2 + 1e-9), (-1e-4, 1e-4), (7.9, 7.95)]
    low, high = torch.tensor(ends, dtype=F64).unbind(1)
    for found, a, b in zip(normal_mass(low, high), low, high, strict=True):
        exact = 0.5 * (
            mp.erf(mp.mpf(float(b)) / mp.sqrt(2)) - mp.erf(mp.mpf(float(a)) / mp.sqrt(2))
        )
        assert float(found) == pytest.approx(float(exact), rel=3e-13)


def test_depths_of_segments_add_up_and_hardly_depend_on_far_origins() -> None:
    field, (origins, directions) = make_field(), make_rays()
    cuts = torch.linspace(0, 6, 101, dtype=F64)
    parts = sum(
        (field.optical_depth(origins, directions, a, b) for a, b in itertools.pairwise(cuts)),
        torch.zeros(5, dtype=F64),
    )
    whole = field.optical_depth(origins, directions, 0.0, 6.0)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    far = field.optical_depth(origins - 1e6 * directions, directions)
    torch.testing.assert_close(far, field.optical_depth(origins, directions), rtol=1e-7, atol=1e-9)


def test_single_precision_follows_double() -> None:
    field, (origins, directions) = make_field(), make_rays()
    single = field.to(torch.float32).optical_depth(origins.float(), directions.float())
    expected = field.optical_depth(origins, directions)
    torch.testing.assert_close(single.double(), expected, rtol=3e-6, atol=3e-6)


def test_gradients_of_depth_and_extinction() -> None:
    field, (origins, directions) = make_field(3), make_rays(2)
    near, far = torch.tensor([0.5, 2.9], dtype=F64), torch.tensor([3.2, 2.95], dtype=F64)
    inputs = [field.means, field.factors, field.peaks, origins, directions, near, far]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]

    def depth(*args: Any) -> Tensor:
        return ExtinctionField(*args[:3]).optical_depth(*args[3:])

    assert gradcheck(depth, inputs)
    assert gradcheck(lambda *args: depth(*args, -math.inf, math.inf), inputs[:5])
    points = torch.rand(3, 3, dtype=F64, requires_grad=True)
    assert gradcheck(
        lambda *args: ExtinctionField(*args[:3]).extinction(args[3]), [*inputs[:3], points]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_emission_is_source_times_extinction(kind: str) -> None:
    medium, points = make_medium(kind), torch.rand(9, 3, dtype=F64)
    directions = torch.nn.functional.normalize(torch.randn(9, 3, dtype=F64), dim=1)
    product = medium.source(points, directions) * medium.extinction(points)[:, None]
    torch.testing.assert_close(product, medium.emission(points, directions))
    far = points + 100
    assert medium.emission(far, directions).abs().max() == 0
    assert medium.source(far, directions).abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_emission(kind: str) -> None:
    medium, points = make_medium(kind, 3), torch.rand(2, 3, dtype=F64)
    directions = torch.nn.functional.normalize(torch.randn(2, 3, dtype=F64), dim=1)
    names = [name for name, _ in medium.items()]
    tensors = [tensor.clone().requires_grad_() for _, tensor in medium.items()]

    def emission(*args: Tensor) -> Tensor:
        return medium.with_tensors(dict(zip(names, args, strict=True))).emission(points, directions)

    assert gradcheck(emission, tensors)


def test_independent_without_own_colours_is_the_product_of_two_fields() -> None:
    medium, points = make_medium("independent"), torch.rand(9, 3, dtype=F64)
    directions = torch.nn.functional.normalize(torch.randn(9, 3, dtype=F64), dim=1)
    medium = replace(medium, harmonics=torch.zeros_like(medium.harmonics))
    assert medium.sources is not None
    expected = (0.5 + medium.sources.source(points, directions)).relu()
    torch.testing.assert_close(medium.source(points, directions), expected)


def test_normalised_sources_reproduce_a_constant_everywhere() -> None:
    coarse = make_field(4)
    ones = torch.ones(4, 1, 2, dtype=F64)
    sources = SourceField(coarse.means, coarse.factors, ones)
    points = torch.cat([torch.rand(3, 3, dtype=F64), torch.full((1, 3), 1e3, dtype=F64)])
    value = evaluate_harmonics(ones[:1], points[:1])[0, 0]
    found = sources.source(points, points)
    torch.testing.assert_close(found, value.expand(4, 2))
    plain = replace(sources, normalised=False)
    expected = value * replace_peaks(coarse, 1.0).extinction(points)
    torch.testing.assert_close(plain.source(points, points)[:, 0], expected)


def replace_peaks(field: ExtinctionField, peak: float) -> ExtinctionField:
    return replace(field, peaks=torch.full_like(field.peaks, peak))


def test_average_of_a_density_over_a_splat_against_samples() -> None:
    splats, sources = make_field(2), make_field(3, seed=5)
    found = expected_densities(splats.means, splats.factors, sources.means, sources.factors)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100_000, 3, 1, dtype=F64, generator=generator)
    for i in range(2):
        points = splats.means[i] + (splats.factors[i] @ noise)[..., 0]
        for j in range(3):
            density = torch.distributions.MultivariateNormal(
                sources.means[j], sources.factors[j] @ sources.factors[j].T
            )
            mean = density.log_prob(points).exp().mean()
            assert float(found[i, j]) == pytest.approx(float(mean), rel=0.03)


def test_gradients_of_the_average() -> None:
    one, other = make_field(2), make_field(2, seed=3)
    inputs = [one.means, one.factors, other.means, other.factors]
    assert gradcheck(expected_densities, [tensor.requires_grad_() for tensor in inputs])
    far = log_expected_densities(one.means + 1e3, *inputs[1:])
    assert far.isfinite().all()


def test_plain_sources_average_without_error() -> None:
    medium = make_medium("independent", 2)
    assert medium.sources is not None
    sources, splats = replace(medium.sources, normalised=False), medium.splats
    averaged = sources.averaged(splats.means, splats.factors)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100_000, 3, 1, dtype=F64, generator=generator)
    view = torch.tensor([[0.0, 0.6, 0.8]], dtype=F64)
    points = splats.means[0] + (splats.factors[0] @ noise)[..., 0]
    mean = sources.source(points, view.expand(len(points), 3)).mean(0)
    found = evaluate_harmonics(averaged[:1], view)[0]
    torch.testing.assert_close(found, mean, rtol=0.02, atol=2e-3)


def test_the_average_of_small_splats_is_the_source_at_their_centres() -> None:
    medium = make_medium("independent", size=1e-4)
    coarse = make_medium("independent").sources
    baked = replace(medium, sources=coarse).baked()
    means = medium.splats.means
    views = torch.nn.functional.normalize(torch.randn(len(means), 3, dtype=F64), dim=1)
    assert coarse is not None and baked.kind == "shared"
    own = evaluate_harmonics(medium.harmonics, views)
    expected = own + coarse.source(means, views)
    torch.testing.assert_close(
        evaluate_harmonics(baked.harmonics, views), expected, rtol=1e-5, atol=1e-6
    )


def test_splats_become_a_medium_and_come_back() -> None:
    generator = torch.Generator().manual_seed(0)
    splats = Splats.random(30, seed=1)
    splats = splats.with_tensors(
        {
            "quats": torch.randn(30, 4, generator=generator),
            "log_scales": splats.log_scales + torch.randn(30, 3, generator=generator),
            "opacity_logits": 3 * torch.randn(30, generator=generator),
        }
    ).to(F64)
    medium = Medium.from_splats(splats)
    expected = peak_amplitudes(splats.opacity_logits, splats.scales, "beer_lambert")
    torch.testing.assert_close(medium.splats.peaks, expected)  # one convention in the whole package
    again = medium.to_splats()
    torch.testing.assert_close(again.opacity_logits, splats.opacity_logits)
    torch.testing.assert_close(again.sh, splats.sh)
    one, other = (m.splats.factors for m in (medium, Medium.from_splats(again)))
    torch.testing.assert_close(one @ one.mT, other @ other.mT)


def test_a_bake_of_emission_keeps_it() -> None:
    medium, points = make_medium("emissive"), torch.rand(9, 3, dtype=F64)
    directions = torch.nn.functional.normalize(torch.randn(9, 3, dtype=F64), dim=1)
    peaks = medium.splats.peaks.clone()
    peaks[0] = 0
    medium = medium.with_tensors({"splats.peaks": peaks})
    baked = medium.baked()
    expected = medium.emission(points, directions)
    torch.testing.assert_close(baked.emission(points, directions), expected)
    depth = baked.splats.peaks * baked.splats.thickness
    assert float(depth[0]) == pytest.approx(FAINTEST)
    assert torch.equal(baked.splats.peaks[1:], peaks[1:])


def test_a_medium_keeps_its_kind_through_maps() -> None:
    medium = make_medium("independent")
    assert medium.to(torch.float32).dtype == torch.float32
    assert medium.to(torch.float32).kind == "independent"
    leaf = medium.detach().requires_grad_()
    assert all(tensor.requires_grad for _, tensor in leaf.items())
    assert [name for name, _ in leaf.items()][-1] == "sources.harmonics"
    assert "3 sources" in repr(medium)


def refused(text: str, call: object) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert text in str(caught.value) and "expected" in str(caught.value)


def test_fields_refuse_what_is_no_medium() -> None:
    field, medium = make_field(), make_medium("independent")
    for bad in (-1.0, math.nan, math.inf):
        peaks = field.peaks.clone()
        peaks[2] = bad
        refused("ExtinctionField.peaks", lambda peaks=peaks: replace(field, peaks=peaks))
    refused("ExtinctionField.means", lambda: replace(field, means=field.means[0]))
    refused("ExtinctionField.factors", lambda: replace(field, factors=field.factors[:2]))
    flat = replace(field, factors=torch.zeros_like(field.factors))
    refused("singular", lambda: flat.extinction(field.means))
    refused("points", lambda: field.extinction(field.means.float()))
    refused("Medium.kind", lambda: replace(medium, kind="both"))
    refused("got None", lambda: replace(medium, sources=None))
    refused("expected None", lambda: replace(medium, kind="shared"))
    empty = ExtinctionField(field.means[:0], field.factors[:0], field.peaks[:0])
    nothing = medium.harmonics[:0]
    refused("got no splats", lambda: replace(medium, splats=empty, harmonics=nothing))
    refused("one coefficient", lambda: replace(medium, harmonics=torch.zeros(6, 4, 3, dtype=F64)))
    refused("2 channels", lambda: replace(medium, harmonics=medium.harmonics[..., :2]))
    refused("float32", lambda: replace(medium, harmonics=medium.harmonics.float()))
    refused("Medium.harmonics", lambda: replace(medium, harmonics=medium.harmonics[:2]))
    assert medium.sources is not None
    sources = medium.sources
    refused("at least one", lambda: replace(sources, means=sources.means[:0]))
    refused("K = 1, 4", lambda: replace(sources, harmonics=sources.harmonics[:, :2]))


def test_rays_refuse_bad_input() -> None:
    field, (origins, directions) = make_field(), make_rays()
    refused("length 1", lambda: field.optical_depth(origins, 2 * directions))
    refused("directions", lambda: field.optical_depth(origins, directions[:2]))
    refused("origins", lambda: field.optical_depth(origins[0], directions))
    refused("t_near, t_far", lambda: field.optical_depth(origins, directions, 2.0, 1.0))
    refused("t_far", lambda: field.optical_depth(origins, directions, 0.0, torch.ones(2)))
    refused("t_near", lambda: field.optical_depth(origins, directions, math.nan))
