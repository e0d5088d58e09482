"""The command line: options, help, exit codes and the last words of a command."""

from __future__ import annotations

import errno
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from helpers.commands import (
    Run,
    one_line,
)

from splatrender.cli.main import cli, run
from splatrender.cli.render import render as render_command
from splatrender.cli.train import train as train_command
from splatrender.errors import InputError, WriteError
from splatrender.rendering import RenderJob
from splatrender.rendering import job as render_job
from splatrender.runtime import devices

REPOSITORY = Path(__file__).resolve().parents[2]


def train_options(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Return the options that a command line leads to."""
    from splatrender import training

    seen = []

    def train(options: Any) -> Any:
        seen.append(options)
        return training.TrainResult(
            Path("out"), {"psnr": 20, "ssim": 1, "split": "test", "splats": 9}
        )

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(SystemExit) as ended:
        run(train_command, "train.py", arguments)
    assert ended.value.code == 0
    return seen[0]


def test_quiet_prints_the_figures_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_options(monkeypatch, "some/fox", "--quiet")
    out, err = capsys.readouterr()
    assert (out, err) == ("out: PSNR 20.00 dB, SSIM 1.0000 on test views, 9 splats.\n", "")


def test_defaults_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from splatrender.training import TrainOptions

    options = train_options(monkeypatch, "some/fox")
    assert options == TrainOptions(source="some/fox", model="output/fox")


def test_flags_reach_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    familiar = train_options(
        monkeypatch, "-s", "a", "--model_path", "b", "--test_iterations", "100", "200",
        "--save_iterations", "300", "--sh_degree", "1", "--eval", "-r", "4",
    )  # fmt: skip
    assert (str(familiar.source), str(familiar.model)) == ("a", "b")
    assert familiar.test_iterations == (100, 200) and familiar.save_iterations == (300,)
    assert (familiar.sh_degree, familiar.resolution, familiar.eval) == (1, 4, True)
    other = train_options(
        monkeypatch, "--test-iterations", "100,200", "a", "-m", "b", "--no-eval", "--max-splats",
        "900", "--background", "1,0.5,0", "--masks", "masks", "--random-init", "--quiet",
        "--antialiased", "--holdout", "5", "--images", "images_2", "--seed", "3", "--threads", "1",
        "--checkpoint-interval", "0", "--resume", "never", "--overwrite", "--iterations", "900",
    )  # fmt: skip
    assert other.test_iterations == (100, 200) and str(other.source) == "a"
    assert other.background == (1.0, 0.5, 0.0) and other.eval is False
    assert (other.max_splats, other.masks, other.holdout) == (900, "masks", 5)
    assert other.random_init and other.quiet and other.antialiased and other.overwrite
    assert (other.images, other.seed, other.threads, other.iterations) == ("images_2", 3, 1, 900)
    assert (other.checkpoint_interval, other.resume) == (0, "never")


def test_a_number_after_the_list_is_not_part_of_another_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = train_options(
        monkeypatch, "a", "--test-iterations", "5", "6", "--seed", "7", "--save-iterations", "8"
    )
    assert (options.test_iterations, options.seed, options.save_iterations) == ((5, 6), 7, (8,))


@pytest.mark.parametrize("command", [train_command, render_command])
def test_help_tells_every_option_under_a_heading(
    command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(command, "it", ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=lambda flag: ("_" not in flag, len(flag))) in text
            assert parameter.help
    assert "Other:\n  -h, --help" in text and "_iterations" not in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_no_arguments_show_the_help(call: Run) -> None:
    code, _, err = call()
    assert code == 2 and "Commands:" in err


def test_version(call: Run) -> None:
    code, out, _ = call("--version")
    assert code == 0 and re.search(r"\d+\.\d+", out)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (InputError("a\n b"), 2, "error: a b"),
        (click.ClickException("lost"), 1, "error: lost"),
        (BrokenPipeError(errno.EPIPE, "nobody reads on"), 1, ""),
        (WriteError("a.pt", "full"), 74, "error: a.pt: expected to write this file, got: full"),
        (OSError(errno.EIO, "broken", "b.png"), 74, "error: b.png: broken"),
        (OSError("a writer\n of others"), 74, "error: a writer of others"),
    ],
)
def test_endings(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run(fails, "it", [])
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == message


def test_names_of_photos_can_be_printed_everywhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def prints() -> None:
        click.echo("写真 \udcff")
        raise InputError("写真.jpg: expected a photo")

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="latin-1") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as ended:
        run(prints, "it", [])
    err.flush()
    assert ended.value.code == 2
    assert out.buffer.getvalue() == b"\\u5199\\u771f \\udcff\n"
    assert err.buffer.getvalue() == b"error: \\u5199\\u771f.jpg: expected a photo\n"


def test_ctrl_c_while_a_command_loads_ends_it_at_once() -> None:
    code = (
        "import click, signal, sys\n"
        "from splatrender.cli.main import run\n"
        "@click.command()\n"
        "def loads():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except BaseException:\n"
        "        pass  # as within an import\n"
        "    print('went on')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "run(loads, 'it', [])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped\n")
    done = subprocess.run(
        [sys.executable, "-c", code.replace("    try:", "    loaded()\n    try:").replace(
            "@click", "from splatrender.cli.loading import loaded\n@click", 1
        )],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_an_interrupted_run_tells_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Ended(SystemExit):
        message = "saved; repeat the command to go on"

    @click.command()
    def stops() -> None:
        raise Ended(143)

    with pytest.raises(SystemExit) as ended:
        run(stops, "it", [])
    assert ended.value.code == 143
    assert capsys.readouterr().err == "saved; repeat the command to go on\n"


def test_a_diverged_run_is_one_line_and_code_1(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from splatrender import training

    def diverge(options: object) -> None:
        raise training.TrainingDiverged("iteration 3: the loss became nan")

    monkeypatch.setattr(training, "train", diverge)
    code, _, err = call("train", "a", "-m", "b")
    assert code == 1 and "iteration 3" in one_line(err)


@pytest.mark.parametrize("script", [["train.py"], ["-m", "splatrender"]])
def test_scripts_start(script: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *script, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout


def test_commands_do_not_load_torch_before_they_run() -> None:
    code = (
        "import sys, types; package = types.ModuleType('splatrender'); "
        "package.__path__, package.__version__ = ['splatrender'], '0'; "
        "sys.modules['splatrender'] = package; "
        "import splatrender.cli.main; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_group_lists_its_commands() -> None:
    assert set(cli.commands) == {"train", "render", "convert", "regress", "predict", "plot-flow"}


@pytest.mark.parametrize("command", ["train", "render"])
def test_a_gpu_that_is_not_there_is_one_line(
    call: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(devices, "missing_for_cuda", lambda: ["there is none"])
    where = {
        "train": (model.parent / "scene", "-m", tmp_path / "out"),
        "render": (model, "--out", tmp_path / "out"),
    }
    code, _, err = call(command, *where[command], "--backend", "cuda")
    assert code == 2 and not (tmp_path / "out").exists()
    assert one_line(err).endswith("expected 'auto' or 'cpu', got 'cuda': there is none")
    code, _, err = call(command, *where[command], "--backend", "gpu")
    assert code == 2 and "'auto', 'cpu', 'cuda'" in one_line(err)


def test_too_large_an_image_is_one_line(
    call: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nMore words.")

    monkeypatch.setattr(render_job, "render", failing)
    code, _, err = call("render", model, "--out", tmp_path)
    assert code == 1
    assert one_line(err).startswith("error: 60 splats, images of 64x48: CUDA out of memory. More")
    assert one_line(err).endswith("Render smaller images (resolution, or width).")


def test_tilde_is_the_home_folder_in_every_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = train_options(
        monkeypatch, "~/scene", "-m", "~/out", "--images", "~/photos", "--masks", "~/masks"
    )
    assert (options.source, options.model) == (tmp_path / "scene", tmp_path / "out")
    assert (options.images, options.masks) == (str(tmp_path / "photos"), str(tmp_path / "masks"))
    job = RenderJob("~/out", source="~/s", path="~/p.json", output="~/o")
    places = (job.model, job.source, job.path, job.output)
    assert places == tuple(str(tmp_path / name) for name in ("out", "s", "p.json", "o"))
    with pytest.raises(InputError, match="model: expected a home folder for ~, got none for"):
        RenderJob("~no-such-user-anywhere/out")


def test_regress_knows_the_home_folder(
    call: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = call("regress", "~/a.csv", "--out", "~/fit", "--inputs", "x", "--outputs", "y")
    assert code == 2 and str(tmp_path / "a.csv") in one_line(err)
    code, _, err = call("plot-flow", "~/run")
    assert code == 2 and ("matplotlib" in err or str(tmp_path / "run") in err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-splats", "0"], "--max-splats: expected at least 1, got 0"),
        (["--max-splats", str(2**31)], f"--max-splats: expected at most {2**31 - 1}, got"),
        (["--seed", str(2**70)], f"--seed: expected at most {2**63 - 1}, got {2**70}"),
        (["--seed", "-1"], "--seed: expected at least 0, got -1"),
        (["--iterations", str(2**70)], "--iterations: expected at most 1000000000, got"),
        (["--checkpoint-interval", "-5"], "--checkpoint-interval: expected at least 0, got -5"),
        (["--threads", "1000000"], "--threads: expected at most 4096, got 1000000"),
        (["--resolution", "-7"], "--resolution: expected at least -1, got -7"),
    ],
)
def test_numbers_out_of_range_name_the_flag(
    call: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = call("train", tmp_path, "-m", tmp_path / "out", *arguments)
    assert code == 2 and out == ""
    assert one_line(err).startswith(f"error: {message}")
