"""PTX instructions as C++ statements over ptx.h; the table at the end has all of them."""

from __future__ import annotations

import re
from collections.abc import Callable

from tools.emulation.ptx_operands import (
    HINTS,
    SPACES,
    Instruction,
    Operands,
    PtxError,
    cpp_type,
    identifier,
    is_float,
    size_of,
    split_operands,
    unsigned,
    wide,
)

COMPARISONS = {
    **{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="},
    **{"lo": "<", "ls": "<=", "hi": ">", "hs": ">="},
}
UNORDERED = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
ROUNDING = {"rz": "FE_TOWARDZERO", "rm": "FE_DOWNWARD", "rp": "FE_UPWARD"}
TO_INTEGRAL = {
    "rni": "std::nearbyint",
    "rzi": "std::trunc",
    "rmi": "std::floor",
    "rpi": "std::ceil",
}


def statement(text: str, line: int, operands: Operands) -> str:
    """Return the C++ statement of one instruction.

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
        one = Instruction(text, name, modifiers, split_operands(found[4] or ""), line, operands)
        code = TABLE[name](one)
    except (PtxError, StopIteration, IndexError, KeyError) as error:
        raise PtxError(f"{operands.source}:{line}: {text}: {error}") from None
    return f"if ({found[1]}{identifier(found[2])}) {{ {code} }}" if found[2] else code


def _arithmetic(i: Instruction, formula: str, operands: int) -> str:
    """Return a formula in {0}, {1}, {2}, with its rounding, flushing and saturation."""
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
    return _arithmetic(i, formula, operands) if is_float(i.type) else integer()


def _integer(i: Instruction, formula: str, operands: int) -> str:
    """Return a formula on unsigned integers, which wrap around."""
    i.only("lo")
    kind = unsigned(i.type)
    values = [i.argument(k + 1, kind) for k in range(operands)]
    return i.put(f"({cpp_type(kind)})({formula.format(*values)})")


def _add(i: Instruction) -> str:
    subtract, carry_in = i.name.startswith("sub"), i.name.endswith("c")
    if carry_in or "cc" in i.modifiers:
        return _carried(
            i,
            i.argument(1, unsigned(i.type)),
            i.argument(2, unsigned(i.type)),
            subtract,
            carry_in,
        )
    formula = "{0} - {1}" if subtract else "{0} + {1}"
    return _float_or(i, formula, 2, lambda: _integer(i, formula, 2))


def _carried(i: Instruction, a: str, b: str, subtract: bool, carry_in: bool) -> str:
    function = "subtract_borrow" if subtract else "add_carry"
    kind = cpp_type(unsigned(i.type))
    out = "carry = next;" if "cc" in i.modifiers else ""
    start = "carry" if carry_in else "false"
    call = f"ptx::{function}<{kind}>({a}, {b}, {start}, next)"
    return f"{{ bool next; {i.put(call)} {out} }}"


def _product(i: Instruction) -> str:
    if "wide" in i.modifiers:
        kind = cpp_type(wide(i.type))
        return f"({kind})(({kind}){i.argument(1)} * ({kind}){i.argument(2)})"
    if "hi" in i.modifiers:
        return f"ptx::multiply_high<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2)})"
    kind = cpp_type(unsigned(i.type))
    a, b = (i.argument(k, unsigned(i.type)) for k in (1, 2))
    return f"({kind})({a} * ({'uint32_t' if size_of(i.type) == 2 else kind}){b})"


def _mul(i: Instruction) -> str:
    if is_float(i.type):
        return _arithmetic(i, "{0} * {1}", 2)
    i.only("lo", "hi", "wide")
    return i.put(_product(i))


def _mad(i: Instruction) -> str:
    if is_float(i.type):
        return _arithmetic(i, "std::fma({0}, {1}, {2})", 3)
    i.only("lo", "hi", "wide", "cc")
    kind = unsigned(wide(i.type) if "wide" in i.modifiers else i.type)
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
    kind = cpp_type(unsigned(i.type))
    a, negative = i.argument(1, unsigned(i.type)), f"{i.argument(1)} < 0"
    return _float_or(i, "std::fabs({0})", 1, lambda: i.put(f"({kind})({negative} ? 0 - {a} : {a})"))


def _function(formula: str) -> Callable[[Instruction], str]:
    return lambda i: _arithmetic(i, formula, 1)


def _copy_sign(i: Instruction) -> str:
    return i.put(f"std::copysign({i.argument(2)}, {i.argument(1)})")


def _test(i: Instruction) -> str:
    tests = {
        "nan": "std::isnan",
        "finite": "std::isfinite",
        "infinite": "std::isinf",
        "normal": "std::isnormal",
    }
    return i.put(f"{tests[i.modifiers[0]]}({i.argument(1)})")


def _bitwise(sign: str) -> Callable[[Instruction], str]:
    return lambda i: i.put(f"({cpp_type(i.type)})({i.argument(1)} {sign} {i.argument(2)})")


def _not(i: Instruction) -> str:
    return i.put(
        f"!{i.argument(1)}" if i.type == "pred" else f"({cpp_type(i.type)})~{i.argument(1)}"
    )


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
    return i.put(
        f"ptx::insert_bits<{cpp_type(i.type)}>({i.argument(1)}, {i.argument(2)}, {at}, {count})"
    )


def _select(i: Instruction) -> str:
    return i.put(f"({i.argument(3, 'pred')} ? {i.argument(1)} : {i.argument(2)})")


def _compare(i: Instruction) -> str:
    how, a, b = i.modifiers[0], i.argument(1), i.argument(2)
    if "ftz" in i.modifiers and i.type == "f32":
        a, b = f"ptx::ftz({a})", f"ptx::ftz({b})"
    if how == "ne" and is_float(i.type):
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
    if is_float(start) and rounding:
        value = f"{TO_INTEGRAL[rounding]}({value})"
    mode = i.choose(ROUNDING)
    if is_float(start) and not is_float(to):
        value = f"ptx::to_integer<{cpp_type(to)}>({value})"
    elif mode:
        value = f"({cpp_type(to)})ptx::opaque({value})"
        value = f"ptx::rounded<{cpp_type(to)}>({ROUNDING[mode]}, [&] {{ return {value}; }})"
    else:
        value = f"({cpp_type(to)})({value})"
    if "sat" in i.modifiers:
        if not is_float(to):
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
    """Convert between generic addresses and those of a space; only shared memory has its own."""
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
        return (
            f"simt::warp_exchange(simt::Exchange::none, {i.argument(0, 'u32')}, 0, 0, {i.site()});"
        )
    if kinds == ["sync"] and len(i.arguments) == 1:
        return f"ptx::barrier({i.argument(0, 'u32')}, false, {i.site()});"
    if kinds[:1] == ["red"] and len(i.arguments) == 3 and kinds[1] in ("popc", "and", "or"):
        votes, predicate = kinds[1], i.argument(2, "pred")
        predicate = f"!({predicate})" if votes == "and" else predicate
        call = f"ptx::barrier({i.argument(1, 'u32')}, {predicate}, {i.site()})"
        return i.put(
            {"popc": f"(uint32_t){call}", "and": f"{call} == 0", "or": f"{call} != 0"}[votes]
        )
    raise PtxError("this form of barrier is not supported")


def _shuffle(i: Instruction) -> str:
    mode, targets = i.modifiers[1], i.arguments[0].split("|")
    values = ", ".join(i.argument(k, "b32") for k in (1, 2, 3, 4))
    code = (
        f"bool valid; const uint32_t got = ptx::shuffle('{mode[0]}', {values}, valid, {i.site()});"
    )
    code += f" ptx::put({identifier(targets[0])}, got);" if targets[0] != "_" else ""
    return f"{{ {code}" + (f" {identifier(targets[1])} = valid; }}" if len(targets) > 1 else " }")


def _vote(i: Instruction) -> str:
    how, mask, predicate = i.modifiers[1], i.argument(2, "u32"), i.argument(1, "pred")
    predicate = f"!({predicate})" if how == "all" else predicate
    lanes = f"ptx::lanes_where({predicate}, {mask}, {i.site()})"
    return i.put({"ballot": lanes, "any": f"{lanes} != 0", "all": f"{lanes} == 0"}[how])


def _exchange(i: Instruction, kind: str, value: str) -> str:
    mask = i.argument(2, "u32")
    return i.put(
        f"(uint32_t)simt::warp_exchange(simt::Exchange::{kind}, {mask}, {value}, 0, {i.site()})"
    )


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
    results = i.arguments[0] if i.arguments[0].startswith("(") else "()"
    name, *passed = [a for a in i.arguments if a != results or results == "()"]
    groups = [split_operands(g.strip("()")) for g in (*passed[:1], results)]
    addresses = [", ".join([*(i.operands.symbols[p] for p in g), "nullptr"]) for g in groups]
    if len(addresses) == 1:
        addresses.insert(0, "nullptr")
    arrays = "const void* const in[] = {{{}}}; void* const out[] = {{{}}};".format(*addresses)
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
