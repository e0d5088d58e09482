"""Tests of the distribution: imports, pins, versions, and the contents of the archives."""

from __future__ import annotations

import platform
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import setuptools
from helpers import REPOSITORY
from packaging.requirements import Requirement

import splatrender

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that finds the package in a folder."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )


def last_line(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 1, process.stderr
    return process.stderr.splitlines()[-1]


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """Copy the package, without the compiled extension, to a folder."""
    ignored = shutil.ignore_patterns("_C*", "__pycache__")
    shutil.copytree(REPOSITORY / "splatrender", tmp_path / "splatrender", ignore=ignored)
    return tmp_path


@pytest.mark.parametrize(
    "modules", ["splatrender", "splatrender.cli.main", "splatrender.cli.train"], ids=str
)
def test_import_and_help_do_not_wait_for_torch(modules: str) -> None:
    """Importing torch takes seconds; `--help` and a misspelt option should not."""
    process = python(f"import sys, {modules}; print('torch' in sys.modules)", REPOSITORY)
    assert process.stdout.strip() == "False", process.stderr


def test_public_names_exist() -> None:
    for name in splatrender.__all__:
        assert getattr(splatrender, name) is not None
        assert name in dir(splatrender)
    with pytest.raises(AttributeError, match="no attribute 'rendr'"):
        splatrender.rendr  # noqa: B018


def test_missing_extension_names_the_command_that_builds_it(unbuilt: Path) -> None:
    (unbuilt / "setup.py").touch()
    line = last_line(python("import splatrender", unbuilt))
    assert line == (
        "ImportError: splatrender's compiled extension is not built; "
        f'run: pip install -e "{unbuilt.resolve()}"'
    )


def test_missing_extension_of_an_installed_package(unbuilt: Path) -> None:
    line = last_line(python("import splatrender", unbuilt))
    assert line.endswith("run: pip install --force-reinstall --no-deps splatrender")


def test_extension_that_does_not_load(unbuilt: Path) -> None:
    suffix = ".pyd" if sys.platform == "win32" else ".abi3.so"
    (unbuilt / "splatrender" / f"_C{suffix}").write_bytes(b"not a library")
    assert python("import splatrender", unbuilt).returncode == 0  # torch is not asked yet
    line = last_line(python("import splatrender; splatrender.render", unbuilt))
    assert line.startswith("ImportError: splatrender's compiled extension does not load with torch")
    assert "torch >= 2.10 is needed; to build it anew run: pip install" in line


def test_one_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[([0-9.]+)\]", changelog, re.MULTILINE)
    assert newest and newest[1] == splatrender.__version__ == PROJECT["version"]


def pins(*names: str) -> dict[str, list[Requirement]]:
    """Read the pins of requirements/, by package."""
    found: dict[str, list[Requirement]] = {}
    for name in names:
        for line in (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                found.setdefault(requirement.name.lower(), []).append(requirement)
    return found


def test_pins_cover_what_the_project_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    torch_pin = re.search(r"^TORCH \?= (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert torch_pin
    for wanted, files in (
        (PROJECT["dependencies"] + extras["video"], ("demo",)),
        (extras["test"], ("test",)),
        (extras["lint"], ("lint",)),
    ):
        pinned = {**pins(*files), "torch": [Requirement(torch_pin[1])]}
        for text in wanted:
            requirement = Requirement(text)
            assert requirement.name in pinned, f"{requirement.name} is not in {files}"
            for pin in pinned[requirement.name]:
                (exact,) = pin.specifier
                assert exact.operator == "==" and requirement.specifier.contains(exact.version), pin


def test_pins_are_exact_and_stand_once() -> None:
    for name, requirements in pins("demo", "test", "lint").items():
        assert all([s.operator for s in r.specifier] == ["=="] for r in requirements), name
        fitting = [r for r in requirements if r.marker is None or r.marker.evaluate()]
        assert len(fitting) <= 1, name


@pytest.fixture
def setup_names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Load the functions of setup.py."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    return runpy.run_path(str(REPOSITORY / "setup.py"))


def test_build_finds_a_torch_that_isolation_hides(
    setup_names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    folder = Path(torch.__file__).parent
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p) != folder.parent])
    assert setup_names["torch_folder"]() == folder


def test_build_without_torch_says_so(
    setup_names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])
    nowhere = str(tmp_path)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"platlib": nowhere, "purelib": nowhere})
    monkeypatch.setattr(setup_names["site"], "getsitepackages", list)
    monkeypatch.setattr(setup_names["site"], "getusersitepackages", lambda: nowhere)
    with pytest.raises(SystemExit, match=r"torch >= 2\.10 must be installed before"):
        setup_names["torch_folder"]()


