"""Formats of other tools: what is written is read, within the bounds of docs/formats.md."""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.formats import matched, some_splats, worst_shape, worst_turn

from splatrender.errors import InputError
from splatrender.formats import FORMATS, format_of, read_splats, read_stored, write_splats
from splatrender.formats.axes import ABOUT_X, ABOUT_Z, moved
from splatrender.formats.quantise import codebook, codes_in
from splatrender.formats.sog_palette import palette_of
from splatrender.model import Splats
from splatrender.model.harmonics import harmonics
from splatrender.model.quaternions import rotations_from_quats

pytest.importorskip("plyfile")
NAMES = list(FORMATS)
BYTE = 0.5 / 255 + 1e-6
RANGE = 6.0  # of the coordinates of `some_splats`


@dataclass(frozen=True)
class Bounds:
    """Largest errors of a format: absolute, of logarithms for scales, of components for turns."""

    means: float
    scales: float
    turns: float
    alpha: float
    base: float  # of sh[:, 0]
    rest: float  # of the other harmonics


C0 = 0.2820948
BOUNDS = {
    "ply": Bounds(0, 0, 1e-6, 0, 0, 0),
    "glb": Bounds(0, 1e-6, 1e-6, 1e-6, 0, 0),
    "splat": Bounds(0, 1e-6, 1.5 / 128, BYTE, BYTE / C0, math.inf),
    "compressed.ply": Bounds(
        RANGE / 2 / 1023, 8 / 2 / 1023, 3 * 0.7072 / 1023, BYTE, BYTE * 1.0 / C0, 4.001 / 256
    ),
    "spz": Bounds(2**-13, 1.001 / 32, 1.5 * 0.7072 / 511, BYTE, BYTE / 0.15, 0.501 / 128),
    "spz2": Bounds(2**-13, 1.001 / 32, 0.12, BYTE, BYTE / 0.15, 0.501 / 128),
    "spz4": Bounds(2**-13, 1.001 / 32, 1.5 * 0.7072 / 511, BYTE, BYTE / 0.15, 0.501 / 128),
    "sog": Bounds(4 * 1.4 / 65535 * 2, 8 / 128, 3 * 0.7072 / 255, BYTE, 3.6 / 128, 2 / 128),
}


def path_for(name: str, folder: Path) -> Path:
    return folder / f"a{FORMATS[name].ending}"


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_within_the_bounds(tmp_path: Path, name: str, degree: int) -> None:
    splats, path, bounds = some_splats(degree=degree), path_for(name, tmp_path), BOUNDS[name]
    write_splats(path, splats, name)
    found = matched(splats, read_splats(path))
    assert found.degree == min(degree, FORMATS[name].degree)
    size = found.sh.shape[1]
    differences: dict[str, torch.Tensor | float] = {
        "means": (splats.means - found.means).abs().max(),
        "scales": (splats.log_scales - found.log_scales).abs().max(),
        "turns": worst_turn(splats, found),
        "alpha": (splats.opacities - found.opacities).abs().max(),
        "base": (splats.sh[:, 0] - found.sh[:, 0]).abs().max(),
        "rest": (splats.sh[:, 1:size] - found.sh[:, 1:]).abs().max() if size > 1 else 0.0,
    }
    for attribute, difference in differences.items():
        assert float(difference) <= getattr(bounds, attribute), (attribute, float(difference))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ply", "glb")])
def test_writing_what_was_read_changes_nothing_more(tmp_path: Path, name: str) -> None:
    path = path_for(name, tmp_path)
    write_splats(path, some_splats(degree=1), name)
    first = read_splats(path)
    write_splats(path, first, name)
    second = matched(first, read_splats(path))
    assert worst_shape(first, second) < 2e-2 and worst_turn(first, second) < 1e-2
    torch.testing.assert_close(first.opacities, second.opacities, rtol=0, atol=BYTE)
    torch.testing.assert_close(first.sh, second.sh, rtol=0, atol=0.04)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_antialias_flag_is_kept_where_there_is_a_place(
    tmp_path: Path, name: str, antialiased: bool
) -> None:
    path = path_for(name, tmp_path)
    write_splats(path, some_splats(5), name, antialiased)
    found = read_stored(path).antialiased
    assert found is (antialiased if FORMATS[name].keeps_antialiased else None)


