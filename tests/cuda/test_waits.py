"""Waits of the host for a GPU: counted on a pretended one, and searched for in the sources."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY

import splatrender

TESTS = REPOSITORY / "tests"
PACKAGE = Path(splatrender.__file__).resolve().parent
ONCE = 19  # waits of a sweep, of any number of views, without those of rays and of attempts
ATTEMPT = (
    "kept.nonzero()[:, 0]  # once",
    "torch.stack(squares)",
    "float(costs[",
)  # in exchange and sweep


@pytest.fixture(scope="module")
def pretended() -> dict[str, Any]:
    """Count waits with `pretended_gpu.py`, in a process of its own."""
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot pretend a device")
    command = [sys.executable, "-m", "helpers.pretended_gpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS)
    assert done.returncode == 0, done.stderr[-3000:]
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize("strategy", ["none", "mcmc", "adc", "adc-absgrad", "wfr"])
def test_a_training_step_waits_in_no_place_but_bin(
    pretended: dict[str, Any], strategy: str
) -> None:
    assert pretended["steps"][strategy] == {}


@pytest.mark.parametrize("transport", ["wasserstein", "wasserstein-scaled"])
def test_wasserstein_waits_for_the_number_of_visible_splats(
    pretended: dict[str, Any], transport: str
) -> None:
    ((place, count),) = pretended["steps"][transport].items()
    assert place.startswith("flow/transports/wasserstein.py")
    assert count == 5  # once in each of five steps


def test_a_sweep_waits_as_often_for_many_views_as_for_few(pretended: dict[str, Any]) -> None:
    others = []
    for views, places in pretended["sweeps"].items():
        probes, born, trials = pretended["report"][views]
        assert probes > 50 and born > 10  # all parts of a sweep take place
        rays = sum(n for place, n in places.items() if "views/footprints.py" in place)
        tried = sum(n for place, n in places.items() if any(part in place for part in ATTEMPT))
        assert rays <= 3 * int(views)  # along rays of 150 splats by 64
        assert 2 <= tried <= 2 + 3 * trials
        others.append(sum(places.values()) - rays - tried)
    assert others[0] == others[1] <= ONCE, pretended["sweeps"]


def test_a_sweep_elsewhere_has_the_bits_of_one_here(pretended: dict[str, Any]) -> None:
    assert pretended["same"] == {"2": True, "6": True}


def test_pictures_leave_the_device_as_bytes(pretended: dict[str, Any]) -> None:
    ((place, count),) = pretended["picture"].items()
    assert "copy of torch.uint8 to the host" in place and count == 1


# --- in the sources -------------------------------------------------------------------------------

WAITING = {
    "item", "tolist", "cpu", "numpy", "nonzero", "argwhere", "unique", "unique_consecutive",
    "masked_select", "new_tensor", "multinomial", "bincount", "histogram", "histc", "equal",
    "allclose", "repeat_interleave", "synchronize", "tensor", "as_tensor", "from_numpy", "quantile",
}  # fmt: skip
FILES = {
    "flow": "birth_death line_search memory state",
    "flow/strategies": "adc base exchange mcmc report",
    "flow/transports": "adam wasserstein",
    "flow/views": "footprints neighbourhood objective probes sweep",
    "model": "draws quaternions splitting",
    "operators": "adam bin blend flow_statistics loss project render shade",
    "runtime": "devices",
    "training": "data run",
}
ALLOWED = {
    "no number of a device": """
        flow/strategies/mcmc.py MCMC.load_state_dict int, flow/strategies/mcmc.py MCMC._grow int,
        flow/views/neighbourhood.py _cells int, flow/views/sweep.py sweep tensor,
        flow/views/sweep.py _best_insertions tensor,
        flow/strategies/exchange.py ExchangeStrategy.__init__ int,
        flow/strategies/exchange.py ExchangeStrategy._alone tensor,
        flow/strategies/report.py exchange_report int 2,
        flow/strategies/report.py histograms tolist 2,
        flow/strategies/report.py histograms float 2,
        flow/strategies/report.py histograms histogram,
        training/data.py Samples.next tolist, training/data.py Samples.load_state_dict int,
        training/data.py _free_room int""",
    "in regression, which runs on the CPU": """
        flow/birth_death.py orthogonal_least_squares int,
        flow/birth_death.py orthogonal_least_squares float 2,
        flow/birth_death.py orthogonal_least_squares tensor,
        flow/birth_death.py orthogonal_least_squares new_tensor,
        flow/birth_death.py duplicate_and_kill nonzero 2,
        flow/birth_death.py robust_cholesky int""",
    "on a CPU only": "flow/strategies/mcmc.py diffuse nonzero",
    "at births, which are a hundred iterations apart": """
        flow/strategies/adc.py ADC._densify nonzero, flow/strategies/adc.py ADC._prune nonzero,
        flow/strategies/mcmc.py MCMC._relocate nonzero, flow/strategies/mcmc.py _divide unique,
        model/draws.py draw int, model/draws.py draw_distinct bool""",
    "once or twice in a sweep": """
        flow/birth_death.py exchange tolist 2, flow/birth_death.py exchange int,
        flow/views/neighbourhood.py non_overlapping nonzero 2,
        flow/views/probes.py _those nonzero,
        flow/strategies/exchange.py ExchangeStrategy._split int,
        flow/strategies/exchange.py ExchangeStrategy.select nonzero 2,
        flow/strategies/exchange.py ExchangeStrategy.search float,
        flow/strategies/report.py histograms cpu,
        flow/strategies/exchange.py _some tolist, runtime/devices.py read tolist""",
    "once for each part of an exchange that is tried": """
        flow/views/sweep.py squared_error tolist, flow/strategies/exchange.py _others nonzero,
        flow/strategies/report.py change_of float""",
    "once for each view and 64 splats of a ray": "flow/views/footprints.py draw_on_rays nonzero",
    "once in each step, which the documentation says": """
        flow/transports/wasserstein.py WassersteinOptimizer.step nonzero""",
    "every tenth or hundredth iteration": """
        training/run.py Run._read_losses tolist, training/run.py _mean_square float,
        training/run.py Run._check_finite int""",
    "at the beginning or the end": """
        model/quaternions.py quat_from_rotation tolist,
        model/quaternions.py quat_from_rotation tensor,
        training/run.py look_of tensor, training/run.py Run.load_state_dict cpu 2, model/draws.py
        _refused float, model/draws.py _refused int, runtime/devices.py synchronize synchronize""",
}


class Places(ast.NodeVisitor):
    """Calls that may wait for a device, as "file function callee"."""

    def __init__(self, file: str) -> None:
        self.file, self.found = file, Counter[str]()
        self.inside: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()

    visit_ClassDef = visit_FunctionDef  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        known = isinstance(node.args[0], ast.Constant) if node.args else True
        if name in WAITING or (name in ("int", "float", "bool") and not known):
            self.found[f"{self.file} {'.'.join(self.inside)} {name}"] += 1
        self.generic_visit(node)


def test_places_that_wait_are_known() -> None:
    """Find new waits: each costs every step, or belongs to the list with its reason."""
    found, allowed = Counter[str](), Counter[str]()
    for folder, names in FILES.items():
        for name in names.split():
            places = Places(f"{folder}/{name}.py")
            places.visit(ast.parse((PACKAGE / folder / f"{name}.py").read_text()))
            found += places.found
    for entries in ALLOWED.values():
        for entry in entries.split(","):
            *place, last = entry.split()
            if last.isdigit():
                allowed[" ".join(place)] += int(last)
            else:
                allowed[" ".join([*place, last])] += 1
    assert list(found - allowed) == [], "calls that may wait for a GPU, and are not in the list"
    assert list(allowed - found) == [], "entries of the list that no longer occur"


@pytest.mark.parametrize("line", ["float(x.sum())", "x.nonzero()", "x.new_tensor([1.0])", "int(x)"])
def test_places_are_found(line: str) -> None:
    places = Places("file.py")
    places.visit(ast.parse(f"class A:\n    def f(self, x):\n        return {line}\n"))
    assert list(places.found) == [f"file.py A.f {line.partition('(')[0].rpartition('.')[2]}"]
