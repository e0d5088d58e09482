"""GPU machine code as `cuobjdump -sass` prints it: instructions, control flow, and natural loops.

A loop is found as compilers define it: an edge of the control flow back to a block that dominates
where it comes from; its body is every block from which that edge is reached without passing the
head. So a loop stays one loop however the assembler lays out its parts, and code between a head and
a branch back that only belongs to a way out is not counted.

Source: Aho, Lam, Sethi, Ullman, Compilers, 2nd ed., 9.6.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

CLASSES = {
    "FP32": r"FFMA|FADD|FMUL|FSETP|FMNMX|FSEL|FSET|FCHK|FSWZADD",
    "FP64": r"D(FMA|ADD|MUL|SETP|MNMX)",
    "MUFU": r"MUFU|F2I|I2F|F2F|FRND|I2I|FLO|BREV|POPC",
    "SHFL/VOTE": r"SHFL|VOTEU?|MATCH|C?REDUX",
    "LDS/STS": r"LDS|LDSM|STS|ATOMS",
    "LDG/STG": r"LDG|STG|LD|ST",
    "RED/ATOM": r"RED|ATOMG?|REDG",
    "LDL/STL": r"LDL|STL",
    "BAR": r"BAR|MEMBAR|ERRBAR|DEPBAR|LDGDEPBAR|CCTL",
    "CTRL": r"BRA|BRX|JMP|EXIT|RET|CALL|NOP|YIELD|BSSY|BSYNC|BREAK|BMOV|WARPSYNC|KILL|BPT",
    "INT": r".*",
}
"""Instruction classes by the first word of the opcode, tried in order. MUFU counts conversions and
searches for bits too: they run on the same unit. INT is the rest: integers, addresses, moves,
predicates, constants."""
_ALU = re.compile(
    r"(FSETP|FSEL|FSET|FMNMX|FCHK|IADD3?|ISETP|IMNMX|VIADD\w*|VIMNMX\w*|P?LOP3|SEL|SHF|LEA"
    r"|PRMT|P2R|R2P|MOV|IABS|SGXT|BMSK)$"
)
_MATCHERS = {name: re.compile(rf"({words})$") for name, words in CLASSES.items()}
_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.MULTILINE)
_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;", re.MULTILINE)
_GUARD = re.compile(r"@!?U?P(\d|T)\s+")
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}


@dataclass(frozen=True)
class Instruction:
    """One instruction: its address, guard ('' or '@!P0'), opcode with modifiers, and operands."""

    address: int
    guard: str
    opcode: str
    operands: str

    @property
    def word(self) -> str:
        """The opcode without modifiers: FFMA of FFMA.FTZ."""
        return self.opcode.split(".")[0]

    @property
    def kind(self) -> str:
        """Its class, a key of `CLASSES`."""
        return _class_of(self.word)

    @property
    def width(self) -> int:
        """Number of bytes that one thread of a load, store or atomic moves."""
        return next((_WIDTHS[m] for m in self.opcode.split(".") if m in _WIDTHS), 4)

    @property
    def target(self) -> int | None:
        """Target address of a branch."""
        found = re.search(r"0x([0-9a-f]+)\s*$", self.operands)
        return int(found[1], 16) if self.word in ("BRA", "JMP", "CALL") and found else None

    @property
    def conditional(self) -> bool:
        """Possibility that some thread continues behind it: a guard, or a test of operands."""
        return bool(self.guard) or (self.word == "BRA" and "," in self.operands)


@dataclass(frozen=True)
class Block:
    """Instructions without a branch in or out of their middle, and the blocks that may follow."""

    start: int
    instructions: tuple[Instruction, ...]
    successors: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Loop:
    """A natural loop: the address of its head, those of its blocks, and the loops within.

    Attributes:
        own: its instructions that belong to no loop within.
    """

    head: int
    blocks: frozenset[int]
    own: tuple[Instruction, ...]
    children: list[Loop] = field(default_factory=list)

    @property
    def all(self) -> tuple[Instruction, ...]:
        """Its instructions and those of the loops within."""
        return self.own + tuple(i for child in self.children for i in child.all)

    def walk(self) -> list[Loop]:
        """List this loop and all within, outer ones first."""
        return [self, *(inner for child in self.children for inner in child.walk())]


@dataclass(frozen=True, eq=False)
class Function:
    """The machine code of one kernel."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def blocks(self) -> dict[int, Block]:
        """Basic blocks by the address of their first instruction."""
        return _blocks(self.instructions)

    @cached_property
    def loops(self) -> list[Loop]:
        """The outermost loops, by address; `Loop.children` holds the others."""
        return _loops(self.blocks, self.instructions[0].address)

    def all_loops(self) -> list[Loop]:
        """List all loops, outer ones before those within them."""
        return [inner for loop in self.loops for inner in loop.walk()]


