"""Make the bundled scene: path trace the still life and write it as a COLMAP model.

Example: python -m tools.still_life --out scenes/still_life
Quick:   python -m tools.still_life --out /tmp/quick --size 160x120 --spp 8 --views 12
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.still_life import points, rendering
from tools.still_life.cameras import Pinhole, camera_path
from tools.still_life.colmap import write_model
from tools.still_life.denoise import denoise


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Path trace the bundled still life.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the scene")
    parser.add_argument("--size", default="640x480", help="width x height of the pictures, px")
    parser.add_argument("--spp", type=int, default=16, help="samples per pixel, in four passes")
    parser.add_argument("--views", type=int, default=60, help="number of pictures")
    parser.add_argument("--points", type=int, default=3000, help="number of sparse points sought")
    parser.add_argument("--quality", type=int, default=88, help="JPEG quality")
    parser.add_argument("--seed", type=int, default=7, help="of cameras, samples and points")
    parser.add_argument(
        "--variant", default="scalar_rgb", help="Mitsuba variant; llvm_ad_rgb is twice as fast"
    )
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise SystemExit(f"--size: expected WIDTHxHEIGHT in px, got {text}.")
    return int(width), int(height)


def _finished(path: Path, size: tuple[int, int]) -> bool:
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return bool(picture.size == size)


def main() -> None:
    """Render what is missing, then write the sparse model."""
    options = _arguments()
    size = _size(options.size)
    start = time.perf_counter()
    rendering.choose_variant(options.variant)
    scene = rendering.build_scene()
    pinhole = Pinhole.of_size(*size)
    poses = camera_path(options.views, options.seed)
    names = [f"frame_{k:04d}.jpg" for k in range(options.views)]
    folder = options.out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(tqdm(names, desc="pictures", unit="picture")):
        path = folder / name
        if _finished(path, size):
            continue
        camera = rendering.sensor(pinhole, poses[k])
        passes, features = rendering.render_passes(scene, camera, options.spp, options.seed + k)
        picture = Image.fromarray(rendering.develop(denoise(passes, features)))
        part = path.with_suffix(".part")
        picture.save(part, "JPEG", quality=options.quality, optimize=True)
        os.replace(part, path)
    photos = [np.asarray(Image.open(folder / name)) for name in tqdm(names, desc="reading")]
    model = points.reconstruct(scene, pinhole, poses, photos, options.points, options.seed)
    write_model(options.out / "sparse" / "0", pinhole, poses, names, model)
    total = sum(f.stat().st_size for f in options.out.rglob("*") if f.is_file())
    seconds = time.perf_counter() - start
    print(f"{len(names)} pictures, {len(model.xyz)} points, {total / 1e6:.2f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
