"""Damaged files of every format: one sentence that names the file, and no excess of memory."""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from helpers.formats import some_splats

from splatrender.errors import InputError
from splatrender.formats import FORMATS, read_stored, write_splats

pytest.importorskip("plyfile")
ATTEMPTS = 60
MOST_MEMORY = 64 << 20  # bytes, for files below 100 kB


def refused(path: Path, content: bytes) -> bool:
    """Return whether a file is refused, which must be by one sentence that begins with its name."""
    path.write_bytes(content)
    try:
        read_stored(path)
    except InputError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and "expected" in message, message
        return True
    return False


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Return a file cut off, with flipped bits, or with another number near its beginning."""
    kind = generator.randrange(4)
    if kind == 0:
        return content[: generator.randrange(len(content))]
    changed = bytearray(content)
    if kind == 1:
        for _ in range(generator.choice((1, 2, 8))):
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    elif kind == 2:
        changed[generator.randrange(min(len(changed), 400))] = generator.randrange(256)
    else:
        place = generator.randrange(min(len(changed), 200))
        words = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"9999")
        changed[place : place + 4] = generator.choice(words)
    return bytes(changed)


@pytest.mark.parametrize("name", list(FORMATS))
def test_damaged_files_are_one_sentence(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / f"a{FORMATS[name].ending}"
    write_splats(path, some_splats(200, degree=1), name)
    good, generator = path.read_bytes(), random.Random(name)
    assert not refused(path, good)
    tracemalloc.start()
    try:
        count = sum(refused(path, damaged(good, generator)) for _ in range(ATTEMPTS))
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert count > ATTEMPTS / 8


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "splat"])
def test_every_cut_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a{FORMATS[name].ending}"
    write_splats(path, some_splats(70, degree=0), name)
    good = path.read_bytes()
    for part in range(12):
        assert refused(path, good[: len(good) * part // 12]), part
    assert refused(path, good[:-1])


@pytest.mark.parametrize("ending", [".ply", ".splat", ".spz", ".sog", ".glb"])
def test_other_files_folders_and_nothing(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    for content in (b"", b"\x89PNG\r\n\x1a\n and so on", bytes(33), b"\x1f\x8b nothing"):
        assert refused(path, content), content
    path.unlink()
    with pytest.raises(InputError, match=rf"a\{ending}: expected a {ending} file, got none"):
        read_stored(path)
    path.mkdir()
    with pytest.raises(InputError, match=rf"a\{ending}: expected a {ending} file, got a folder"):
        read_stored(path)


def test_claims_are_compared_with_the_file(tmp_path: Path) -> None:
    """A few bytes that claim a billion splats get no memory for them."""
    many = 2**30
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, many, 3, 12, 0, 0)
    cases = {"a.spz": gzip.compress(header)}
    rows = b"".join(b"property float %s\n" % n for n in (b"x", b"y", b"z"))
    cases["a.ply"] = b"ply\nformat binary_little_endian 1.0\nelement vertex %d\n%send_header\n" % (
        many,
        rows,
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("meta.json", " " * (1 << 24) + "{}")
    cases["b.sog"] = archive.getvalue()
    tracemalloc.start()
    try:
        for name, content in cases.items():
            assert refused(tmp_path / name, content), name
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_frames_of_spz_4_that_claim_another_size(tmp_path: Path) -> None:
    zstd = pytest.importorskip("zstandard")
    path = tmp_path / "a.spz"
    write_splats(path, some_splats(50, degree=0), "spz4")
    good = path.read_bytes()
    first = struct.unpack_from("<Q", good, 32)[0]
    start = 32 + 5 * 16
    bomb = zstd.ZstdCompressor().compress(bytes(1 << 28))
    content = bytearray(good[:start] + bomb + good[start + first :])
    struct.pack_into("<Q", content, 32, len(bomb))
    tracemalloc.start()
    try:
        assert refused(path, bytes(content))
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def sog(path: Path, **changes: object) -> bytes:
    """Return a .sog with another meta.json."""
    write_splats(path, some_splats(30, degree=1))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(files["meta.json"]) | changes
    files["meta.json"] = json.dumps(meta).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"count": 10**9},
        {"count": -1},
        {"count": "30"},
        {"means": None},
        {"means": {"mins": [0, 0], "maxs": [1, 1, 1], "files": ["means_l.webp", "means_u.webp"]}},
        {"scales": {"codebook": [1.0], "files": ["scales.webp"]}},
        {"scales": {"codebook": ["x"] * 256, "files": ["scales.webp"]}},
        {"quats": {"files": ["../../etc/passwd"]}},
        {"quats": {"files": ["missing.webp"]}},
        {"quats": {"files": ["meta.json"]}},
        {"shN": {"codebook": [0.0] * 256, "files": ["quats.webp", "shN_labels.webp"]}},
        {"shN": []},
    ],
)
def test_meta_data_of_sog_is_checked(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "a.sog"
    assert not refused(path, sog(path))
    assert refused(path, sog(path, **changes))
