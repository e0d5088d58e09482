"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from splatrender.errors import InputError
from splatrender.io.atomic import atomic_write
from splatrender.io.json_files import read_json, write_json


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep/a.txt"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="no such permissions on Windows")
def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": tmp_path})
    (tmp_path / "b").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.json", "b")]
    assert modes[0] == modes[1]
    assert read_json(tmp_path / "a.json") == {"a": str(tmp_path)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text('{"caf\u00e9": 1}', encoding=encoding)
    assert read_json(tmp_path / "a.json") == {"caf\u00e9": 1}


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file/a.txt"):
        with (
            pytest.raises(InputError, match="expected a place for a file"),
            atomic_write(place) as temporary,
        ):
            temporary.touch()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": object()})
    with pytest.raises(InputError, match="expected a JSON file, got none"):
        read_json(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON, got"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="expected a readable file"):
        read_json(tmp_path)
