"""A scene folder with its model folder, and what tests of commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from splatrender.io.images import write_image
from splatrender.model import Splats
from splatrender.model.camera import Camera
from splatrender.model.ply import write_ply
from splatrender.model.quaternions import quat_from_rotation
from splatrender.operators.render import render
from splatrender.scenes import Similarity
from splatrender.scenes.cameras import write_cameras_json

WIDTH, HEIGHT, VIEWS = 64, 48, 9
OFFSET = torch.tensor([30.0, -20.0, 10.0])  # of the world: no splat is near the origin

Run = Callable[..., tuple[int, str, str]]


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


def make_model(root: Path, shift: float = 0.0) -> Path:
    """Write the folders of `model`, with the world moved by `shift` along each axis."""
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
