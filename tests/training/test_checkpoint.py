"""Checkpoints: data in, the same data out, and nothing else accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from splatrender.errors import InputError
from splatrender.io.checkpoint import load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "step": 7,
        "means": torch.randn(3, 3, requires_grad=True),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "options": {"source": "a", "rates": [1e-3, 2.0], "mask": None, 5: True},
        "pair": (1, "two"),
    }
    path = tmp_path / "run/checkpoint.pt"
    save_checkpoint(path, state)
    found = load_checkpoint(path)
    assert torch.equal(found["means"], state["means"])
    assert torch.equal(found["generator"], state["generator"])
    for name in ("step", "options", "pair"):
        assert found[name] == state[name]
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": [1, {"b": Path("x")}]}, r"state\['a'\]\[1\]\['b'\]"),
        ({"a": {(1, 2): 3}}, r"state\['a'\]"),
        ({"a": len}, r"state\['a'\]"),
    ],
)
def test_what_is_not_data_is_refused_on_saving(
    tmp_path: Path, state: dict[str, Any], where: str
) -> None:
    with pytest.raises(InputError, match=f"{where}: expected"):
        save_checkpoint(tmp_path / "a.pt", state)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(InputError, match="expected a checkpoint file, got none"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="expected a checkpoint file, got a folder"):
        load_checkpoint(tmp_path)
    save_checkpoint(path, {"means": torch.zeros(1000)})
    whole = path.read_bytes()
    for part in (b"", b"hello", whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(part)
        with pytest.raises(InputError, match="got a damaged or foreign file"):
            load_checkpoint(path)
    torch.save({"a": 1}, path)
    with pytest.raises(InputError, match="got another kind of file"):
        load_checkpoint(path)
    torch.save({"format": "splatrender checkpoint", "version": 99, "state": {}}, path)
    with pytest.raises(InputError, match=r"expected version 1 .*, got 99"):
        load_checkpoint(path)


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_no_code_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"format": "splatrender checkpoint", "state": Malice()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="damaged or foreign"):
        load_checkpoint(tmp_path / "a.pt")
    assert capsys.readouterr().out == ""
