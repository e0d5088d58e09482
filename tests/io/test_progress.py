"""Progress on stderr: plain lines in a log, a bar on a terminal, and no harm where it is closed."""

from __future__ import annotations

import io
import re
import sys

import pytest

from splatrender.io import progress as module
from splatrender.io.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def steps(progress: Progress, count: int) -> None:
    with progress:
        for _ in range(count):
            progress.update(lambda: "loss 0.1")
        progress.write("a note")


def test_a_log_gets_a_plain_line_every_5_percent(capsys: pytest.CaptureFixture[str]) -> None:
    steps(Progress(1000), 1000)
    err = capsys.readouterr().err
    assert "\r" not in err
    lines = err.splitlines()
    assert len(lines) == 21 and lines[-1] == "a note"
    form = r"50/1000 it \(5 %\), loss 0\.1; \d\d:\d\d passed, \d\d:\d\d left"
    assert re.fullmatch(form, lines[0])
    assert lines[19].startswith("1000/1000 it (100 %)")


def test_a_resumed_run_begins_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    steps(Progress(40, done=33, unit="round", title="fit"), 9)  # no more than there are
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "fit: 34/40 round", "fit: 36/40 round", "fit: 38/40 round", "fit: 40/40 round", "a note",
    ]  # fmt: skip


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    steps(Progress(10, quiet=True), 10)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    steps(Progress(10), 10)
    text = terminal.getvalue()
    assert "\r" in text and "10/10" in text and "loss 0.1" in text and "a note\n" in text


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_closed_terminal_does_not_disturb_the_work(
    monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    monkeypatch.setattr(module, "_is_terminal", lambda: on_terminal)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(100)
    monkeypatch.setattr(terminal, "write", Closed().write)
    monkeypatch.setattr(sys, "stderr", Closed())
    steps(progress, 100)
    assert progress.done == 100


def test_no_stderr_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    progress = Progress(1)
    with progress:
        progress.update(lambda: "")
    assert progress.done == 1
