"""The command `render`: views, paths, depth, warnings, and refused input."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import (
    HEIGHT,
    OFFSET,
    VIEWS,
    WIDTH,
    Run,
    make_model,
    names,
    one_line,
    read,
    world_cameras,
)

from splatrender.io.checkpoint import save_checkpoint
from splatrender.model import Splats
from splatrender.model.ply import write_ply
from splatrender.operators.render import render
from splatrender.scenes import Similarity
from splatrender.scenes.cameras import write_cameras_json


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
        assert re.search(r"warning: (2 of 2|9 of 9) images see no splat: splats are around", err)
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
    assert err.startswith("warning: images of 32x24 are 0.50 times as large as in training")
    frames = tmp_path / "paths/interpolate_30/renders"
    assert len(names(frames)) == 5 and read(frames / "00000.png").shape == (24, 32, 3)
    write_cameras_json(tmp_path / "two.json", world_cameras()[:2])
    assert call(*arguments, "--path", tmp_path / "two.json")[0] == 0
    frame = read(tmp_path / "paths/two_30/renders/00001.png")
    assert np.abs(frame.astype(int) - read(model.parent / "scene/images/01.png")).max() <= 2
    assert call(*arguments, "--path", tmp_path / "two.json", "--frames", 3)[0] == 0
    assert len(names(tmp_path / "paths/two_30/renders")) == 3


def test_depth_is_also_written_as_values(call: Run, model: Path, tmp_path: Path) -> None:
    """Check lengths of the world, whatever the unit of the frame of training."""
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
    assert expected is not None
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


def test_images_smaller_than_in_training_are_warned_of(
    call: Run, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(model, copy)
    cameras = world_cameras()  # of two focal lengths: each view is compared with its own
    lenses = [camera.resized(WIDTH * 3, HEIGHT * 3) for camera in cameras[:4]] + cameras[4:]
    write_cameras_json(copy / "cameras.json", lenses)
    code, _, err = call("render", copy, "--views", "both", "-q")
    assert code == 0 and "images of 64x48 are 0.33 times as large as in training" in err
    assert "train with --antialiased" in err and err.count("\n") == 1
    write_cameras_json(copy / "cameras.json", cameras)
    assert call("render", copy, "-q") == (0, "", "")
    assert call("render", copy, "-q", "-r", 4)[2].startswith("warning: images of 16x12")
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


def test_without_an_encoder_there_are_images(
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
