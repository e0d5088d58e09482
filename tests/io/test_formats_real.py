"""Splat files of other programs, and conversions by another one; skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.formats import matched, shapes, some_splats
from scipy.spatial import cKDTree

from splatrender.formats import FORMATS, read_splats, read_stored, write_splats
from splatrender.model import Splats

pytest.importorskip("plyfile")
Peer = Callable[[Path, Path], None]


@pytest.fixture
def real(shared_data: Path) -> Path:
    folder = shared_data / "splats"
    if not folder.is_dir():
        pytest.skip(f"no splat files in {folder}")
    return folder


def check_alike(splats: Splats, others: Splats, far: float, shape: float, alpha: float) -> None:
    """Check the 95 % of splats that agree best: places, covariances, opacities."""
    _, rows = cKDTree(others.means.numpy()).query(splats.means.numpy())
    found = others.index(torch.from_numpy(rows))
    a, b = shapes(splats).flatten(1), shapes(found).flatten(1)
    differences = {
        "places": ((splats.means - found.means).norm(dim=1), far),
        "shapes": ((a - b).norm(dim=1) / a.norm(dim=1), shape),
        "opacities": ((splats.opacities - found.opacities).abs(), alpha),
    }
    for name, (difference, most) in differences.items():
        assert float(difference.quantile(0.95)) < most, name


def test_one_model_in_two_formats(real: Path) -> None:
    biker = read_stored(real / "biker.spz")
    other = read_splats(real / "biker.compressed.ply")
    assert len(biker.splats) == len(other) == 152_746 and biker.antialiased is False
    check_alike(biker.splats, other, far=1e-3, shape=0.1, alpha=1e-3)


@pytest.mark.parametrize("name", ["_v3.spz", "_v4.spz", ".compressed.ply"])
def test_conversions_of_another_program(real: Path, name: str) -> None:
    splats = read_splats(real / "kacytran_iter7000_sh3.ply")
    found = read_splats(real / f"derived/kacytran_sh3{name}")
    assert len(splats) == len(found) == 9_080 and found.degree == 3
    check_alike(splats, found, far=0.2, shape=0.1, alpha=0.01)
    if name.endswith("spz"):  # which keeps the order
        torch.testing.assert_close(splats.sh[:, 1:4], found.sh[:, 1:4], atol=0.04, rtol=0)


def test_small_files_and_the_first_version_of_sog(real: Path) -> None:
    for name in ("minimal.splat", "minimal-v2.spz", "minimal-v3.spz", "minimal-v4.spz"):
        assert len(read_splats(real / "minimal" / name)) == 4, name
    logo = read_splats(real / "sog_playcanvas-logo/meta.json")
    assert len(logo) == 307_128
    assert float(logo.means.abs().max()) == pytest.approx(2.7817, abs=1e-3)


@pytest.mark.parametrize("name", ["spz", "spz4", "sog", "glb", "compressed.ply", "splat"])
def test_real_splats_survive_each_format(real: Path, tmp_path: Path, name: str) -> None:
    splats = read_splats(real / "kacytran_iter7000_sh3.ply")
    path = tmp_path / f"a{FORMATS[name].ending}"
    write_splats(path, splats, name)
    check_alike(splats, read_splats(path), far=0.5, shape=0.2, alpha=0.01)


@pytest.fixture
def peer() -> Peer:
    """Convert by npm's @playcanvas/splat-transform: on the PATH, or in SPLAT_TRANSFORM."""
    program = os.environ.get("SPLAT_TRANSFORM") or shutil.which("splat-transform")
    if program is None:
        pytest.skip("no splat-transform: npm i @playcanvas/splat-transform, then set "
                    "SPLAT_TRANSFORM to its bin/cli.mjs")  # fmt: skip

    def convert(source: Path, target: Path) -> None:
        done = subprocess.run(
            [program, "-w", "-g", "cpu", source, target], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return convert


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ply", "compressed.ply", "splat", "spz", "spz4", "sog"])
def test_another_program_reads_what_is_written(peer: Peer, tmp_path: Path, name: str) -> None:
    splats = some_splats(2000)
    path, back = tmp_path / f"a{FORMATS[name].ending}", tmp_path / "back.ply"
    write_splats(path, splats, name)
    peer(path, back)
    ours, theirs = read_splats(path), read_splats(back)
    found = matched(ours, theirs)
    assert found.degree == ours.degree
    torch.testing.assert_close(ours.means, found.means, atol=2e-3, rtol=0)
    torch.testing.assert_close(ours.log_scales, found.log_scales, atol=2e-3, rtol=0)
    torch.testing.assert_close(ours.opacities, found.opacities, atol=3e-3, rtol=0)
    torch.testing.assert_close(ours.sh, found.sh, atol=0.02, rtol=0)
    a, b = shapes(ours).flatten(1), shapes(found).flatten(1)
    assert float(((a - b).norm(dim=1) / a.norm(dim=1)).max()) < 0.04  # .splat: 1/127.5 or 1/128


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compressed.ply", "spz", "sog", "glb"])
def test_what_another_program_writes_is_read(peer: Peer, tmp_path: Path, name: str) -> None:
    splats = some_splats(2000)
    source, path = tmp_path / "a.ply", tmp_path / f"b{FORMATS[name].ending}"
    write_splats(source, splats)
    peer(source, path)
    found = matched(splats, read_splats(path))
    assert found.degree == 3
    torch.testing.assert_close(splats.means, found.means, atol=5e-3, rtol=0)
    torch.testing.assert_close(splats.opacities, found.opacities, atol=0.01, rtol=0)
    base = (splats.sh[:, 0] - found.sh[:, 0]).abs()
    assert float(base.quantile(0.99)) < 0.05  # its codebook of SOG errs by 3 in a few
    a, b = shapes(splats).flatten(1), shapes(found).flatten(1)
    assert float(((a - b).norm(dim=1) / a.norm(dim=1)).max()) < 0.2
    if name == "glb":
        torch.testing.assert_close(splats.sh, found.sh, atol=1e-6, rtol=0)
