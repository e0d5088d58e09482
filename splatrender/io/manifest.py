"""Which files of a folder are ours: only these may be replaced or removed.

manifest.json lists the files that runs wrote there. It is written before they are, so that no file
of a run that was killed is missing in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from splatrender.errors import InputError
from splatrender.io.atomic import TEMPORARY
from splatrender.io.json_files import read_json, write_json

NAME = "manifest.json"
FORMAT = "splatrender files"
HOUR = 3600.0


class Manifest:
    """The list of the files in a folder that are ours.

    Args:
        folder: the folder.
        files: paths relative to it, with forward slashes.
    """

    def __init__(self, folder: Path, files: Iterable[str] = ()) -> None:
        self.folder = folder
        self.files = {file for file in files if _is_inside(file)}

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read the manifest of a folder; None if it has none.

        Raises:
            InputError: there is one, damaged.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            return None  # somebody else's file of that name
        files = content.get("files")
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise InputError(f"{path}: expected a list of names as 'files', got another thing")
        return cls(folder, [NAME, *files])

    def add(self, files: Iterable[str]) -> None:
        """Note files that are about to be written.

        Raises:
            InputError: the manifest cannot be written there.
            WriteError: the disk does not take it.
        """
        new = {file for file in files if _is_inside(file)} - self.files
        if not new and (self.folder / NAME).is_file():
            return
        on_disk = Manifest.read(self.folder)  # another command may have added to it
        self.files |= new | {NAME} | (on_disk.files if on_disk else set())
        listed = sorted(self.files - {NAME})
        write_json(self.folder / NAME, {"format": FORMAT, "files": listed})

    def remove_files(self, last: str) -> None:
        """Remove all listed files that are there, and the folders that become empty by that.

        Args:
            last: the file to remove after all others but the manifest.

        Raises:
            InputError: a file cannot be removed.
        """
        order = sorted(self.files, key=lambda file: (file == NAME, file == last, file))
        for file in order:
            try:
                (self.folder / file).unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise InputError(
                    f"{self.folder / file}: expected a file of an earlier run that can be "
                    f"removed, got: {error.strerror}"
                ) from error
        folders = {parent for file in self.files for parent in PurePosixPath(file).parents}
        for folder in sorted(folders - {PurePosixPath(".")}, key=lambda f: -len(f.parts)):
            with suppress(OSError):  # not empty: something of somebody else is there
                (self.folder / folder).rmdir()
        self.files = set()

    def remove_temporaries(self) -> None:
        """Remove what killed writers of the listed files left.

        A file in a subfolder may be that of a rendering command at work: it must be an hour old.
        """
        by_folder: dict[PurePosixPath, set[str]] = {}
        for file in self.files:
            place = PurePosixPath(file)
            by_folder.setdefault(place.parent, set()).add(place.name)
        for parent, names in by_folder.items():
            with suppress(OSError):
                for path in list((self.folder / parent).iterdir()):
                    found = TEMPORARY.fullmatch(path.name)
                    if found is None or found[1] + found[2] not in names:
                        continue
                    if parent.parts and time.time() - path.stat().st_mtime < HOUR:
                        continue
                    path.unlink()


def register(folder: Path, files: Iterable[Path]) -> None:
    """Note files that are about to be written, if the folder has a manifest.

    Args:
        folder: perhaps with a manifest.
        files: in this folder.
    """
    manifest = Manifest.read(folder)
    if manifest is not None:
        manifest.add(file.relative_to(folder).as_posix() for file in files)


def _is_inside(file: str) -> bool:
    place = PurePosixPath(file)
    return bool(place.parts) and not place.is_absolute() and ".." not in place.parts
