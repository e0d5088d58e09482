"""Splats as .ply files: what is written, what is read, and what is refused."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splatrender.errors import InputError
from splatrender.model import SH_C0, Splats
from splatrender.model.ply import offset_for, read_ply, write_ply

plyfile = pytest.importorskip("plyfile")
PlyData, PlyElement = plyfile.PlyData, plyfile.PlyElement


def assert_same(a: Splats, b: Splats) -> None:
    for (name, left), (_, right) in zip(a.items(), b.items(), strict=True):
        assert torch.equal(left, right), name


def some_splats(count: int = 7, degree: int = 3) -> Splats:
    return Splats.random(count, degree=degree).map(torch.randn_like)


def rewrite(path: Path, names: list[str], types: str = "<f4", **changes: object) -> None:
    """Write the file again with these properties, in this order."""
    table = PlyData.read(str(path))["vertex"].data
    rows = np.zeros(len(table), dtype=[(name, types) for name in names])
    for name in names:
        rows[name] = table[name] if name in table.dtype.names else 0
    PlyData([PlyElement.describe(rows, "vertex")], **changes).write(str(path))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_is_written_is_read(tmp_path: Path, degree: int) -> None:
    splats = some_splats(degree=degree)
    write_ply(tmp_path / "a.ply", splats)
    assert_same(splats, read_ply(tmp_path / "a.ply"))


def test_layout_is_that_of_the_first_program(tmp_path: Path) -> None:
    splats = some_splats(2)
    write_ply(tmp_path / "new/a.ply", splats)
    content = (tmp_path / "new/a.ply").read_bytes()
    header, body = content.split(b"end_header\n", 1)
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3))]
    names += [f"f_rest_{i}" for i in range(45)] + ["opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    assert header.decode().splitlines() == [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 2",
        *(f"property float {name}" for name in names),
    ]
    row = dict(zip(names, np.frombuffer(body, "<f4").reshape(2, 62)[1].tolist(), strict=True))
    assert row["y"] == splats.means[1, 1] and row["nx"] == row["ny"] == row["nz"] == 0
    assert row["f_dc_2"] == splats.sh[1, 0, 2]
    assert row["f_rest_0"] == splats.sh[1, 1, 0]  # red first, all of it
    assert row["f_rest_14"] == splats.sh[1, 15, 0]
    assert row["f_rest_15"] == splats.sh[1, 1, 1]
    assert row["opacity"] == splats.opacity_logits[1]
    assert row["scale_2"] == splats.log_scales[1, 2] and row["rot_0"] == splats.quats[1, 0]


@pytest.mark.parametrize("kind", ["binary, big-endian doubles", "text"])
def test_order_type_and_normals_do_not_matter(tmp_path: Path, kind: str) -> None:
    splats, path = some_splats(), tmp_path / "a.ply"
    write_ply(path, splats)
    names = [n for n in PlyData.read(str(path))["vertex"].data.dtype.names if n[0] != "n"]
    changes = {"text": True} if kind == "text" else {"byte_order": ">"}
    rewrite(path, names[::-1], "<f8", **changes)
    assert_same(splats, read_ply(path))


def test_broken_splats_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splats = some_splats(6)
    splats.means[0, 2] = torch.nan
    splats.log_scales[1, 0] = torch.inf
    splats.quats[3] = 0
    splats.opacity_logits[5] = torch.nan
    write_ply(tmp_path / "a.ply", splats)
    with caplog.at_level(logging.WARNING):
        found = read_ply(tmp_path / "a.ply")
    assert_same(splats.index(torch.tensor([2, 4])), found)
    assert "left out 4 of 6 splats" in caplog.text
    write_ply(tmp_path / "a.ply", splats.index(torch.tensor([0, 1])))
    with pytest.raises(InputError, match="expected splats of finite numbers"):
        read_ply(tmp_path / "a.ply")


def test_ends_of_logit_and_logarithm_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splats = some_splats(4)
    splats.opacity_logits[0] = torch.inf  # opaque
    splats.log_scales[1, 2] = -torch.inf  # flat
    splats.opacity_logits[3] = -torch.inf  # invisible
    write_ply(tmp_path / "a.ply", splats)
    with caplog.at_level(logging.WARNING):
        found = read_ply(tmp_path / "a.ply")
    assert_same(splats.index(torch.arange(3)), found)
    assert "left out 1 of 4 splats, which are invisible (opacity 0)" in caplog.text
    assert "not finite" not in caplog.text
    write_ply(tmp_path / "a.ply", splats.index(torch.tensor([3])))
    with pytest.raises(InputError, match="got 0 that are not finite, 1 of opacity 0"):
        read_ply(tmp_path / "a.ply")


UTM = torch.tensor([500_012.5, 5_400_003.25, 310.0], dtype=torch.float64)


def far_splats(count: int = 50) -> Splats:
    """Make small splats far from the origin."""
    splats = Splats.random(count, seed=5, degree=1).to(torch.float64)
    return replace(splats, means=splats.means + UTM)


def test_places_far_from_the_origin_survive_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, splats = tmp_path / "a.ply", far_splats()
    splats.save(path)
    header = path.read_bytes().split(b"end_header")[0].decode()
    assert "comment offset 500010.0 5400000.0 310.0 (world = x y z + offset)" in header
    assert "double" not in header  # viewers read float32 alone
    with caplog.at_level(logging.WARNING):
        found = Splats.load(path)
    assert not caplog.text
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.means, splats.means, atol=1e-6, rtol=0)
    for (name, one), (_, other) in zip(splats.items(), found.items(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0, msg=name)
    table = PlyData.read(str(path))["vertex"].data
    assert abs(table["y"]).max() < 10


def test_doubles_are_read_as_doubles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, splats = tmp_path / "a.ply", far_splats()
    splats.save(path)
    table = PlyData.read(str(path))["vertex"].data
    kinds = [(name, "<f8" if name in "xyz" else "<f4") for name in table.dtype.names]
    rows = np.zeros(len(table), dtype=kinds)
    for i, name in enumerate(table.dtype.names):
        rows[name] = splats.means[:, i].numpy() if name in "xyz" else table[name]
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))
    with caplog.at_level(logging.WARNING):
        found = Splats.load(path)
    assert torch.equal(found.means, splats.means) and not caplog.text
    # the same numbers as float32 have lost what cannot come back
    rewrite(path, list(table.dtype.names))
    with caplog.at_level(logging.WARNING):
        assert Splats.load(path).dtype == torch.float32
    assert "a.ply: positions are float32 up to 5.4e+06, where steps are 0.5" in caplog.text


def test_places_near_the_origin_need_no_offset(tmp_path: Path) -> None:
    splats = Splats.random(50)
    splats.save(tmp_path / "a.ply")
    splats.to(torch.float64).save(tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert b"comment" not in (tmp_path / "a.ply").read_bytes()


def test_an_offset_is_where_float32_moves_splats() -> None:
    center = torch.tensor([1234.5, -67.8, 0.0])
    rounding = 1234.5 * 2**-24
    assert offset_for(center, 30.0, 101 * rounding) is None
    offset = offset_for(center, 30.0, 99 * rounding)
    assert offset is not None and offset.tolist() == [1200.0, -100.0, 0.0]


def test_points_without_a_size_need_no_offset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splats = some_splats(3).to(torch.float64)
    splats.log_scales.fill_(-torch.inf)
    splats.save(tmp_path / "a.ply")
    with caplog.at_level(logging.WARNING):
        assert Splats.load(tmp_path / "a.ply").dtype == torch.float32
    assert not caplog.text


@pytest.mark.parametrize("line", ["offset 1 2", "offset a b c", "offset 1 nan 3"])
def test_a_broken_offset_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, some_splats())
    content = path.read_bytes().replace(b"element", f"comment {line}\nelement".encode(), 1)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.ply: expected 'comment offset X Y Z'"):
        read_ply(path)


def test_discs_of_2dgs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, some_splats())
    names = [n for n in PlyData.read(str(path))["vertex"].data.dtype.names if n != "scale_2"]
    rewrite(path, names)
    with pytest.raises(InputError, match=r"2D Gaussian splatting .*add a property scale_2"):
        read_ply(path)


def test_without_plyfile_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyfile", None)
    for call in (lambda: read_ply(tmp_path / "a.ply"), lambda: write_ply("b.ply", some_splats())):
        with pytest.raises(InputError, match="expected the package plyfile, got none"):
            call()


@pytest.mark.parametrize("name", ["y", "f_dc_1", "opacity", "scale_0", "rot_3"])
def test_a_missing_property_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, some_splats())
    names = [n for n in PlyData.read(str(path))["vertex"].data.dtype.names if n != name]
    rewrite(path, names)
    with pytest.raises(InputError, match=f"a.ply: expected a property '{name}'"):
        read_ply(path)


def test_other_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    with pytest.raises(InputError, match=r"expected a \.ply file, got none"):
        read_ply(path)
    with pytest.raises(InputError, match="got a folder"):
        read_ply(tmp_path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(InputError, match="which begins with 'ply'"):
        read_ply(path)
    write_ply(path, some_splats())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="expected a whole PLY file"):
        read_ply(path)
    path.write_bytes(whole[:200])
    with pytest.raises(InputError, match="expected a whole PLY file"):
        read_ply(path)
    write_ply(path, some_splats().index(torch.arange(0)))
    with pytest.raises(InputError, match="got an empty file"):
        read_ply(path)
    write_ply(path, some_splats())
    rewrite(path, [f"f_rest_{i}" for i in range(3)] + ["x", "y", "z", "opacity"])
    with pytest.raises(InputError, match="property 'rot_0'"):
        read_ply(path)
    write_ply(path, some_splats())
    names = list(PlyData.read(str(path))["vertex"].data.dtype.names)
    rewrite(path, [n for n in names if n != "f_rest_44"])
    with pytest.raises(InputError, match=r"0, 9, 24 or 45 properties f_rest_\*.*got 44"):
        read_ply(path)
    faces = np.array([(1,)], dtype=[("x", "<f4")])
    PlyData([PlyElement.describe(faces, "face")]).write(str(path))
    with pytest.raises(InputError, match="expected an element 'vertex', got face"):
        read_ply(path)


def test_a_list_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    rows = np.empty(1, dtype=[("x", "O")])
    rows["x"][0] = np.array([1.0, 2.0])
    PlyData([PlyElement.describe(rows, "vertex", val_types={"x": "f4"})]).write(str(path))
    with pytest.raises(InputError, match="expected a number as property 'x', got a list"):
        read_ply(path)


@pytest.mark.slow
def test_many_splats_are_quick(tmp_path: Path) -> None:
    splats = some_splats(100_000)
    start = time.process_time()
    write_ply(tmp_path / "a.ply", splats)
    read_ply(tmp_path / "a.ply")
    assert time.process_time() - start < 4  # 0.3 s on a quiet machine


def test_a_file_of_the_first_program(shared_data: Path) -> None:
    splats = read_ply(shared_data / "splats/kacytran_iter7000_sh3.ply")
    assert len(splats) == 9080 and splats.degree == 3
    assert splats.sh[:, 1:].abs().max() > 0.01


def test_compressed_files(shared_data: Path) -> None:
    plain = read_ply(shared_data / "splats/kacytran_iter7000_sh3.ply")
    packed = read_ply(shared_data / "splats/derived/kacytran_sh3.compressed.ply")
    assert len(packed) == len(plain)
    distances, nearest = torch.cdist(packed.means.double(), plain.means.double()).min(dim=1)
    sure = nearest.bincount(minlength=len(plain))[nearest] == 1  # pairs beyond doubt
    sure &= distances < 0.1
    assert sure.sum() > 5000
    plain, packed = plain.index(nearest[sure]), packed.index(sure)

    def most(error: torch.Tensor) -> float:
        return float(error.reshape(len(plain), -1).amax(dim=1).quantile(0.99))

    size = plain.means.abs().max()
    assert most((packed.means - plain.means).abs() / size) < 1e-3
    assert most((packed.log_scales - plain.log_scales).abs()) < 0.02
    assert most((packed.opacities - plain.opacities).abs()) < 0.6 / 255
    assert most((packed.sh[:, 0] - plain.sh[:, 0]).abs() * SH_C0) < 0.02
    assert most((packed.sh[:, 1:] - plain.sh[:, 1:]).abs()) < 4.1 / 255
    a, b = (torch.nn.functional.normalize(s.quats, dim=1) for s in (plain, packed))
    assert most(1 - (a * b).sum(dim=1).abs()) < 1e-5


@pytest.mark.parametrize(
    ("name", "count", "degree"),
    [("playcanvas_test.ply", 64, 3), ("guitar.compressed.ply", 90854, 0)],
)
def test_compressed_files_of_the_editor(
    shared_data: Path, name: str, count: int, degree: int
) -> None:
    splats = read_ply(shared_data / "splats" / name)
    assert (len(splats), splats.degree) == (count, degree)
    torch.testing.assert_close(splats.quats.norm(dim=1), torch.ones(count), atol=1e-2, rtol=0)


def packed_elements(count: int = 300, chunks: int = 2) -> list[Any]:
    ranges = [f"{end}_{name}" for end in ("min", "max") for name in ("x", "y", "z")]
    ranges += [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
    words = [f"packed_{name}" for name in ("position", "rotation", "scale", "color")]
    chunk = np.zeros(chunks, dtype=[(name, "<f4") for name in ranges])
    chunk["max_x"], chunk["min_x"] = 2, 1
    vertex = np.zeros(count, dtype=[(name, "<u4") for name in words])
    vertex["packed_position"] = 2047 << 21
    vertex["packed_rotation"] = (2 << 30) | (512 << 20) | (512 << 10) | 512
    vertex["packed_color"] = 0xFF00FFFF
    return [PlyElement.describe(chunk, "chunk"), PlyElement.describe(vertex, "vertex")]


def test_compressed_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.compressed.ply"
    PlyData(packed_elements()).write(str(path))
    splats = read_ply(path)
    assert splats.means[299].tolist() == [2, 0, 0]
    torch.testing.assert_close(
        splats.quats[0], torch.tensor([0.0, 0.0, 1.0, 0.0]), atol=1e-3, rtol=0
    )
    color = 0.5 + SH_C0 * splats.sh[0, 0]
    torch.testing.assert_close(color, torch.tensor([1.0, 0.0, 1.0]))
    assert splats.opacities.isfinite().all() and splats.opacities[0] > 0.99


def test_compressed_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    PlyData(packed_elements(chunks=1)).write(str(path))
    with pytest.raises(InputError, match="expected 2 chunks for 300 splats, got 1"):
        read_ply(path)
    PlyData(packed_elements(count=0)).write(str(path))
    with pytest.raises(InputError, match="got an empty file"):
        read_ply(path)
    chunk, vertex = packed_elements()
    partial = np.zeros(300, dtype=[("packed_position", "<u4")])
    PlyData([chunk, PlyElement.describe(partial, "vertex")]).write(str(path))
    with pytest.raises(InputError, match="expected a property 'packed_"):
        read_ply(path)
    PlyData([chunk]).write(str(path))
    with pytest.raises(InputError, match="expected an element 'vertex', got chunk"):
        read_ply(path)
    sh = np.zeros(299, dtype=[(f"f_rest_{i}", "u1") for i in range(9)])
    PlyData([chunk, vertex, PlyElement.describe(sh, "sh")]).write(str(path))
    with pytest.raises(InputError, match="expected 300 rows of harmonics, got 299"):
        read_ply(path)
