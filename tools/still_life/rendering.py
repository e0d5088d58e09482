"""The Mitsuba scene, its cameras, and the path from radiance to a finished photo."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.still_life import objects, room
from tools.still_life.cameras import Pinhole, Pose
from tools.still_life.denoise import Features
from tools.still_life.materials import Picture
from tools.still_life.meshes import Mesh

try:
    import mitsuba as mi
except ImportError as error:  # pragma: no cover - depends on the installation
    raise SystemExit(
        "The scene generator needs Mitsuba 3: install it with `pip install mitsuba` "
        "(or `pip install splatrender[dev]`)."
    ) from error

Array = NDArray[np.float64]
MAX_DEPTH = 5  # bounces; further ones add about one per cent of light
EXPOSURE = 1.95
CONTRAST = 1.14


def choose_variant(name: str) -> None:
    """Select the Mitsuba variant `name`, or say which ones there are."""
    if name not in mi.variants():
        raise SystemExit(f"--variant: expected one of {', '.join(mi.variants())}, got {name}.")
    mi.set_variant(name)


def _write_ply(path: Path, mesh: Mesh) -> None:
    """Binary PLY with normals and texture coordinates, for Mitsuba to read back."""
    names = ["x", "y", "z", "nx", "ny", "nz", "u", "v"]
    vertices = np.column_stack([mesh.vertices, mesh.normals, mesh.uv]).astype("<f4")
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in names]
    header += [
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
        "",
    ]
    path.write_bytes("\n".join(header).encode() + vertices.tobytes() + faces.tobytes())


def _bitmap(picture: Picture) -> dict[str, Any]:
    height = picture.pixels.shape[2] == 1
    rows = np.ascontiguousarray(picture.pixels[::-1])  # Mitsuba's row 0 is at v = 0
    bitmap = mi.Bitmap(rows.astype(np.float32) if height else np.rint(255 * rows).astype(np.uint8))
    scale = mi.ScalarTransform4f().scale([*picture.repeat, 1.0])
    return {"type": "bitmap", "bitmap": bitmap, "raw": height, "to_uv": scale}


def _resolve(value: Any) -> Any:
    """Return the material with its pictures as Mitsuba bitmaps."""
    if isinstance(value, Picture):
        return _bitmap(value)
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    return value


def _light(light: room.Light) -> dict[str, Any]:
    o, u, v = (np.asarray(a) for a in (light.origin, light.along_u, light.along_v))
    frame = np.eye(4)
    frame[:3, 0], frame[:3, 1] = u / 2, v / 2
    frame[:3, 2] = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    frame[:3, 3] = o + u / 2 + v / 2
    radiance: dict[str, Any] = {"type": "rgb", "value": list(light.radiance)}
    if light.picture is not None:
        linear = np.ascontiguousarray(light.picture[::-1] ** 2.2 * light.radiance)
        radiance = {"type": "bitmap", "bitmap": mi.Bitmap(linear.astype(np.float32)), "raw": True}
    return {
        "type": "rectangle",
        "to_world": mi.ScalarTransform4f(frame.tolist()),
        "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.3}},
        "emitter": {"type": "area", "radiance": radiance, "sampling_weight": light.weight},
    }


def build_scene() -> Any:
    """Return the still life in its room as a Mitsuba scene (without sensors)."""
    description: dict[str, Any] = {"type": "scene"}
    with tempfile.TemporaryDirectory() as folder:
        for part in [*objects.parts(), *room.parts()]:
            path = Path(folder) / f"{part.name}.ply"
            _write_ply(path, part.mesh)
            description[part.name] = mi.load_dict(
                {"type": "ply", "filename": str(path), "bsdf": _resolve(part.material)}
            )
    for light in room.lights():
        description[light.name] = _light(light)
    return mi.load_dict(description)


def sensor(pinhole: Pinhole, pose: Pose) -> Any:
    """Mitsuba sensor of a camera.

    Mitsuba looks along +z with x to the left and y up; our cameras have x to the right and y down.
    Its pixels are square: fx must equal fy.
    """
    to_world = np.eye(4)
    to_world[:3, :3] = pose.rotation.T @ np.diag([-1.0, -1.0, 1.0])
    to_world[:3, 3] = pose.center
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": float(np.degrees(2 * np.arctan(pinhole.width / (2 * pinhole.fx)))),
            "fov_axis": "x",
            "near_clip": 0.01,
            "far_clip": 50.0,
            "principal_point_offset_x": (pinhole.width / 2 - pinhole.cx) / pinhole.width,
            "principal_point_offset_y": (pinhole.height / 2 - pinhole.cy) / pinhole.height,
            "to_world": mi.ScalarTransform4f(to_world.tolist()),
            "film": {
                "type": "hdrfilm",
                "width": pinhole.width,
                "height": pinhole.height,
                "rfilter": {"type": "box"},
            },
            "sampler": {"type": "multijitter"},
        }
    )


def render_passes(
    scene: Any, camera: Any, spp: int, seed: int
) -> tuple[NDArray[np.float32], Features]:
    """Four independent renderings [4, H, W, 3] of `spp` samples in all, and their mean features.

    The features come from a second rendering: its equal seeds draw the same positions in every
    pixel, and it costs little, while features in the path tracer would double its time.
    """
    paths = mi.load_dict({"type": "path", "max_depth": MAX_DEPTH, "rr_depth": 3})
    aovs = "albedo:albedo,normal:sh_normal,position:position,depth:depth"
    aov = mi.load_dict({"type": "aov", "aovs": aovs})
    count = 4

    def layers(integrator: Any) -> NDArray[np.float32]:
        images = []
        for k in range(count):
            image = mi.render(
                scene,
                sensor=camera,
                integrator=integrator,
                spp=max(1, spp // count),
                seed=mi.UInt32(count * seed + k),
            )
            images.append(np.nan_to_num(np.array(image, dtype=np.float32)))
        return np.stack(images)

    mean = layers(aov).mean(0)[..., -10:]
    features = Features(
        albedo=np.clip(mean[..., :3], 0, 1),
        normal=mean[..., 3:6],
        position=mean[..., 6:9],
        depth=mean[..., 9],
    )
    return layers(paths)[..., :3], features


def nearest_hits(scene: Any, origin: Array, directions: Array) -> tuple[Array, Array]:
    """Distances [N] (inf: none) and surface normals [N, 3] along unit rays from `origin` [3]."""
    if len(directions) == 0:
        return np.zeros(0), np.zeros((0, 3))
    if "scalar" not in str(mi.variant()):
        rays = mi.Ray3f(mi.Point3f(*origin.tolist()), mi.Vector3f(directions.T.astype(np.float32)))
        hit = scene.ray_intersect(rays)
        return np.array(hit.t, dtype=np.float64), np.array(hit.n, dtype=np.float64).reshape(3, -1).T
    start = mi.Point3f(*origin.tolist())
    hits = [scene.ray_intersect(mi.Ray3f(start, mi.Vector3f(*d))) for d in directions.tolist()]
    normals = np.array([[h.n.x, h.n.y, h.n.z] for h in hits], dtype=np.float64)
    return np.array([h.t for h in hits], dtype=np.float64), normals.reshape(-1, 3)


def develop(radiance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """sRGB picture of a radiance picture: exposure, a film-like shoulder and toe, gamma."""
    linear = (1 - np.exp(-EXPOSURE * np.maximum(radiance, 0))) ** CONTRAST
    gamma = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    levels: NDArray[np.uint8] = np.rint(255 * np.clip(gamma, 0, 1)).astype(np.uint8)
    return levels
