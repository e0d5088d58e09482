"""Training on a small scene whose photos were rendered from known splats."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.colmap import write_scene
from helpers.training import HEIGHT, WIDTH, assert_same, options, ring_scene

from splatrender.errors import InputError
from splatrender.flow import Strategy, TrainState
from splatrender.flow.strategies.base import STRATEGIES
from splatrender.io.checkpoint import load_checkpoint
from splatrender.model import Splats
from splatrender.model.ply import read_ply
from splatrender.operators.render import render
from splatrender.scenes.scene import Scene
from splatrender.scenes.similarity import Similarity
from splatrender.training import (
    TrainingDiverged,
    TrainOptions,
    train,
)
from splatrender.training import run as run_module
from splatrender.training.evaluate import evaluate

pytest.importorskip("plyfile")  # training writes .ply files


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


def test_learns(scene: Scene, tmp_path: Path) -> None:
    start = train(options(tmp_path / "a", iterations=1), scene).results
    result = train(options(tmp_path / "b", iterations=250), scene)
    assert result.results["psnr"] > start["psnr"] + 3
    assert result.results["psnr"] > 22
    assert result.results["ssim"] > start["ssim"]
    assert result.results["splats"] == 60


def test_output_folder(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = train(options(out, test_iterations=(10, 20), save_iterations=(15,)), scene)
    expected = {"checkpoint.pt", "config.json", "cameras.json", "results.json", "per_view.json"}
    expected |= {"overview.png", "point_cloud", "test", "flow.jsonl", "scene.json"}
    expected |= {"manifest.json"}
    assert {p.name for p in out.iterdir()} == expected
    flow = [json.loads(line) for line in (out / "flow.jsonl").read_text().splitlines()]
    assert flow[-1]["splats"] == result.results["splats"]
    assert [line["iteration"] for line in flow] == sorted({line["iteration"] for line in flow})
    results = json.loads((out / "results.json").read_text())
    assert results == result.results
    wanted = """psnr ssim splats iterations seconds seconds_per_iteration cpu_seconds peak_memory_mb
        strategy seed backend scene resolution views history"""
    assert set(wanted.split()) <= set(results)
    assert [entry["iteration"] for entry in results["history"]] == [10, 20, 40]
    assert results["views"] == {"train": 7, "test": 2}
    assert results["resolution"] == [WIDTH, HEIGHT]
    assert results["cpu_seconds"] > 0 and results["seconds"] > 0
    views = json.loads((out / "per_view.json").read_text())["ours_40"]
    assert [entry["view"] for entry in views.values()] == ["00.jpg", "01.jpg"]
    assert sum(v["psnr"] for v in views.values()) / 2 == pytest.approx(results["psnr"])
    for kind in ("renders", "gt"):
        names = sorted(p.name for p in (out / "test" / "ours_40" / kind).iterdir())
        assert names == ["00000.png", "00001.png"]
    assert json.loads((out / "config.json").read_text())["iterations"] == 40
    for iteration in (15, 40):
        splats = read_ply(out / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply")
        assert splats.degree == 1
    assert result.splats is not None
    torch.testing.assert_close(splats.means, result.splats.means)


def test_exports_are_in_world_coordinates(scene: Scene, tmp_path: Path) -> None:
    result = train(options(tmp_path / "out", strategy="none"), scene)
    assert result.splats is not None
    inside = load_checkpoint(tmp_path / "out" / "checkpoint.pt")["splats"]
    torch.testing.assert_close(
        result.splats.means, inside["means"] / 0.5 + torch.tensor([1.0, 2.0, 3.0])
    )
    assert Similarity.load(tmp_path / "out" / "scene.json").center.tolist() == [1, 2, 3]
    cameras = json.loads((tmp_path / "out" / "cameras.json").read_text())
    assert [camera["img_name"] for camera in cameras] == [f"{i:02d}.jpg" for i in range(9)]
    expected = scene.test[0].camera.center / 0.5 + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(
        torch.tensor(cameras[0]["position"], dtype=torch.float64), expected.double()
    )
    world = scene.similarity.invert(scene.test[0].camera)
    with torch.no_grad():
        outside = render(result.splats, world).radiance
        within = render(Splats(**inside), scene.test[0].camera).radiance
    assert float((outside - within).abs().mean()) < 1e-4


def test_a_file_far_from_the_origin_is_what_training_measured(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    center = torch.tensor([1e7, -1e7, 4e6], dtype=torch.float64) + 0.123
    far = replace(scene, similarity=Similarity(0.5, center))
    result = train(options(tmp_path / "out", quiet=False), far)
    assert "relative to [10000000.0, -10000000.0, 4000000.0]" in capsys.readouterr().err
    assert result.splats is not None and result.splats.dtype == torch.float64
    splats = far.load_splats(tmp_path / "out/point_cloud/iteration_40/point_cloud.ply")
    again = evaluate(scene.test, lambda camera: render(splats, camera).radiance[0], 40, "test")
    assert again.psnr == pytest.approx(result.results["psnr"], abs=0.01)
    world = result.splats
    seen = render(world, far.similarity.invert(scene.test[0].camera)).radiance
    within = render(splats, scene.test[0].camera).radiance
    torch.testing.assert_close(seen.float(), within, atol=1e-3, rtol=0)


def test_seed_decides(scene: Scene, tmp_path: Path) -> None:
    means = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(options(tmp_path / name, seed=seed), scene)
        means.append(load_checkpoint(tmp_path / name / "checkpoint.pt")["splats"]["means"])
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])


def test_threads_do_not_change_the_bits(scene: Scene, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    for threads in (1, 2):
        train(options(tmp_path / str(threads), threads=threads), scene)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in "12")
    assert_same(one["splats"], two["splats"])
    assert torch.get_num_threads() == before


def test_a_missing_package_is_found_before_training(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plyfile", None)
    with pytest.raises(InputError, match="expected the package plyfile, got none; pip install"):
        train(options(tmp_path / "out"), scene)
    assert not (tmp_path / "out").exists()


def test_an_infinite_psnr_is_null_and_a_word(
    scene: Scene,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = torch.zeros_like(scene.test[0].photo)
    monkeypatch.setattr(run_module.Run, "image", lambda run, camera: torch.zeros(photo.shape))
    black = replace(scene, test=[replace(view, photo=photo) for view in scene.test])
    settings: dict[str, Any] = {"iterations": 2, "quiet": False, "test_iterations": (1,)}
    train(options(tmp_path, **settings), black)
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["psnr"] is None and results["psnr_is"] == "infinite"
    assert results["history"][0]["psnr_is"] == "infinite"
    views = json.loads((tmp_path / "per_view.json").read_text(), parse_constant=pytest.fail)
    assert views["ours_2"]["00000.png"]["psnr_is"] == "infinite"
    assert "infinite PSNR, SSIM 1.0000 on test views, 60 splats." in capsys.readouterr().out
    train(options(tmp_path, **settings), black)
    assert "is finished: infinite PSNR" in capsys.readouterr().err


def test_foreign_folders_are_left_alone(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"'thesis\.tex' in it"):
        train(options(tmp_path), scene)
    (tmp_path / "point_cloud").mkdir()
    train(options(tmp_path, overwrite=True, iterations=2), scene)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    file = tmp_path / "file"
    file.touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="expected a folder to write to, got a file"):
            train(options(file, overwrite=overwrite), scene)


def test_overwrite_starts_anew(scene: Scene, tmp_path: Path) -> None:
    train(options(tmp_path), scene)
    result = train(options(tmp_path, overwrite=True, iterations=10), scene)
    assert result.results["iterations"] == 10
    assert not (tmp_path / "point_cloud" / "iteration_40").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    scene: Scene, tmp_path: Path
) -> None:
    def poison(state: TrainState) -> None:
        if state.iteration == 25:
            state.splats.sh.data[:, 0] = math.inf

    message = (
        r"iteration 26, view \d\d\.jpg: the loss became (inf|nan); the last checkpoint is kept"
    )
    with pytest.raises(TrainingDiverged, match=message):
        train(options(tmp_path, checkpoint_interval=10), scene, poison)
    memory = load_checkpoint(tmp_path / "checkpoint.pt")
    assert memory["iteration"] == 20
    assert bool(Splats(**memory["splats"]).finite().all())


def test_splats_that_are_not_finite_are_not_saved(scene: Scene, tmp_path: Path) -> None:
    def poison(state: TrainState) -> None:
        if state.iteration == 20:
            state.splats.quats.data[3] = math.inf

    with pytest.raises(TrainingDiverged, match="1 of 40 splats are not finite"):
        train(options(tmp_path, checkpoint_interval=10, strategy="none"), scene, poison)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == 10


def test_without_test_views_training_views_are_judged(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(options(tmp_path, iterations=3), replace(scene, test=[]))
    assert result.results["split"] == "train"
    assert len(list((tmp_path / "train" / "ours_3" / "renders").iterdir())) == 7
    assert "no test views" in capsys.readouterr().err


def test_no_training_views(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one training view"):
        train(options(tmp_path), replace(scene, train=[]))


def test_random_start(scene: Scene, tmp_path: Path) -> None:
    empty = replace(scene, points=torch.empty(0, 3), colors=torch.empty(0, 3, dtype=torch.uint8))
    settings: dict[str, Any] = {"iterations": 2, "strategy": "none"}
    train(options(tmp_path / "a", **settings), empty)
    train(options(tmp_path / "b", **settings, random_init=True), scene)
    for name in "ab":
        assert len(load_checkpoint(tmp_path / name / "checkpoint.pt")["splats"]["means"]) == 30


def test_random_start_of_a_scene_without_points(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    (tmp_path / "scene" / "sparse" / "0" / "points3D.bin").unlink()
    settings = replace(options(tmp_path / "out", iterations=2), source=str(tmp_path / "scene"))
    with pytest.raises(InputError, match="--random-init"):
        train(settings)
    assert train(replace(settings, random_init=True)).results["splats"] > 0


def test_budget_holds_from_the_start(scene: Scene, tmp_path: Path) -> None:
    result = train(options(tmp_path, iterations=2, max_splats=15), scene)
    assert result.results["splats"] == 15


def test_masked_pixels_do_not_matter(scene: Scene, tmp_path: Path) -> None:
    results = []
    for value in (0, 255):
        views = []
        for view in scene.train:
            mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
            mask[:, : WIDTH // 2] = 0
            photo = view.photo.clone()
            photo[:, : WIDTH // 2] = value
            views.append(replace(view, photo=photo, mask=mask))
        train(options(tmp_path / str(value), iterations=10), replace(scene, train=views))
        results.append(load_checkpoint(tmp_path / str(value) / "checkpoint.pt")["splats"]["sh"])
    assert torch.equal(results[0], results[1])


def test_spatial_sorting_keeps_the_image(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(options(tmp_path / "a", strategy="none"), scene).results
    monkeypatch.setattr(run_module, "MORTON_INTERVAL", 10)
    sorted_ = train(options(tmp_path / "b", strategy="none"), scene).results
    assert sorted_["psnr"] == pytest.approx(plain["psnr"], abs=0.05)


def test_a_strategy_may_render_views(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[float] = []

    class Sweep(Strategy):
        name = "sweep"

        def step(self, state: TrainState) -> None:
            if state.iteration == 5:
                with torch.no_grad():
                    for view in state.views:
                        radiance = state.render(state.splats, view.camera).radiance[0]
                        errors.append(float((radiance - view.photo / 255).square().mean()))

    monkeypatch.setitem(STRATEGIES, "sweep", Sweep)
    train(options(tmp_path, strategy="sweep", iterations=6), scene)
    assert len(errors) == 7 and all(0 < value < 1 for value in errors)


def test_profile_prints_the_parts(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(options(tmp_path, iterations=3, profile=True), scene)
    printed = capsys.readouterr().err
    for part in ("data", "render", "loss", "optimizer", "strategy", "blend_backward", "bin"):
        assert part in printed


@pytest.mark.slow
def test_learns_a_real_scene(shared_data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "resolution": 8,
        "iterations": 300,
        "max_splats": 8000,
        "quiet": True,
    }
    result = train(TrainOptions(shared_data / "scenes" / "fox", tmp_path / "out", **settings))
    assert result.results["psnr"] > 20
    assert os.path.getsize(tmp_path / "out" / "overview.png") > 10_000
