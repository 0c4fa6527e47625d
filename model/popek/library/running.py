"""One instruction on numbers: no solver, no symbols."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from popek import machines as registry
from popek.errors import PopekError

from .subjects import numbers

if TYPE_CHECKING:
    from popek.kernel.instruction import Instruction
    from popek.kernel.machine import Machine
    from popek.kernel.state import State

_CELL = re.compile(r"(?P<memory>\w+)\[(?P<address>0x[0-9a-fA-F]+|\d+)\]")


@attrs.frozen(eq=False)
class Stepped:
    """A step: an instruction from a state of numbers.

    Attributes:
        assembly: the instruction with its operands.
        before, after: what differs from the plain reset state, by leaf or storage cell.
        changes: what the step changed, by name: from, to.
        trap: where control goes to a handler, its vector; else None.
        not_modelled: where the model does not say what happens, why.
    """

    machine: str
    form: str
    assembly: str
    before: Mapping[str, int]
    after: Mapping[str, int]
    changes: Mapping[str, tuple[int, int]]
    trap: str | None = None
    error_code: int | None = None
    not_modelled: str | None = None

    def to_json(self) -> dict[str, object]:
        """`popek/step/1`."""
        return {
            "schema": "popek/step/1",
            "machine": self.machine,
            "form": self.form,
            "assembly": self.assembly,
            "before": {name: hex(value) for name, value in self.before.items()},
            "after": {name: hex(value) for name, value in self.after.items()},
            "changes": {name: [hex(old), hex(new)] for name, (old, new) in self.changes.items()},
            "trap": self.trap,
            "error_code": None if self.error_code is None else hex(self.error_code),
            "not_modelled": self.not_modelled,
        }


def step(
    machine: str | Path | Machine[Any],
    form: str,
    /,
    before: Mapping[str, int] | None = None,
    operands: Mapping[str, int] | None = None,
) -> Stepped:
    """Run one instruction form on numbers.

    Args:
        form: one form, or a mnemonic that has one.
        before: leaves, components and storage cells (`"memory[0x10]"`) by name; the others have their reset values.
        operands: by the name that the form gives them; the others have the first value that they can have.

    Raises:
        PopekError: a form, a leaf, a cell or an operand that is not there, a number that is too wide, operands that
            the form does not have, a state that the machine's invariant excludes.

    >>> import popek
    >>> told = popek.step("pg74", "GMODE a", {"mode": 1, "straps.gmode": 0}, {"a": 5})
    >>> told.assembly, told.changes
    ('GMODE 5', {'pc': (0, 1), 'memory[0x5]': (0, 1)})
    >>> popek.step("pg74", "GMODE a", {"mode": 1}).trap
    'privileged-instruction trap'
    """
    from popek.checks.counterexample import differences
    from popek.kernel.outcome import Next, NotModelled, Trap
    from popek.kernel.program import Line

    known = registry.machine(str(machine) if isinstance(machine, Path) else machine)
    instruction = _one_form(known, form)
    reset = known.state.reset()
    start = _state(reset, before or {})
    parts = {
        name.removeprefix("operand "): (name, width)
        for operand in instruction.inputs
        for name, width in operand.part_names()
    }
    given = numbers(f"operand of {instruction.form}", operands or {}, list(parts))
    values = instruction.smallest
    for short, value in given.items():
        name, width = parts[short]
        _assert_fits(f"operand {short}", value, width)
        values[name] = value
    _assert_exists(known, instruction, start, values)
    line = Line(instruction, values)
    outcome = known.step(instruction, start, line.words)
    if isinstance(outcome, NotModelled):
        end, trap, code, reason = start, None, None, outcome.reason
    else:
        assert isinstance(outcome, Next | Trap)
        end, trap, code, reason = outcome.state, None, None, None
        if isinstance(outcome, Trap):
            trap = str(outcome.vector)
            code = None if outcome.error_code is None else int(outcome.error_code)
    return Stepped(
        known.name,
        instruction.form,
        str(line),
        {d.name: d.after for d in differences(reset, start)},
        {d.name: d.after for d in differences(reset, end)},
        {d.name: (d.before, d.after) for d in differences(start, end)},
        trap,
        code,
        reason,
    )


def _one_form(known: Machine[Any], name: str) -> Instruction:
    """The form that is named.

    Raises:
        PopekError: there is none, or a mnemonic has several.
    """
    found = known.find(name)
    exact = [one for one in found if one.form.lower() == " ".join(name.lower().split())]
    if len(exact or found) > 1:
        more = ", ..." if len(found) > 6 else ""
        forms = ", ".join(one.form for one in found[:6])
        raise PopekError(f"{name}: expected one form; there are {len(found)}: {forms}{more}")
    return (exact or found)[0]


def _assert_exists(
    known: Machine[Any], instruction: Instruction, start: State, values: Mapping[str, int]
) -> None:
    from popek.kernel.words import Word

    for operand in instruction.inputs:
        own = {name: values[name] for name, _ in operand.part_names()}
        words = {name: Word(width, values[name]) for name, width in operand.part_names()}
        if operand.kind.valid(operand.own(words)).value != 1:
            given = ", ".join(f"{name.removeprefix('operand ')} {value:#x}" for name, value in own.items())
            raise PopekError(f"{instruction.form}: {given}: {known.name} has no such operand")
    if known.invariant(start).value != 1:
        raise PopekError(
            f"before: the invariant of {known.name} excludes this state, {start!r}: expected one that exists"
        )


def _state(reset: State, wanted: Mapping[str, int]) -> State:
    from popek.kernel.words import Word

    widths = {slot.name: slot.width for slot in reset.layout if not slot.address}
    widths |= {leaf.name: leaf.width for leaf in reset.leaves}
    state = reset.copy()
    # Components first: a leaf of one says more than the whole.
    for name, value in sorted(wanted.items(), key=lambda item: item[0] not in state.words()):
        cell = _CELL.fullmatch(name)
        if cell is None or cell["memory"] not in state.memories():
            if name in state.memories():
                raise PopekError(f"{name} is a storage: expected a cell of it, such as {name}[0x10]")
            numbers("leaf or component of the state", {name: value}, list(widths))
            _assert_fits(name, value, widths[name])
            state[name] = value
            continue
        numbers("cell", {name: value}, [name])
        memory, address = state.memories()[cell["memory"]], int(cell["address"], 0)
        _assert_fits(f"{name}: its address", address, memory.address_width)
        _assert_fits(name, value, memory.cell_width)
        stored = memory.store(Word(memory.address_width, address), Word(memory.cell_width, value))
        setattr(state, cell["memory"], stored)
    return state


def _assert_fits(what: str, value: int, width: int) -> None:
    if not 0 <= value < 1 << width:
        raise PopekError(f"{what}: {value:#x} does not fit into {width} bits")


__all__ = ["Stepped", "step"]
