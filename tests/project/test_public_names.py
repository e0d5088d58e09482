"""Public names: lazy at run time, visible to type checkers, importable by their old names."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import splatrender
from splatrender._moved import MOVED, renamed

PACKAGE = Path(splatrender.__file__).parent


def test_type_checkers_see_the_names_that_users_import() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {
        name.name: node.module
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert homes == splatrender._HOMES
    assert sorted(homes) == splatrender.__all__
    for name in splatrender.__all__:
        assert getattr(splatrender, name) is not None
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("old", MOVED)
def test_old_modules_are_the_new_ones(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new = importlib.import_module(f"splatrender.{MOVED[old]}")
    parent, _, name = f"splatrender.{old}".rpartition(".")
    monkeypatch.setattr(importlib.import_module(parent), name, None, raising=False)
    monkeypatch.delitem(sys.modules, f"splatrender.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"has moved to splatrender.{MOVED[old]}"):
        assert importlib.import_module(f"splatrender.{old}") is new


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("splatrender.conventions", "rotations_from_quats", "splatrender.model.quaternions"),
        ("splatrender.flow", "TrainingView", "splatrender.model.view"),
        ("splatrender.flow.birth_death", "Twins", "splatrender.model.splitting"),
        ("splatrender.flow.birth_death", "split_twins", "splatrender.model.splitting"),
        ("splatrender.flow.birth_death", "steepest_atoms", "splatrender.flow.birth_death"),
    ],
)
def test_old_names_are_the_new_objects(module: str, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is {new}"):
        assert getattr(importlib.import_module(module), old).__module__ == new


def test_other_names_are_missing() -> None:
    with pytest.raises(AttributeError, match="module 'm' has no attribute 'b'"):
        renamed("m", {"a": "splatrender.model.view.View"})("b")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("splatrender.flow.nothing")