def parse(text: str) -> dict[str, Function]:
    """Read what `cuobjdump -sass` prints.

    Args:
        text: its output.

    Returns:
        Kernels by mangled name.

    Example:
        >>> code = '''Function : k
        ...     /*0000*/  MOV R1, RZ ;
        ...     /*0010*/  FADD R1, R1, R2 ;
        ...     /*0020*/  @!P0 BRA 0x10 ;
        ...     /*0030*/  EXIT ;'''
        >>> [count_by_class(loop.own) for loop in parse(code)["k"].loops]
        [{'FP32': 1, 'CTRL': 1}]
    """
    pieces = _FUNCTION.split(text)[1:]
    functions = {}
    for name, body in zip(pieces[::2], pieces[1::2], strict=True):
        instructions = []
        for address, words in _LINE.findall(body):
            guard = _GUARD.match(words)
            rest = words[guard.end() :] if guard else words
            opcode, _, operands = rest.partition(" ")
            instructions.append(
                Instruction(int(address, 16), guard[0].strip() if guard else "", opcode, operands)
            )
        if instructions:
            functions[name] = Function(name, tuple(instructions))
    return functions


@cache
def _class_of(word: str) -> str:
    return next(name for name, matcher in _MATCHERS.items() if matcher.match(word))


def count_by_class(instructions: tuple[Instruction, ...]) -> dict[str, int]:
    """Count the instructions of each class, in the order of `CLASSES`, without absent ones."""
    counts = Counter(i.kind for i in instructions)
    return {name: counts[name] for name in CLASSES if counts[name]}


def flops(instructions: tuple[Instruction, ...]) -> int:
    """Count the floating-point operations of a thread: two for a fused multiply-add."""
    one = ("FADD", "FMUL", "MUFU", "DADD", "DMUL")
    return sum(2 * (i.word in ("FFMA", "DFMA")) + (i.word in one) for i in instructions)


def alu(instructions: tuple[Instruction, ...]) -> int:
    """Count instructions of the unit of comparisons and integers, half as wide as FP32's."""
    return sum(_ALU.match(i.word) is not None for i in instructions)


def wavefronts(instructions: tuple[Instruction, ...], passes: Mapping[str, int]) -> int:
    """Count the passes of a warp through shared memory, shuffles and votes among them.

    Args:
        instructions: instructions of one thread.
        passes: passes of one load or store, by the beginning of its opcode; 1 if absent, which is
            right where all lanes read one place, or each 4 bytes.
    """
    shared = [i for i in instructions if i.kind in ("LDS/STS", "SHFL/VOTE")]
    return sum(
        next((n for word, n in passes.items() if count_opcode((i,), word)), 1) for i in shared
    )


def count_opcode(instructions: tuple[Instruction, ...], prefix: str) -> int:
    """Count the opcodes that are `prefix` or begin with it and a dot, such as MUFU.EX2."""
    return sum(i.opcode == prefix or i.opcode.startswith(prefix + ".") for i in instructions)


def longest_without(function: Function, loop: Loop, opcode: str) -> tuple[Instruction, ...] | None:
    """Return the longest way through an innermost loop that avoids an opcode.

    Args:
        function: the kernel.
        loop: one of its loops without loops within.
        opcode: as for `count_opcode`.

    Returns:
        Instructions in order; None where every way meets the opcode.
    """
    following: dict[int, int | None] = {}  # the next block on the way from a block, None at its end
    lengths: dict[int, int] = {}  # from a block on; absent where every way meets the opcode

    def visit(start: int) -> int | None:
        if start in following:
            return lengths.get(start)
        block, best = function.blocks[start], -1
        following[start] = None
        for after in block.successors:
            if after == loop.head:
                best = max(best, 0)
            elif after in loop.blocks and (length := visit(after)) is not None and length > best:
                best, following[start] = length, after
        if best < 0 or count_opcode(block.instructions, opcode):
            return None
        lengths[start] = best + len(block.instructions)
        return lengths[start]

    if visit(loop.head) is None:
        return None
    way: list[Instruction] = []
    place: int | None = loop.head
    while place is not None:
        way += function.blocks[place].instructions
        place = following[place]
    return tuple(way)


