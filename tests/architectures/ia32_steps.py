"""Steps of single IA-32 instructions on plain states, for tests that know the manual's answer."""

from __future__ import annotations

from popek.architectures import ia32
from popek.architectures.ia32.state import Ia32
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled, Outcome, Trap
from popek.kernel.words import Word

MACHINE: Machine[Ia32] = ia32.MACHINES["ia32"]()


def run(form: str, state: Ia32, length: int = 2, **operands: int) -> Outcome[Ia32]:
    """One step; an operand part `m16:32.offset` is given as `m16_32_offset`, and is 0 by default."""
    instruction = MACHINE.instructions[form]
    parts: dict[str, Word] = {}
    for operand in instruction.inputs:
        for name, width in operand.part_names():
            short = name.removeprefix("operand ")
            for mark in ".:& ":
                short = short.replace(mark, "_")
            parts[name] = Word(width, operands.pop(short, 0) if short != "length" else length)
    assert not operands, f"{form} has no operand {', '.join(operands)}"
    return MACHINE.step(instruction, state, parts)


def after(form: str, state: Ia32, length: int = 2, **operands: int) -> Ia32:
    """The state after a step that completes."""
    outcome = run(form, state, length, **operands)
    assert not isinstance(outcome, (Trap, NotModelled)), outcome
    return outcome.state


def fault(form: str, state: Ia32, **operands: int) -> tuple[str, int | None]:
    """Name and error code of the fault of a step."""
    outcome = run(form, state, **operands)
    assert isinstance(outcome, Trap), outcome
    return outcome.vector.name, None if outcome.error_code is None else int(outcome.error_code)


def at_level(level: int, **changes: int) -> Ia32:
    """A plain flat state in protected mode at a privilege level."""
    state = Ia32.reset()
    for name, selector, rights in (("cs", 8, 0xC09B), ("ss", 0x10, 0xC093)):
        state[f"{name}.selector"], state[f"{name}.rights"] = selector | level, rights | level << 5
    state = state.with_changes({k.replace("__", "."): v for k, v in changes.items()})
    assert MACHINE.invariant(state).value == 1
    return state


def with_msrs(state: Ia32, **values: int) -> Ia32:
    """MSRs given as `msr_174=8`."""
    twin = state.copy()
    for name, value in values.items():
        twin.msr = twin.msr.store(Word(32, int(name.removeprefix("msr_"), 16)), Word(64, value))
    return twin


def poke(state: Ia32, address: int, value: int, size: int) -> Ia32:
    """A copy with `size` bytes of memory changed."""
    twin = state.copy()
    twin.memory = twin.memory.store_little_endian(Word(32, address), Word(8 * size, value))
    return twin


def peek(state: Ia32, address: int, size: int) -> int:
    """`size` bytes of memory."""
    return int(state.memory.load_little_endian(Word(32, address), size))
