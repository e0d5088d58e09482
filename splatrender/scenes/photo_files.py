"""The files of photos and masks, also if their names are spelled differently in the model."""

from __future__ import annotations

import difflib
import logging
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from splatrender.errors import InputError

logger = logging.getLogger(__name__)

IMAGES = "images"  # the folder of photos if the caller names none
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm")
)


@dataclass(frozen=True)
class Photos:
    """Files of the photos of a scene.

    Args:
        paths: one file for each name.
        reduced: true if they are from a folder such as `images_2`, already divided in size.
    """

    paths: list[Path]
    reduced: bool


def find_photos(root: Path, images: str, names: Sequence[str], resolution: int = 1) -> Photos:
    """Find the named photos in `images` or, for resolution 2, 4 and 8, in `images_N`.

    If there is no folder `images`, the only folder of the scene that holds all photos is taken.
    Photos may differ from their names in case, in Unicode's normal form and in the kind of slash;
    if all do, also in suffix and folder. Warnings report files with other names, and the number of
    photos without a camera.

    Raises:
        InputError: the folder is missing, or photos are; the message names the files that exist.
    """
    folder = root / images
    reduced = folder.with_name(f"{folder.name}_{resolution}")
    use_reduced = resolution in (2, 4, 8) and reduced.is_dir()
    if use_reduced:
        folder = reduced
    if not folder.is_dir():
        folder = _other_folder(root, images, names)
    there = list(_files_below(folder))
    paths = _matched(folder, names, there)
    used = {_cased(_inside(folder, path)) for path in paths}  # as Windows and macOS compare names
    images_there = {file for file in there if PurePosixPath(file).suffix.lower() in SUFFIXES}
    if folder == root:  # a flat export: files beside its photos, none in subfolders
        images_there = {file for file in images_there if "/" not in file}
    unused = {_cased(file) for file in images_there} - used
    if unused:
        logger.warning(
            "%s: %d of %d photos have cameras in the sparse model; the others are not used",
            folder,
            len(used),
            len(used) + len(unused),
        )
    return Photos(paths, use_reduced)


def find_masks(folder: Path, names: Sequence[str]) -> list[Path | None]:
    """Find for each photo `x.jpg` its mask `x.jpg.png` or `x.png` in `folder`, or None.

    Case and Unicode's normal form of the names may differ. A warning reports the number of
    photos without one.

    Raises:
        InputError: the folder is missing, or holds no mask for any photo.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of masks, got no such folder")
    files = list(_files_below(folder))
    spelled = {_spelled(file).casefold(): file for file in files}
    exact = set(files)
    found: list[Path | None] = []
    for name in names:
        choices = (f"{name}.png", str(PurePosixPath(name).with_suffix(".png")))
        exactly = [choice for choice in choices if choice in exact]
        loosely = (spelled.get(_spelled(choice).casefold()) for choice in choices)
        mask = next((file for file in (*exactly, *loosely) if file), None)
        found.append(folder / mask if mask else None)
    count = sum(mask is not None for mask in found)
    if not count:
        there = f", but {len(files)} files such as {files[0]}" if files else ""
        raise InputError(
            f"{folder}: expected masks such as {names[0]}.png, got none for {len(names)} photos"
            f"{there}"
        )
    if count < len(names):
        logger.warning(
            "%s: %d of %d photos have masks; the others are kept whole", folder, count, len(names)
        )
    return found


def same_photos(wanted: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Match each wanted photo with the one of `names` that it means, if there is no doubt.

    The two may differ in case, in Unicode's normal form, in the kind of slash, and in suffix and
    folder.
    """
    names = set(names)
    found = {name: name for name in set(wanted) & names}
    for key, _ in _MATCHES:
        found |= _without_doubt(key, set(wanted) - found.keys(), names, found.values())
    return found


# ---- folders


