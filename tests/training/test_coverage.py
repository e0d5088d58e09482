"""Views that see no splats are found and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.training import options, ring_scene

from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.operators.options import RenderOptions
from splatrender.scenes.scene import Scene
from splatrender.training import train
from splatrender.training.coverage import views_without_splats

PLAIN = RenderOptions()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


def turned_away(scene: Scene, index: int) -> Scene:
    """Return the scene with one training view that looks the other way."""
    views = list(scene.train)
    view = views[index]
    eye = view.camera.center
    camera = Camera.look_at(
        tuple(eye.tolist()), tuple((2 * eye).tolist()), width=72, height=48, name=view.name
    )
    views[index] = replace(view, camera=camera)
    return replace(scene, train=views)


@pytest.mark.parametrize("count", [1, 60, 2000])
def test_views_that_look_away_are_found(scene: Scene, count: int) -> None:
    splats = Splats.random(count, extent=0.3, degree=0)
    assert views_without_splats(scene.train, splats, PLAIN) == []
    blind = turned_away(scene, 2)
    assert views_without_splats(blind.train, splats, PLAIN) == [scene.train[2].name]


def test_a_few_of_many_are_almost_none(scene: Scene) -> None:
    splats = Splats.random(2000, extent=0.3, degree=0)
    eye = scene.train[2].camera.center.float()
    blind = turned_away(scene, 2)
    for seen, named in ((5, True), (30, False)):
        splats.means[:seen] = 1.5 * eye  # in front of the camera that looks away
        found = views_without_splats(blind.train, splats, PLAIN)
        assert found == ([scene.train[2].name] if named else [])


def test_a_subset_of_very_many_splats_is_checked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splatrender.training.coverage._MOST_SPLATS", 50)
    splats = Splats.random(2000, extent=0.3, degree=0)
    assert views_without_splats(turned_away(scene, 1).train, splats, PLAIN) == [scene.train[1].name]


def test_no_views() -> None:
    assert views_without_splats([], Splats.random(3), PLAIN) == []


def test_training_names_blind_views_at_the_start_and_at_the_end(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(options(tmp_path / "a", iterations=2), scene)
    assert "see almost none" not in caplog.text
    train(options(tmp_path / "b", iterations=2), turned_away(scene, 2))
    error = caplog.text
    name = scene.train[2].name
    assert f"1 of 9 views see almost none of the 40 splats at the start: {name};" in error
    assert f"splats at the end: {name};" in error


def test_splats_behind_all_cameras_are_reported(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = replace(scene, points=scene.points + torch.tensor([0.0, 60.0, 0.0]))
    train(options(tmp_path, iterations=2), far)
    error = caplog.text
    assert "9 of 9 views see almost none of the 40 splats at the start: " in error
    assert ", ...; are the points behind these cameras" in error