@pytest.mark.parametrize("name", NAMES)
def test_ends_of_ranges_and_single_splats(tmp_path: Path, name: str) -> None:
    path = path_for(name, tmp_path)
    splats = some_splats(3, degree=1)
    splats.opacity_logits[0] = torch.inf
    splats.log_scales[1, 2] = -torch.inf
    splats.log_scales[2] = 9.0
    write_splats(path, splats, name)
    found = matched(splats, read_splats(path))
    assert found.opacities[0] > 0.995 and found.log_scales[1, 2] <= -9.9
    assert found.log_scales[2].min() > 5.9
    one = some_splats(1)
    write_splats(path, one, name)
    torch.testing.assert_close(read_splats(path).means, one.means, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_splats_that_no_file_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    if name == "ply":  # which keeps even NaN, and leaves it out on reading
        return
    path = path_for(name, tmp_path)
    broken = some_splats(4)
    broken.sh[1, 0, 2] = torch.nan
    with pytest.raises(
        InputError, match=r"a\..*: expected splats of finite numbers to write, got 1"
    ):
        write_splats(path, broken, name)
    with pytest.raises(InputError, match="expected at least one splat to write, got none"):
        write_splats(path, broken.index(torch.zeros(0, dtype=torch.int64)), name)
    assert not path.exists()


def test_endings(tmp_path: Path) -> None:
    endings = {"a.PLY": "ply", "a.compressed.ply": "compressed.ply", "meta.json": "sog"}
    endings |= {"a.spz": "spz", "a.splat": "splat", "b.c.sog": "sog", "a.glb": "glb"}
    assert {name: format_of(name).name for name in endings} == endings
    with pytest.raises(InputError, match=r"a\.obj: expected a name ending in .*, got 'a\.obj'"):
        format_of("a.obj")
    with pytest.raises(InputError, match="format: expected one of"):
        write_splats(tmp_path / "a.ply", some_splats(3), "obj")


# Axes


@pytest.mark.parametrize("turn", [ABOUT_X, ABOUT_Z, None])
def test_moved_splats_look_the_same_from_moved_cameras(turn: torch.Tensor | None) -> None:
    if turn is None:
        turn = rotations_from_quats(torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64))
    splats = some_splats(20).to(torch.float64)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = moved(splats, turn, shift, 1.5)
    torch.testing.assert_close(found.means, 1.5 * splats.means @ turn.T + shift)
    directions = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=1)
    before = torch.einsum("rk,nkc->rnc", harmonics(directions, 3), splats.sh)
    after = torch.einsum("rk,nkc->rnc", harmonics(directions @ turn.T, 3), found.sh)
    torch.testing.assert_close(before, after, atol=1e-9, rtol=0)
    factors = [rotations_from_quats(s.quats) * s.scales[:, None] for s in (splats, found)]
    before, after = (factor @ factor.mT for factor in factors)
    torch.testing.assert_close(1.5**2 * turn @ before @ turn.T, after)


def test_half_turns_are_exact() -> None:
    splats = some_splats(50)
    for turn in (ABOUT_X, ABOUT_Z):
        twice = moved(moved(splats, turn), turn)
        for (name, a), (_, b) in zip(splats.items(), twice.items(), strict=True):
            assert torch.equal(a, -b if name == "quats" else b), name


