"""Old forms of the stages: all tensors and sizes in one list, with a warning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import flat, random_prints, random_world
from helpers.backends import Backend


def project_case() -> tuple[Any, Any, list[Any]]:
    from splatrender.operators.project import project

    return project, flat.project(project), random_world(20).to(torch.float32).project_args(0)


def bin_case() -> tuple[Any, Any, list[Any]]:
    from splatrender.operators.bin import bin, bin_splats

    return bin_splats, flat.bin(bin), random_prints(20).to(torch.float32).bin_args()


def blend_case() -> tuple[Any, Any, list[Any]]:
    from splatrender.operators.blend import blend

    prints = random_prints(20).to(torch.float32)
    bins = bin_case()[1](*prints.bin_args())
    return blend, flat.blend(blend), prints.blend_args(bins, 0)


@pytest.mark.parametrize("case", [project_case, bin_case, blend_case])
def test_an_old_form_warns_and_gives_the_same_tensors(
    cpu_kernel: Backend, case: Callable[[], tuple[Any, Any, list[Any]]]
) -> None:
    old, new, args = case()
    with pytest.warns(DeprecationWarning, match="ends with the next release: pass the types of"):
        tensors = old(*args)
    for one, two in zip(tensors, new(*args), strict=True):
        assert torch.equal(one, two)
