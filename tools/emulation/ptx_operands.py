"""The parts of a PTX instruction: its types, its operands, and how they are written in C++."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

CPP_TYPES = {
    **{f"{k}{n}": f"uint{n}_t" for k in "bu" for n in (8, 16, 32, 64)},
    **{f"s{n}": f"int{n}_t" for n in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
    "pred": "bool",
}
SPECIAL = {
    **{f"%tid.{a}": f"simt::position->thread.{a}" for a in "xyz"},
    **{f"%ctaid.{a}": f"simt::place->block.{a}" for a in "xyz"},
    **{f"%ntid.{a}": f"simt::place->block_size.{a}" for a in "xyz"},
    **{f"%nctaid.{a}": f"simt::place->grid_size.{a}" for a in "xyz"},
    "%laneid": "simt::position->lane",
    "%lanemask_eq": "(1u << simt::position->lane)",
    "%lanemask_lt": "((1u << simt::position->lane) - 1u)",
    "%lanemask_le": "((2u << simt::position->lane) - 1u)",
    "%lanemask_gt": "~((2u << simt::position->lane) - 1u)",
    "%lanemask_ge": "~((1u << simt::position->lane) - 1u)",
    "WARP_SZ": "32",
}
SPACES = ("global", "shared", "local", "param", "const")
# Qualifiers that say how memory is cached or ordered, or what holds anyway: without meaning here.
HINTS = {
    *("relaxed", "weak", "volatile", "gpu", "cta", "sys", "nc", "ca", "cg", "cs", "lu", "cv", "wb"),
    *("wt", "uni", "aligned", "full", "noftz", "acquire", "release", "acq_rel", "to"),
}


class PtxError(ValueError):
    """Error: PTX that this translator does not know."""


def cpp_type(ptx_type: str) -> str:
    """Return the C++ type of values and registers of a PTX type."""
    if ptx_type not in CPP_TYPES:
        raise PtxError(f"type .{ptx_type} is not supported")
    return CPP_TYPES[ptx_type]


def size_of(ptx_type: str) -> int:
    """Return the size of a PTX type in bytes."""
    cpp_type(ptx_type)
    return int(ptx_type[1:]) // 8


def identifier(name: str) -> str:
    """Return a C++ name for a register, label or symbol."""
    return ("r_" if name.startswith("%") else "") + re.sub(r"\W", "_", name.lstrip("%"))


@dataclass
class Operands:
    """Meaning of the names in one function."""

    source: str
    symbols: dict[str, str]  # to the C++ expression of its address
    shared: dict[str, int]  # to its offset in the kernel's shared memory
    registers: set[str] = field(default_factory=set)  # those whose names begin without %
    tables: dict[str, list[str]] = field(default_factory=dict)
    label: str = ""

    def value(self, text: str, ptx_type: str) -> str:
        """Return an operand as a C++ expression of the type."""
        kind = cpp_type(ptx_type)
        if text.startswith("!"):
            return f"!{self.value(text[1:], ptx_type)}"
        if text.startswith("-") and text[1:2] in ("%", "$"):
            return f"({kind})(-{self.value(text[1:], ptx_type)})"
        if text in SPECIAL:
            return f"({kind})({SPECIAL[text]})"
        if found := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})", text):
            return f"ptx::as<{kind}>(__builtin_bit_cast(float, 0x{found[1]}u))"
        if found := re.fullmatch(r"0[dD]([0-9A-Fa-f]{16})", text):
            return f"ptx::as<{kind}>(__builtin_bit_cast(double, 0x{found[1]}ull))"
        if re.fullmatch(r"-?(0[xX][0-9A-Fa-f]+|\d+)U?", text):
            number = int(text.rstrip("U"), 0) & (1 << 64) - 1
            return f"({kind}){number}ull"
        if text in self.shared:
            return f"({kind}){self.shared[text]}u"
        if text in self.symbols:
            return f"({kind})(uint64_t)({self.symbols[text]})"
        if re.fullmatch(r"%[\w$]+", text) or text in self.registers:
            return f"ptx::as<{kind}>({identifier(text)})"
        raise PtxError(f"operand {text!r} is not understood")

    def address(self, text: str, space: str, size: int) -> str:
        """Return the C++ address of an operand in brackets."""
        found = re.fullmatch(r"\[\s*([^\]+\s]+)\s*(?:\+\s*(-?\w+)\s*)?\]", text)
        if not found:
            raise PtxError(f"address {text!r} is not understood")
        name, offset = found[1], int(found[2] or "0", 0)
        if space == "shared":
            return f"ptx::at(shared, {self.value(name, 'u32')} + ({offset}), {size})"
        if name in self.symbols:
            return f"({self.symbols[name]} + ({offset}))"
        return f"ptx::at({self.value(name, 'u64')} + ({offset}), {size})"


@dataclass(frozen=True)
class Instruction:
    """One instruction taken apart."""

    text: str
    name: str
    modifiers: list[str]
    arguments: list[str]
    line: int
    operands: Operands

    @property
    def type(self) -> str:
        """The last modifier, which most instructions end with."""
        return self.modifiers[-1]

    def argument(self, index: int, ptx_type: str | None = None) -> str:
        """Return an argument as a C++ expression, by default of the instruction's type."""
        if index >= len(self.arguments):
            raise PtxError("an operand is missing")
        return self.operands.value(self.arguments[index], ptx_type or self.type)

    def choose(self, choices: Collection[str]) -> str:
        """Return the one modifier that is among the choices, or the empty string."""
        return next((m for m in self.modifiers if m in choices), "")

    def only(self, *known: str) -> None:
        """Refuse a modifier that is not among those known."""
        for modifier in self.modifiers[:-1]:
            if modifier not in (*known, *HINTS, *SPACES) and modifier[:4] not in ("L1::", "L2::"):
                raise PtxError(f"modifier .{modifier} is not supported")

    def put(self, value: str, index: int = 0) -> str:
        """Return the statement that assigns the value to a target register."""
        target = self.arguments[index]
        return f"(void)({value});" if target == "_" else f"ptx::put({identifier(target)}, {value});"

    def site(self) -> str:
        """Return this place, for the runtime's messages."""
        return (
            f'{{"{self.name}.{".".join(self.modifiers)}", "{self.operands.source}", {self.line}}}'
        )


def split_operands(text: str) -> list[str]:
    """Split at the commas that are outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [p.strip() for p in parts if p.strip()]


def is_float(ptx_type: str) -> bool:
    """Check that values of the type are floating-point numbers."""
    return ptx_type in ("f32", "f64")


def unsigned(ptx_type: str) -> str:
    """Return the unsigned type of the same size."""
    return "u" + ptx_type[1:]


def wide(ptx_type: str) -> str:
    """Return the type of twice the size."""
    return f"{ptx_type[0]}{16 * size_of(ptx_type)}"
