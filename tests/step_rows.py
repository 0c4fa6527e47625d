"""Rows of numbers for single instructions, from the instruction pages of a manual: a state, and what must become of it.

A file has, for each form, `place` in the manual and `rows`, each `given -> then`. What is given changes a plain state:

    cpl=3                   the privilege level, and `compatibility=1` or `v86=1` the mode
    gdtr.base=0x2000        a register, a part of one, `CR4+11` bits of it
    op.offset=0x30          a part of the operand; `op1=3`, `op2=5` are the first and second operand of one part
    mem.2000/8=0x12         what is in memory: address, bytes, value; port.60/1 of a port
    msr.174=8               a model-specific register

What follows is a fault, `#GP(18)` with the code in hexadecimal or `trap:2` by its number, or every register and byte
that changes; the instruction pointer, which moves past the instruction, is not written, and nothing else may change.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

import number_rows
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.words import Word


@attrs.frozen
class Bench:
    """A machine and how a plain state of it is made: by the given words that are no changes, and those that are."""

    machine: Any
    plain: Callable[[Mapping[str, int]], Any]
    modes: tuple[str, ...]
    pointer: str
    length: int = 2
    bank: str = ""
    """A component of registers that are no leaves, one letter: `x7` is one of them."""


def rows(path: Path) -> Iterator[tuple[str, str]]:
    """Form and row."""
    for form, told in tomllib.loads(path.read_text("utf-8")).items():
        assert told["place"], form
        for row in told["rows"]:
            yield form, row


def _is_index(name: str) -> bool:
    """Whether a register is a model-specific one by its number."""
    return name.startswith("msr.") and re.fullmatch(r"[0-9A-F]+", name[4:]) is not None


def _operands(instruction: Any, given: dict[str, int]) -> dict[str, Word]:
    parts: dict[str, Word] = {}
    single = 0
    for operand in instruction.inputs:
        names = list(operand.part_names())
        for name, width in names:
            if name == "operand length":
                value = given.pop("op.length", 2)
            elif "." in name:
                value = given.pop(f"op.{name.rpartition('.')[2]}", 0)
            else:
                single += 1
                value = given.pop(f"op{single}", 0)
            parts[name] = Word(width, value)
    left = [name for name in given if name.startswith("op")]
    assert not left, f"{instruction.name} has no {left}"
    return parts


def _place(name: str) -> tuple[str, int, int] | None:
    """Component, address and bytes of what is stored, if a name is one."""
    kind, _, rest = name.partition(".")
    if kind not in ("mem", "port"):
        return None
    address, _, size = rest.partition("/")
    return {"mem": "memory", "port": "ports"}[kind], int(address, 16), int(size)


def _poke(state: Any, bank: str, address: int, size: int, value: int) -> None:
    memory = getattr(state, bank)
    if memory.cell_width == 8:
        changed = memory.store_little_endian(Word(memory.address_width, address), Word(8 * size, value))
    else:  # whole cells, aligned
        assert (size * 8, address % size) == (memory.cell_width, 0)
        place = Word(memory.address_width, address // size)
        changed = memory.store(place, Word(memory.cell_width, value))
    setattr(state, bank, changed)


def _set(bench: Bench, state: Any, name: str, how: str, value: str) -> None:
    """Change a register."""
    if bench.bank and re.fullmatch(rf"{bench.bank}\d+", name):
        bank = getattr(state, bench.bank)
        number = Word(bank.address_width, int(name[1:]))
        became = number_rows.changed(int(bank.load(number)), how, value)
        setattr(state, bench.bank, bank.store(number, Word(bank.cell_width, became)))
    else:
        state[name] = number_rows.changed(int(state[name]), how, value)


def check(bench: Bench, form: str, row: str) -> None:
    """Take the step and compare.

    Raises:
        AssertionError: something else happens.
    """
    before, _, then = row.partition("->")
    given: dict[str, int] = {}
    pokes: list[tuple[str, int, int, int]] = []
    changes: list[tuple[str, str, str]] = []
    msrs: dict[int, int] = {}
    for name, how, value in number_rows.words(before):
        if (place := _place(name)) is not None:
            pokes.append((*place, number_rows.number(value)))
        elif _is_index(name):
            msrs[int(name[4:], 16)] = number_rows.number(value)
        elif name in bench.modes or name.startswith("op"):
            given[name] = number_rows.number(value)
        else:
            changes.append((name, how, value))
    state = bench.plain({name: value for name, value in given.items() if name in bench.modes})
    for name, how, value in changes:
        _set(bench, state, name, how, value)
    for bank, address, size, value in pokes:
        _poke(state, bank, address, size, value)
    for index, value in msrs.items():
        state.msr = state.msr.store(Word(32, index), Word(64, value))
    assert bench.machine.invariant(state).value == 1, "no state of the machine"
    instruction = bench.machine.instructions[form]
    operands = {name: value for name, value in given.items() if name not in bench.modes}
    outcome = bench.machine.step(instruction, state.copy(), _operands(instruction, operands))
    assert not isinstance(outcome, NotModelled), outcome
    wanted = then.strip()
    fault = re.match(r"(#[A-Z]+|trap:\d+)(?:\(([0-9a-f]+)\))?(?: |$)", wanted)
    if fault is None:
        assert not isinstance(outcome, Trap), f"traps: {outcome.vector} {outcome.error_code}"
        wanted = f"{bench.pointer}={int(state[bench.pointer]) + bench.length:#x} {wanted}"
    else:
        assert isinstance(outcome, Trap), "completes"
        code = None if outcome.error_code is None else f"{int(outcome.error_code):x}"
        name = outcome.vector.name if fault[1].startswith("#") else f"trap:{outcome.vector.number}"
        assert (name, code if fault[1].startswith("#") else None) == (fault[1], fault[2])
        wanted = wanted[fault.end() :]
    expected = state.copy()
    for name, how, value in number_rows.words(wanted):
        if (place := _place(name)) is not None:
            _poke(expected, *place, number_rows.number(value))
        elif _is_index(name):
            expected.msr = expected.msr.store(
                Word(32, int(name[4:], 16)), Word(64, number_rows.number(value))
            )
        else:
            _set(bench, expected, name, how, value)
    found, told = _numbers(outcome.state, expected), _numbers(expected, outcome.state)
    differs = {
        name: f"{value:#x}, not {told[name]:#x}" for name, value in found.items() if value != told[name]
    }
    assert not differs, differs


def _numbers(state: Any, other: Any) -> dict[str, int]:
    """Every leaf, and every byte and model-specific register that is stored to in one of both."""
    found = {leaf.name: int(state[leaf.name]) for leaf in state.leaves}
    for bank in ("memory", "msr", "x", "ports"):
        own = getattr(state, bank, None)
        if not isinstance(own, Memory):
            continue
        places = {place for one in (own, getattr(other, bank)) for place in _places(one)}
        found |= {f"{bank} {place:x}": int(own.load(Word(own.address_width, place))) for place in places}
    return found


def _places(memory: Memory) -> set[int]:
    """Where something is known to lie."""
    root = memory.root if isinstance(memory.root, Mapping) else ()
    return {*root, *(int(one[0]) for one in memory.stores if not isinstance(one, Block))}