def _returns(instructions: tuple[Instruction, ...], start: int) -> bool:
    """Check that a RET comes before anything else ends the straight line from an address."""
    from_there = (i for i in instructions if i.address >= start)
    last = next((i for i in from_there if i.word in ("RET", "EXIT", "CALL")), None)
    return last is not None and last.word == "RET"


def _blocks(instructions: tuple[Instruction, ...]) -> dict[int, Block]:
    """Cut the code at branches and at their targets. BSYNC waits and continues behind itself.

    A CALL continues behind itself too, unless the code it calls does not return: so the assembler
    writes a jump out of a loop.
    """
    ends = {"BRA", "JMP", "EXIT", "RET", "BRX", "KILL"}
    jumps = {
        i for i in instructions if i.word == "CALL" and not _returns(instructions, i.target or 0)
    }
    starts = {instructions[0].address}
    for now, after in zip(instructions, (*instructions[1:], None), strict=True):
        if now.word in ends or now in jumps:
            following = (now.target, after.address if after else None)
            starts |= {a for a in following if a is not None}
    blocks, run = {}, []
    for now, after in zip(instructions, (*instructions[1:], None), strict=True):
        run.append(now)
        if after is not None and after.address not in starts:
            continue
        if now.word == "BRX":
            raise ValueError(f"{now.address:#x}: a branch over a table; loops would be missed")
        continues = now.conditional or not (now.word in ends or now in jumps)
        target = None if now.word == "CALL" and now not in jumps else now.target
        nexts = (target, after.address if after and continues else None)
        successors = tuple(dict.fromkeys(a for a in nexts if a is not None))
        blocks[run[0].address] = Block(run[0].address, tuple(run), successors)
        run = []
    return blocks


def _dominators(blocks: dict[int, Block], entry: int) -> dict[int, set[int]]:
    """Return, for every block that can be reached, the blocks that every way to it passes."""
    order, stack, seen = [], [(entry, iter(blocks[entry].successors))], {entry}
    while stack:  # depth first, without recursion
        block, following = stack[-1]
        after = next(following, None)
        if after is None:
            order.append(block)
            stack.pop()
        elif after not in seen:
            seen.add(after)
            stack.append((after, iter(blocks[after].successors)))
    order.reverse()
    before: dict[int, list[int]] = {b: [] for b in order}
    for b in order:
        for after in blocks[b].successors:
            before[after].append(b)
    dominators = {b: set(order) for b in order}
    dominators[entry] = {entry}
    changed = True
    while changed:
        changed = False
        for b in order[1:]:
            new = set.intersection(*(dominators[p] for p in before[b])) | {b}
            if new != dominators[b]:
                dominators[b], changed = new, True
    return dominators


def _loops(blocks: dict[int, Block], entry: int) -> list[Loop]:
    """Return the forest of natural loops; edges back to the same head make one loop."""
    dominators = _dominators(blocks, entry)
    before: dict[int, set[int]] = {b: set() for b in dominators}
    for b in dominators:
        for after in blocks[b].successors:
            before[after].add(b)
    bodies: dict[int, set[int]] = {}
    for b in dominators:
        for head in set(blocks[b].successors) & dominators[b]:
            body, todo = bodies.setdefault(head, {head}), [b]
            while todo:
                block = todo.pop()
                if block not in body:
                    body.add(block)
                    todo.extend(before[block])
    # EXIT, padded by a branch to itself, is no loop
    bodies = {
        h: body for h, body in bodies.items() if len(body) > 1 or len(blocks[h].instructions) > 1
    }
    roots: list[Loop] = []
    made: list[Loop] = []
    for head, body in sorted(bodies.items(), key=lambda item: (-len(item[1]), item[0])):
        within = set().union(*(b for h, b in bodies.items() if h != head and b < body))
        own = tuple(i for b in sorted(body - within) for i in blocks[b].instructions)
        loop = Loop(head, frozenset(body), own)
        parents = [m for m in made if loop.blocks < m.blocks]
        (parents[-1].children if parents else roots).append(loop)
        made.append(loop)
    return sorted(roots, key=lambda loop: loop.head)
