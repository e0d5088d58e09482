"""One PTX instruction as a C++ statement over emulation/ptx.h. The table at the end lists what is understood."""

from __future__ import annotations

import re
from collections.abc import Callable
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
COMPARISONS = {
    **{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="},
    **{"lo": "<", "ls": "<=", "hi": ">", "hs": ">="},
}
UNORDERED = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
ROUNDING = {"rz": "FE_TOWARDZERO", "rm": "FE_DOWNWARD", "rp": "FE_UPWARD"}
TO_INTEGRAL = {"rni": "std::nearbyint", "rzi": "std::trunc", "rmi": "std::floor", "rpi": "std::ceil"}
SPACES = ("global", "shared", "local", "param", "const")
# Qualifiers that say how memory is cached or ordered, or what holds anyway: without meaning here.
HINTS = {
    *("relaxed", "weak", "volatile", "gpu", "cta", "sys", "nc", "ca", "cg", "cs", "lu", "cv", "wb"),
    *("wt", "uni", "aligned", "full", "noftz", "acquire", "release", "acq_rel", "to"),
}


class PtxError(ValueError):
    """PTX that this translator does not understand."""


def cpp_type(ptx_type: str) -> str:
    """The C++ type of values and registers of a PTX type."""
    if ptx_type not in CPP_TYPES:
        raise PtxError(f"type .{ptx_type} is not supported")
    return CPP_TYPES[ptx_type]


def size_of(ptx_type: str) -> int:
    """Bytes of a PTX type."""
    cpp_type(ptx_type)
    return int(ptx_type[1:]) // 8


def identifier(name: str) -> str:
    """A C++ name for a register, label or symbol."""
    return ("r_" if name.startswith("%") else "") + re.sub(r"\W", "_", name.lstrip("%"))


@dataclass
class Operands:
    """What the names in one function mean."""

    source: str
    symbols: dict[str, str]  # to the C++ expression of its address
    shared: dict[str, int]  # to its offset in the kernel's shared memory
    registers: set[str] = field(default_factory=set)  # those whose names begin without %
    tables: dict[str, list[str]] = field(default_factory=dict)
    label: str = ""

    def value(self, text: str, ptx_type: str) -> str:
        """An operand as a C++ expression of the type."""
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
        """The C++ address of an operand in brackets."""
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
        """An argument as a C++ expression, of the instruction's type if no other is said."""
        if index >= len(self.arguments):
            raise PtxError("an operand is missing")
        return self.operands.value(self.arguments[index], ptx_type or self.type)

    def choose(self, choices: object) -> str:
        """The one modifier that is among the choices, or the empty string."""
        return next((m for m in self.modifiers if m in choices), "")  # type: ignore[operator]

    def only(self, *known: str) -> None:
        """Refuses a modifier that is not among those known."""
        for modifier in self.modifiers[:-1]:
            if modifier not in known and modifier not in HINTS and modifier not in SPACES:
                if not modifier.startswith(("L1::", "L2::")):
                    raise PtxError(f"modifier .{modifier} is not supported")

    def put(self, value: str, index: int = 0) -> str:
        """The statement that gives the value to a target register."""
        target = self.arguments[index]
        return f"(void)({value});" if target == "_" else f"ptx::put({identifier(target)}, {value});"

    def site(self) -> str:
        """This place, for the runtime's messages."""
        return f'{{"{self.name}.{".".join(self.modifiers)}", "{self.operands.source}", {self.line}}}'


def statement(text: str, line: int, operands: Operands) -> str:
    """The C++ statement of one instruction.

    Raises:
        PtxError: if it is unknown or uses an unknown modifier; the message has line and text.
    """
    found = re.fullmatch(r"(?:@(!?)(%?[\w$]+)\s+)?([\w.:]+)(?:\s+(.*))?", text)
    try:
        if not found:
            raise PtxError("this is no instruction")
        name, *modifiers = re.sub(r"shared::cta", "shared", found[3]).split(".")
        if name not in TABLE:
            raise PtxError(f"instruction {name} is not supported")
        one = Instruction(text, name, modifiers, _split(found[4] or ""), line, operands)
        code = TABLE[name](one)
    except (PtxError, StopIteration, IndexError) as error:
        raise PtxError(f"{operands.source}:{line}: {text}: {error}") from None
    return f"if ({found[1]}{identifier(found[2])}) {{ {code} }}" if found[2] else code


def _split(text: str) -> list[str]:
    """Splits at the commas that stand outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [p.strip() for p in parts if p.strip()]


def _is_float(ptx_type: str) -> bool:
    return ptx_type in ("f32", "f64")


def _unsigned(ptx_type: str) -> str:
    return "u" + ptx_type[1:]


def _wide(ptx_type: str) -> str:
    return f"{ptx_type[0]}{16 * size_of(ptx_type)}"


def _arithmetic(i: Instruction, formula: str, operands: int) -> str:
    """A floating-point formula in {0}, {1}, {2}, with its rounding, flushing and saturation."""
    i.only("rn", "ftz", "sat", "approx", "full", *ROUNDING)
    kind = cpp_type(i.type)
    values = [i.argument(k + 1) for k in range(operands)]
    flush = "ftz" in i.modifiers and i.type == "f32"
    if flush:
        values = [f"ptx::ftz({v})" for v in values]
    mode = i.choose(ROUNDING)
    if mode:
        values = [f"ptx::opaque({v})" for v in values]
    result = f"({kind})({formula.format(*values)})"
    if mode:
        result = f"ptx::rounded<{kind}>({ROUNDING[mode]}, [&] {{ return {result}; }})"
    if flush:
        result = f"ptx::ftz({result})"
    return i.put(f"ptx::saturate({result})" if "sat" in i.modifiers else result)


def _float_or(i: Instruction, formula: str, operands: int, integer: Callable[[], str]) -> str:
    return _arithmetic(i, formula, operands) if _is_float(i.type) else integer()


def _integer(i: Instruction, formula: str, operands: int) -> str:
    """A formula on unsigned integers, which wrap around."""
    i.only("lo")
    kind = _unsigned(i.type)
    values = [i.argument(k + 1, kind) for k in range(operands)]
    return i.put(f"({cpp_type(kind)})({formula.format(*values)})")


def _add(i: Instruction) -> str:
    subtract, carry_in = i.name.startswith("sub"), i.name.endswith("c")
    if carry_in or "cc" in i.modifiers:
        return _carried(i, i.argument(1, _unsigned(i.type)), i.argument(2, _unsigned(i.type)), subtract, carry_in)
    formula = "{0} - {1}" if subtract else "{0} + {1}"
    return _float_or(i, formula, 2, lambda: _integer(i, formula, 2))


def _carried(i: Instruction, a: str, b: str, subtract: bool, carry_in: bool) -> str:
    function = "subtract_borrow" if subtract else "add_carry"
    kind = cpp_type(_unsigned(i.type))
    out = "carry = next;" if "cc" in i.modifiers else ""
    start = "carry" if carry_in else "false"
    call = f"ptx::{function}<{kind}>({a}, {b}, {start}, next)"
    return f"{{ bool next; {i.put(call)} {out} }}"


def _product(i: Instruction) -> str:
    if "wide" in i.modifiers:
        kind = cpp_type(_wide(i.type))
        return f"({kind})(({kind}){i.argument(1)} * ({kind}){i.argument(2)})"
    if "hi" in i.modifiers:
        return f"ptx::multiply_high<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2)})"
    kind = cpp_type(_unsigned(i.type))
    a, b = (i.argument(k, _unsigned(i.type)) for k in (1, 2))
    return f"({kind})({a} * ({'uint32_t' if size_of(i.type) == 2 else kind}){b})"


def _mul(i: Instruction) -> str:
    if _is_float(i.type):
        return _arithmetic(i, "{0} * {1}", 2)
    i.only("lo", "hi", "wide")
    return i.put(_product(i))


def _mad(i: Instruction) -> str:
    if _is_float(i.type):
        return _arithmetic(i, "std::fma({0}, {1}, {2})", 3)
    i.only("lo", "hi", "wide", "cc")
    kind = _unsigned(_wide(i.type) if "wide" in i.modifiers else i.type)
    carry_in = i.name == "madc"
    if carry_in or "cc" in i.modifiers:
        return _carried(i, f"({cpp_type(kind)}){_product(i)}", i.argument(3, kind), False, carry_in)
    return i.put(f"({cpp_type(kind)})(({cpp_type(kind)}){_product(i)} + {i.argument(3, kind)})")


def _divide(i: Instruction) -> str:
    call = f"ptx::quotient<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2)})"
    return _float_or(i, "{0} / {1}", 2, lambda: i.put(call))


def _remainder(i: Instruction) -> str:
    return i.put(f"ptx::remainder<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2)})")


def _extreme(i: Instruction) -> str:
    function = "smaller" if i.name == "min" else "larger"
    call = f"ptx::{function}<{cpp_type(i.type)}>" + "({0}, {1})"
    return _float_or(i, call, 2, lambda: i.put(call.format(i.argument(1), i.argument(2))))


def _negate(i: Instruction) -> str:
    return _float_or(i, "-{0}", 1, lambda: _integer(i, "0 - {0}", 1))


def _absolute(i: Instruction) -> str:
    kind = cpp_type(_unsigned(i.type))
    a, negative = i.argument(1, _unsigned(i.type)), f"{i.argument(1)} < 0"
    return _float_or(i, "std::fabs({0})", 1, lambda: i.put(f"({kind})({negative} ? 0 - {a} : {a})"))


def _function(formula: str) -> Callable[[Instruction], str]:
    return lambda i: _arithmetic(i, formula, 1)


def _copy_sign(i: Instruction) -> str:
    return i.put(f"std::copysign({i.argument(2)}, {i.argument(1)})")


def _test(i: Instruction) -> str:
    tests = {"nan": "std::isnan", "finite": "std::isfinite", "infinite": "std::isinf", "normal": "std::isnormal"}
    return i.put(f"{tests[i.modifiers[0]]}({i.argument(1)})")


def _bitwise(sign: str) -> Callable[[Instruction], str]:
    return lambda i: i.put(f"({cpp_type(i.type)})({i.argument(1)} {sign} {i.argument(2)})")


def _not(i: Instruction) -> str:
    return i.put(f"!{i.argument(1)}" if i.type == "pred" else f"({cpp_type(i.type)})~{i.argument(1)}")


def _shift(i: Instruction) -> str:
    function = "shift_left" if i.name == "shl" else "shift_right"
    return i.put(f"ptx::{function}<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2, 'u32')})")


def _funnel(i: Instruction) -> str:
    flags = f"{str('l' in i.modifiers).lower()}, {str('wrap' in i.modifiers).lower()}"
    return i.put(f"ptx::funnel({flags}, {i.argument(1)}, {i.argument(2)}, {i.argument(3, 'u32')})")


def _logic(i: Instruction) -> str:
    a, b, c = (i.argument(k) for k in (1, 2, 3))
    return i.put(f"ptx::logic<{int(i.arguments[4], 0)}, {cpp_type(i.type)}>({a}, {b}, {c})")


def _permute(i: Instruction) -> str:
    i.only()
    return i.put(f"ptx::permute_bytes({i.argument(1)}, {i.argument(2)}, {i.argument(3)})")


def _count_bits(i: Instruction) -> str:
    if i.name == "popc":
        return i.put(f"(uint32_t)__builtin_popcountll({i.argument(1)})")
    return i.put(f"ptx::leading_zeros<{cpp_type(i.type)}>({i.argument(1)})")


def _find_bit(i: Instruction) -> str:
    shift = str("shiftamt" in i.modifiers).lower()
    return i.put(f"ptx::find_bit<{cpp_type(i.type)}>({i.argument(1)}, {shift})")


def _reverse(i: Instruction) -> str:
    return i.put(f"ptx::reverse_bits<{cpp_type(i.type)}>({i.argument(1)})")


def _extract(i: Instruction) -> str:
    at, count = i.argument(2, "u32"), i.argument(3, "u32")
    return i.put(f"ptx::extract_bits<{cpp_type(i.type)}>({i.argument(1)}, {at}, {count})")


def _insert(i: Instruction) -> str:
    at, count = i.argument(3, "u32"), i.argument(4, "u32")
    return i.put(f"ptx::insert_bits<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2)}, {at}, {count})")


def _select(i: Instruction) -> str:
    return i.put(f"({i.argument(3, 'pred')} ? {i.argument(1)} : {i.argument(2)})")


def _compare(i: Instruction) -> str:
    how, a, b = i.modifiers[0], i.argument(1), i.argument(2)
    if "ftz" in i.modifiers and i.type == "f32":
        a, b = f"ptx::ftz({a})", f"ptx::ftz({b})"
    if how == "ne" and _is_float(i.type):
        test = f"({a} < {b} || {a} > {b})"
    elif how in COMPARISONS:
        test = f"({a} {COMPARISONS[how]} {b})"
    elif how in UNORDERED:
        test = f"!({a} {UNORDERED[how]} {b})"
    elif how in ("num", "nan"):
        test = f"{'!' if how == 'num' else ''}(std::isnan({a}) || std::isnan({b}))"
    else:
        raise PtxError(f"comparison .{how} is not supported")
    i.only(how, "and", "or", "xor", "ftz")
    combine = {"and": "&&", "or": "||", "xor": "!="}.get(i.choose(("and", "or", "xor")))
    extra = i.argument(3, "pred") if combine else ""
    targets = i.arguments[0].split("|")
    code = f"const bool holds = {test};"
    for target, holds in zip(targets, ("holds", "!holds"), strict=False):
        if target != "_":
            code += f" {identifier(target)} = {f'{holds} {combine} {extra}' if combine else holds};"
    return f"{{ {code} }}"


def _convert(i: Instruction) -> str:
    to, start = i.modifiers[-2:]
    value = i.argument(1)
    rounding = i.choose(TO_INTEGRAL)
    i.only("rn", "sat", "ftz", to, *TO_INTEGRAL, *ROUNDING)
    if "ftz" in i.modifiers and start == "f32":
        value = f"ptx::ftz({value})"
    if _is_float(start) and rounding:
        value = f"{TO_INTEGRAL[rounding]}({value})"
    mode = i.choose(ROUNDING)
    if _is_float(start) and not _is_float(to):
        value = f"ptx::to_integer<{cpp_type(to)}>({value})"
    elif mode:
        value = f"ptx::rounded<{cpp_type(to)}>({ROUNDING[mode]}, [&] {{ return ({cpp_type(to)})ptx::opaque({value}); }})"
    else:
        value = f"({cpp_type(to)})({value})"
    if "sat" in i.modifiers:
        if not _is_float(to):
            raise PtxError("modifier .sat between integers is not supported")
        value = f"ptx::saturate({value})"
    return i.put(f"ptx::ftz({value})" if "ftz" in i.modifiers and to == "f32" else value)


def _vector(text: str) -> list[str]:
    return [p.strip() for p in text.strip("{}").split(",")] if text.startswith("{") else [text]


def _space(i: Instruction) -> str:
    i.only("v2", "v4")
    return i.choose(SPACES) or "generic"


def _load(i: Instruction) -> str:
    targets, size = _vector(i.arguments[0]), size_of(i.type)
    space = _space(i)
    address = i.operands.address(i.arguments[1], space, size * len(targets))
    read = "load" if space == "param" else "fetch"
    parts = [
        f"ptx::put({identifier(t)}, ptx::{read}<{cpp_type(i.type)}>(from + {k * size}));"
        for k, t in enumerate(targets)
        if t != "_"
    ]
    return f"{{ char* const from = {address}; {' '.join(parts)} }}"


def _store(i: Instruction) -> str:
    values, size = _vector(i.arguments[1]), size_of(i.type)
    address = i.operands.address(i.arguments[0], _space(i), size * len(values))
    parts = [
        f"ptx::store<{cpp_type(i.type)}>(to + {k * size}, {i.operands.value(v, i.type)});"
        for k, v in enumerate(values)
    ]
    return f"{{ char* const to = {address}; {' '.join(parts)} }}"


def _move(i: Instruction) -> str:
    targets, values = _vector(i.arguments[0]), _vector(i.arguments[1])
    bits = 8 * size_of(i.type) if i.type != "pred" else 1
    if len(targets) > 1:
        part = bits // len(targets)
        whole = f"const uint{bits}_t whole = {i.operands.value(values[0], f'b{bits}')};"
        parts = [
            f"ptx::put({identifier(t)}, (uint{part}_t)(whole >> {k * part}));"
            for k, t in enumerate(targets)
            if t != "_"
        ]
        return f"{{ {whole} {' '.join(parts)} }}"
    if len(values) > 1:
        part = bits // len(values)
        pieces = [
            f"((uint{bits}_t){i.operands.value(v, f'b{part}')} << {k * part})"
            for k, v in enumerate(values)
        ]
        return i.put(f"(uint{bits}_t)({' | '.join(pieces)})")
    return i.put(i.argument(1))


def _generic_address(i: Instruction) -> str:
    """Shared memory has addresses of its own; those of all other spaces are plain ones."""
    if "shared" not in i.modifiers:
        return i.put(i.argument(1))
    if "to" in i.modifiers:
        return i.put(f"(uint64_t)({i.argument(1)} - (uint64_t)shared.memory)")
    return i.put(f"(uint64_t)(shared.memory + {i.argument(1)})")


def _atomic(i: Instruction) -> str:
    names = {
        **{"add": "Add", "min": "Min", "max": "Max", "exch": "Exch", "cas": "CAS"},
        **{"and": "And", "or": "Or", "xor": "Xor"},
    }
    operation = next(m for m in i.modifiers if m in names)
    i.only(operation)
    first = 0 if i.name == "red" else 1
    space = i.choose(SPACES) or "generic"
    address = i.operands.address(i.arguments[first], space, size_of(i.type))
    values = ", ".join(i.argument(k) for k in range(first + 1, len(i.arguments)))
    call = f"atomic{names[operation]}(ptx::pointer<{cpp_type(i.type)}>({address}), {values})"
    return f"{call};" if i.name == "red" else i.put(call)


def _barrier(i: Instruction) -> str:
    kinds = [m for m in i.modifiers if m not in HINTS]
    if kinds == ["warp", "sync"]:
        return f"simt::warp_exchange(simt::Exchange::none, {i.argument(0, 'u32')}, 0, 0, {i.site()});"
    if kinds == ["sync"] and len(i.arguments) == 1:
        return f"ptx::barrier({i.argument(0, 'u32')}, false, {i.site()});"
    if kinds[:1] == ["red"] and len(i.arguments) == 3 and kinds[1] in ("popc", "and", "or"):
        votes, predicate = kinds[1], i.argument(2, "pred")
        predicate = f"!({predicate})" if votes == "and" else predicate
        call = f"ptx::barrier({i.argument(1, 'u32')}, {predicate}, {i.site()})"
        return i.put({"popc": f"(uint32_t){call}", "and": f"{call} == 0", "or": f"{call} != 0"}[votes])
    raise PtxError("this form of barrier is not supported")


def _shuffle(i: Instruction) -> str:
    mode, targets = i.modifiers[1], i.arguments[0].split("|")
    values = ", ".join(i.argument(k, "b32") for k in (1, 2, 3, 4))
    code = f"bool valid; const uint32_t got = ptx::shuffle('{mode[0]}', {values}, valid, {i.site()});"
    code += f" ptx::put({identifier(targets[0])}, got);" if targets[0] != "_" else ""
    return f"{{ {code}" + (f" {identifier(targets[1])} = valid; }}" if len(targets) > 1 else " }")


def _vote(i: Instruction) -> str:
    how, mask, predicate = i.modifiers[1], i.argument(2, "u32"), i.argument(1, "pred")
    predicate = f"!({predicate})" if how == "all" else predicate
    lanes = f"ptx::lanes_where({predicate}, {mask}, {i.site()})"
    return i.put({"ballot": lanes, "any": f"{lanes} != 0", "all": f"{lanes} == 0"}[how])


def _exchange(i: Instruction, kind: str, value: str) -> str:
    mask = i.argument(2, "u32")
    return i.put(f"(uint32_t)simt::warp_exchange(simt::Exchange::{kind}, {mask}, {value}, 0, {i.site()})")


def _match(i: Instruction) -> str:
    if i.modifiers[0] != "any":
        raise PtxError("only match.any is supported")
    return _exchange(i, "match", f"(uint64_t){i.argument(1)}")


def _reduce(i: Instruction) -> str:
    how, signed = i.modifiers[1], "_signed" if i.type == "s32" else ""
    bitwise = {"and": "all_of", "or": "one_of", "xor": "odd"}
    return _exchange(i, bitwise.get(how) or how + signed, f"(uint64_t)(int64_t){i.argument(1)}")


def _branch(i: Instruction) -> str:
    return f"goto {identifier(i.arguments[-1])};"


def _branch_table(i: Instruction) -> str:
    labels = i.operands.tables[i.arguments[1]]
    cases = " ".join(f"case {k}: goto {identifier(label)};" for k, label in enumerate(labels))
    return f"switch ({i.argument(0, 'u32')}) {{ {cases} }}"


def _call(i: Instruction) -> str:
    groups = [a for a in i.arguments if a.startswith("(")]
    results = groups[0] if i.arguments[0].startswith("(") else "()"
    name = next(a for a in i.arguments if not a.startswith("("))
    passed = groups[-1] if i.arguments[-1].startswith("(") and len(groups) > (results != "()") else "()"
    addresses = [[i.operands.symbols[p] for p in _split(g[1:-1])] for g in (passed, results)]
    arrays = (
        f"const void* const in[] = {{{', '.join([*addresses[0], 'nullptr'])}}}; "
        f"void* const out[] = {{{', '.join([*addresses[1], 'nullptr'])}}};"
    )
    return f"{{ {arrays} body_{identifier(name)}(in, out, shared); }}"


TABLE: dict[str, Callable[[Instruction], str]] = {
    **dict.fromkeys(("add", "addc", "sub", "subc"), _add),
    "mul": _mul,
    **dict.fromkeys(("mad", "madc", "fma"), _mad),
    "div": _divide,
    "rem": _remainder,
    **dict.fromkeys(("min", "max"), _extreme),
    "neg": _negate,
    "abs": _absolute,
    "rcp": _function("1 / {0}"),
    "sqrt": _function("std::sqrt({0})"),
    "rsqrt": _function("1 / std::sqrt({0})"),
    "ex2": _function("std::exp2({0})"),
    "lg2": _function("std::log2({0})"),
    "sin": _function("std::sin({0})"),
    "cos": _function("std::cos({0})"),
    "tanh": _function("std::tanh({0})"),
    "copysign": _copy_sign,
    "testp": _test,
    "and": _bitwise("&"),
    "or": _bitwise("|"),
    "xor": _bitwise("^"),
    "not": _not,
    **dict.fromkeys(("shl", "shr"), _shift),
    "shf": _funnel,
    "lop3": _logic,
    "prmt": _permute,
    **dict.fromkeys(("popc", "clz"), _count_bits),
    "bfind": _find_bit,
    "brev": _reverse,
    "bfe": _extract,
    "bfi": _insert,
    "selp": _select,
    "setp": _compare,
    "cvt": _convert,
    "ld": _load,
    "ldu": _load,
    "st": _store,
    "mov": _move,
    "cvta": _generic_address,
    **dict.fromkeys(("atom", "red"), _atomic),
    **dict.fromkeys(("bar", "barrier"), _barrier),
    "shfl": _shuffle,
    "vote": _vote,
    "match": _match,
    "redux": _reduce,
    "bra": _branch,
    "brx": _branch_table,
    "call": _call,
    **dict.fromkeys(("ret", "exit"), lambda _: "return;"),
    "trap": lambda _: 'simt::fail("trap");',
    **dict.fromkeys(("membar", "fence", "prefetch", "prefetchu"), lambda _: ""),
}
