"""Binary glTF 2.0 as far as splats need it: accessors and nodes, each checked against the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatrender.errors import InputError
from splatrender.formats.stored import read_content
from splatrender.model.quaternions import rotations_from_quats

FLOAT = 5126
TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", FLOAT: "<f4"}
WIDTHS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
MOST_EXPANSION = 16  # of the file: bytes become floats, and attributes may share data
EVEN = 1e-4  # relative difference of axes that counts as scaling evenly

Placed = tuple[dict[str, Any], Tensor, Tensor, float]


class Gltf:
    """A .glb file.

    Args:
        path: file to read.

    Raises:
        InputError: the file is missing or is not binary glTF 2.0.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_content(path, ".glb")
        if len(content) < 20 or content[:4] != b"glTF":
            raise InputError(f"{path}: expected a .glb file, which begins with 'glTF'")
        _, version, size = struct.unpack_from("<4sII", content)
        if version != 2 or size != len(content):
            raise InputError(
                f"{path}: expected binary glTF 2 of {size:,} bytes, got version {version} and "
                f"{len(content):,} bytes"
            )
        chunks: dict[bytes, bytes] = {}
        place = 12
        while place + 8 <= len(content):
            length, kind = struct.unpack_from("<I4s", content, place)
            if place + 8 + length > len(content):
                raise InputError(f"{path}: expected whole chunks, got one that is cut off")
            chunks.setdefault(kind, content[place + 8 : place + 8 + length])
            place += 8 + length
        try:
            self.root = json.loads(chunks.get(b"JSON", b""))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: expected a JSON chunk, got: {error}") from error
        if not isinstance(self.root, dict):
            raise InputError(f"{path}: expected a JSON object, got {type(self.root).__name__}")
        self.binary = chunks.get(b"BIN\0", b"")
        self._room = MOST_EXPANSION * len(content)

    def member(self, owner: dict[str, Any], name: str) -> dict[str, Any]:
        """Return an object in an object; an empty one if it is missing."""
        value = owner.get(name, {})
        if not isinstance(value, dict):
            raise InputError(f"{self.path}: expected an object {name!r}, got {value!r:.60}")
        return value

    def entries(self, owner: dict[str, Any], name: str) -> list[Any]:
        """Return a list in an object; an empty one if it is missing."""
        value = owner.get(name, [])
        if not isinstance(value, list):
            raise InputError(f"{self.path}: expected a list {name!r}, got {value!r:.60}")
        return value

    def entry(self, name: str, index: Any) -> dict[str, Any]:
        """Return an object of a list of the root."""
        values = self.entries(self.root, name)
        if not _is_count(index) or index >= len(values) or not isinstance(values[index], dict):
            raise InputError(
                f"{self.path}: expected {name} of 0 to {len(values) - 1}, got {index!r:.60}"
            )
        return dict(values[index])

    def number(self, owner: dict[str, Any], name: str, default: int | None = None) -> int:
        """Return a whole number of an object, at least 0."""
        value = owner.get(name, default)
        if value is None or not _is_count(value):
            raise InputError(f"{self.path}: expected a whole number {name!r}, got {value!r:.60}")
        return int(value)

    def attribute(self, attributes: dict[str, Any], name: str, width: int) -> np.ndarray:
        """Return an attribute, float32 [N, width]; whole numbers are normalised if marked so.

        Raises:
            InputError: it is missing, of another shape, sparse, or not in the file.
        """
        if name not in attributes:
            raise InputError(f"{self.path}: expected an attribute {name}, got none")
        accessor = self.entry("accessors", attributes[name])
        kind, found = accessor.get("componentType"), accessor.get("type")
        if found != WIDTHS[width] or kind not in TYPES or "sparse" in accessor:
            raise InputError(
                f"{self.path}: {name}: expected {WIDTHS[width]} of a plain type, got {found!r:.20} "
                f"of type {kind!r:.20}"
            )
        view = self.entry("bufferViews", accessor.get("bufferView"))
        if self.number(view, "buffer", 0) != 0 or "uri" in self.entry("buffers", 0):
            raise InputError(f"{self.path}: {name}: expected data in the file, got another file")
        dtype = np.dtype(TYPES[kind])
        row = width * dtype.itemsize
        stride = self.number(view, "byteStride", row)
        count = self.number(accessor, "count")
        start = self.number(view, "byteOffset", 0) + self.number(accessor, "byteOffset", 0)
        end = start + (count - 1) * stride + row
        if count == 0 or stride < row or end > len(self.binary):
            raise InputError(
                f"{self.path}: {name}: expected {count} rows within {len(self.binary):,} bytes, "
                f"got rows of {stride} bytes from {start:,}"
            )
        self._room -= 4 * width * count
        if self._room < 0:
            raise InputError(f"{self.path}: expected each attribute once, got many that share data")
        rows = np.ndarray((count, width), dtype, self.binary, start, (stride, dtype.itemsize))
        values: np.ndarray = rows.astype(np.float32)
        if kind != FLOAT and accessor.get("normalized") is True:
            values = np.maximum(values / np.float32(np.iinfo(dtype).max), np.float32(-1))
        return values

    def placed_meshes(self) -> Iterator[Placed]:
        """Yield each mesh with the rotation, translation and scale of its node in the scene.

        Raises:
            InputError: a node scales unevenly, or nodes are not a tree.
        """
        scenes = self.entries(self.root, "scenes")
        if scenes:
            scene = self.entry("scenes", self.root.get("scene", 0))
            roots = self.entries(scene, "nodes")
        else:
            roots = list(range(len(self.entries(self.root, "nodes"))))
        waiting = [(index, torch.eye(4, dtype=torch.float64)) for index in reversed(roots)]
        visited: set[int] = set()
        while waiting:
            index, above = waiting.pop()
            node = self.entry("nodes", index)
            if index in visited:
                raise InputError(f"{self.path}: expected a tree of nodes, got node {index} twice")
            visited.add(index)
            matrix = above @ self._matrix(node)
            children = self.entries(node, "children")
            waiting += [(child, matrix) for child in reversed(children)]
            if "mesh" in node:
                yield self.entry("meshes", node["mesh"]), *self._parts(matrix)

    def _numbers(self, node: dict[str, Any], name: str, default: list[float]) -> Tensor:
        """Return numbers of a node."""
        values = node.get(name, default)
        plain = isinstance(values, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e30 for v in values
        )
        if not plain or len(values) != len(default):
            raise InputError(
                f"{self.path}: expected {len(default)} numbers {name!r}, got {values!r:.60}"
            )
        return torch.tensor(values, dtype=torch.float64)

    def _matrix(self, node: dict[str, Any]) -> Tensor:
        """Return the transform of a node, [4, 4]."""
        if "matrix" in node:
            columns = self._numbers(node, "matrix", torch.eye(4).flatten().tolist())
            return columns.reshape(4, 4).T
        quat = self._numbers(node, "rotation", [0.0, 0.0, 0.0, 1.0])[[3, 0, 1, 2]]
        if float(quat.abs().max()) == 0:
            raise InputError(f"{self.path}: expected a rotation of norm 1, got zeros")
        matrix = torch.eye(4, dtype=torch.float64)
        scale = self._numbers(node, "scale", [1.0, 1.0, 1.0])
        matrix[:3, :3] = rotations_from_quats(quat) * scale
        matrix[:3, 3] = self._numbers(node, "translation", [0.0, 0.0, 0.0])
        return matrix

    def _parts(self, matrix: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return rotation, translation and scale of a transform."""
        linear = matrix[:3, :3]
        scale = float(linear.norm() / 3**0.5)
        rotation = linear / scale if scale > 0 else linear
        error = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
        if not error < EVEN or float(torch.linalg.det(rotation)) < 0:
            raise InputError(
                f"{self.path}: expected nodes that move, turn and scale evenly, got the matrix "
                f"{linear.flatten().tolist()}"
            )
        return rotation, matrix[:3, 3], scale


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