def test_build_refuses_an_unknown_cuda_wish(
    setup_names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATRENDER_CUDA", "yes")
    with pytest.raises(SystemExit, match="SPLATRENDER_CUDA: expected 0 or 1, got 'yes'"):
        setup_names["cuda_compiler"]()


@pytest.mark.parametrize(
    "wish, found",
    [("80,90", ["80", "90"]), ("8.6;sm_90 compute_100a", ["86", "90", "100a"])],
)
def test_build_takes_cuda_architectures(
    setup_names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, wish: str, found: list[str]
) -> None:
    monkeypatch.setenv("SPLATRENDER_CUDA_ARCHS", wish)
    assert setup_names["cuda_architectures"]() == found
    flags = setup_names["cuda_flags"]()
    assert f"-gencode=arch=compute_{found[-1]},code=compute_{found[-1]}" in flags  # PTX


@pytest.mark.parametrize("wish", ["turing", "61", "80,,x"])
def test_build_refuses_an_unknown_cuda_architecture(
    setup_names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setenv("SPLATRENDER_CUDA_ARCHS", wish)
    with pytest.raises(SystemExit, match="SPLATRENDER_CUDA_ARCHS: expected architectures from 75"):
        setup_names["cuda_architectures"]()


def copy_of_repository(folder: Path) -> Path:
    """Copy the files of which the archives are made, and compiled objects to save time."""
    for name in ("csrc", "splatrender", "tests", "benchmarks", "tools", "requirements"):
        ignored = shutil.ignore_patterns("__pycache__", "_C*")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for path in REPOSITORY.iterdir():
        if path.is_file() and path.suffix != ".so":
            shutil.copy2(path, folder)
    for objects in (REPOSITORY / "build").glob("objects-*"):
        shutil.copytree(objects, folder / "build" / objects.name)
    (folder / "scenes" / "room").mkdir(parents=True)
    (folder / "scenes" / "room" / "photo.jpg").touch()
    return folder


def setup_py(folder: Path, *arguments: str) -> Path:
    process = subprocess.run(
        [sys.executable, "setup.py", "-q", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr
    (archive,) = (folder / "dist").iterdir()
    return archive


def test_source_archive_builds_elsewhere_and_has_no_scenes(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path)
    with tarfile.open(setup_py(folder, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {p.relative_to(folder).as_posix() for p in folder.glob("csrc/**/*") if p.is_file()}
    package = {p.relative_to(folder).as_posix() for p in folder.glob("splatrender/**/*.py")}
    assert sources <= names and package <= names
    assert {"LICENSE", "setup.py", "pyproject.toml", "Makefile", "train.py"} <= names
    assert {"tools/emulation/build.py", "tools/emulation/simt.h", "tests/helpers/toys.py"} <= names
    assert not [n for n in names if n.startswith(("scenes", "build")) or n.endswith((".so", ".o"))]


@pytest.mark.slow
def test_wheel_is_for_every_python_and_holds_the_package_alone(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path)
    path = setup_py(folder, "bdist_wheel")
    assert "-cp310-abi3-" in path.name
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata = archive.read(f"splatrender-{splatrender.__version__}.dist-info/METADATA")
    assert {name.split("/")[0] for name in names} == {
        "splatrender",
        f"splatrender-{splatrender.__version__}.dist-info",
    }
    library = "splatrender/_C.pyd" if sys.platform == "win32" else "splatrender/_C.abi3.so"
    assert {library, "splatrender/cli/train.py", "splatrender/py.typed"} <= set(names)
    assert b"Requires-Dist: torch>=2.10" in metadata and b"License-File: LICENSE" in metadata


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    """On glibc every option must be taken; elsewhere the answer is an honest no."""
    code = "from splatrender.runtime.malloc import keep_freed_memory; print(keep_freed_memory())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    ).stdout.strip()
    assert answer == str(platform.libc_ver()[0] == "glibc")
