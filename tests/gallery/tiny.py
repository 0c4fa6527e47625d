"""Tiny machines: a state of 11 bits, and one instruction drawn from a grammar.

    state        mode (1), base (2), bound (2), acc (1), four cells of 1 bit, small (1: half the cells are there)
    operand      x, 1 bit
    reference    x names cell base + x, if x < bound and the cell is there; else a storage trap

    instruction  one to four statements
    statement    acc := e | E[x] := e | cell k := e | cell base + k := e (no check)
                 | mode := e | base := (e, e) | base := base + 1 | bound := (e, e)
                 | if e: statement | if e: trap | if e: trap, keeping what was done
    e            0 | 1 | acc | x | mode | small | bit of base or bound | E[x] | cell k | cell base + k
                 | not e | e and e | e xor e | e if e else e

The map puts the guest, which has two cells, into cells 2 and 3 of the hardware, which has four; cells 0 and 1 are the
control program's.  The guest runs in user mode with base + 2 and the bound cut to its cells.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from popek.kernel.instruction import OperandKind
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, MemoryFault, Vector
from popek.kernel.state import Role, State, memory, word
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word, concat, ite

STORAGE, TRAP = Vector("storage", 0), Vector("trap", 1)
START = 2


class Tiny(State):
    """Eleven bits."""

    mode = word(1, role=Role.MODE)
    base = word(2, role=Role.RESOURCE)
    bound = word(2, role=Role.RESOURCE, reset=2)
    acc = word(1)
    small = word(1, role=Role.HIDDEN)
    memory = memory(address=2, cell=1)

    def cell(self, x: Word) -> Word:
        """Where a reference goes."""
        if x.zero_extend(2) >= self.bound:
            raise MemoryFault(STORAGE)
        wide = self.base.zero_extend(3) + x.zero_extend(3)
        if wide > ite(self.small, Word(3, 1), Word(3, 3)):
            raise MemoryFault(STORAGE)
        return wide[1:0]


def _map(guest: Tiny, private: Tiny) -> Tiny:
    hardware = private.copy()
    hardware.mode, hardware.acc = Word(1, 1), guest.acc
    hardware.base = guest.base + START
    left = ite(guest.base < 2, Word(2, 2) - guest.base, Word(2, 0))
    hardware.bound = ite(left < guest.bound, left, guest.bound)
    inside, outside = guest.memory, private.memory
    hardware.memory = Memory(2, 1, lambda a: ite(a >= START, inside.load(a - START), outside.load(a)))
    return hardware


def _relocate(state: Tiny, offset: Word) -> Tiny:
    moved, old = state.copy(), state.memory
    moved.base = state.base + offset
    moved.memory = Memory(2, 1, lambda a: old.load(a - offset))
    return moved


def technique() -> Technique[Tiny]:
    """The paper's map."""
    own = ("mode", "base", "bound")
    return Technique(
        "tiny",
        "the guest in cells 2 and 3",
        map=_map,
        owned=own,
        shadowed=own,
        deprivileged=lambda state: state.mode == 1,
        guest=lambda state: state.small == 1,
        private=lambda guest, private: private.small == 0,
        owns_address=lambda guest, private, address: address < START,
        entries=TRAPS_ONLY,
        guest_address=lambda private, address: address + START,
    )


def machine(semantics: Callable[..., None], name: str = "tiny") -> Machine[Tiny]:
    """A machine of one instruction, `DO x`."""
    made = technique()
    found = Machine(
        name,
        "a tiny machine",
        Tiny,
        supervisor=lambda state: state.mode == 0,
        user=lambda state: state.mode == 1,
        operands={"x": OperandKind("x", {"": 1})},
        relocate=_relocate,
        relocation_width=2,
        techniques={made.name: made},
    )
    found.instruction("DO x")(semantics)
    return found


# -- the grammar ----------------------------------------------------------------------------------

Expression = tuple[Any, ...]
Statement = tuple[Any, ...]


