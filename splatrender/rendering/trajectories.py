"""Camera paths: around the scene, and through the cameras of the photos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from splatrender.arguments import (
    MOST_PIXELS,
    require_integer,
    require_number,
    require_tensors,
    require_type,
)
from splatrender.errors import InputError
from splatrender.model.camera import Camera
from splatrender.model.quaternions import quat_from_rotation, rotations_from_quats
from splatrender.scenes.extent import camera_extent

MOST_FRAMES = 10**7  # days of video
FULL_CIRCLE = math.radians(120)  # cameras all round: nowhere a larger gap between their azimuths
LEVEL = 0.1  # weight of the mean upward direction against that of level horizons
WITHIN = (0.05, 0.95)  # the path stays between these quantiles of radius and height


def orbit(cameras: Sequence[Camera], frames: int = 120) -> list[Camera]:
    """Return a closed path around the scene that the cameras look at, near the cameras.

    The centre is the point nearest to all optical axes, the axis is the upward direction of the
    images. In cylinder coordinates around them, radius and height of the cameras are fitted
    as smooth functions of the azimuth. Cameras all round give a full turn along that curve;
    cameras on one side give a swing within the part they cover, so that the path does not leave
    what was photographed. Cameras that look away from each other (from the middle of a room) have
    no such centre: then the path is that of `interpolate`. Cameras that are far out (see
    `splatrender.scenes.extent`) are left out.

    Args:
        cameras: at least one camera, in the world; their most frequent image size is used.
        frames: number of cameras wanted, >= 1.

    Returns:
        `frames` cameras; the step from the last to the first is as long as the others.

    Raises:
        InputError: there is no camera, or frames < 1.

    Example:
        >>> ring = [Camera.look_at((3 * math.cos(a), 0, 3 * math.sin(a)), (0, 0, 0))
        ...         for a in (0, 1, 2, 3, 4, 5)]
        >>> round(float(orbit(ring, 8)[0].center.norm()), 3)
        3.0
    """
    cameras, frames = _checked(cameras, frames), int(frames)
    astray = camera_extent(torch.stack([camera.center for camera in cameras]).double()).astray
    cameras = [camera for index, camera in enumerate(cameras) if index not in astray]
    template = _template(cameras)
    centers, forward, up = _axes(cameras)
    focus = _focus(centers, forward)
    if len(cameras) > 2 and bool(((focus - centers) * forward).sum(dim=1).median() <= 0):
        return interpolate(cameras, frames)
    frame = _upright(up)
    local = (centers - focus) @ frame.T  # x, y horizontal, z up
    azimuths, middle, full = _unwrapped(torch.atan2(local[:, 1], local[:, 0]))
    radii, heights = local[:, :2].norm(dim=1), local[:, 2]
    time = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / frames)
    if full:
        path, swing = time, 0.0
    else:
        half = float(torch.quantile(azimuths.abs(), WITHIN[1]))
        path = half * torch.sin(time)
        residual = heights - _fit(azimuths, heights, azimuths, full)
        swing = float(residual.std(correction=0))
    radius = _fit(azimuths, radii, path, full)
    height = _fit(azimuths, heights, path, full) + swing * torch.cos(time)
    angle = path + middle
    places = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1)
    eyes = focus + places @ frame
    return [_looking(template, eye, focus, frame[2], i) for i, eye in enumerate(eyes)]


def interpolate(cameras: Sequence[Camera], frames: int = 120, closed: bool = False) -> list[Camera]:
    """Return a smooth path through the cameras, in their order.

    Places and directions follow a Catmull-Rom spline (cubic Hermite pieces through each camera,
    with slopes from its neighbours); directions as quaternions, normalised. The time between two
    cameras is proportional to how far apart they are and how far they turn, and the path
    is even however irregularly the photos were taken.

    Args:
        cameras: at least one camera, in the world; their most frequent image size is used.
        frames: number of cameras wanted, >= 1.
        closed: continue from the last camera to the first.

    Returns:
        `frames` cameras; unless closed, the first and the last are at the given ones.

    Raises:
        InputError: there is no camera, or frames < 1.

    Source:
        Catmull and Rom, A class of local interpolating splines, 1974, with uneven knots.

    Example:
        >>> ends = [Camera.look_at((0, 0, -2), (0, 0, 0)), Camera.look_at((1, 0, -2), (1, 0, 0))]
        >>> [float(camera.center[0]) for camera in interpolate(ends, 3)]
        [0.0, 0.5, 1.0]
    """
    cameras, frames = _checked(cameras, frames), int(frames)
    template = _template(cameras)
    places = torch.stack([camera.center for camera in cameras])
    quats = torch.stack([quat_from_rotation(camera.viewmat[:3, :3].T) for camera in cameras])
    keys = torch.cat([places, quats], dim=1)
    if closed and len(keys) > 2:
        keys = torch.cat([keys, keys[:1]])
    for i in range(1, len(keys)):  # q and -q are one rotation: take the nearer
        if keys[i, 3:] @ keys[i - 1, 3:] < 0:
            keys[i, 3:] *= -1
    knots = _knots(keys)
    if float(knots[-1]) == 0.0:  # one place only
        samples = keys[:1].expand(frames, -1)
    else:
        steps = frames if closed else max(frames - 1, 1)
        times = torch.arange(frames, dtype=torch.float64) / steps * knots[-1]
        samples = _hermite(knots, keys, times, closed=closed and len(cameras) > 2)
    result = []
    for i, sample in enumerate(samples):
        rotation = rotations_from_quats(sample[3:]).T
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = rotation
        viewmat[:3, 3] = -rotation @ sample[:3]
        result.append(replace(template, viewmat=viewmat, name=f"{i:05d}"))
    return result


def orbit_sphere(
    center: Tensor, radius: float, frames: int = 120, *, width: int = 960, height: int = 540
) -> list[Camera]:
    """Return a turn around a ball, for splats that come without cameras.

    Cameras stand a little above the ball's equator, with -y upwards as in COLMAP's worlds.

    Args:
        center: [3] centre of the ball, in the world.
        radius: radius of the ball, > 0, in the unit of the world; it fills the images.
        frames: number of cameras wanted, >= 1.
        width, height: size of the images [px].

    Returns:
        `frames` cameras.

    Raises:
        InputError: radius or frames is not positive.
    """
    require_tensors(center=center)
    if center.shape != (3,):
        raise InputError(f"center: expected shape [3], got {list(center.shape)}")
    radius, frames = require_number("radius", radius, 0, open_=True), _require_frames(frames)
    width = require_integer("width", width, 1, MOST_PIXELS)
    height = require_integer("height", height, 1, MOST_PIXELS)
    fov = math.radians(50)  # of the shorter side
    distance = radius / math.sin(fov / 2)
    fov_x = math.degrees(2 * math.atan(math.tan(fov / 2) * width / min(width, height)))
    elevation = math.radians(15)
    result = []
    for i in range(frames):
        angle = 2 * math.pi * i / frames
        direction = torch.tensor(
            [
                math.cos(elevation) * math.sin(angle),
                -math.sin(elevation),
                -math.cos(elevation) * math.cos(angle),
            ],
            dtype=torch.float64,
        )
        eye = center.double().cpu() + distance * direction
        result.append(
            Camera.look_at(
                eye, center, (0, -1, 0), fov_x=fov_x, width=width, height=height, name=f"{i:05d}"
            )
        )
    return result


def bounding_sphere(points: Tensor) -> tuple[Tensor, float]:
    """Return centre and radius of a ball that holds most points, robust to outliers.

    The centre is the middle of the box between the 10th and 90th percentile of each coordinate;
    the radius is the 98th percentile of the distances to it, or twice their median if that is
    less: a far background does not count.

    Args:
        points: [P, 3], P >= 1, any length unit.

    Returns:
        Centre [3] in float64, and a radius > 0.
    """
    require_tensors(points=points)
    if points.dim() != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"points: expected shape [P, 3], P >= 1, got {list(points.shape)}")
    places = points.detach().cpu().double().numpy()
    center = np.percentile(places, (10, 90), axis=0).mean(axis=0)
    median, most = np.percentile(np.linalg.norm(places - center, axis=1), (50, 98))
    radius = min(float(most), 2 * float(median))
    rounding = 1e-9 * float(np.linalg.norm(center))  # of float64, with a margin
    return torch.from_numpy(center), radius if radius > rounding else max(rounding, 1e-6)


def _checked(cameras: Sequence[Camera], frames: int) -> list[Camera]:
    """Return the cameras without their graphs, as a path carries no gradient; check them."""
    items = list(cameras) if isinstance(cameras, Iterable) else [cameras]
    for item in items:
        require_type("cameras", item, Camera)
    if not items:
        raise InputError("cameras: expected at least one camera, got none")
    _require_frames(frames)
    return [replace(item, viewmat=item.viewmat.detach()) for item in items]


def _require_frames(frames: int) -> int:
    if require_integer("frames", frames, -MOST_FRAMES, MOST_FRAMES) < 1:
        raise InputError(f"frames: expected at least 1, got {frames}")
    return int(frames)


def _template(cameras: Sequence[Camera]) -> Camera:
    """Return a camera of the most frequent image size, with the median focal length of those."""
    size = Counter((camera.width, camera.height) for camera in cameras).most_common(1)[0][0]
    alike = [camera for camera in cameras if (camera.width, camera.height) == size]
    return sorted(alike, key=lambda camera: camera.fx)[len(alike) // 2]


def _axes(cameras: Sequence[Camera]) -> tuple[Tensor, Tensor, Tensor]:
    """Return centres [C, 3], forward directions [C, 3] and the upward direction [3].

    Upwards is the mean direction of the images' upper edges, and across their horizontal
    edges as far as possible: people hold cameras level, but tilt them up and down.
    """
    rotations = torch.stack([camera.viewmat[:3, :3] for camera in cameras])
    centers = torch.stack([camera.center for camera in cameras])
    right, forward = rotations[:, 0], rotations[:, 2]
    mean = -rotations[:, 1].mean(dim=0)
    if float(mean.norm()) < 0.1:  # images turned all ways, like those of a drone that looks down
        mean = -forward.mean(dim=0)
    if float(mean.norm()) < 1e-6:
        mean = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    mean = mean / mean.norm()
    level = right.T @ right / len(right) - LEVEL * mean[:, None] * mean[None, :]
    up = torch.linalg.eigh(level).eigenvectors[:, 0]
    return centers, forward, up if float(up @ mean) > 0 else -up


def _focus(centers: Tensor, forward: Tensor) -> Tensor:
    """Return the point [3] with the smallest sum of distances to the optical axes.

    Least squares with weights 1/distance, again and again, so that a few cameras that look
    elsewhere do not count. Where axes are parallel they meet nowhere: a weak pull towards points
    at three times the spread of the cameras in front of them decides.
    """
    spread = float((centers - centers.mean(dim=0)).norm(dim=1).max()) or 1.0
    ahead = centers + 3 * spread * forward
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    pull = 1e-3
    weights = torch.ones(len(centers), dtype=torch.float64)
    focus = centers.mean(dim=0)
    for _ in range(20):
        matrix = (weights[:, None, None] * across).sum(0) + pull * weights.sum() * torch.eye(3)
        target = (weights[:, None, None] * across @ centers[:, :, None]).sum(0)[:, 0]
        target = target + pull * (weights[:, None] * ahead).sum(dim=0)
        focus = torch.linalg.solve(matrix, target)
        offset = (across @ (focus - centers)[:, :, None])[..., 0].norm(dim=1)
        weights = 1 / offset.clamp(min=1e-2 * spread)
    return focus


def _upright(up: Tensor) -> Tensor:
    """Return the rows x, y, up of a right-handed frame [3, 3]."""
    helper = torch.eye(3, dtype=torch.float64)[up.abs().argmin()]
    x = torch.linalg.cross(helper, up)
    x = x / x.norm()
    return torch.stack([x, torch.linalg.cross(up, x), up])


def _unwrapped(azimuths: Tensor) -> tuple[Tensor, float, bool]:
    """Return azimuths relative to the middle of their range, the middle, and if it is full."""
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered[1:], ordered[:1] + 2 * math.pi]) - ordered
    widest = int(gaps.argmax())
    covered = 2 * math.pi - float(gaps[widest])
    start = float(ordered[(widest + 1) % len(ordered)])
    middle = start + covered / 2
    relative = torch.remainder(azimuths - middle + math.pi, 2 * math.pi) - math.pi
    return relative, middle, float(gaps[widest]) < FULL_CIRCLE


def _fit(azimuths: Tensor, values: Tensor, where: Tensor, full: bool) -> Tensor:
    """Fit values as a smooth function of the azimuth; evaluate it within their quantiles."""

    def basis(angle: Tensor) -> Tensor:
        one = torch.ones_like(angle)
        if full:
            columns = [one, angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()]
        else:
            columns = [one, angle, angle.square()]
        return torch.stack(columns, dim=1)

    matrix = basis(azimuths)
    ridge = 0.02 * len(azimuths) * torch.eye(matrix.shape[1], dtype=torch.float64)
    ridge[0, 0] = 0  # the mean is free
    center = values.median()
    fitted: Tensor = torch.linalg.solve(matrix.T @ matrix + ridge, matrix.T @ (values - center))
    low, high = torch.quantile(values, torch.tensor(WITHIN, dtype=torch.float64)).tolist()
    return (basis(where) @ fitted + center).clamp(low, high)


def _looking(template: Camera, eye: Tensor, focus: Tensor, up: Tensor, i: int) -> Camera:
    """Return the template's camera at another place, looking at the focus."""
    if float(torch.linalg.cross(focus - eye, up).norm()) < 1e-6 * float((focus - eye).norm()):
        up = torch.eye(3, dtype=torch.float64)[up.abs().argmin()]  # straight down: any way up
    placed = Camera.look_at(eye, focus, up)
    return replace(template, viewmat=placed.viewmat, name=f"{i:05d}")


