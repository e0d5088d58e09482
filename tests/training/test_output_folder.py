"""The output folder: whose files are replaced, one run at a time, what killed runs leave."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.disk import files_up_to
from helpers.training import assert_same, options, ring_scene, stop_at

from splatrender.errors import InputError, WriteError
from splatrender.flow import TrainState
from splatrender.io import lock
from splatrender.io.checkpoint import load_checkpoint, save_checkpoint
from splatrender.io.lock import locked_folder
from splatrender.io.manifest import HOUR, Manifest, register
from splatrender.model.camera import Camera
from splatrender.plots.flow import read_flow
from splatrender.scenes.scene import Scene
from splatrender.training import (
    Interrupted,
    TrainingDeviceFault,
    TrainingDiverged,
    TrainingOutOfMemory,
    train,
)
from splatrender.training import run as run_module
from splatrender.training.folder import OutputFolder

pytest.importorskip("plyfile", reason="plyfile is not installed: training writes .ply files")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


@pytest.fixture
def short(scene: Scene, tmp_path: Path) -> Path:
    """Return the folder of a run that has ended."""
    train(options(tmp_path / "out", iterations=3), scene)
    return tmp_path / "out"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class TestOverwrite:
    def test_nothing_is_lost_before_the_first_step(
        self, scene: Scene, short: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = content(short)
        anew: dict[str, Any] = {"iterations": 3, "overwrite": True}
        with pytest.raises(InputError, match="expected the folder of a scene, got nothing"):
            train(replace(options(short, **anew), source=short / "typo"))
        with pytest.raises(InputError, match="at least one training view"):
            train(options(short, **anew), replace(scene, train=[]))

        def fail(*arguments: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        monkeypatch.setattr(run_module, "photometric_gradient", fail)
        with pytest.raises(TrainingOutOfMemory, match="no checkpoint was written yet"):
            train(options(short, **anew), scene)
        monkeypatch.undo()
        black = [replace(view, photo=view.photo) for view in scene.train]
        monkeypatch.setattr(run_module.Run, "_read_losses", diverge)
        with pytest.raises(TrainingDiverged, match="no checkpoint was written yet"):
            train(options(short, **anew), replace(scene, train=black))
        assert content(short) == before

    def test_a_fault_of_the_gpu_names_the_error_and_what_is_kept(
        self, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings: dict[str, Any] = {"iterations": 6, "checkpoint_interval": 2}
        step, calls = run_module.Run.step, []

        def fail(run: Any) -> Any:
            calls.append(run)
            if len(calls) == 4:
                raise RuntimeError("shade: shade_kernel: CUDA error 700 (an illegal access)\nmore")
            return step(run)

        monkeypatch.setattr(run_module.Run, "step", fail)
        expected = r"iteration 4: shade: shade_kernel: CUDA error 700 \(an illegal access\)\. .*"
        with pytest.raises(TrainingDeviceFault, match=expected + "checkpoint is kept in"):
            train(options(tmp_path / "a", **settings), scene)
        monkeypatch.undo()
        assert train(options(tmp_path / "a", **settings), scene).results["iterations"] == 6

    def test_what_an_earlier_run_wrote_goes_and_nothing_else(
        self, scene: Scene, short: Path
    ) -> None:
        mine = ["thesis.tex", "test/me.jpg", "train/0.png", "point_cloud/iteration_3/notes.txt"]
        mine += ["test/ours_3/renders/my own.png"]
        for name in mine:
            (short / name).parent.mkdir(exist_ok=True)
            (short / name).write_text("precious")
        train(options(short, iterations=2, overwrite=True), scene)
        for name in mine:
            assert (short / name).read_text() == "precious"
        found = set(content(short)) - set(mine)
        assert not [name for name in found if "_3" in name]
        assert not (short / "test/ours_3/gt").exists()
        assert found - {"manifest.json"} == set(
            json.loads(content(short)["manifest.json"])["files"]
        )

    def test_the_scene_is_no_output_folder(self, scene: Scene, tmp_path: Path) -> None:
        (tmp_path / "test").mkdir()
        (tmp_path / "test/photo.jpg").write_text("precious")
        with pytest.raises(InputError, match="got that of the scene"):
            train(replace(options(tmp_path, overwrite=True), source=tmp_path), scene)
        assert content(tmp_path) == {"test/photo.jpg": b"precious"}

    @pytest.mark.parametrize("name", ["results.json", "point_cloud/iteration_40/point_cloud.ply"])
    def test_files_of_others_are_not_replaced(
        self, scene: Scene, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("precious")
        with pytest.raises(InputError, match=rf"{name}: expected nothing, or .* choose another"):
            train(options(tmp_path, overwrite=True), scene)
        assert content(tmp_path) == {name: b"precious"}

    def test_a_file_in_place_of_a_folder_is_found_at_the_start(
        self, scene: Scene, tmp_path: Path
    ) -> None:
        (tmp_path / "test").touch()
        with pytest.raises(InputError, match="test: expected a folder to write to, got a file"):
            train(options(tmp_path, overwrite=True), scene)

    def test_folders_from_before_there_were_manifests(self, scene: Scene, short: Path) -> None:
        (short / "manifest.json").unlink()
        (short / "test/0.png").write_text("precious")
        train(options(short, iterations=2, overwrite=True), scene)
        found = content(short)
        assert found.pop("test/0.png") == b"precious"
        assert not [name for name in found if "_3" in name]

    def test_results_without_a_checkpoint_are_kept(self, scene: Scene, short: Path) -> None:
        (short / "checkpoint.pt").unlink()
        before = content(short)
        with pytest.raises(InputError, match=r"got point_cloud/.* of a run without it.*overwrite"):
            train(options(short, iterations=3), scene)
        assert content(short) == before

    def test_an_interrupted_run_that_overwrote_is_not_overwritten_by_its_advice(
        self, scene: Scene, short: Path
    ) -> None:
        with pytest.raises(Interrupted, match=r"without --overwrite .* to resume"):
            train(options(short, overwrite=True), scene, stop_at(5))


def diverge(run: run_module.Run) -> None:
    raise TrainingDiverged("iteration 1: the loss became nan")


def test_a_run_that_got_nowhere_leaves_no_reports(scene: Scene, tmp_path: Path) -> None:
    train(options(tmp_path / "a"), scene)
    out = tmp_path / "b"

    def die(state: TrainState) -> None:
        if state.iteration == 39:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(options(out), scene, die)
    assert (out / "flow.jsonl").exists() and not (out / "checkpoint.pt").exists()
    train(options(out), scene)
    assert content(out)["flow.jsonl"] == content(tmp_path / "a")["flow.jsonl"]


class TestManifest:
    def test_names_outside_of_the_folder_are_not_ours(self, tmp_path: Path) -> None:
        (tmp_path / "mine").touch()
        folder = tmp_path / "out"
        folder.mkdir()
        names = ["../mine", str(tmp_path / "mine"), "a/../../mine", "a.txt"]
        (folder / "manifest.json").write_text(
            json.dumps({"format": "splatrender files", "files": names})
        )
        manifest = Manifest.read(folder)
        assert manifest is not None and manifest.files == {"manifest.json", "a.txt"}
        manifest.remove_files("a.txt")
        assert (tmp_path / "mine").exists() and not list(folder.iterdir())

    def test_two_writers_lose_nothing(self, tmp_path: Path) -> None:
        one, two = Manifest(tmp_path), Manifest(tmp_path)
        register(tmp_path, [tmp_path / "z.png"])
        assert not list(tmp_path.iterdir())  # there is no manifest to add to
        one.add(["a"])
        two.add(["b"])
        register(tmp_path, [tmp_path / "c/d.png"])
        one.add(["e"])
        found = Manifest.read(tmp_path)
        assert found is not None and found.files == {"manifest.json", "a", "b", "c/d.png", "e"}

    def test_damage_and_files_of_others(self, tmp_path: Path) -> None:
        path = tmp_path / "manifest.json"
        path.write_text('{"name": "a web page"}')
        assert Manifest.read(tmp_path) is None
        for text in ("{", '{"format": "splatrender files", "files": 3}'):
            path.write_text(text)
            with pytest.raises(InputError, match=r"manifest\.json: expected"):
                Manifest.read(tmp_path)

    def test_what_killed_writers_left_is_removed(self, tmp_path: Path) -> None:
        stale = [".a.0123abcd.pt", "deep/.0.0123abcd.png"]
        others = [".a.0123abcd.txt", ".a.pt", ".b.0123abcd.pt", "deep/.1.0123abcd.png"]
        (tmp_path / "deep").mkdir()
        for name in [*stale, *others]:
            (tmp_path / name).touch()
        old = time.time() - 2 * HOUR
        os.utime(tmp_path / stale[1], (old, old))
        Manifest(tmp_path, ["a.pt", "deep/0.png", "deep/1.png"]).remove_temporaries()
        assert sorted(content(tmp_path)) == sorted(others)


def test_a_run_removes_what_a_killed_one_left(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(options(tmp_path), scene, stop_at(5))
    (tmp_path / ".checkpoint.0123abcd.pt").write_text("half")
    train(options(tmp_path), scene)
    assert not list(tmp_path.glob(".*"))


class TestLock:
    def test_a_second_run_is_refused_with_the_first_ones_process(
        self, scene: Scene, tmp_path: Path
    ) -> None:
        refused = []

        def second(state: TrainState) -> None:
            if state.iteration == 2:
                with pytest.raises(InputError) as caught:
                    train(options(tmp_path, overwrite=True), scene)
                refused.append(str(caught.value))

        train(options(tmp_path, iterations=3), scene, second)
        assert refused == [
            f"{tmp_path}: expected no other run in this folder, got process {os.getpid()} on "
            f"{platform.node()} at work there; wait for its end, or choose another folder"
        ]
        assert not (tmp_path / "run.lock").exists()

    def test_the_lock_of_a_killed_process_is_taken_over(self, tmp_path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path; "
            "from splatrender.io.lock import locked_folder\n"
            "with locked_folder(Path(sys.argv[1])): os._exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", code, tmp_path / "a"]).returncode == 9
        assert (tmp_path / "a/run.lock").exists()
        with locked_folder(tmp_path / "a"):
            assert json.loads((tmp_path / "a/run.lock").read_text())["pid"] == os.getpid()
        assert (tmp_path / "a").exists()  # it was there before

    def test_the_lock_of_another_host_is_for_the_user_to_remove(self, tmp_path: Path) -> None:
        path = tmp_path / "run.lock"
        path.write_text('{"pid": 7, "host": "elsewhere"}')
        with (
            pytest.raises(InputError, match=rf"process 7 on elsewhere .* remove {path}$"),
            locked_folder(tmp_path),
        ):
            pass
        assert path.exists()

    def test_where_the_system_has_no_locks_processes_are_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock, "_lock", lambda handle: None)
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        path = tmp_path / "run.lock"
        path.write_text(json.dumps({"pid": os.getppid(), "host": platform.node()}))
        with pytest.raises(InputError, match="at work there"), locked_folder(tmp_path):
            pass
        path.write_text(json.dumps({"pid": ended.pid, "host": platform.node()}))
        with locked_folder(tmp_path):
            pass
        path.write_text("half a li")
        with locked_folder(tmp_path):
            pass

    def test_of_many_at_once_one_gets_the_folder(self, tmp_path: Path) -> None:
        inside, most, got = [], [], []

        def work() -> None:
            for _ in range(40):
                try:
                    with locked_folder(tmp_path / "a"):
                        inside.append(1)
                        most.append(len(inside))
                        got.append(1)
                        inside.pop()
                except InputError:
                    pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(most) == {1} and got

    def test_empty_folders_do_not_stay(self, scene: Scene, tmp_path: Path) -> None:
        with pytest.raises(InputError):
            train(replace(options(tmp_path / "a/b"), source=tmp_path / "typo"))
        assert not list(tmp_path.iterdir())


class TestAnotherScene:
    def test_a_finished_run_is_of_its_scene(self, scene: Scene, short: Path) -> None:
        same = options(short, iterations=3)
        assert train(same, scene).already_finished
        assert train(replace(same, source=short), scene).already_finished  # it has moved
        names = [replace(view, name=f"other_{view.name}") for view in scene.train]
        with pytest.raises(InputError) as caught:
            train(replace(same, source=short / "b"), replace(scene, train=names))
        assert str(caught.value).startswith(
            f"source: expected {Path('ring').resolve()} with 9 photos such as 02.jpg, "
            f"got {short / 'b'} with 9 photos such as other_02.jpg; choose another folder than"
        )

    def test_photos_from_other_places_are_another_scene(self, scene: Scene, short: Path) -> None:
        same = options(short, iterations=3)

        def moved(view: Any, step: float) -> Any:
            viewmat = view.camera.viewmat.clone()
            viewmat[:3, 3] += step
            fields = ("fx", "fy", "cx", "cy", "width", "height", "name")
            camera = Camera(viewmat, **{name: getattr(view.camera, name) for name in fields})
            return replace(view, camera=camera)

        rounded = replace(scene, train=[moved(view, 1e-7) for view in scene.train])
        assert train(same, rounded).already_finished
        other = replace(scene, train=[moved(view, 1e-2) for view in scene.train])
        with pytest.raises(InputError, match=r"source: .* the same photos from other places"):
            train(same, other)

    def test_checkpoints_from_before_scenes_were_kept(self, scene: Scene, short: Path) -> None:
        memory = load_checkpoint(short / "checkpoint.pt")
        del memory["scene"]
        save_checkpoint(short / "checkpoint.pt", memory)
        same = options(short, iterations=3)
        assert train(same, scene).already_finished
        names = [replace(view, name=f"other_{view.name}") for view in scene.train]
        with pytest.raises(InputError, match="source: expected ring with 7 photos"):
            train(same, replace(scene, train=names))


class TestFullDisk:
    def test_a_run_resumes_once_there_is_room(self, scene: Scene, tmp_path: Path) -> None:
        settings: dict[str, Any] = {"checkpoint_interval": 10}
        train(options(tmp_path / "a", **settings), scene)
        out = tmp_path / "b"

        def fill(state: TrainState) -> None:
            if state.iteration == 25:
                full.__enter__()

        full = files_up_to(5000)
        with pytest.raises(WriteError) as caught:
            try:
                train(options(out, **settings), scene, fill)
            finally:
                full.__exit__(None, None, None)
        assert str(caught.value).startswith(f"{out}/checkpoint.pt: expected to write this file")
        assert str(caught.value).endswith(
            f"; the last checkpoint is kept in {out}/checkpoint.pt; give the same command to "
            "resume once the file can be written"
        )
        assert not list(out.glob(".*")) and not (out / "run.lock").exists()
        assert load_checkpoint(out / "checkpoint.pt")["iteration"] == 20
        train(options(out, **settings), scene)
        one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in "ab")
        assert_same(one["splats"], two["splats"])

    @pytest.mark.parametrize(
        "half", ['{"iteration": 99, "spl', "\x00\x00\x00", "3", '{"other": 1}', '"\udcff']
    )
    def test_half_a_line_of_flow_is_cut(
        self,
        scene: Scene,
        tmp_path: Path,
        half: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = tmp_path / "flow.jsonl"
        lines = [f'{{"iteration": {i}}}\n' for i in range(1, 5)]
        text = ("".join(lines) + half).encode("utf-8", "surrogateescape")
        path.write_bytes(text)
        assert len(read_flow(path)) == 4  # plot-flow while a line is being written
        OutputFolder(tmp_path).cut_reports(3)
        assert path.read_text() == "".join(lines[:3])
        assert "dropped 1 line" in caplog.text


def test_other_folders_are_left_as_they_were(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"got 'thesis\.tex' in it; choose another folder"):
        train(options(tmp_path), scene)
    assert content(tmp_path) == {"thesis.tex": b"precious"}
