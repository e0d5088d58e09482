"""Reading of SOG files, versions 1 and 2; `sog` has the layout."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from splatrender.errors import InputError
from splatrender.formats.quantise import from_smallest_three, logits_of_bytes
from splatrender.formats.stored import StoredSplats, check_expansion, read_content
from splatrender.model.ply import usable_splats
from splatrender.model.splats import Splats

META = "meta.json"
MOST_META = 1 << 24  # bytes
MOST_PIXELS = 4  # for each splat: sides may be rounded up to powers of two
SPARE_PIXELS = 1 << 14
MARK = 252  # alpha of rotations whose largest component is w
STEPS = 65535  # of a mean's coordinate
PALETTE_WIDTH = 64  # entries in a row of pixels
MOST_PALETTE = 15 << 16  # pixels: labels have two bytes, degree 3 has 15 coefficients
BANDS = {3: 1, 8: 2, 15: 3}  # degree by number of coefficients


def read(path: Path) -> StoredSplats:
    """Read a .sog archive, or the meta.json of an unpacked one.

    Raises:
        InputError: a file is missing or damaged, or there is no usable splat.
    """
    if path.name.lower().endswith(".json"):

        def beside(name: str) -> bytes:
            return read_content(path if name == META else path.parent / name, "SOG")

        return _Reader(path, beside).stored()
    content = read_content(path, ".sog")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:

            def within(name: str) -> bytes:
                try:
                    size = archive.getinfo(name).file_size
                except KeyError:
                    raise InputError(f"{path}: expected {name} in the archive, got none") from None
                check_expansion(path, size, len(content))
                return archive.read(name)

            return _Reader(path, within).stored()
    except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise InputError(f"{path}: expected a whole zip archive, got: {error}") from error
    except (NotImplementedError, RuntimeError, EOFError, OSError, ArithmeticError) as error:
        raise InputError(f"{path}: expected a plain zip archive, got: {error}") from error


@dataclass
class _Reader:
    """A file that is being read.

    Attributes:
        path: the archive or meta.json, for messages.
        load: reads a file by name.
    """

    path: Path
    load: Callable[[str], bytes]
    count: int = 0

    def stored(self) -> StoredSplats:
        """Read everything."""
        text = self.load(META)
        if len(text) > MOST_META:
            raise InputError(f"{self.path}: expected at most {MOST_META:,} bytes in {META}")
        try:
            meta = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: expected JSON in {META}, got: {error}") from error
        if not isinstance(meta, dict) or meta.get("version", 1) not in (1, 2):
            found = meta.get("version") if isinstance(meta, dict) else type(meta).__name__
            raise InputError(f"{self.path}: expected SOG of version 1 or 2, got {found!r:.40}")
        first = meta.get("version", 1) == 1
        means = self._member(meta, "means")
        self.count = self._count(means.get("shape") if first else [meta.get("count")])
        splats = Splats(
            means=self._means(means),
            quats=self._quats(self._member(meta, "quats")),
            log_scales=torch.from_numpy(
                self._looked_up(self._member(meta, "scales"), self._image(meta, "scales")[:, :3])
            ),
            **self._colors(meta, first),
        )
        flag = meta.get("antialias")
        stored = usable_splats(self.path, splats)
        return StoredSplats(stored, flag if isinstance(flag, bool) else False)

    def _fail(self, expected: str, found: object) -> InputError:
        return InputError(f"{self.path}: expected {expected}, got {found!r:.60}")

    def _member(self, meta: dict[str, Any], name: str) -> dict[str, Any]:
        value = meta.get(name)
        if not isinstance(value, dict):
            raise self._fail(f"an object {name!r} in {META}", value)
        return value

    def _count(self, shape: Any) -> int:
        count = shape[0] if isinstance(shape, list) and shape else None
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise self._fail("a number of splats", shape)
        return count

    def _numbers(self, owner: dict[str, Any], name: str, least: int) -> np.ndarray:
        """Return a list of numbers of meta.json, float64."""
        values = owner.get(name)
        if isinstance(values, int | float):
            values = [values]
        plain = isinstance(values, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e30 for v in values
        )
        if not isinstance(values, list) or not plain or len(values) < least:
            raise self._fail(f"{least} numbers {name!r} in {META}", values)
        return np.array(values, dtype=np.float64)

    def _image(self, meta: dict[str, Any], owner: str, index: int = 0) -> np.ndarray:
        """Return the pixels of an image of one pixel for each splat, uint8 [N, 4]."""
        room = MOST_PIXELS * self.count + SPARE_PIXELS
        pixels = self._pixels(self._member(meta, owner), index, self.count, room)
        return pixels.reshape(-1, 4)[: self.count]

    def _pixels(self, owner: dict[str, Any], index: int, least: int, most: int) -> np.ndarray:
        """Return the pixels of an image, uint8 [H, W, 4], after a look at its size."""
        files = owner.get("files")
        name = files[index] if isinstance(files, list) and len(files) > index else None
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise self._fail(f"the name of an image in {META}", name)
        content = self.load(name)
        try:
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
                if not least <= width * height <= most:
                    raise self._fail(
                        f"{name} of {least:,} to {most:,} pixels", f"{width} x {height}"
                    )
                check_expansion(self.path, 4 * width * height, len(content))
                return np.array(image.convert("RGBA"))
        except InputError:
            raise
        except Exception as error:  # decoders of images raise whatever they like
            raise InputError(f"{self.path}: expected an image {name}, got: {error}") from error

    def _means(self, means: dict[str, Any]) -> torch.Tensor:
        low, high = (self._numbers(means, name, 3)[:3] for name in ("mins", "maxs"))
        bytes_ = [self._image({"means": means}, "means", i)[:, :3] for i in (0, 1)]
        codes = bytes_[0].astype(np.float64) + 256.0 * bytes_[1]
        logs = low + (high - low) * codes / STEPS
        with np.errstate(over="ignore"):
            means_ = np.sign(logs) * np.expm1(np.abs(logs))
            return torch.from_numpy(means_.astype(np.float32))

    def _quats(self, quats: dict[str, Any]) -> torch.Tensor:
        pixels = self._image({"quats": quats}, "quats")
        largest = pixels[:, 3].astype(np.int64) - MARK
        if largest.min() < 0:
            raise self._fail(f"marks of {MARK} or more in the image of rotations", largest.min())
        others = (pixels[:, :3].astype(np.float64) / 127.5 - 1) / math.sqrt(2)
        return from_smallest_three(largest, others)

    def _looked_up(self, owner: dict[str, Any], codes: np.ndarray) -> np.ndarray:
        """Return numbers of codes: of a codebook (version 2), or within a range (version 1)."""
        if "codebook" in owner:
            book = self._numbers(owner, "codebook", 1)
            if int(codes.max()) >= len(book):
                raise self._fail(f"codes below {len(book)}", int(codes.max()))
            values: np.ndarray = book.astype(np.float32)[codes]
            return values
        low, high = (self._numbers(owner, name, 1) for name in ("mins", "maxs"))
        width = codes.shape[-1]
        if len(low) != len(high) or (len(low) > 1 and len(low) < width):
            raise self._fail(f"ranges of {width} channels", len(low))
        low, high = (ends[:width] for ends in (low, high))
        between: np.ndarray = (low + (high - low) * codes / 255).astype(np.float32)
        return between

    def _colors(self, meta: dict[str, Any], first: bool) -> dict[str, torch.Tensor]:
        """Return logits of opacities and harmonics."""
        owner = self._member(meta, "sh0")
        pixels = self._image(meta, "sh0")
        if first:  # the fourth channel is a logit
            values = self._looked_up(owner, pixels)
            if values.shape[1] < 4 or len(self._numbers(owner, "mins", 4)) < 4:
                raise self._fail("four ranges of colours", values.shape)
            base, logits = values[:, :3], torch.from_numpy(values[:, 3].copy())
        else:
            base, logits = self._looked_up(owner, pixels[:, :3]), logits_of_bytes(pixels[:, 3])
        sh = torch.from_numpy(base)[:, None]
        if meta.get("shN") is not None:
            sh = torch.cat([sh, torch.from_numpy(self._harmonics(meta))], dim=1)
        return {"opacity_logits": logits, "sh": sh}

    def _harmonics(self, meta: dict[str, Any]) -> np.ndarray:
        """Return the harmonics above degree 0 by way of the palette, float32 [N, K-1, 3]."""
        owner = self._member(meta, "shN")
        pixels = self._image({"labels": {"files": owner.get("files")}}, "labels", 1)
        labels = pixels[:, 0].astype(np.int64) | pixels[:, 1].astype(np.int64) << 8
        entries = int(labels.max()) + 1
        palette = self._pixels(owner, 0, 1, MOST_PALETTE)
        size = palette.shape[1] // PALETTE_WIDTH
        room = palette.shape[0] * PALETTE_WIDTH
        if size not in BANDS or palette.shape[1] != PALETTE_WIDTH * size or entries > room:
            raise self._fail(
                f"a palette of {entries} entries, 64 in a row of pixels", palette.shape[:2]
            )
        codes = palette[..., :3].reshape(room, size, 3)[:entries]
        coefficients: np.ndarray = self._looked_up(owner, codes)[labels]
        return coefficients