def _knots(keys: Tensor) -> Tensor:
    """Return times [n] of the keys: steps are distance plus turn, in units of their means."""
    steps = torch.zeros(len(keys) - 1, dtype=torch.float64)
    for part in (keys[:, :3], keys[:, 3:]):
        length = (part[1:] - part[:-1]).norm(dim=1)
        if len(length) and float(length.mean()) > 1e-12:
            steps = steps + length / length.mean()
    if float(steps.sum()) > 0:
        steps = steps.clamp(min=1e-3)  # two cameras at one place still need a time each
    return torch.cat([steps.new_zeros(1), steps.cumsum(dim=0)])


def _hermite(knots: Tensor, keys: Tensor, times: Tensor, closed: bool) -> Tensor:
    """Evaluate cubic Hermite pieces through keys [n, D] at knots [n] at times [T]."""
    steps = knots[1:] - knots[:-1]
    chords = (keys[1:] - keys[:-1]) / steps[:, None]
    if closed:
        before, after = torch.cat([chords[-1:], chords]), torch.cat([chords, chords[:1]])
        left, right = torch.cat([steps[-1:], steps]), torch.cat([steps, steps[:1]])
    else:
        before, after = torch.cat([chords[:1], chords]), torch.cat([chords, chords[-1:]])
        left, right = torch.cat([steps[:1], steps]), torch.cat([steps, steps[-1:]])
    # slope of the parabola through three keys
    slopes = (right[:, None] * before + left[:, None] * after) / (left + right)[:, None]
    if not closed and len(keys) > 2:  # free ends do not bend
        slopes[0] = 1.5 * chords[0] - 0.5 * slopes[1]
        slopes[-1] = 1.5 * chords[-1] - 0.5 * slopes[-2]
    piece = (torch.searchsorted(knots, times, right=True) - 1).clamp(0, len(steps) - 1)
    h = steps[piece][:, None]
    u = ((times - knots[piece]) / steps[piece])[:, None]
    return (
        (1 + 2 * u) * (1 - u) ** 2 * keys[piece]
        + u * (1 - u) ** 2 * h * slopes[piece]
        + u**2 * (3 - 2 * u) * keys[piece + 1]
        + u**2 * (u - 1) * h * slopes[piece + 1]
    )
