"""`splatrender convert`: what it writes, prints and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.formats import matched, some_splats

from splatrender.cli import convert as command
from splatrender.cli.main import main
from splatrender.formats import FORMATS, read_splats, read_stored, write_splats
from splatrender.io.json_files import write_json
from splatrender.model import Splats

pytest.importorskip("plyfile")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return exit code, stdout and stderr."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["convert", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_it


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.ply"
    write_splats(path, some_splats(80))
    return path


def test_the_command_knows_the_formats() -> None:
    assert sorted(command.FORMATS) == sorted(FORMATS)


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_there_and_back(convert: Run, source: Path, tmp_path: Path, name: str) -> None:
    there, back = tmp_path / f"b{FORMATS[name].ending}", tmp_path / "c.ply"
    code, out, err = convert(source, there, "--format", name)
    assert (code, err) == (0, "")
    size = there.stat().st_size
    assert out.startswith(f"{there}: 80 splats, {size:,} bytes; lost: ") and out.count("\n") == 1
    assert ("nothing" in out) == (name in ("ply", "glb"))
    assert ("harmonics above degree 0 cut" in out) == (name == "splat")
    assert convert(there, back)[0] == 0
    splats = read_splats(source)
    torch.testing.assert_close(
        matched(splats, read_splats(back)).means, splats.means, atol=5e-3, rtol=0
    )


def test_what_is_kept(convert: Run, source: Path, tmp_path: Path) -> None:
    target, splats = tmp_path / "b.ply", read_splats(source)
    _, out, _ = convert(source, target, "--sh-degree", 1)
    assert read_splats(target).degree == 1 and out.endswith("lost: harmonics above degree 1 cut\n")
    _, out, _ = convert(source, target, "--crop", "-3,-3,-3,0,3,3")
    inside = splats.means[:, 0] <= 0
    assert torch.equal(read_splats(target).means, splats.means[inside])
    left = int((~inside).sum())
    assert out.endswith(f"lost: {left} of 80 splats outside of the box\n")
    _, out, _ = convert(source, target, "--max-splats", 30)
    assert out.endswith("lost: 50 of 80 splats of least opacity times area\n")
    worth = splats.opacities * splats.scales.sort(dim=1).values[:, 1:].prod(dim=1)
    kept = worth >= worth.sort().values[-30]
    assert torch.equal(read_splats(target).means, splats.means[kept])
    _, out, _ = convert(source, target, "--max-splats", 1000, "--sh-degree", 3)
    assert out.endswith("lost: nothing\n")


def test_a_model_folder_is_read_with_its_flag(convert: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for iteration in (7, 30):
        write_splats(
            folder / f"point_cloud/iteration_{iteration}/point_cloud.ply", some_splats(iteration)
        )
    write_json(folder / "config.json", {"antialiased": True})
    assert convert(folder, tmp_path / "a.spz")[0] == 0
    stored = read_stored(tmp_path / "a.spz")
    assert len(stored.splats) == 30 and stored.antialiased is True
    _, out, _ = convert(tmp_path / "a.spz", tmp_path / "a.glb")
    assert out.endswith("lost: antialias flag dropped\n")
    assert convert(tmp_path / "a.spz", tmp_path / "b.sog")[0] == 0
    assert read_stored(tmp_path / "b.sog").antialiased is True


def test_a_far_scene_is_told(convert: Run, tmp_path: Path) -> None:
    splats = some_splats(20).to(torch.float64)
    far = Splats(
        splats.means + 5e6,
        splats.quats,
        splats.log_scales,
        splats.opacity_logits,
        splats.sh,
    )
    far.save(tmp_path / "a.ply")
    _, out, _ = convert(tmp_path / "a.ply", tmp_path / "b.glb")
    assert out.endswith("lost: positions in float32\n")


@pytest.mark.parametrize("name", ["b.spz", "b.sog", "b.glb", "b.splat", "b.ply", "meta.json"])
def test_only_files_of_the_same_format_are_replaced(
    convert: Run, source: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    target.write_text("my notes!")
    code, out, err = convert(source, target)
    assert code == 2 and out == "" and target.read_text() == "my notes!"
    assert f"{name}: expected nothing, or a " in err and "another kind of file" in err
    target.unlink()
    assert convert(source, target)[0] == convert(source, target)[0] == 0


def test_images_of_others_are_not_replaced(convert: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "scales.webp").write_text("mine")
    assert convert(source, tmp_path / "meta.json")[0] == 2
    assert (tmp_path / "scales.webp").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.ply", "a.ply"], "a.ply: expected another file than A to write, got the same"),
        (["a.ply", "b.obj"], "expected a name ending in .compressed.ply, .ply, .splat, .spz"),
        (["no.spz", "b.ply"], "no.spz: expected a .spz file, got none"),
        (["a.ply", "b.ply", "--crop", "5,5,5,6,6,6"], "--crop: expected a box with splats in it"),
        (["a.ply", "b.ply", "--crop", "1,0,0,0,1,1"], "--crop: expected X0,Y0,Z0,X1,Y1,Z1 with X0"),
        (
            ["a.ply", "b.ply", "--crop", "1,2"],
            "expected six numbers like -1,-1,-1,1,1,1, got '1,2'",
        ),
        (["a.ply", "b.ply", "--sh-degree", "4"], "0<=x<=3"),
        (["a.ply", "b.ply", "--format", "obj"], "obj"),
    ],
)
def test_mistakes_are_one_line(
    convert: Run,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(source.parent)
    before = source.read_bytes()
    code, out, err = convert(*arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert source.read_bytes() == before and list(source.parent.iterdir()) == [source]
