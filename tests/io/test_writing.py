"""Writing: full disks, JSON that everybody reads, packages that are missing or broken."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.disk import files_up_to

from splatrender.errors import InputError, WriteError
from splatrender.io.atomic import atomic_write, write_text
from splatrender.io.checkpoint import load_checkpoint, save_checkpoint
from splatrender.io.images import write_image
from splatrender.io.json_files import json_text, read_json, write_json
from splatrender.io.packages import require_package
from splatrender.io.video import encoder, write_video
from splatrender.model import Splats
from splatrender.model.ply import write_ply
from splatrender.plots.regression import have_matplotlib
from splatrender.regression.storage import write_content

TOO_LARGE = os.strerror(errno.EFBIG)


def write_numbers(path: Path) -> None:
    """Write with numpy, which reports that it failed, and not why."""
    with atomic_write(path) as temporary:
        np.zeros(5000).tofile(temporary)


NOISE = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json", lambda path: write_json(path, ["x" * 5000])),
        ("a.txt", lambda path: write_text(path, "x" * 5000)),
        ("a.bin", write_numbers),
        ("a.pt", lambda path: save_checkpoint(path, {"means": torch.zeros(2000)})),
        ("b.pt", lambda path: write_content(path, {"means": torch.zeros(2000)})),
        ("a.png", lambda path: write_image(path, NOISE)),
        ("a.ply", lambda path: write_ply(path, Splats.random(100))),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_file_before_stays(
    tmp_path: Path, name: str, write: Any
) -> None:
    path = tmp_path / name
    path.write_text("before")
    with files_up_to(1000), pytest.raises(WriteError) as caught:
        write(path)
    assert str(caught.value) == f"{path}: expected to write this file, got: {TOO_LARGE}"
    assert isinstance(caught.value, OSError)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_text() == "before"
    write(path)
    assert path.stat().st_size > 1000


def test_a_video_that_was_cut_off_is_not_taken_for_one(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="no encoder of videos")
    path = tmp_path / "a.mp4"
    with files_up_to(1000), pytest.raises(WriteError, match=TOO_LARGE):
        write_video(path, [NOISE] * 3)
    assert not list(tmp_path.iterdir())
    write_video(path, [NOISE] * 3)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, WriteError),
        (errno.EDQUOT, WriteError),
        (errno.ESTALE, WriteError),
        (errno.EIO, WriteError),
        (errno.EROFS, InputError),
        (errno.EACCES, InputError),
    ],
)
def test_a_file_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=os.strerror(number)):
        write_text(tmp_path / "a.txt", "text")


def test_a_checkpoint_keeps_its_bits(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "means": torch.rand(50, 3),
        "names": ["é.jpg", os.fsdecode(b"\xff.jpg")],
    }
    save_checkpoint(tmp_path / "a.pt", state)
    found = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(found["means"], state["means"]) and found["names"] == state["names"]


def strict(text: str) -> Any:
    """Read JSON as jq and JavaScript do."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_json_has_null_and_a_word_for_numbers_that_it_lacks(tmp_path: Path) -> None:
    value = {
        "psnr": math.inf,
        "loss": math.nan,
        "low": [-math.inf, 1],
        "views": {"a": {"psnr": np.float64("-inf")}},
        "where": tmp_path,
        "sum": np.float64(1.5),
    }
    write_json(tmp_path / "a.json", value)
    assert strict((tmp_path / "a.json").read_text()) == {
        "psnr": None,
        "psnr_is": "infinite",
        "loss": None,
        "loss_is": "not a number",
        "low": [None, 1],
        "views": {"a": {"psnr": None, "psnr_is": "minus infinite"}},
        "where": str(tmp_path),
        "sum": 1.5,
    }
    assert json_text({"é": 0.1}) == '{"\\u00e9": 0.1}'
    with pytest.raises(TypeError):
        json_text({"a": object()})


def test_json_nested_too_deeply_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="expected JSON"):
        read_json(tmp_path / "a.json")


def break_package(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, code: str) -> None:
    """Put a package that raises on import in place of the real one."""
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    for name in [n for n in sys.modules if n == module or n.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "plyfile", None)
    with pytest.raises(InputError) as caught:
        require_package("plyfile", ", or stop")
    assert str(caught.value) == (
        ".ply files: expected the package plyfile, got none; pip install plyfile, or stop"
    )


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import numpy_that_is_not_there", "No module named 'numpy_that_is_not_there'"),
        ("raise RuntimeError('built for\\n another numpy')", "built for another numpy"),
        ("raise SystemError", "SystemError"),
    ],
)
def test_a_broken_package_is_named_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, found: str
) -> None:
    break_package(monkeypatch, tmp_path, "plyfile", code)
    with pytest.raises(InputError) as caught:
        require_package("plyfile")
    assert str(caught.value) == (
        f".ply files: expected a package plyfile that works, got: {found}; "
        "pip install --force-reinstall plyfile"
    )


def test_an_encoder_without_ffmpeg_is_found_before_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def get_ffmpeg_exe():\n    raise RuntimeError('No ffmpeg exe could be found')"
    break_package(monkeypatch, tmp_path, "imageio_ffmpeg", code)
    with pytest.raises(InputError, match=r"imageio-ffmpeg that works, got: No ffmpeg exe"):
        encoder()


def test_a_broken_matplotlib_is_a_warning_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_package(monkeypatch, tmp_path, "matplotlib", "raise ImportError('no libpng')")
    assert not have_matplotlib()
    assert "matplotlib that works, got: no libpng" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "splatrender", "--help"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 74
    assert done.stderr.decode().splitlines() == [
        f"error: a file or the standard output: {os.strerror(errno.ENOSPC)}"
    ]
