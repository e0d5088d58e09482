"""Translate PTX as nvcc writes it to C++: `python ptx_to_cpp.py kernels.ptx > kernels.cpp`.

Every kernel becomes a function that takes the addresses of its parameters; the runtime calls it in
place of the body that g++ made of the same kernel, which it knows by its mangled name. A register
becomes a variable, a label a label, and an instruction one statement over ptx.h. What is not
known here is an error that names line and text, never a guess.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tools.emulation.ptx_instructions import statement
from tools.emulation.ptx_operands import Operands, PtxError, cpp_type, identifier, size_of

DECLARATION = (
    r"\.(global|const|shared)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)((?:\[\d*\])*)"
    r"\s*(?:=\s*([^;]+))?;"
)
HEADER = re.compile(
    r"\.(entry|func)\s*(?:\(([^()]*)\)\s*)?([\w$]+)\s*(?:\(([^()]*)\))?([^{};]*)([{;])"
)
PARAMETER = r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?"
IGNORED = (".pragma", ".loc ", ".file ", ".noreturn")


@dataclass
class Layout:
    """Places of the shared arrays of one kernel."""

    offsets: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def add(self, name: str, align: int, size: int) -> None:
        """Place one more array behind the others."""
        self.offsets[name] = -(-self.bytes // align) * align
        self.bytes = self.offsets[name] + size


@dataclass(frozen=True)
class Function:
    """One .entry or .func as the file has it."""

    kind: str
    name: str
    results: list[str]
    parameters: list[str]
    body: str
    line: int


def translate(ptx: str, source: str) -> str:
    """Translate a whole PTX file to C++.

    Args:
        ptx: the text of the file.
        source: its name in messages.

    Returns:
        A translation unit that registers its kernels with the runtime.

    Raises:
        PtxError: for anything that is not understood, with line and text.

    Example:
        >>> Path("k.cpp").write_text(translate(Path("k.ptx").read_text(), "k.ptx"))
    """
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), ptx, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", "", text)
    functions, outside = _functions(text)
    module = Layout()
    constants: list[str] = []
    arrays: dict[str, str] = {}
    for space, align, kind, name, dimensions, values in re.findall(DECLARATION, outside):
        size = _count(dimensions) * size_of(kind)
        if space == "shared":
            module.add(name, int(align or size_of(kind)), size)
            continue
        arrays[name] = f"data_{identifier(name)}"
        start = f" = {_initial(values, name)}" if values else ""
        declared = f"{cpp_type(kind)} {arrays[name]}[{_count(dimensions)}]{start};"
        constants.append(f"alignas({align or size_of(kind)}) static {declared}")
    parts = ['#include "ptx.h"', "namespace {", *constants]
    parts += [f"{_signature(f)};" for f in functions if f.kind == "func"]
    parts += [_function(f, module, arrays, source) for f in functions]
    return "\n".join([*parts, "}  // namespace", ""])


def _functions(text: str) -> tuple[list[Function], str]:
    """Split into the functions that have a body and the text between them."""
    found: list[Function] = []
    between: list[str] = []
    at = 0
    for header in HEADER.finditer(text):
        if header.start() < at:
            continue
        between.append(text[at : header.start()])
        at = header.end()
        if header[6] == ";":
            continue
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        results, parameters = (
            [p[1] for p in re.findall(PARAMETER, header[k] or "")] for k in (2, 4)
        )
        line = text.count("\n", 0, header.end()) + 1
        body = text[header.end() : at - 1]
        found.append(Function(header[1], header[3], results, parameters, body, line))
    return found, "".join([*between, text[at:]])


def _function(f: Function, module: Layout, arrays: dict[str, str], source: str) -> str:
    shared = Layout(dict(module.offsets), module.bytes)
    operands = Operands(source, dict(arrays), shared.offsets)
    operands.symbols |= {name: f"(char*)parameters[{i}]" for i, name in enumerate(f.parameters)}
    operands.symbols |= {name: f"(char*)results[{i}]" for i, name in enumerate(f.results)}
    lines = [_statement(text, line, operands, shared) for text, line in _statements(f)]
    code = "\n".join(line for line in lines if line)
    if f.kind == "func":
        return f"{_signature(f)} {{\nbool carry = false;\n{code}\n}}"
    name, plain = _host_name(f.name), identifier(f.name)
    if shared.bytes:
        # The label makes it a shared array of the kernel: filled with NaN before each block.
        label = f"_ZZ{name[2:] if name.startswith('_Z') else name}E6memoryB11simt_shared"
        memory = (
            f"alignas(128) thread_local unsigned char memory_{plain}[{shared.bytes}] "
            f'asm("{label}") __attribute__((used));'
        )
        window = f"{{(char*)memory_{plain}, {shared.bytes}}}"
    else:
        memory, window = "", "{nullptr, 0}"
    return (
        f"{memory}\nvoid body_{plain}(const void* const* parameters) {{\n"
        f"const ptx::Shared shared = {window};\nbool carry = false;\n{code}\n}}\n"
        f'const ptx::Translation translation_{plain}("{name}", &body_{plain});'
    )


def _signature(f: Function) -> str:
    return (
        f"void body_{identifier(f.name)}"
        "(const void* const* parameters, void* const* results, ptx::Shared shared)"
    )


def _statements(f: Function) -> list[tuple[str, int]]:
    """Split a body into statements with their lines; braces of scopes and labels are alone."""
    found: list[tuple[str, int]] = []
    text, line, start = "", f.line, f.line
    for character in f.body:
        empty = not text.strip()
        if empty:
            text, start = "", line
        line += character == "\n"
        if character == ";" or (character in "{}" and empty):
            found.append((" ".join(text.split()) if character == ";" else character, start))
            text = ""
        elif character == ":" and re.fullmatch(r"[\w$]+", text.strip()):
            found.append((text.strip() + ":", start))
            text = ""
        else:
            text += character
    return found


def _statement(text: str, line: int, operands: Operands, shared: Layout) -> str:
    if text in ("{", "}", ""):
        return text
    if text.endswith(":"):
        operands.label = text[:-1]
        return f"{identifier(text[:-1])}:;"
    if text.startswith(".branchtargets"):
        labels = [part.strip() for part in text.removeprefix(".branchtargets").split(",")]
        operands.tables[operands.label] = labels
        return ""
    if text.startswith(IGNORED):
        return ""
    if found := re.fullmatch(r"\.reg \.(\w+) (.*)", text):
        names: list[str] = []
        for part in found[2].split(","):
            many = re.fullmatch(r"\s*(%?[\w$]+)<(\d+)>\s*", part)
            one = identifier(many[1] if many else part.strip())
            operands.registers.add(part.strip())
            names += [f"{one}{i}" for i in range(int(many[2]))] if many else [one]
        return f"{cpp_type(found[1])} {', '.join(names)};"
    if found := re.fullmatch(
        r"\.(local|param|shared) (?:\.align (\d+) )?\.(\w+) ([\w$]+)((?:\[\d*\])*)", text
    ):
        space, align, kind, name, dimensions = found.groups()
        size = _count(dimensions) * size_of(kind)
        if space == "shared":
            shared.add(name, int(align or size_of(kind)), size)
            return ""
        operands.symbols[name] = f"{identifier(name)}_memory"
        return f"alignas(16) char {identifier(name)}_memory[{size}];"
    return statement(text, line, operands)


def _count(dimensions: str) -> int:
    """Count the elements of an array declared as [4][8]; 1 for none."""
    count = 1
    for number in re.findall(r"\[(\d*)\]", dimensions):
        count *= int(number or 0)
    return count


def _initial(values: str, name: str) -> str:
    numbers = re.sub(r"0[fF]([0-9A-Fa-f]{8})", r"__builtin_bit_cast(float, 0x\1u)", values)
    numbers = re.sub(r"0[dD]([0-9A-Fa-f]{16})", r"__builtin_bit_cast(double, 0x\1ull)", numbers)
    if re.search(r"\bgeneric\b", numbers):
        raise PtxError(f"{name}: an address as initial value is not supported")
    return numbers if numbers.lstrip().startswith("{") else f"{{{numbers}}}"


def _host_name(name: str) -> str:
    """Return the name that g++ gives: nvcc numbers a file's unnamed namespace, g++ does not."""
    while found := re.search(r"(\d+)_GLOBAL__N__", name):
        end = found.end(1) + int(found[1])
        name = f"{name[: found.start()]}12_GLOBAL__N_1{name[end:]}"
    return name


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    path = Path(sys.argv[1])
    print(translate(path.read_text(), path.name))
