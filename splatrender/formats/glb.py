"""Binary glTF (.glb) with KHR_gaussian_splatting: all attributes in float32.

A file has a JSON chunk and a binary chunk. Splats are a mesh of one primitive of points with the
attributes, in the namespace of the extension:
    POSITION             mean
    ROTATION             unit quaternion x y z w
    SCALE                standard deviations
    OPACITY              of 1
    SH_DEGREE_l_COEF_n   coefficients of red, green, blue; n = 0..2l
Bytes and shorts, normalised or not, are read as well. Meshes of several nodes are joined; nodes may
move, turn and scale evenly.

Axes are x left, y up, z forward, as of all glTF.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.formats.axes import ABOUT_Z, moved
from splatrender.formats.gltf import FLOAT, Gltf
from splatrender.formats.quantise import bytes_of_unit
from splatrender.formats.stored import StoredSplats, writable
from splatrender.io.atomic import atomic_write
from splatrender.io.json_files import json_text
from splatrender.model.ply import usable_splats
from splatrender.model.splats import MAX_DEGREE, SH_C0, Splats

EXTENSION = "KHR_gaussian_splatting"
POINTS = 0
UNSIGNED_BYTE = 5121
ARRAY_BUFFER = 34962
KERNEL = {
    "kernel": "ellipse",
    "colorSpace": "srgb_rec709_display",
    "projection": "perspective",
    "sortingMethod": "cameraDistance",
}


def read(path: Path) -> StoredSplats:
    """Read the splats of a .glb file; the format has no place for the antialias flag.

    Raises:
        InputError: the file is missing or damaged, has no splats, or has what is not supported:
            other files, sparse or compressed attributes, nodes that scale unevenly.
    """
    gltf = Gltf(path)
    parts = [
        moved(_primitive(gltf, primitive), rotation, translation, scale)
        for mesh, rotation, translation, scale in gltf.placed_meshes()
        for primitive in gltf.entries(mesh, "primitives")
        if EXTENSION in gltf.member(primitive, "extensions")
    ]
    if not parts:
        raise InputError(f"{path}: expected a primitive with {EXTENSION}, got none")
    degree = max(part.degree for part in parts)
    splats = Splats.cat([part.with_degree(degree) for part in parts])
    return StoredSplats(usable_splats(path, moved(splats, ABOUT_Z)))


def write(path: Path, splats: Splats, antialiased: bool = False) -> None:
    """Write a .glb file atomically; it has no place for the antialias flag.

    Raises:
        InputError: a splat is not finite, or the file cannot be made.
    """
    splats = moved(writable(path, splats), ABOUT_Z)
    columns = _columns(splats)
    views, accessors, place = [], [], 0
    for name, table in columns.items():
        views.append(
            {"buffer": 0, "byteOffset": place, "byteLength": table.nbytes, "target": ARRAY_BUFFER}
        )
        accessors.append(_accessor(len(views) - 1, table))
        if name == "POSITION":
            accessors[-1]["min"] = table.min(axis=0).tolist()
            accessors[-1]["max"] = table.max(axis=0).tolist()
        place += table.nbytes
    primitive = {
        "attributes": {name: i for i, name in enumerate(columns)},
        "mode": POINTS,
        "extensions": {EXTENSION: KERNEL},
    }
    text = json_text(
        {
            "asset": {"version": "2.0", "generator": "splatrender"},
            "extensionsUsed": [EXTENSION],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
            "buffers": [{"byteLength": place}],
            "bufferViews": views,
            "accessors": accessors,
        }
    ).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + place
    if size >= 2**32:
        raise InputError(f"{path}: expected at most 4 GiB in a .glb file, got {size:,} bytes")
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, size))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", place, b"BIN\0"))
        for table in columns.values():
            file.write(table.tobytes())


def _columns(splats: Splats) -> dict[str, np.ndarray]:
    """Return the attributes of the primitive: rows of a multiple of 4 bytes."""

    def floats(values: torch.Tensor) -> np.ndarray:
        return values.float().numpy().astype("<f4").reshape(len(splats), -1)

    color = torch.cat([0.5 + SH_C0 * splats.sh[:, 0], splats.opacities[:, None]], dim=1)
    columns = {
        "POSITION": floats(splats.means),
        "COLOR_0": bytes_of_unit(color),
        f"{EXTENSION}:ROTATION": floats(splats.quats[:, [1, 2, 3, 0]]),
        f"{EXTENSION}:SCALE": floats(splats.scales),
        f"{EXTENSION}:OPACITY": floats(splats.opacities.double()),
    }
    for degree in range(splats.degree + 1):
        for n in range(2 * degree + 1):
            columns[_coefficient(degree, n)] = floats(splats.sh[:, degree**2 + n])
    return columns


def _accessor(view: int, table: np.ndarray) -> dict[str, object]:
    """Return the description of a column."""
    kinds = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
    accessor: dict[str, object] = {
        "bufferView": view,
        "componentType": FLOAT if table.dtype == np.dtype("<f4") else UNSIGNED_BYTE,
        "count": len(table),
        "type": kinds[table.shape[1]],
    }
    if table.dtype == np.uint8:
        accessor["normalized"] = True
    return accessor


def _coefficient(degree: int, n: int) -> str:
    return f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{n}"


def _primitive(gltf: Gltf, primitive: dict[str, object]) -> Splats:
    """Return the splats of one primitive, in the frame of its node."""
    attributes = gltf.member(primitive, "attributes")
    names = {
        "POSITION": 3,
        f"{EXTENSION}:ROTATION": 4,
        f"{EXTENSION}:SCALE": 3,
        f"{EXTENSION}:OPACITY": 1,
        _coefficient(0, 0): 3,
    }
    degree = 0
    while degree < MAX_DEGREE and _coefficient(degree + 1, 0) in attributes:
        degree += 1
        names |= {_coefficient(degree, n): 3 for n in range(2 * degree + 1)}
    columns = [gltf.attribute(attributes, name, width) for name, width in names.items()]
    if len({len(column) for column in columns}) > 1:
        counts = [len(column) for column in columns]
        raise InputError(f"{gltf.path}: expected attributes of one length, got {counts}")
    means, quats, scales, opacities, *sh = (torch.from_numpy(column) for column in columns)
    return Splats(
        means=means,
        quats=quats[:, [3, 0, 1, 2]],
        log_scales=scales.double().log().float(),
        opacity_logits=opacities[:, 0].double().clamp(0, 1).logit().float(),
        sh=torch.stack(sh, dim=1),
    )