def expression(chance: random.Random, depth: int = 2) -> Expression:
    """One of the grammar's."""
    if depth and chance.random() < 0.45:
        op = chance.choice(["not", "and", "xor", "if"])
        count = {"not": 1, "and": 2, "xor": 2, "if": 3}[op]
        return (op, *(expression(chance, depth - 1) for _ in range(count)))
    return chance.choice([
        ("const", 0), ("const", 1), ("acc",), ("acc",), ("x",), ("mode",), ("mode",), ("small",), ("base", 0), ("base", 1),
        ("bound", 0), ("bound", 1), ("load",), ("load",), ("load",), ("cell", chance.randrange(4)),
        ("near", chance.randrange(4)),
    ])  # fmt: skip


def statement(chance: random.Random, depth: int = 1) -> Statement:
    """One of the grammar's."""
    kinds = ["acc"] * 3 + ["store"] * 3 + ["cell", "near", "mode", "base", "next", "bound"]
    kinds += ["trap"] * 3 + ["dirty"] * 2 + (["if"] * 3 if depth else [])
    kind = chance.choice(kinds)
    if kind in ("cell", "near"):
        return (kind, chance.randrange(4), expression(chance))
    if kind in ("base", "bound"):
        return (kind, expression(chance, 1), expression(chance, 1))
    if kind == "next":
        return (kind,)
    if kind == "if":
        return (kind, expression(chance), statement(chance, depth - 1))
    return (kind, expression(chance))


def program(seed: int) -> tuple[Statement, ...]:
    """The instruction of a seed."""
    chance = random.Random(seed)
    return tuple(statement(chance) for _ in range(chance.choice([1, 1, 2, 2, 3, 4])))


def _value(cpu: Tiny, x: Word, e: Expression) -> Word:
    match e:
        case ("const", bit):
            return Word(1, bit)
        case ("x",):
            return x
        case ("acc" | "mode" | "small" as name,):
            return cpu[name]
        case ("base" | "bound" as name, bit):
            return cpu[name][bit]
        case ("load",):
            return cpu.memory.load(cpu.cell(x))
        case ("cell", k):
            return cpu.memory.load(Word(2, k))
        case ("near", k):
            return cpu.memory.load(cpu.base + k)
        case ("not", a):
            return ~_value(cpu, x, a)
        case ("and", a, b):
            return _value(cpu, x, a) & _value(cpu, x, b)
        case ("xor", a, b):
            return _value(cpu, x, a) ^ _value(cpu, x, b)
        case ("if", a, b, c):
            return ite(*(_value(cpu, x, each) for each in (a, b, c)))
    raise ValueError(e)


def _do(cpu: Tiny, x: Word, s: Statement) -> None:
    match s:
        case ("acc", e):
            cpu.acc = _value(cpu, x, e)
        case ("store", e):
            value = _value(cpu, x, e)
            cpu.memory = cpu.memory.store(cpu.cell(x), value)
        case ("cell", k, e):
            cpu.memory = cpu.memory.store(Word(2, k), _value(cpu, x, e))
        case ("near", k, e):
            cpu.memory = cpu.memory.store(cpu.base + k, _value(cpu, x, e))
        case ("mode", e):
            cpu.mode = _value(cpu, x, e)
        case ("base" | "bound" as name, a, b):
            cpu[name] = concat(_value(cpu, x, a), _value(cpu, x, b))
        case ("next",):
            cpu.base = cpu.base + 1
        case ("trap" | "dirty" as kind, e):
            if _value(cpu, x, e):
                raise Fault(TRAP, keeps=kind == "dirty")
        case ("if", e, then):
            if _value(cpu, x, e):
                _do(cpu, x, then)


def semantics(statements: tuple[Statement, ...]) -> Callable[..., None]:
    """What runs them, on numbers and on symbols."""

    def run(cpu: Tiny, x: Word) -> None:
        """An instruction of the grammar."""
        for each in statements:
            _do(cpu, x, each)

    return run
