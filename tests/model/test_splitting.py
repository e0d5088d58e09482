"""The law of splitting: the same pair in factors and in rotations with scales."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.measures import F64, make_measure, uniform

from splatrender.errors import InputError
from splatrender.model import Splats, evaluate
from splatrender.model.geometry import integrals
from splatrender.model.quaternions import rotations_from_quats
from splatrender.model.splitting import HALVING, split, split_factors, split_splats


@pytest.mark.parametrize("normalised", [False, True])
def test_the_change_of_f_is_of_order_four_in_the_offset(normalised: bool) -> None:
    measure = make_measure(4, 2, 2, normalised=normalised)
    points, direction = uniform(40), torch.ones(2, 2, dtype=F64)
    before = evaluate(measure, points).value
    ids = torch.tensor([1, 3])
    errors = []
    for offset in (0.0, 0.1, 0.2, 0.4):
        children = split(measure, ids, direction, offset)
        assert len(children) == 6
        errors.append(float((evaluate(children, points).value - before).abs().max()))
        assert float(integrals(children).sum()) == pytest.approx(float(integrals(measure).sum()))
    assert errors[0] < 1e-12
    # moments to order three agree, so that the change is of order δ⁴
    assert math.log2(errors[2] / errors[1]) == pytest.approx(4, abs=0.3)
    assert 0 < errors[1] < errors[2] < errors[3]
    with pytest.raises(InputError, match="offset"):
        split(measure, ids, direction, 1.0)


def factors_of(splats: Splats) -> torch.Tensor:
    return rotations_from_quats(splats.quats) * splats.scales[:, None, :]


@pytest.mark.parametrize("offset", [0.0, 0.3, HALVING])
def test_splats_of_a_scene_follow_the_law_of_factors(offset: float) -> None:
    parents = Splats.random(20, seed=1).to(F64)
    generator = torch.Generator().manual_seed(2)
    sizes = 0.3 * torch.randn(20, 3, generator=generator, dtype=F64)
    turns = torch.randn(20, 4, generator=generator, dtype=F64)
    parents = parents.with_tensors({"log_scales": sizes, "quats": turns})
    one, other = split_splats(parents, offset)
    longest = torch.nn.functional.one_hot(sizes.argmax(dim=1), 3).to(F64)
    depth = parents.optical_depths
    pair = split_factors(depth, parents.means, factors_of(parents), longest, offset)
    torch.testing.assert_close(torch.stack([one.means, other.means]), pair.means)
    for child in (one, other):
        torch.testing.assert_close(factors_of(child), pair.factors)
    assert torch.equal(one.opacity_logits, parents.opacity_logits)


def test_halves_have_the_optical_mass_and_the_moments_of_the_parent() -> None:
    parents = Splats.random(20, seed=1).to(F64)

    def masses(splats: Splats) -> torch.Tensor:
        return splats.optical_depths * splats.scales.prod(dim=1)

    def second_moments(splats: Splats) -> torch.Tensor:
        factors, away = factors_of(splats), splats.means - parents.means
        return factors @ factors.mT + away[:, :, None] * away[:, None, :]

    one, other = split_splats(parents)
    torch.testing.assert_close(masses(one) + masses(other), masses(parents))
    torch.testing.assert_close(second_moments(one), second_moments(parents))
    torch.testing.assert_close((one.means + other.means) / 2, parents.means)
