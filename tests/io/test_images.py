"""Images and videos."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from splatrender.errors import InputError
from splatrender.io import images
from splatrender.io.video import write_video


def test_png_and_jpeg_are_read_back(tmp_path: Path) -> None:
    picture = torch.rand(20, 30, 3)
    images.write_image(tmp_path / "new/a.png", picture)
    found = torch.from_numpy(np.array(Image.open(tmp_path / "new/a.png")))
    assert torch.equal(found, images.to_uint8(picture))
    smooth = torch.linspace(0, 1, 30).expand(20, 30)[..., None].expand(-1, -1, 3)
    images.write_image(tmp_path / "a.jpg", smooth)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "JPEG"
        error = np.abs(np.array(opened).astype(float) - 255 * smooth.numpy())
    assert error.max() < 6


def test_bytes_are_rounded_and_clamped() -> None:
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 7.0, torch.nan, torch.inf])
    assert images.to_uint8(values).tolist() == [0, 0, 128, 255, 255, 0, 255]
    assert images.to_uint8(torch.tensor([3], dtype=torch.uint8)).tolist() == [3]


def test_images_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ending in \.png, \.jpg, \.jpeg, got '\.gif'"):
        images.write_image(tmp_path / "a.gif", torch.zeros(2, 2, 3))
    with pytest.raises(InputError, match=r"expected shape \(H, W, 3\), got \(2, 2\)"):
        images.write_image(tmp_path / "a.png", torch.zeros(2, 2))
    with pytest.raises(InputError, match="got 1 images and 2 captions"):
        images.panel([torch.zeros(2, 2, 3)], ["a", "b"])


def test_colormap_is_continuous_and_distinct() -> None:
    colors = images.colormap(torch.linspace(0, 1, 1000)).float()
    assert (colors[1:] - colors[:-1]).abs().max() <= 3
    assert len(images.colormap(torch.linspace(0, 1, 256)).unique(dim=0)) > 230
    ends = images.colormap(torch.tensor([-5.0, 0.0, 1.0, 5.0]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[2], ends[3])


def test_depth_is_red_near_blue_far_black_nowhere() -> None:
    depth = torch.linspace(1, 5, 300).expand(10, 300).clone()
    depth[0], depth[1] = 0, torch.inf
    alpha = torch.ones(10, 300)
    alpha[2] = 0.2
    picture = images.depth_image(depth, alpha).int()
    assert not picture[:3].any()
    assert picture[5, 20, 0] > picture[5, 20, 2] and picture[5, 250, 2] > picture[5, 250, 0]
    near, far = images.depth_range(depth, alpha)
    assert 1 < near < 1.2 and 4.8 < far < 5
    assert images.depth_range(torch.zeros(3, 3)) == (0.0, 1.0)
    assert not images.depth_image(torch.zeros(3, 3)).any()
    flat = images.depth_image(torch.full((3, 3), 2.0))
    assert flat.any()


def test_error_image_and_panels() -> None:
    photo, rendering = torch.zeros(8, 60, 3), torch.zeros(8, 60, 3)
    rendering[:, 30:] = 1
    error = images.error_image(photo, rendering)
    assert not error[:, :30].any() and (error[:, 30:].sum(dim=2) > 500).all()
    row = images.comparison(photo, rendering)
    assert row.shape == (8 + images.CAPTION_HEIGHT, 3 * 60 + 2 * 4, 3)
    assert row[: images.CAPTION_HEIGHT, :60].max() > 150  # something is written
    assert torch.equal(row[images.CAPTION_HEIGHT :, 64:124], images.to_uint8(rendering))
    both = images.stack([row, row[:, :50]])
    assert both.shape == (2 * len(row), row.shape[1], 3)


def test_video_has_its_frames(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "new/a.mp4"

    def fading() -> Iterator[torch.Tensor]:
        for i in range(12):
            yield torch.full((21, 33, 3), i / 12)
        assert not path.exists()

    write_video(path, fading(), fps=10)
    frames = ffmpeg.read_frames(str(path))
    meta = next(frames)
    assert meta["size"] == (34, 22) and meta["fps"] == 10
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    means = [np.frombuffer(frame, np.uint8).mean() for frame in frames]
    assert len(means) == 12
    assert np.abs(np.array(means) - 255 * np.arange(12) / 12).max() < 4
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path, frame = tmp_path / "a.mp4", torch.zeros(20, 30, 3)
    with pytest.raises(InputError, match="expected the size"):
        write_video(path, [frame, torch.zeros(20, 40, 3)])
    with pytest.raises(InputError, match="expected frames"):
        write_video(path, [])

    def breaks() -> Iterator[torch.Tensor]:
        yield frame
        raise RuntimeError("no more frames")

    with pytest.raises(RuntimeError, match="no more frames"):
        write_video(path, breaks())
    assert not list(tmp_path.iterdir())


def test_videos_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"ending in \.mp4"):
        write_video(tmp_path / "a.avi", [])
    with pytest.raises(InputError, match="fps"):
        write_video(tmp_path / "a.mp4", [], fps=0)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r'pip install "splatrender\[video\]"'):
        write_video(tmp_path / "a.mp4", [])


def test_captions_of_any_name_with_the_plainest_font(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)
    monkeypatch.setattr(ImageFont, "load_default", plain)
    for name in ("写真.jpg", "a\udcff.jpg"):
        assert images.panel([torch.zeros(8, 90, 3)], [name]).float().std() > 1
