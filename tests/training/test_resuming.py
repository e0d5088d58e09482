"""Resumed runs: the same bits, and nothing else than the run that began."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.training import HEIGHT, WIDTH, assert_same, options, ring_scene, stop_at

from splatrender.errors import InputError
from splatrender.io.checkpoint import load_checkpoint
from splatrender.scenes.scene import Scene
from splatrender.scenes.similarity import Similarity
from splatrender.training import (
    Interrupted,
    train,
)

pytest.importorskip("plyfile")  # training writes .ply files


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


def test_a_run_resumes_in_the_frame_that_it_began_in(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        train(options(out), scene, stop_at(5))
    other = replace(scene, similarity=Similarity(0.4, scene.similarity.center))
    with pytest.raises(InputError, match=r"scene: expected the frame that the run in .* began in"):
        train(options(out), other)
    assert train(options(out), scene).results["iterations"] == 40


def test_a_new_run_does_not_take_the_frame_of_an_old_one(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        train(options(out), scene, stop_at(5))
    (out / "checkpoint.pt").unlink()  # as if it had been killed before its first checkpoint
    shutil.rmtree(out / "point_cloud")
    other = replace(scene, similarity=Similarity(0.4, scene.similarity.center))
    train(options(out, iterations=2), other)
    assert Similarity.load(out / "scene.json").scale == 0.4


@pytest.mark.parametrize("strategy", ["mcmc", "wfr", "adc", "adc-absgrad", "none"])
def test_resumes_to_the_same_bits(scene: Scene, tmp_path: Path, strategy: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings: dict[str, Any] = {"strategy": strategy, "iterations": 200, "max_splats": 50}
    straight = train(options(whole, **settings), scene)
    with pytest.raises(Interrupted) as interruption:
        train(options(parts, **settings), scene, stop_at(97))
    assert interruption.value.code == 130
    assert "give the same command to resume" in str(interruption.value)
    memory = load_checkpoint(parts / "checkpoint.pt")
    assert memory["iteration"] == 97
    resumed = train(options(parts, **settings), scene)
    one, two = (load_checkpoint(p / "checkpoint.pt") for p in (whole, parts))
    for key in ("loss", "mse", "order", "seconds", "cpu_seconds", "options"):
        assert key in one
        if key not in ("seconds", "cpu_seconds", "options"):
            assert one.pop(key) == two.pop(key), key
    assert_same(
        {k: one[k] for k in ("splats", "moments", "steps", "rows", "generator", "strategy")},
        {k: two[k] for k in ("splats", "moments", "steps", "rows", "generator", "strategy")},
    )
    assert straight.results["psnr"] == resumed.results["psnr"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"iterations": 50}, "iterations"),
        ({"max_splats": 70}, "max_splats"),
        ({"seed": 1}, "seed"),
        ({"strategy": "none"}, "strategy"),
        ({"background": "white"}, "background"),
        ({"sh_degree": 2}, "sh_degree"),
        ({"ssim_weight": 0.1}, "ssim_weight"),
    ],
)
def test_resuming_with_other_options_is_refused(
    scene: Scene, tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    with pytest.raises(Interrupted):
        train(options(tmp_path), scene, stop_at(5))
    with pytest.raises(InputError, match=rf"^{name}: expected .* got"):
        train(options(tmp_path, **change), scene)


def test_resuming_with_another_scene_is_refused(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(options(tmp_path), scene, stop_at(5))
    with pytest.raises(InputError, match=r"^source: expected .* with 9 photos such as 02.jpg, got"):
        train(options(tmp_path), replace(scene, train=scene.train[1:]))


def test_resuming_with_other_sizes_is_refused(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(options(tmp_path), scene, stop_at(5))
    half = [
        replace(
            view, camera=view.camera.resized(WIDTH // 2, HEIGHT // 2), photo=view.photo[::2, ::2]
        )
        for view in scene.train
    ]
    with pytest.raises(InputError, match=r"^source: expected the 7 training views"):
        train(options(tmp_path), replace(scene, train=half))


def test_watching_options_may_change(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(options(tmp_path), scene, stop_at(5))
    result = train(options(tmp_path, test_iterations=(30,), checkpoint_interval=9), scene)
    assert [entry["iteration"] for entry in result.results["history"]] == [30, 40]


def test_never_resume(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(options(tmp_path), scene, stop_at(5))
    with pytest.raises(InputError, match="resume is 'never'"):
        train(options(tmp_path, resume="never"), scene)


def test_a_finished_run_is_reported(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(options(tmp_path), scene)
    again = train(options(tmp_path, quiet=False), scene)
    assert again.already_finished and not first.already_finished
    assert again.results == first.results
    assert "is finished: PSNR" in capsys.readouterr().err


def test_a_run_that_died_while_evaluating_is_evaluated(scene: Scene, tmp_path: Path) -> None:
    first = train(options(tmp_path), scene)
    (tmp_path / "results.json").unlink()
    again = train(options(tmp_path), scene)
    assert not again.already_finished
    assert again.results["psnr"] == first.results["psnr"]