def test_axes_of_spz_and_glb(tmp_path: Path) -> None:
    splats = some_splats(1)
    write_splats(tmp_path / "a.spz", splats)
    body = zlib.decompress((tmp_path / "a.spz").read_bytes(), 31)
    codes = [int.from_bytes(body[16 + 3 * i : 19 + 3 * i], "little", signed=True) for i in range(3)]
    x, y, z = splats.means[0].tolist()
    np.testing.assert_allclose(np.array(codes) / 2.0 ** body[13], [x, -y, -z], atol=1e-3)
    write_splats(tmp_path / "a.glb", splats)
    content = (tmp_path / "a.glb").read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    root = json.loads(content[20 : 20 + length])
    accessor = root["accessors"][root["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    np.testing.assert_allclose(accessor["min"], [-x, -y, z], rtol=1e-6)


# Pieces


def test_spz_gives_small_scenes_finer_steps_and_large_ones_coarser(tmp_path: Path) -> None:
    path, splats = tmp_path / "a.spz", some_splats(50)
    for scale, bits in ((1e-6, 18), (1.0, 12), (1e5, 4)):
        write_splats(path, moved(splats, torch.eye(3, dtype=torch.float64), scale=scale))
        assert zlib.decompress(path.read_bytes(), 31)[13] == pytest.approx(bits, abs=1), scale
    far = moved(splats, torch.eye(3, dtype=torch.float64), scale=1e8)
    with pytest.raises(InputError, match="expected positions within 8,388,607 of the origin"):
        write_splats(path, far)


def test_codebooks_are_exact_for_few_numbers_and_bounded_for_many() -> None:
    generator = np.random.default_rng(0)
    few = generator.normal(size=200).astype(np.float32)
    book = codebook(few)
    assert len(book) == 256 and np.array_equal(book[codes_in(book, few)], few)
    for values in (generator.normal(size=9999), np.append(np.zeros(5000), generator.random(5000))):
        book = codebook(values)
        error = np.abs(book[codes_in(book, values)] - values)
        assert error.max() <= 1.01 * np.ptp(values) / 128
        assert np.sqrt(np.mean(error**2)) < np.ptp(values) / 256 / 12**0.5  # better than even steps


def test_a_palette_of_many_harmonics_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(3000, 9)
    entries, labels = palette_of(vectors)
    assert torch.equal(entries[labels], vectors)
    monkeypatch.setattr("splatrender.formats.sog_palette.MOST_ENTRIES", 256)
    monkeypatch.setattr("splatrender.formats.sog_palette.BRANCHES", 16)
    entries, labels = palette_of(vectors)
    assert len(entries) <= 256
    assert float((entries[labels] - vectors).square().mean()) < 0.5 * float(vectors.var())


def test_an_unpacked_sog_is_that_of_the_archive(tmp_path: Path) -> None:
    splats = some_splats(100)
    write_splats(tmp_path / "a.sog", splats)
    write_splats(tmp_path / "b" / "meta.json", splats)
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        names = set(archive.namelist())
        assert names == {file.name for file in (tmp_path / "b").iterdir()}
        assert all(archive.read(n) == (tmp_path / "b" / n).read_bytes() for n in names)
    a, b = read_splats(tmp_path / "a.sog"), read_splats(tmp_path / "b" / "meta.json")
    assert torch.equal(a.means, b.means) and torch.equal(a.sh, b.sh)


def test_glb_reads_nodes_and_normalised_numbers(tmp_path: Path) -> None:
    path, splats = tmp_path / "a.glb", some_splats(10, degree=0)
    write_splats(path, splats)
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    root, binary = json.loads(content[20 : 20 + length]), content[28 + length :]
    root["nodes"] = [
        {"children": [1], "scale": [2, 2, 2], "rotation": [0, 0, 1, 0]},
        {"mesh": 0, "translation": [1, 2, 3]},
    ]
    place = len(binary)
    alpha = (splats.opacities * 255).round().to(torch.uint8).numpy().tobytes()
    root["bufferViews"].append({"buffer": 0, "byteOffset": place, "byteLength": 10})
    view = len(root["bufferViews"]) - 1
    attributes = root["meshes"][0]["primitives"][0]["attributes"]
    opacity = root["accessors"][attributes["KHR_gaussian_splatting:OPACITY"]]
    opacity |= {"bufferView": view, "componentType": 5121, "normalized": True}
    write_glb(path, root, binary + alpha + b"\0\0")
    found = read_splats(path)
    # In glTF: p -> 2 F (p + t) with F = half a turn about z, which takes glTF to .ply axes, too.
    expected = 2 * (splats.means @ ABOUT_Z.float() + torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found.means, expected)
    torch.testing.assert_close(found.opacities, splats.opacities, atol=BYTE, rtol=0)
    root["nodes"][0]["scale"] = [2, 1, 2]
    write_glb(path, root, binary + alpha + b"\0\0")
    with pytest.raises(InputError, match="expected nodes that move, turn and scale evenly"):
        read_splats(path)
    root["nodes"][0] |= {"children": [0], "scale": [1, 1, 1]}
    write_glb(path, root, binary + alpha + b"\0\0")
    with pytest.raises(InputError, match="expected a tree of nodes, got node 0 twice"):
        read_splats(path)


def write_glb(path: Path, root: dict[str, object], binary: bytes) -> None:
    text = json.dumps(root).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    chunks = struct.pack("<I4s", len(text), b"JSON"), struct.pack("<I4s", len(binary), b"BIN\0")
    path.write_bytes(head + chunks[0] + text + chunks[1] + binary)


def test_spz_4_without_its_package_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(InputError, match=r'zstandard, got none; pip install "splatrender\[formats'):
        write_splats(tmp_path / "a.spz", some_splats(3), "spz4")
    assert not list(tmp_path.iterdir())


def test_splats_of_spz_keep_their_order(tmp_path: Path) -> None:
    splats: Splats = some_splats(40)
    write_splats(tmp_path / "a.spz", splats)
    torch.testing.assert_close(
        read_splats(tmp_path / "a.spz").means, splats.means, atol=1e-3, rtol=0
    )
