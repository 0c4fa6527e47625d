"""The tiny machine as popek sees it: the same grammar, read as semantics over words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from popek.kernel.instruction import OperandKind
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, MemoryFault, Vector
from popek.kernel.state import Role, State, memory, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, concat, ite

from .grammar import Code, Expression

TRAP, MEMORY_TRAP = Vector("trap", 0), Vector("memory trap", 1)
START = 1  # where the guest's storage begins; cell 0 is the VMM's


class TinyState(State):
    """Ten bits."""

    mode = word(1, role=Role.MODE)  # 0 supervisor, 1 user
    pc = word(1, role=Role.PC)
    timer = word(1, role=Role.RESOURCE)
    base = word(2, role=Role.RESOURCE)
    acc = word(1)
    cells = memory(address=2, cell=1)


def _real(cpu: TinyState, reference: Word) -> Word:
    wide = cpu.base.zero_extend(3) + reference.zero_extend(3)
    if wide[2] == 1:
        raise MemoryFault(MEMORY_TRAP)
    return wide[1:0]


def _value(expression: Expression, cpu: TinyState, operand: Word) -> Word:
    kind, *rest = expression
    match kind:
        case "constant":
            return Word(1, rest[0])
        case "operand":
            return operand
        case "low":
            return cpu.base[0]
        case "high":
            return cpu.base[1]
        case "cell":
            return cpu.cells.load(_real(cpu, _value(rest[0], cpu, operand)))
        case "absolute":
            return cpu.cells.load(Word(2, rest[0]))
        case "not":
            return ~_value(rest[0], cpu, operand)
        case "and":
            return _value(rest[0], cpu, operand) & _value(rest[1], cpu, operand)
        case "xor":
            return _value(rest[0], cpu, operand) ^ _value(rest[1], cpu, operand)
    return cpu[str(kind)]


def _act(action: tuple[Any, ...], cpu: TinyState, operand: Word) -> None:
    kind, *rest = action
    match kind:
        case "trap":
            raise Fault(TRAP)
        case "keep":
            raise Fault(TRAP, keeps=True)
        case "mode":
            cpu.mode = Word(1, rest[0])
        case "base":
            low, high = (_value(part, cpu, operand) for part in rest)
            cpu.base = concat(high, low)
        case "absolute":
            cpu.cells = cpu.cells.store(Word(2, rest[0]), _value(rest[1], cpu, operand))
        case "cell":
            value = _value(rest[1], cpu, operand)
            cpu.cells = cpu.cells.store(_real(cpu, _value(rest[0], cpu, operand)), value)
        case _:
            cpu[str(kind)] = _value(rest[0], cpu, operand)


def semantics(code: Code) -> Any:
    """The instruction as a function of the working copy and its operand."""

    def instruction(cpu: TinyState, operand: Word) -> None:
        """Drawn from the grammar."""
        for guard, action in code:
            if guard is None or _value(guard, cpu, operand) == 1:
                _act(action, cpu, operand)

    return instruction


def _advance(cpu: TinyState, operands: Mapping[str, Word]) -> None:
    cpu.pc = ~cpu.pc


def _relocate(state: TinyState, offset: Word) -> TinyState:
    moved, old = state.copy(), state.cells
    moved.base = state.base + offset
    moved.cells = Memory(2, 1, lambda address: old.load(address - offset))
    return moved


def _map(guest: TinyState, private: TinyState) -> TinyState:
    """Guest cell c is real cell c + 1; the timer is the VMM's."""
    hardware = private.copy()
    hardware.mode, hardware.pc, hardware.acc = Word(1, 1), guest.pc, guest.acc
    hardware.base = guest.base + START
    inside, outside = guest.cells, private.cells
    hardware.cells = Memory(2, 1, lambda cell: ite(cell == 0, outside.load(cell), inside.load(cell - START)))
    return hardware


def machine(codes: Mapping[str, Code]) -> Machine[TinyState]:
    """A machine with these instructions."""
    made = Machine(
        "tiny",
        "A machine of ten bits",
        TinyState,
        supervisor=lambda state: state.mode == 0,
        user=lambda state: state.mode == 1,
        operands={"a": OperandKind("a", {"": 1})},
        advance=_advance,
        relocate=_relocate,
        relocation_width=2,
        reaches=lambda state, address: (address >= state.base) & (address - state.base <= 1),
        techniques={
            "moved": Technique(
                "moved",
                "the guest in user mode, moved by one cell, without its timer",
                map=_map,
                owned=("mode", "timer", "base"),
                replaced=("timer",),
                shadowed=("mode", "timer", "base"),
                deprivileged=lambda state: state.mode == 1,
                guest=lambda state: state.base <= 1,
                private=lambda guest, private: private.base == START,
                owns_address=lambda guest, private, address: address == 0,
                guest_address=lambda private, address: address + START,
            )
        },
    )
    for name, code in codes.items():
        made.instruction(f"{name} a")(semantics(code))
    return made