def _other_folder(root: Path, images: str, names: Sequence[str]) -> Path:
    """Find the only other folder of the scene that holds all photos, or raise InputError."""
    subfolders = sorted(path for path in root.iterdir() if path.is_dir())
    holding = [
        folder
        for folder in (root, *subfolders, root / "colmap" / IMAGES)
        if all((folder / name).is_file() for name in names)
    ]
    missing = f"{root}: expected a folder of photos {images}, got no {root / images}"
    if len(holding) == 1 and images == IMAGES:
        logger.warning("%s; the photos in %s are taken", missing, holding[0])
        return holding[0]
    if holding:
        shown = " and ".join(folder.relative_to(root).as_posix() for folder in holding)
        raise InputError(f"{missing}; all photos are in {shown}: name the folder with --images")
    shown = ", ".join(folder.name for folder in subfolders[:8]) or "none"
    raise InputError(f"{missing}; its folders are {shown}, and none holds {names[0]}")


def _files_below(folder: Path) -> Iterator[str]:
    """Yield paths relative to `folder` with forward slashes; hidden files are left out."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        inside = Path(parent).relative_to(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(inside.parts) >= _DEEPEST:  # links can form a cycle
            folders.clear()
        yield from (
            (inside / name).as_posix() for name in sorted(files) if not name.startswith(".")
        )


_DEEPEST = 8


# ---- names


def _inside(folder: Path, path: Path) -> str:
    """Return a path relative to `folder`; a model may also hold absolute ones."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _spelled(name: str) -> str:
    """Return a name with forward slashes and composed accents (NFC)."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return PurePosixPath(name).as_posix()


def _cased(name: str) -> str:
    return _spelled(name).casefold()


def _stem(name: str) -> str:
    path = PurePosixPath(_cased(name))
    return path.with_suffix("").as_posix() if path.suffix in SUFFIXES else path.as_posix()


def _last(name: str) -> str:
    return PurePosixPath(_stem(name)).name


# Differences between a name and its file. The looser ones count only if no photo is found by the
# stricter ones: then all were renamed. A single x.png in place of x.jpg may be another image.
_MATCHES: tuple[tuple[Callable[[str], str], bool], ...] = (
    (_spelled, False),
    (_cased, False),
    (_stem, True),
    (_last, True),
)


def _matched(folder: Path, names: Sequence[str], there: Sequence[str]) -> list[Path]:
    """Return the file of each name, or raise InputError."""
    found = {name: folder / name for name in names if (folder / name).is_file()}
    exactly = len(found)
    for key, only_for_all in _MATCHES:
        missing = [name for name in names if name not in found]
        if not missing or (only_for_all and found):
            break
        taken = [_inside(folder, path) for path in found.values()]
        for name, file in _without_doubt(key, missing, there, taken).items():
            if (folder / file).is_file():  # not a broken link
                found[name] = folder / file
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{folder}: expected {len(names)} photos that the sparse model names, "
            f"{len(missing)} missing, the first is {folder / missing[0]}"
            f"{_instead(folder, missing[0], there)}"
        )
    if exactly < len(found):
        name = next(name for name in names if found[name] != folder / name)
        logger.warning(
            "%s: %d photos have other names than in the sparse model, for example %s for %s",
            folder,
            len(found) - exactly,
            _inside(folder, found[name]),
            name,
        )
    return [found[name] for name in names]


def _without_doubt(
    key: Callable[[str], str], wanted: Iterable[str], there: Iterable[str], taken: Iterable[str]
) -> dict[str, str]:
    """Match wanted names with the only one of `there` with the same key, unless it is taken."""
    groups, others = _by_key(key, wanted), _by_key(key, there)
    pairs = {
        alike[0]: others[same][0]
        for same, alike in groups.items()
        if len(alike) == len(others.get(same, [])) == 1
    }
    gone = set(taken)
    return {name: other for name, other in pairs.items() if other not in gone}


def _by_key(key: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(key(name), []).append(name)
    return groups


def _instead(folder: Path, name: str, there: Sequence[str]) -> str:
    """Describe the content of a folder in which a photo is missing, for a message."""
    if (folder / name).is_symlink():
        return ", a link that leads nowhere"
    if not there:
        return "; the folder is empty"
    alike = difflib.get_close_matches(_last(name), map(_last, there), n=1, cutoff=0.8)
    like = next((file for file in there if alike and _last(file) == alike[0]), None)
    return f"; {like} is there" if like else f"; {len(there)} files are there, such as {there[0]}"
