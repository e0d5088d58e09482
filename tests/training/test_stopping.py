"""Signals: the run is saved and exported, and the process ends as a shell expects."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training import options, ring_scene, stop_at

from splatrender.io.checkpoint import load_checkpoint
from splatrender.model.ply import read_ply
from splatrender.runtime.interruption import InterruptionGuard
from splatrender.scenes.scene import Scene
from splatrender.training import (
    Interrupted,
    train,
)
from splatrender.training import run as run_module

pytest.importorskip("plyfile")  # training writes .ply files


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stopped_run_is_exported(
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
