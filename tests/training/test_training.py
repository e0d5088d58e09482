"""Training on a small scene whose photos were rendered from known splats."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.colmap import write_scene
from helpers.training import HEIGHT, WIDTH, assert_same, options, ring_scene, stop_at

from splatrender.errors import InputError
from splatrender.flow import Strategy, TrainState
from splatrender.io.checkpoint import load_checkpoint
from splatrender.metrics import score
from splatrender.model import Splats
from splatrender.model.ply import read_ply
from splatrender.model.view import View
from splatrender.operators.render import render
from splatrender.runtime.interruption import InterruptionGuard
from splatrender.scenes.scene import Scene
from splatrender.scenes.similarity import Similarity
from splatrender.training import (
    Interrupted,
    TrainingDiverged,
    TrainOptions,
    train,
)
from splatrender.training import run as run_module
from splatrender.training.data import Samples
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


def test_sigterm_saves_too(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as interruption:
        train(options(tmp_path / "out"), scene, stop_at(7, signal.SIGTERM))
    assert interruption.value.code == 143
    assert load_checkpoint(tmp_path / "out" / "checkpoint.pt")["iteration"] == 7


def test_a_second_signal_is_not_held_back() -> None:
    started = signal.getsignal(signal.SIGINT)  # ignored where a shell runs this in the background
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    with InterruptionGuard() as guard:
        signal.raise_signal(signal.SIGINT)
        assert guard.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, started)


def test_interrupted_process_exits_with_130() -> None:
    script = (
        "import signal\n"
        "from splatrender.runtime.interruption import Interrupted\n"
        "raise Interrupted(signal.SIGINT, 'saved')\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert process.returncode == 130


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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stopped_run_can_be_looked_at(
    scene: Scene, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name, None) or pytest.skip(f"this system has no {name}")
    before = signal.signal(number, signal.SIG_DFL)  # SIGHUP is ignored under nohup
    try:
        with pytest.raises(
            Interrupted, match=r"saved .*iteration_7/point_cloud\.ply; give"
        ) as ended:
            train(options(tmp_path / "a"), scene, stop_at(7, number))
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert load_checkpoint(tmp_path / "a/checkpoint.pt")["iteration"] == 7
    assert len(read_ply(tmp_path / "a/point_cloud/iteration_7/point_cloud.ply")) == 40
    assert (tmp_path / "a/overview.png").stat().st_size > 1000


def test_a_second_ctrl_c_ends_the_export_and_not_the_checkpoint(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(
            run_module.Run, "splats_in_world", lambda run: signal.raise_signal(signal.SIGINT)
        )
        with pytest.raises(Interrupted, match=r"after iteration 7 of 40; give the same") as ended:
            train(options(tmp_path), scene, stop_at(7))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130 and not list(tmp_path.rglob("*.ply"))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == 7


def test_an_export_that_fails_does_not_hide_that_the_run_was_saved(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: run_module.Run) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(run_module.Run, "splats_in_world", fail)
    with pytest.raises(Interrupted, match=r"after iteration 7 of 40 \(no room\); give the same"):
        train(options(tmp_path), scene, stop_at(7))


def test_nohup_keeps_sighup_ignored() -> None:
    hangup = getattr(signal, "SIGHUP", None) or pytest.skip("this system has no SIGHUP")
    before = signal.signal(hangup, signal.SIG_IGN)
    try:
        with InterruptionGuard() as guard:
            signal.raise_signal(hangup)
            assert guard.received is None
    finally:
        signal.signal(hangup, before)


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
    monkeypatch.setattr(run_module.Run, "picture", lambda run, camera: torch.zeros(photo.shape))
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


def test_a_finished_run_says_so(
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


def test_spatial_sorting_leaves_the_picture(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(options(tmp_path / "a", strategy="none"), scene).results
    monkeypatch.setattr(run_module, "MORTON_INTERVAL", 10)
    sorted_ = train(options(tmp_path / "b", strategy="none"), scene).results
    assert sorted_["psnr"] == pytest.approx(plain["psnr"], abs=0.05)


def test_a_strategy_may_render_views(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: list[float] = []

    class Sweep(Strategy):
        name = "sweep"

        def step(self, state: TrainState) -> None:
            if state.iteration == 5:
                with torch.no_grad():
                    for view in state.views:
                        radiance = state.render(state.splats, view.camera).radiance[0]
                        sums.append(float((radiance - view.photo / 255).square().mean()))

    monkeypatch.setitem(run_module.create_strategy.__globals__["STRATEGIES"], "sweep", Sweep)
    train(options(tmp_path, strategy="sweep", iterations=6), scene)
    assert len(sums) == 7 and all(0 < value < 1 for value in sums)


def test_profile_prints_the_parts(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(options(tmp_path, iterations=3, profile=True), scene)
    printed = capsys.readouterr().err
    for part in ("data", "render", "loss", "optimizer", "strategy", "blend_backward", "bin"):
        assert part in printed


class TestSamples:
    def test_rounds_visit_every_view_once(self, scene: Scene) -> None:
        samples = Samples(scene.train, torch.Generator().manual_seed(0))
        rounds = [[samples.next(1).name for _ in scene.train] for _ in range(3)]
        assert all(sorted(names) == sorted(v.name for v in scene.train) for names in rounds)
        assert rounds[0] != rounds[1]

    def test_what_was_put_back_comes_again(self, scene: Scene) -> None:
        samples = Samples(scene.train, torch.Generator().manual_seed(0))
        samples.put_back()  # nothing was taken yet
        names = [samples.next(1).name for _ in range(3)]
        samples.put_back()
        samples.put_back()
        names += [samples.next(1).name for _ in range(len(scene.train) - 2)]
        assert names[2] == names[3] and sorted(names[3:] + names[:2]) == sorted(
            view.name for view in scene.train
        )

    def test_photos_stay_on_the_device_while_there_is_room(self, scene: Scene) -> None:
        mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
        views = [replace(view, mask=mask) for view in scene.train]
        size = 4 * HEIGHT * WIDTH
        meta = torch.device("meta")  # memory that costs nothing
        samples = Samples(views, torch.Generator().manual_seed(0), meta, room=3 * size + 10)
        rounds: list[dict[str, Any]] = [{}, {}]
        for seen in rounds:
            for _ in views:
                sample = samples.next(1)
                assert sample.photo.device == meta and sample.mask is not None
                assert sample.mask.device == meta
                seen[sample.name] = sample
        kept = [name for name in rounds[0] if rounds[0][name] is rounds[1][name]]
        assert len(kept) == 3
        assert all(samples.next(2).nbytes == size // 4 for _ in views)  # room is made anew

    def test_reduction_averages_boxes(self, scene: Scene) -> None:
        view = scene.train[0]
        mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
        mask[5, 9] = 0
        small = replace(view, mask=mask).reduced(4)
        boxes = view.photo.float().reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean(dim=(1, 3))
        assert small.photo.dtype == torch.uint8
        assert float((small.photo - boxes).abs().max()) <= 0.5 + 1e-3
        assert (small.camera.width, small.camera.height) == (WIDTH // 4, HEIGHT // 4)
        assert small.camera.fx == pytest.approx(view.camera.fx / 4)
        assert small.mask is not None and int((small.mask == 0).sum()) == 1
        assert small.mask[1, 2] == 0

    def test_sizes_that_do_not_divide(self, scene: Scene) -> None:
        view = scene.train[0]
        odd = View(view.camera.resized(71, 47), view.photo[:47, :71], None, "odd")
        small = odd.reduced(2)
        assert small.photo.shape == (24, 36, 3)
        assert (small.camera.width, small.camera.height) == (36, 24)


def test_scores_leave_masked_pixels_out(scene: Scene) -> None:
    view = scene.train[0]
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
    mask[:, :20] = 0
    image = view.photo.clone()
    image[:, 30:] = image[:, 30:].flip(0)
    damaged = image.clone()
    damaged[:, :20] = 255
    masked = replace(view, mask=mask)
    assert score(damaged, masked) == score(image, masked)
    assert score(damaged, view) != score(image, view)


@pytest.mark.slow
def test_learns_a_real_scene(shared_data: Path, tmp_path: Path) -> None:
    settings = {"resolution": 8, "iterations": 300, "max_splats": 8000, "quiet": True}
    result = train(TrainOptions(shared_data / "scenes" / "fox", tmp_path / "out", **settings))
    assert result.results["psnr"] > 20
    assert os.path.getsize(tmp_path / "out" / "overview.png") > 10_000
