"""Links, code and commands of README, docs, CONTRIBUTING and examples."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "tools/*/README.md")
    for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
README_LINES = 150
EXAMPLE_LINES = 40
SLOW, NEEDS = "<!-- slow -->", "<!-- needs "  # data, or a build
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\S*python3? |splatrender |make |bash |pytest\b|pip )")
pytestmark = pytest.mark.skipif(
    not all((ROOT / folder).is_dir() for folder in ("docs", "scenes", "examples")),
    reason="a source distribution has no docs, scenes and examples",
)
PATH_IN_TEXT = re.compile(
    r"(?:csrc|splatrender|tools|tests|benchmarks|docs|scenes|examples)/[\w./]*"
)


@dataclass(frozen=True)
class Block:
    """Fenced block of a page.

    Attributes:
        language: after the fence.
        mark: the HTML comment before it, or nothing.
        line: number of its first line, from 1.
        text: its content.
    """

    language: str
    mark: str
    line: int
    text: str


@cache
def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language, mark = 0, "", ""
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if start:
            blocks.append(Block(language, mark, start + 1, "\n".join(lines[start : number - 1])))
            start = 0
        else:
            start, language = number, line[3:].strip()
            above = lines[number - 2].strip() if number > 1 else ""
            mark = above if above.startswith("<!--") else ""
    assert not start, f"{page}:{start}: a block is not closed"
    return blocks


@cache
def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


@cache
def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page, by GitHub's rule."""
    anchors: dict[str, int] = {}
    for title in re.findall(r"^#+ +(.*?) *$", prose_of(page), flags=re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = anchors[anchor] = anchors.get(anchor, -1) + 1
        if count:
            anchors[f"{anchor}-{count}"] = 0
    return set(anchors)


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files or anchors that do not exist."""
    broken = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors_of(other)):
            broken.append(target)
    return broken


def missing_paths(page: Path) -> list[str]:
    """Return the paths in code spans of a page that do not exist in the repository."""
    spans = re.findall(r"`([^`\n]+)`", prose_of(page))
    paths = {span for span in spans if PATH_IN_TEXT.fullmatch(span) and "NAME" not in span}
    return sorted(path for path in paths if not (ROOT / path).exists())


@pytest.mark.parametrize("name", NAMES)
def test_internal_links_and_anchors_resolve(name: str) -> None:
    assert not broken_links(ROOT / name)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"CHANGELOG.md"}))  # which keeps old names
def test_paths_in_code_spans_exist(name: str) -> None:
    assert not missing_paths(ROOT / name)


def test_broken_links_and_missing_paths_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `title`\n\n[good](page.md) [good](#one-title) [bad](#two) [bad](no.md)\n\n"
        "`csrc/ops.cpp` `csrc/no.cpp` `csrc/NAME.cpp`\n\n```python\n[3](not a link)\n```\n"
    )
    assert broken_links(page) == ["#two", "no.md"]
    assert missing_paths(page) == ["csrc/no.cpp"]


def test_unknown_names_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`render` `Splats.load` `no_such_name` `Splats.no_such` `file.json`\n")
    assert unknown_names(page) == ["no_such", "no_such_name"]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


# Names


@cache
def words_of_sources() -> set[str]:
    """Return all words of the package, the kernels and the tests."""
    words: set[str] = set()
    for folder in ("splatrender", "csrc"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cpp", ".h", ".cu", ".cuh"):
                words.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
                words.update(path.relative_to(ROOT).with_suffix("").parts)
    return words


def unknown_names(page: Path) -> list[str]:
    """Return the names in code spans of a page that no source has."""
    spans = re.findall(r"`([\w.]+)`", prose_of(page))
    names = {span.split(".")[-1] for span in spans if not re.search(r"\.[a-z]{2,5}$", span)}
    known = words_of_sources() | {path.name for path in ROOT.iterdir()}
    return sorted(name for name in names if name and name not in known)


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/conventions.md"])
def test_names_can_be_found_in_the_sources(name: str) -> None:
    assert not unknown_names(ROOT / name)


def test_layers_are_those_of_the_contract() -> None:
    page = ROOT / "docs" / "architecture.md"
    (block,) = (block for block in blocks_of(page) if block.mark == "<!-- layers -->")
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r"^layers = \[\n(.*?)^\]", contract, flags=re.S | re.M)
    assert layers is not None
    assert block.text.splitlines() == re.findall(r'"(.*)"', layers[1])


# Python


PYTHON_PAGES = [
    name for name in NAMES if any(block.language == "python" for block in blocks_of(ROOT / name))
]
SLOW_PAGES = [
    name for name in PYTHON_PAGES if any(block.mark == SLOW for block in blocks_of(ROOT / name))
]


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Work in a folder that has the repository's scenes."""
    (folder / "scenes").symlink_to(ROOT / "scenes")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_page(page: Path, folder: Path, slow: bool) -> None:
    """Run the Python blocks of a page in order, in one namespace; compile what is not run."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    with workplace(folder):
        for block in blocks_of(page):
            if block.language != "python":
                continue
            known = block.mark in ("", SLOW) or block.mark.startswith(NEEDS)
            assert known, f"{page}:{block.line}: {block.mark}"
            source = "\n" * (block.line - 1) + block.text  # line numbers are those of the page
            code = compile(source, str(page), "exec")
            if not block.mark or (slow and block.mark == SLOW):
                exec(code, namespace)


@pytest.mark.parametrize("name", PYTHON_PAGES)
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    run_page(ROOT / name, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_PAGES)
def test_slow_python_blocks_run(name: str, tmp_path: Path) -> None:
    run_page(ROOT / name, tmp_path, slow=True)


def test_blocks_that_fail_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n<!-- slow -->\n```python\nassert x == 2\n```\n\n"
        "<!-- needs data -->\n```python\nassert x == 3\n```\n"
    )
    for number, slow in enumerate((False, True)):
        (folder := tmp_path / str(number)).mkdir()
        with pytest.raises(AssertionError) if slow else contextlib.nullcontext():
            run_page(page, folder, slow)


# Commands


def commands_of(page: Path) -> list[str]:
    """Return the command lines of a page: those of bash blocks, and those in code spans."""
    lines = [
        line
        for block in blocks_of(page)
        if block.language == "bash"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    spans = re.findall(r"`([^`]+)`", prose_of(page))
    commands = [re.sub(r"\s+#.*", "", " ".join(text.split())) for text in (*lines, *spans)]
    return [command for command in commands if COMMAND.match(command)]


class _ParsedError(Exception):
    """Ends a program after it has parsed its arguments."""


def parse_module(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `python -m module` parse its arguments, and no more."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    if spec.submodule_search_locations is not None:  # a package
        module = f"{module}.__main__"
    try:
        program = importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{module} needs {error.name}")
    except SystemExit as error:
        pytest.skip(str(error))
    entry = getattr(program, "main", None)
    if isinstance(entry, click.Command):
        entry.make_context(module, list(arguments))
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(
        parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None
    ) -> None:
        parse(parser, args, namespace)
        raise _ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    if callable(entry) and uses_argparse(program):
        with pytest.raises(_ParsedError):
            entry()


def uses_argparse(program: ModuleType) -> bool:
    """Return whether a module, or one of the same folder that it imports from, parses arguments."""
    package = program.__name__.rpartition(".")[0]
    homes = {getattr(value, "__module__", None) or "" for value in vars(program).values()}
    near = [sys.modules[home] for home in homes if home.startswith(f"{package}.")]
    return any("argparse" in vars(module) for module in (program, *near))


def check_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check program and options of a command line.

    Raises:
        click.UsageError: an option does not exist or its value is refused.
        SystemExit: the same, by argparse.
    """
    from splatrender.cli.main import cli

    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        assert not unknown, f"{command}: no target {unknown}"
    elif program == "splatrender":
        parse_splatrender(cli, arguments)
    elif program == "bash" or (program.startswith("python") and arguments[0].endswith(".py")):
        assert (ROOT / arguments[0]).exists(), command
        if arguments[0] in ("train.py", "render.py"):
            parse_splatrender(cli, [arguments[0].removesuffix(".py"), *arguments[1:]])
    elif program.startswith("python") and arguments[0] == "-m":
        module, *arguments = arguments[1:]
        if module == "splatrender":
            parse_splatrender(cli, arguments)
        elif module.split(".")[0] in ("benchmarks", "tools"):
            parse_module(module, arguments, monkeypatch)


def parse_splatrender(cli: click.Group, arguments: list[str]) -> None:
    """Parse the arguments of `splatrender`, without running anything."""
    with cli.make_context("splatrender", list(arguments)) as context:
        name, command, rest = cli.resolve_command(context, list(context._protected_args))
        assert command is not None, name
        if not rest and not context.args:
            return  # the name alone is mentioned
        command.make_context(name, [*rest, *context.args], parent=context)


COMMANDS = sorted({(name, command) for name in NAMES for command in commands_of(ROOT / name)})


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_commands_have_options_that_exist(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        check_command(command, monkeypatch)
    except (click.UsageError, SystemExit) as error:
        pytest.fail(f"{name}: {command}: {error}")


@pytest.mark.parametrize(
    "command",
    [
        "python train.py my_scene --no-such-option",
        "python -m splatrender regress chirp --splats none",
        "python -m benchmarks.flow.strategies --no-such-option",
        "python -m benchmarks.render.raster --no-such-option",
        "python -m tools.cuda_static.roofline --no-such-option",
    ],
)
def test_unknown_options_are_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((click.UsageError, SystemExit)):
        check_command(command, monkeypatch)


@pytest.mark.parametrize("command", ["make nothing", "python no.py", "python -m tools.nothing"])
def test_unknown_programs_are_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_command(command, monkeypatch)


# Examples


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_examples_are_short_and_listed(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < EXAMPLE_LINES
    assert text.startswith('"""')
    assert script.name in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_examples_run(script: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
