"""Errors of every approximation of the transfer equation, against quadrature.

    python -m benchmarks.render.rte                              the table of docs/rte.md: minutes
    python -m benchmarks.render.rte --depths 1 --seeds 1         one block of it
    python -m benchmarks.render.rte --json rte.json              all figures, for scripts

Media are random: 64 splats with harmonics of degree 1 in the unit cube, wide enough to overlap,
with extinctions scaled to a mean optical depth on the camera's rays. `apart` has small splats that
hardly overlap. All numbers are in float64.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from torch import Tensor

from splatrender.model.camera import Camera
from splatrender.model.fields import ExtinctionField
from splatrender.model.medium import Medium
from splatrender.reference.approximations import Approximation, approximate
from splatrender.reference.march import camera_rays, march
from splatrender.reference.project import BEER_LAMBERT, GAUSSIAN
from splatrender.reference.render import rasterize

SPLATS, SIDE, TOLERANCE = 64, 16, 1e-7
MOST = 1 << 16  # a window for all pairs
OVERLAPPING, APART = 0.15, 0.02  # median standard deviation, in sides of the cube
TENSORS = ("splats.means", "splats.factors", "splats.peaks", "harmonics")

RAYS = {
    "gaussian ray center": Approximation("gaussian", order="center"),
    "gaussian ray pixel": Approximation("gaussian"),
    "beer_lambert ray center": Approximation(order="center"),
    "beer_lambert ray pixel": Approximation(),
    "exchange, W = 1": Approximation(overlap="exchange", window=1),
    "exchange, W = 2": Approximation(overlap="exchange", window=2),
    "exchange, W = 4": Approximation(overlap="exchange", window=4),
    "exchange, W = 4, faintest 1/255": Approximation(
        overlap="exchange", window=4, faintest=1 / 255
    ),
    "exchange, W = 16": Approximation(overlap="exchange", window=16),
    "exchange, all pairs": Approximation(overlap="exchange", window=MOST),
    "exchange, W = 4, order center": Approximation(order="center", overlap="exchange", window=4),
    "absorption, W = 4": Approximation(overlap="absorption", window=4),
    "absorption, W = 4, faintest 1/255": Approximation(
        overlap="absorption", window=4, faintest=1 / 255
    ),
    "absorption, all pairs": Approximation(overlap="absorption", window=MOST),
}
AFFINE = {"gaussian ewa center (3DGS)": GAUSSIAN, "beer_lambert ewa center": BEER_LAMBERT}


@dataclass(frozen=True)
class Row:
    """Errors of one approximation on one kind of media, means over seeds.

    Attributes:
        media, name: names of both.
        mean, largest: absolute errors of the radiance over pixels and channels.
        cosines: cosine of gradients with those of quadrature, by tensor.
    """

    media: str
    name: str
    mean: float
    largest: float
    cosines: dict[str, float]

    @property
    def cosine(self) -> float:
        """Mean of the cosines."""
        return sum(self.cosines.values()) / len(self.cosines)


def make_medium(size: float, seed: int, count: int = SPLATS) -> Medium:
    """Return `count` random splats of median standard deviation `size` in the unit cube."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    means = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    scales = size * torch.exp(0.4 * normal(count, 3))
    peaks = torch.exp(0.7 * normal(count))
    harmonics = normal(count, 4, 3) * torch.tensor([1.0, 0.2, 0.2, 0.2])[:, None]
    field = ExtinctionField.from_scales(means, normal(count, 4), scales, peaks)
    return Medium(field, harmonics)


def scaled(medium: Medium, camera: Camera, depth: float) -> Medium:
    """Return the medium whose mean optical depth on the camera's rays is `depth`."""
    factor = depth / float(medium.optical_depth(*camera_rays(camera)).mean())
    return replace(medium, splats=replace(medium.splats, peaks=factor * medium.splats.peaks))


