"""SPZ files: 16 to 20 bytes a splat and a byte for each harmonic, compressed; versions 2 to 4.

Versions 2 and 3 are one gzip stream of a header and the attributes, one after the other:
    header        u32 0x5053474e, u32 version, u32 N, u8 degree, u8 f, u8 flags, u8 0
    positions     N x 3 signed integers of 24 bits, in units of 2^-f
    alphas        N x u8, opacity of 255
    colours       N x 3 u8, c/255 = 1/2 + 0.15 sh_0
    scales        N x 3 u8, 16 (10 + ln s)
    rotations     N x 3 u8, x y z of the unit quaternion with w >= 0 as 127.5 + 127.5 q  (version 2)
                  N x u32: 2 bits name the largest of x y z w, then 10 bits for each of the others:
                  a sign and 9 bits of magnitude, 511 for √½                      (versions 3 and 4)
    harmonics     N x (K-1) x 3 u8, 128 + 128 sh
Flag 1 marks splats trained with antialiasing. Version 4 has a plain header, in which the last byte
counts streams; 16 more are the offset of a table, u32, and unused. The table has the compressed and
the plain size of each stream, u64; the attributes follow as a zstd frame each. Records of vendors,
between header and table (version 4) or at the end (version 3), are skipped.

Axes are x right, y up, z backward.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from splatrender.errors import InputError
from splatrender.formats.axes import ABOUT_X, moved
from splatrender.formats.quantise import (
    bytes_of_unit,
    from_smallest_three,
    logits_of_bytes,
    smallest_three,
)
from splatrender.formats.stored import (
    StoredSplats,
    check_degree,
    check_expansion,
    read_content,
    writable,
)
from splatrender.io.atomic import atomic_write
from splatrender.io.packages import require_package
from splatrender.model.ply import usable_splats
from splatrender.model.splats import MAX_DEGREE, Splats

MAGIC = 0x5053474E  # "NGSP"
HEADER = struct.Struct("<IIIBBBB")
TABLE = struct.Struct("<QQ")
HEADER_4 = 32  # bytes
ANTIALIASED = 1
COLOR_SCALE = 0.15
SCALE_STEPS, LEAST_LOG_SCALE = 16, -10.0
LEAST_FRACTION = 12  # bits, that of other writers
HIGHEST_DEGREE = 4  # of the format
WINDOW = 1 << 27  # bytes that a zstd frame may ask for, the usual limit of decoders
PIECE = 1 << 20


@dataclass(frozen=True)
class _Header:
    """Numbers at the beginning of a file."""

    version: int
    count: int
    degree: int
    fraction: int
    flags: int
    streams: int

    @property
    def sizes(self) -> list[int]:
        """Bytes of positions, alphas, colours, scales, rotations and harmonics."""
        rotation = 3 if self.version == 2 else 4
        widths = (9, 1, 3, 3, rotation, 3 * ((self.degree + 1) ** 2 - 1))
        return [self.count * width for width in widths]


def read(path: Path) -> StoredSplats:
    """Read an .spz file of version 2, 3 or 4; harmonics of degree 4 are cut to degree 3.

    Raises:
        InputError: the file is missing or is not a whole SPZ file, has no usable splat, or is of
            version 4 and the package zstandard is missing.
    """
    content = read_content(path, ".spz")
    if content[:2] == b"\x1f\x8b":
        header, parts = _read_gzip(path, content)
    elif content[:4] == struct.pack("<I", MAGIC):
        header, parts = _read_zstd(path, content)
    else:
        raise InputError(
            f"{path}: expected an SPZ file, which begins with a gzip header or 'NGSP', got "
            f"{content[:4]!r}"
        )
    splats = moved(_unpacked(header, parts), ABOUT_X)
    return StoredSplats(usable_splats(path, splats), bool(header.flags & ANTIALIASED))


def write(path: Path, splats: Splats, antialiased: bool = False, version: int = 3) -> None:
    """Write an .spz file atomically.

    Args:
        path: file to write.
        splats: splats in the axes of .ply files.
        antialiased: whether they were trained with antialiasing.
        version: 2 or 3 (gzip), or 4 (zstd, needs the package zstandard).

    Raises:
        InputError: a splat is not finite or too far away, or the file cannot be made.
    """
    zstd = require_package("zstandard") if version == 4 else None
    splats = moved(writable(path, splats), ABOUT_X)
    fraction = _fraction(path, splats)
    parts = [part for part in _packed(splats, fraction, version) if part]
    streams = len(parts) if version == 4 else 0
    flags = ANTIALIASED if antialiased else 0
    head = HEADER.pack(MAGIC, version, len(splats), splats.degree, fraction, flags, streams)
    if zstd is None:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        content = packer.compress(b"".join([head, *parts])) + packer.flush()
    else:
        frames = [zstd.ZstdCompressor(level=12).compress(part) for part in parts]
        table = [TABLE.pack(len(f), len(p)) for f, p in zip(frames, parts, strict=True)]
        place = struct.pack("<I", HEADER_4).ljust(HEADER_4 - HEADER.size, b"\0")
        content = b"".join([head, place, *table, *frames])
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


write_version_2 = partial(write, version=2)
write_version_4 = partial(write, version=4)


def _header(path: Path, content: bytes, versions: tuple[int, ...]) -> _Header:
    """Read and check a header."""
    if len(content) < HEADER.size:
        raise InputError(f"{path}: expected an SPZ file, got only {len(content)} bytes")
    magic, version, *numbers = HEADER.unpack_from(content)
    header = _Header(version, *numbers)
    if magic != MAGIC or version not in versions:
        known = " or ".join(str(number) for number in versions)
        raise InputError(
            f"{path}: expected SPZ of version {known} in such a stream, got magic number "
            f"{magic:#x} and version {version}"
        )
    if header.count == 0:
        raise InputError(f"{path}: expected at least one splat, got an empty file")
    check_degree(path, header.degree, HIGHEST_DEGREE)
    if header.fraction > 23:
        raise InputError(f"{path}: expected at most 23 fractional bits, got {header.fraction}")
    return header


def _read_gzip(path: Path, content: bytes) -> tuple[_Header, list[np.ndarray]]:
    """Decompress versions 2 and 3, no more than the header claims."""
    stream = zlib.decompressobj(31)
    try:
        header = _header(path, stream.decompress(content, HEADER.size), (2, 3))
        expected = sum(header.sizes)
        check_expansion(path, expected, len(content))
        body = bytearray()
        while len(body) < expected and not stream.eof:
            piece = stream.decompress(stream.unconsumed_tail, expected - len(body))
            if not piece:
                break
            body += piece
        while not stream.eof and stream.decompress(stream.unconsumed_tail, PIECE):
            pass  # records of vendors; the end has the checksum
    except zlib.error as error:
        raise InputError(f"{path}: expected a whole gzip stream, got: {error}") from error
    if len(body) < expected or not stream.eof:
        raise InputError(
            f"{path}: expected {expected:,} bytes of {header.count:,} splats and the end of the "
            f"stream, got {len(body):,}"
        )
    stops = np.cumsum([0, *header.sizes]).tolist()
    data = np.frombuffer(bytes(body), np.uint8)
    return header, [data[a:b] for a, b in pairwise(stops)]


def _read_zstd(path: Path, content: bytes) -> tuple[_Header, list[np.ndarray]]:
    """Decompress the streams of version 4, no more than the header claims."""
    header = _header(path, content, (4,))
    zstd = require_package("zstandard")
    sizes = [size for size in header.sizes if size]
    if header.streams != len(sizes) or len(content) < HEADER_4:
        raise InputError(f"{path}: expected {len(sizes)} streams, got {header.streams}")
    (table,) = struct.unpack_from("<I", content, HEADER.size)
    place = table + len(sizes) * TABLE.size
    if table < HEADER_4 or place > len(content):
        raise InputError(f"{path}: expected a table of streams in the file, got one at {table}")
    check_expansion(path, sum(sizes), len(content))
    parts = []
    for i, size in enumerate(sizes):
        packed, plain = TABLE.unpack_from(content, table + i * TABLE.size)
        if plain != size or place + packed > len(content):
            raise InputError(
                f"{path}: expected {size:,} bytes in stream {i}, and the stream in the file, got "
                f"{plain:,} bytes from {packed:,} at {place:,} of {len(content):,}"
            )
        parts.append(_frame(path, zstd, content[place : place + packed], size))
        place += packed
    return header, parts + [np.empty(0, np.uint8)] * (len(header.sizes) - len(sizes))


def _frame(path: Path, zstd: ModuleType, content: bytes, size: int) -> np.ndarray:
    """Decompress a zstd frame piece by piece: its own header may claim any size."""
    decoder = zstd.ZstdDecompressor(max_window_size=WINDOW)
    body = bytearray()
    try:
        with decoder.stream_reader(content) as stream:
            while len(body) <= size and (piece := stream.read(PIECE)):
                body += piece
    except zstd.ZstdError as error:
        raise InputError(f"{path}: expected a whole zstd frame, got: {error}") from error
    if len(body) != size:
        raise InputError(f"{path}: expected a zstd frame of {size:,} bytes, got {len(body):,}")
    return np.frombuffer(bytes(body), np.uint8)


def _unpacked(header: _Header, parts: list[np.ndarray]) -> Splats:
    """Return splats, in the axes of the format."""
    positions, alphas, colors, scales, rotations, rest = parts
    triples = positions.reshape(-1, 3, 3).astype(np.int32)
    whole = triples[..., 0] | triples[..., 1] << 8 | triples[..., 2] << 16
    whole -= (whole & 0x800000) << 1
    means = (whole * 2.0**-header.fraction).astype(np.float32)
    color = (colors.reshape(-1, 1, 3).astype(np.float32) / 255 - 0.5) / COLOR_SCALE
    others = (rest.reshape(header.count, -1, 3).astype(np.float32) - 128) / 128
    size = (min(header.degree, MAX_DEGREE) + 1) ** 2
    log_scales = scales.reshape(-1, 3).astype(np.float32) / SCALE_STEPS + LEAST_LOG_SCALE
    return Splats(
        means=torch.from_numpy(means),
        quats=_unpacked_rotations(rotations, header.version),
        log_scales=torch.from_numpy(log_scales),
        opacity_logits=logits_of_bytes(alphas),
        sh=torch.from_numpy(np.concatenate([color, others], axis=1)[:, :size]),
    )


def _unpacked_rotations(codes: np.ndarray, version: int) -> torch.Tensor:
    """Return unit quaternions wxyz, float32 [N, 4]."""
    if version == 2:
        xyz = codes.reshape(-1, 3).astype(np.float64) / 127.5 - 1
        w = np.sqrt((1 - np.square(xyz).sum(axis=1, keepdims=True)).clip(0, 1))
        quats = torch.from_numpy(np.concatenate([w, xyz], axis=1))
        return torch.nn.functional.normalize(quats, dim=1).float()
    words = codes.reshape(-1, 4).copy().view("<u4")[:, 0]
    fields = (words[:, None] >> np.array([20, 10, 0], dtype=np.uint32)) & np.uint32(1023)
    magnitude = (fields & np.uint32(511)) * (math.sqrt(0.5) / 511)
    others = np.where(fields & np.uint32(512), -magnitude, magnitude)
    xyzw = from_smallest_three((words >> np.uint32(30)).astype(np.int64), others)
    return xyzw[:, [3, 0, 1, 2]]


def _fraction(path: Path, splats: Splats) -> int:
    """Choose fractional bits: steps below an eighth of small splats, within 24 bits in all."""
    furthest = float(splats.means.abs().max())
    room = math.floor(math.log2((2**23 - 1) / max(furthest, 1e-30)))
    if room < 0:
        raise InputError(
            f"{path}: expected positions within {2**23 - 1:,} of the origin for SPZ, got "
            f"{furthest:,.0f}; write a .ply, or move the scene"
        )
    size = float(np.quantile(splats.log_scales.amax(dim=1).numpy(), 0.05))
    wanted = math.ceil(3 - max(size, LEAST_LOG_SCALE) / math.log(2))
    return min(max(wanted, LEAST_FRACTION), room)


def _packed(splats: Splats, fraction: int, version: int) -> list[bytes]:
    """Return the attributes as bytes, in the order of the file."""
    whole = (splats.means.double() * 2.0**fraction).round().long()[..., None]
    positions = (whole >> torch.tensor([0, 8, 16])) & 255
    scales = ((splats.log_scales.double() - LEAST_LOG_SCALE) * SCALE_STEPS).round().clamp(0, 255)
    rest = (splats.sh[:, 1:].double() * 128 + 128).round().clamp(0, 255)
    return [
        positions.to(torch.uint8).numpy().tobytes(),
        bytes_of_unit(splats.opacities).tobytes(),
        bytes_of_unit(0.5 + COLOR_SCALE * splats.sh[:, 0]).tobytes(),
        scales.to(torch.uint8).numpy().tobytes(),
        _packed_rotations(splats.quats.double().numpy(), version),
        rest.to(torch.uint8).numpy().tobytes(),
    ]


def _packed_rotations(quats: np.ndarray, version: int) -> bytes:
    """Return the bytes of unit quaternions wxyz, [N, 4]."""
    if version == 2:
        positive = np.where(quats[:, :1] < 0, -quats, quats)
        codes = np.rint(127.5 + 127.5 * positive[:, 1:]).clip(0, 255)
        return codes.astype(np.uint8).tobytes()
    largest, others = smallest_three(quats[:, [1, 2, 3, 0]])
    magnitude = np.rint(np.abs(others) * (511 / math.sqrt(0.5))).clip(0, 511).astype(np.uint32)
    fields = magnitude | np.where(others < 0, np.uint32(512), np.uint32(0))
    words = largest.astype(np.uint32) << np.uint32(30)
    for i, shift in enumerate((20, 10, 0)):
        words |= fields[:, i] << np.uint32(shift)
    return bytes(words.astype("<u4").tobytes())
