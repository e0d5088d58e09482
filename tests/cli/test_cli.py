"""The command line: what it prints, where it writes, how it ends."""

from __future__ import annotations

import errno
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image

from splatrender.cli.main import cli, main, run
from splatrender.cli.render import render as render_command
from splatrender.cli.train import train as train_command
from splatrender.errors import InputError, WriteError
from splatrender.io.checkpoint import save_checkpoint
from splatrender.io.images import write_image
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.ply import write_ply
from splatrender.model.quaternions import quat_from_rotation
from splatrender.operators.render import render
from splatrender.rendering import RenderJob
from splatrender.rendering import job as render_job
from splatrender.runtime import devices
from splatrender.scenes import Similarity
from splatrender.scenes.cameras import write_cameras_json

REPOSITORY = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, VIEWS = 64, 48, 9
OFFSET = torch.tensor([30.0, -20.0, 10.0])  # of the world: nothing lies at the origin

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return exit code, stdout and stderr."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_it


def one_line(err: str) -> str:
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0]


def world_cameras() -> list[Camera]:
    target = OFFSET.double()
    eyes = [target + 6 * torch.tensor([np.cos(a), -0.3, np.sin(a)]) for a in range(VIEWS)]
    return [
        Camera.look_at(eye, target, width=WIDTH, height=HEIGHT, name=f"{i:02d}.png")
        for i, eye in enumerate(eyes)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene folder as of COLMAP whose photos are renderings, and a model folder beside it."""
    pytest.importorskip("plyfile")
    return make_model(tmp_path_factory.mktemp("cli"))


def make_model(root: Path, shift: float = 0.0) -> Path:
    """The folders of `model`, with the world moved by `shift` along each axis."""
    splats = Splats.random(60, extent=1.5, seed=3)
    splats = Splats(
        splats.means * torch.tensor([1.0, 0.5, 1.0]) + OFFSET,
        torch.randn(60, 4, generator=torch.Generator().manual_seed(1)),
        splats.log_scales + torch.tensor([0.0, -0.5, -1.0]),
        splats.opacity_logits + 4,
        splats.sh,
    )
    move = Similarity(1.0, torch.full((3,), -shift, dtype=torch.float64))
    cameras = [move.apply(camera) for camera in world_cameras()]
    images, lenses = [], []
    for i, (camera, near) in enumerate(zip(cameras, world_cameras(), strict=True)):
        radiance = render(splats, near, background=(0.1, 0.2, 0.3)).radiance[0]
        write_image(root / "scene/images" / camera.name, radiance)
        quat = quat_from_rotation(camera.viewmat[:3, :3]).tolist()
        pose = " ".join(map(str, [*quat, *camera.viewmat[:3, 3].tolist()]))
        images.append(f"{i + 1} {pose} {i + 1} {camera.name}\n\n")
        lens = f"{camera.fx} {camera.fy} {camera.cx} {camera.cy}"
        lenses.append(f"{i + 1} PINHOLE {WIDTH} {HEIGHT} {lens}\n")
    splats = move.apply(splats.to(torch.float64 if shift else torch.float32))
    points = [
        f"{i + 1} {x} {y} {z} 200 100 50 0.5 1 0\n"
        for i, (x, y, z) in enumerate(splats.means.tolist())
    ]
    sparse = root / "scene/sparse/0"
    sparse.mkdir(parents=True)
    for name, lines in (("cameras", lenses), ("images", images), ("points3D", points)):
        (sparse / f"{name}.txt").write_text("".join(lines))

    out = root / "out"
    write_ply(out / "point_cloud/iteration_30/point_cloud.ply", splats)
    write_ply(out / "point_cloud/iteration_4/point_cloud.ply", Splats.random(5))
    write_cameras_json(out / "cameras.json", cameras)
    config = {"source": str(root / "scene"), "resolution": 1, "background": [0.1, 0.2, 0.3]}
    (out / "config.json").write_text(json.dumps(config))
    return out


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_test_views_are_rendered_and_scored(call: Run, model: Path, tmp_path: Path) -> None:
    code, out, err = call("render", model, "--out", tmp_path, "--depth")
    assert code == 0, err
    folder = tmp_path / "test/ours_30"
    assert names(tmp_path) == ["test"]
    for kind in ("renders", "gt"):
        assert names(folder / kind) == ["00000.png", "00001.png"]  # views 0 and 8 of 9
    assert names(folder / "depth") == [
        f"0000{i}.{kind}" for i in (0, 1) for kind in ("npy", "png")
    ] + ["depth.json"]
    rendering, photo = read(folder / "renders/00001.png"), read(folder / "gt/00001.png")
    assert rendering.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(photo, read(model.parent / "scene/images/08.png"))
    assert np.abs(rendering.astype(int) - photo).max() <= 2  # the world is that of COLMAP
    scores = re.findall(r"^(\S+) +([\d.]+|inf) +([\d.]+)$", out, re.MULTILINE)
    assert [row[0] for row in scores] == ["00.png", "08.png", "mean"]
    assert all(float(psnr) > 45 and float(ssim) > 0.99 for _, psnr, ssim in scores)


def test_a_world_far_from_the_origin_looks_the_same(call: Run, model: Path, tmp_path: Path) -> None:
    far = make_model(tmp_path / "far", shift=1e7)
    ply = "point_cloud/iteration_30/point_cloud.ply"
    for i, name in enumerate(("", ply)):
        code, out, err = call("render", far / name, "--out", tmp_path / str(i))
        assert (code, err) == (0, "")
        scores = re.findall(r"^(\S+) +([\d.]+|inf) +([\d.]+)$", out, re.MULTILINE)
        assert len(scores) == 3 and all(float(psnr) > 45 for _, psnr, _ in scores)
    pictures = []
    for folder in (model, far):
        code, _, err = call(
            "render", folder, "--path", folder / "cameras.json", "--no-video", "--out", tmp_path
        )
        assert code == 0, err
        pictures.append(read(tmp_path / "paths/cameras_30/renders/00003.png").astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    # a file alone: the same ball to go around
    bare = [tmp_path / "near.ply", tmp_path / "far.ply"]
    for folder, copy in zip((model, far), bare, strict=True):
        copy.write_bytes((folder / ply).read_bytes())
        assert call("render", copy, "--frames", 1, "--width", 40, "--no-video")[0] == 0
    one, other = (
        read(tmp_path / f"{name}_render/paths/orbit_{name}/renders/00000.png").astype(int)
        for name in ("near", "far")
    )
    assert one.max() > 20 and np.abs(one - other).max() <= 1


def test_the_frame_of_training_is_that_of_rendering(call: Run, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(model, copy)
    Similarity(1e-3, OFFSET).save(copy / "scene.json")  # cameras are closer than the near plane
    for arguments in ([], ["--path", copy / "cameras.json", "--no-video"]):
        code, _, err = call("render", copy, *arguments)
        assert code == 0
        assert re.search(r"warning: (2 of 2|9 of 9) pictures see no splat: splats are around", err)
    for kind in ("test/ours_30", "paths/cameras_30"):
        picture = read(copy / kind / "renders/00000.png").astype(int)
        assert np.abs(picture - [26, 51, 76]).max() <= 1  # nothing but background


def test_train_views_iteration_size_and_moved_scene(call: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "moved"
    source.symlink_to(model.parent / "scene")
    code, out, err = call(
        "render", "-m", model, "--views", "both", "--iteration", 4, "-r", 2,
        "--source", source, "--out", tmp_path, "--background", "white",
    )  # fmt: skip
    assert code == 0, err
    assert len(names(tmp_path / "train/ours_4/renders")) == 7
    assert len(names(tmp_path / "test/ours_4/renders")) == 2
    picture = read(tmp_path / "train/ours_4/renders/00006.png")
    assert picture.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert out.count("mean") == 2


def test_orbit_gets_frames_depth_and_a_video(call: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    arguments = ["render", model, "--path", "orbit", "--out", tmp_path, "--width", 32, "--depth"]
    code, _, err = call(*arguments, "--frames", 6, "--video")
    assert code == 0, err
    assert names(tmp_path / "paths") == ["orbit_30", "orbit_30.mp4"]
    code, out, _ = call(*arguments, "--frames", 4, "--no-video", "--threads", 1)
    assert code == 0 and "4 frames" in out
    folder = tmp_path / "paths/orbit_30"  # none is left of the longer path
    assert names(folder / "renders") == [f"0000{i}.png" for i in range(4)]
    kept = [file for file in names(folder / "depth") if file[0] == "0"]
    assert kept == [f"0000{i}.{kind}" for i in range(4) for kind in ("npy", "png")]
    for i in range(4):
        picture = read(tmp_path / f"paths/orbit_30/renders/0000{i}.png")
        assert picture.shape == (24, 32, 3)
        assert np.abs(picture[10:14, 14:18].astype(int) - [26, 51, 76]).max() > 10  # seen


def test_interpolation_and_files_of_cameras(call: Run, model: Path, tmp_path: Path) -> None:
    arguments = ["render", model, "--no-video", "-q", "--out", tmp_path]
    code, out, err = call(*arguments, "--path", "interpolate", "--frames", 5, "--width", 40)
    assert (code, out, err) == (0, "", "")
    code, out, err = call(*arguments, "--path", "interpolate", "--frames", 5, "-r", 2)
    assert (code, out) == (0, "")
    assert err.startswith("warning: pictures of 32x24 are 0.50 times as large as in training")
    frames = tmp_path / "paths/interpolate_30/renders"
    assert len(names(frames)) == 5 and read(frames / "00000.png").shape == (24, 32, 3)
    write_cameras_json(tmp_path / "two.json", world_cameras()[:2])
    assert call(*arguments, "--path", tmp_path / "two.json")[0] == 0
    frame = read(tmp_path / "paths/two_30/renders/00001.png")
    assert np.abs(frame.astype(int) - read(model.parent / "scene/images/01.png")).max() <= 2
    assert call(*arguments, "--path", tmp_path / "two.json", "--frames", 3)[0] == 0
    assert len(names(tmp_path / "paths/two_30/renders")) == 3


def test_depth_is_also_written_as_values(call: Run, model: Path, tmp_path: Path) -> None:
    """In lengths of the world, whatever the unit of the frame of training."""
    copy = tmp_path / "out"
    shutil.copytree(model, copy)
    Similarity(0.05, OFFSET).save(copy / "scene.json")
    arguments = ["--path", copy / "cameras.json", "--no-video", "--depth"]
    code, _, err = call("render", copy, *arguments)
    assert code == 0, err
    folder = copy / "paths/cameras_30/depth"
    values = np.load(folder / "00003.npy")
    splats = Splats.load(copy / "point_cloud/iteration_30/point_cloud.ply")
    with torch.no_grad():
        expected = render(splats, world_cameras()[3], depth=True).depth
    assert values.dtype == np.float32 and values.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(values, expected[0].numpy(), rtol=1e-3)
    about = json.loads((folder / "depth.json").read_text())
    assert len(about["frames"]) == VIEWS and "COLMAP" in about["unit"]
    limits = about["frames"]["00003.npy"]
    assert limits["min"] == values[values > 0].min() and limits["max"] == values.max()
    assert 3 < limits["near"] < limits["far"] < 9  # cameras are 6 away
    assert limits["near"] == about["frames"]["00000.npy"]["near"]  # one range of colours


def test_a_run_without_ply_is_rendered_from_its_checkpoint(
    call: Run, model: Path, tmp_path: Path
) -> None:
    move = Similarity(0.25, OFFSET)
    splats = move.apply(Splats.load(model / "point_cloud/iteration_30/point_cloud.ply"))
    stopped = tmp_path / "stopped"
    shutil.copytree(model, stopped, ignore=shutil.ignore_patterns("point_cloud"))
    code, _, err = call("render", stopped)
    assert code == 2 and "or checkpoint.pt as training writes them, got none" in one_line(err)
    state = {"iteration": 12, "splats": dict(splats.items())}
    save_checkpoint(stopped / "checkpoint.pt", state)
    code, _, err = call("render", stopped)
    assert code == 2 and "expected scene.json beside checkpoint.pt" in one_line(err)
    move.save(stopped / "scene.json")
    code, out, err = call("render", stopped)
    assert code == 0 and "the run is not finished; rendering its checkpoint" in err
    scores = re.findall(r"^(\S+) +([\d.]+|inf) +([\d.]+)$", out, re.MULTILINE)
    assert len(scores) == 3 and all(float(psnr) > 45 for _, psnr, _ in scores)
    assert names(stopped / "test") == ["ours_12"]
    assert call("render", stopped, "--iteration", 12, "-q")[0] == 0
    code, _, err = call("render", stopped, "--iteration", 30)
    assert code == 2 and "expected iteration 12; got 30 asked for" in one_line(err)
    save_checkpoint(stopped / "checkpoint.pt", {"iteration": 12})
    code, _, err = call("render", stopped)
    assert code == 2 and "expected the state of a training run" in one_line(err)


def test_pictures_smaller_than_in_training_are_warned_of(
    call: Run, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(model, copy)
    cameras = world_cameras()  # of two focal lengths: each view is compared with its own
    lenses = [camera.resized(WIDTH * 3, HEIGHT * 3) for camera in cameras[:4]] + cameras[4:]
    write_cameras_json(copy / "cameras.json", lenses)
    code, _, err = call("render", copy, "--views", "both", "-q")
    assert code == 0 and "pictures of 64x48 are 0.33 times as large as in training" in err
    assert "train with --antialiased" in err and err.count("\n") == 1
    write_cameras_json(copy / "cameras.json", cameras)
    assert call("render", copy, "-q") == (0, "", "")
    assert call("render", copy, "-q", "-r", 4)[2].startswith("warning: pictures of 16x12")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "antialiased": True}))
    assert call("render", copy, "-q", "-r", 4) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", 5), ("resolution", "big"), ("resolution", True), ("images", ["a"]), ("masks", 1),
        ("holdout", 2.5), ("eval", "yes"), ("background", [1, 2]), ("background", [0, 0, "a"]),
        ("background", [0, 0, 7]), ("antialiased", None),
    ],
)  # fmt: skip
def test_options_of_other_kinds_in_a_config_are_named(
    call: Run, model: Path, tmp_path: Path, name: str, value: object
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(model, copy)
    config = json.loads((model / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, name: value}))
    code, out, err = call("render", copy)
    assert (code, out) == (2, "")
    assert f"config.json: {name}: expected" in one_line(err)
    assert names(copy) == names(model)  # nothing was begun


def test_both_sides_crop_rather_than_squeeze(call: Run, model: Path, tmp_path: Path) -> None:
    write_cameras_json(tmp_path / "one.json", world_cameras()[:1])
    code, _, err = call(
        "render", model, "--path", tmp_path / "one.json", "--width", 32, "--height", 48,
        "--no-video", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    frame = read(tmp_path / "paths/one_30/renders/00000.png").astype(int)
    photo = read(model.parent / "scene/images/00.png").astype(int)
    assert np.abs(frame - photo[:, 16:48]).max() <= 2


def test_a_bare_ply_is_shown_from_all_round(call: Run, tmp_path: Path) -> None:
    write_ply(tmp_path / "room.v1.ply", Splats.random(50))
    code, _, err = call(
        "render", tmp_path / "room.v1.ply", "--frames", 2, "--width", 40, "--no-video"
    )
    assert code == 0, err
    frames = tmp_path / "room.v1_render/paths/orbit_room/renders"
    assert names(frames) == ["00000.png", "00001.png"]
    assert read(frames / "00000.png").shape == (22, 40, 3)
    assert read(frames / "00000.png").max() > 20


def test_a_ply_within_a_model_folder_knows_its_cameras(
    call: Run, model: Path, tmp_path: Path
) -> None:
    file = model / "point_cloud/iteration_30/point_cloud.ply"
    code, out, err = call("render", file, "--out", tmp_path)
    assert code == 0, err
    assert "mean" in out and names(tmp_path / "test") == ["ours_30"]


def test_without_an_encoder_there_are_pictures(
    call: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    arguments = ["render", model, "--path", "orbit", "--frames", 1, "--out", tmp_path]
    code, _, err = call(*arguments)
    assert code == 0 and err.startswith("warning: no video") and err.count("\n") == 1
    assert names(tmp_path / "paths") == ["orbit_30"]
    code, _, err = call(*arguments, "--video")
    assert code == 2 and 'pip install "splatrender[video]"' in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "-q"], "expected a model folder or a .ply file as MODEL"),
        (["render", "a", "-m", "b"], "expected one model, got two: a and b"),
        (["render", "{tmp}/none.ply"], "none.ply: expected a .ply file, got none"),
        (["render", "{tmp}"], "expected point_cloud/iteration_N/point_cloud.ply"),
        (["render", "{model}", "--iteration", "5"], "expected iteration 4, 30; got 5"),
        (["render", "{ply}", "--iteration", "5"], "iteration: expected a model folder"),
        (["render", "{ply}", "--views", "test"], "expected the scene folder behind --source"),
        (["render", "{ply}", "--path", "interpolate"], "expected cameras.json"),
        (["render", "{model}", "-s", "{tmp}/no"], "expected the scene folder of"),
        (["render", "{model}", "--path", "spiral"], "path: expected none, orbit, interpolate"),
        (["render", "{model}", "--path", "{tmp}/no.json"], "expected a JSON file, got none"),
        (["render", "{model}", "--path", "orbit", "-r", "-3"], "resolution: expected"),
        (["render", "{model}", "--path", "orbit", "--fps", "0"], "fps: expected"),
        (["render", "{model}", "--path", "orbit", "--fps", "inf"], "fps: expected 0.01 to 1000"),
        (["render", "{model}", "--path", "orbit", "--fps", "nan"], "fps: expected 0.01 to 1000"),
        (
            ["render", "{model}", "--path", "orbit", "--width", "70000"],
            "width: expected an integer from 1 to 65535",
        ),
        (
            ["render", "{model}", "--path", "orbit", "--frames", "1000000000"],
            "frames: expected an integer from 1",
        ),
        (["render", "{model}", "--views", "all"], "'all' is not one of"),
        (["render", "{model}", "--background", "1,2"], "expected black, white or three numbers"),
        (["render", "{model}", "--background", "0,0,2"], "expected black, white or three"),
        (["render", "{model}", "--background", "red"], "expected black, white or three"),
        (["render", "{model}", "--frames", "0"], "0 is not in the range"),
        (["render", "{model}", "--nonsense"], "no such option"),
        (["train", "-m", "x"], "expected a scene folder as SCENE"),
        (["train", "a", "-s", "b"], "expected one scene, got two: a and b"),
        (["train", "a", "--save-iterations", "x"], "expected whole numbers like 1000,7000"),
        (["train", "a", "--iterations", "many"], "'many' is not a valid integer"),
        (["train", "a", "--sh-degree", "7"], "7 is not in the range"),
        (["train", "a", "--resume", "maybe"], "'maybe' is not one of"),
        (["train", "{tmp}/no", "-m", "{tmp}/out"], "expected the folder of a scene, got nothing"),
        (["train", "{tmp}", "-m", "{tmp}/out", "--strategy", "x"], "strategy: expected"),
        (["paint"], "no such command"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    call: Run, model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    write_ply(tmp_path / "plain/a.ply", Splats.random(5))
    places = {"tmp": tmp_path, "model": model, "ply": tmp_path / "plain/a.ply"}
    code, out, err = call(*(argument.format(**places) for argument in arguments))
    assert code == 2 and out == ""
    assert message in one_line(err)


def test_no_test_views_says_what_to_do(call: Run, model: Path, tmp_path: Path) -> None:
    write_ply(tmp_path / "point_cloud/iteration_1/point_cloud.ply", Splats.random(5))
    config = json.loads((model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "eval": False}))
    code, _, err = call("render", tmp_path)
    assert code == 2 and "no photo was held out; see --views train" in one_line(err)
    (tmp_path / "config.json").write_text("[]")
    code, _, err = call("render", tmp_path)
    assert code == 2 and "config.json: expected an object of options" in one_line(err)
    (tmp_path / "config.json").unlink()
    code, _, err = call("render", tmp_path, "--views", "test")
    assert code == 2 and "got no config.json that names it" in one_line(err)


def train_options(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The options that a command line leads to."""
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
    assert set(cli.commands) == {"train", "render", "regress", "predict", "plot-flow"}


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


def test_too_large_a_picture_is_one_line(
    call: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nMore words.")

    monkeypatch.setattr(render_job, "render", failing)
    code, _, err = call("render", model, "--out", tmp_path)
    assert code == 1
    assert one_line(err).startswith("error: 60 splats, pictures of 64x48: CUDA out of memory. More")
    assert one_line(err).endswith("Render smaller pictures (resolution, or width).")


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