def affine(medium: Medium, camera: Camera, response: int) -> Tensor:
    """Return what splats with the footprint of 3DGS show, [H W, 3]."""
    field = medium.splats
    amplitudes = field.peaks
    if response == GAUSSIAN:
        amplitudes = -torch.expm1(-field.peaks * field.thickness)
    radiance, _ = rasterize(
        field.means, None, None, amplitudes, medium.harmonics, camera.viewmat[None],
        camera.intrinsics(torch.float64)[None], camera.width, camera.height, sh_degree=1,
        factors=field.factors, eps2d=0.0, response=response, dense=True,
    )  # fmt: skip
    return radiance.reshape(-1, 3)


def renderings(medium: Medium, camera: Camera) -> dict[str, Tensor]:
    """Return radiance [H W, 3] by name, that of quadrature under the name ""."""
    rays = camera_rays(camera)
    axis = camera.viewmat[2, :3]
    found = {"": march(medium, *rays, tolerance=TOLERANCE).radiance}
    found |= {name: affine(medium, camera, response) for name, response in AFFINE.items()}
    for name, way in RAYS.items():
        found[name] = approximate(medium, *rays, way, axis=axis)[0]
    return found


def compare(media: str, medium: Medium, camera: Camera, seed: int) -> list[Row]:
    """Return the errors of all approximations on one medium."""
    medium = medium.detach().requires_grad_()
    images = renderings(medium, camera)
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(images[""].shape, generator=generator, dtype=torch.float64)
    inputs = [tensor for _, tensor in medium.items()]
    gradients = {
        name: torch.autograd.grad((image * cotangent).sum(), inputs)
        for name, image in images.items()
    }
    exact = images.pop("").detach()
    rows = []
    for name, image in images.items():
        error = (image.detach() - exact).abs()
        cosines = {
            tensor: float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))
            for tensor, one, other in zip(TENSORS, gradients[name], gradients[""], strict=True)
        }
        rows.append(Row(media, name, float(error.mean()), float(error.max()), cosines))
    return rows


def averaged(rows: list[list[Row]]) -> list[Row]:
    """Return the means over seeds, and the largest of the largest errors."""
    found = []
    for same in zip(*rows, strict=True):
        cosines = {name: math.fsum(r.cosines[name] for r in same) / len(same) for name in TENSORS}
        mean = math.fsum(r.mean for r in same) / len(same)
        largest = max(r.largest for r in same)
        found.append(Row(same[0].media, same[0].name, mean, largest, cosines))
    return found


def markdown(rows: list[Row]) -> str:
    """Return one table: approximations down, media across, `mean / largest / cosine`."""
    media = list(dict.fromkeys(row.media for row in rows))
    cells = {(r.name, r.media): f"{r.mean:.1e} / {r.largest:.1e} / {r.cosine:.4f}" for r in rows}
    lines = [f"| | {' | '.join(media)} |", f"|---|{'---|' * len(media)}"]
    for name in dict.fromkeys(row.name for row in rows):
        lines.append(f"| {name} | {' | '.join(cells[name, medium] for medium in media)} |")
    return "\n".join(lines)


@click.command()
@click.option("--depths", default="0.1,1,10,30", show_default=True, help="Mean optical depths.")
@click.option("--seeds", default=3, show_default=True, help="Number of media of each kind.")
@click.option("--splats", default=SPLATS, show_default=True)
@click.option("--side", default=SIDE, show_default=True, help="Width and height [px].")
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for all figures.")
def main(depths: str, seeds: int, splats: int, side: int, threads: int, path: Path | None) -> None:
    """Print the table of errors: mean / largest error of radiance / cosine of gradients."""
    torch.set_num_threads(threads)
    center = (0.5, 0.5, 0.5)
    camera = Camera.look_at((0.5, 0.5, -1.5), center, fov_x=30, width=side, height=side)
    kinds = [("apart, depth 0.1", APART, 0.1)]
    kinds += [(f"depth {depth}", OVERLAPPING, float(depth)) for depth in depths.split(",")]
    rows: list[Row] = []
    for media, size, depth in kinds:
        found = [
            compare(media, scaled(make_medium(size, seed, splats), camera, depth), camera, seed)
            for seed in range(seeds)
        ]
        rows += averaged(found)
    print(markdown(rows))
    if path is not None:
        table = [{**vars(row), "cosine": row.cosine} for row in rows]
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
