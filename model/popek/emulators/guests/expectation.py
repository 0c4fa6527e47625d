"""What a model expects of one step of a 32-bit guest: an exit and its information, state, or an exception.

The model decides; this translates the outcome into the harness's names.  What an exit tells, and how the guest came to
run, each kind of assistance adds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import attrs

from popek.architectures.ia32.state import Ia32
from popek.emulators.ia32.delivery import deliverable
from popek.emulators.ia32.expectation import (
    BENIGN,
    arena_memory,
    changes,
    initial_state,
    shown_registers,
    virtual_interrupt_pending,
)
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, Ia32StepCase
from popek.emulators.x86.expectation import Expectation, OutsideError, each_bit
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

from .case import ProtectedCase
from .memory import arena_of
from .observation import ReadyStep

SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
"""The segment registers in the order of the manuals' lists."""

HIDDEN: Final = {"eflags": 1 << 16, "ldtr.access": 1 << 21, "tr.access": 1 << 21}
"""Bits that no exit shows: RF, and what is reserved in a system segment's descriptor."""

S = TypeVar("S", bound=Ia32)


@attrs.frozen
class GuestPrediction:
    """What the model says of a case.

    Attributes:
        kind: ``exit``, ``next``, ``halt`` or ``trap``.
        expected: state and memory, as the step harness's comparison has them.
        information: exit information by the model's names; a field that is missing is not defined.
        shadow: blocking by STI and by MOV SS afterwards; None where it does not matter.
        blocked: blocking by NMI afterwards.
    """

    kind: str
    expected: Expectation
    information: Mapping[str, int] = attrs.field(factory=dict)
    shadow: int | None = None
    blocked: int = 0


def step_of(case: ProtectedCase, code: bytes) -> Ia32StepCase:
    """The case without its controls."""
    guest = case.guest
    return Ia32StepCase(code, guest.cpl, guest.registers, guest.msrs, guest.memory, guest.stale)


def guest_state(kind: type[S], case: ProtectedCase, step: Ia32StepCase, arena: bytes) -> S:
    """The guest's part of a state, with the pages that are kept from it."""
    plain = initial_state(step)
    state = kind.reset()
    state._words.update(plain._words)
    state._memories.update(plain._memories)
    state.memory = arena_memory(arena)
    for page, lacking in case.barred.items():
        pages = state.read_only if lacking == 2 else state.reserved
        pages.base, pages.size = Word(32, page << 12), Word(32, 0x1000)
    return state


Translation = Callable[[Any, Any, Mapping[str, Word], set[str]], GuestPrediction]
"""What an outcome is, given the state before, the operands and what the manual leaves open about it."""


def predicted(
    machine: Machine[S],
    instruction: Instruction,
    operands: Mapping[str, int],
    state: S,
    translate: Translation,
    code: str,
) -> GuestPrediction | NotModelled:
    """What becomes of one step.

    Args:
        translate: what an outcome is.
        code: the exit information that tells why the guest was left.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    if int(state["xcr0"]) != 1 or int(state["pkru"]) != 0:
        raise OutsideError("XCR0 or PKRU of its own")
    if virtual_interrupt_pending(state):
        raise OutsideError("a virtual interrupt is pending (CR4.PVI, VIF and VIP at CPL 3)")
    parts = instruction.words(operands)
    asked: dict[str, int] = {}
    outcome = machine.step(instruction, state.with_undefined({}, asked), parts)
    if isinstance(outcome, NotModelled):
        return outcome
    found = translate(state, outcome, parts, set(asked))
    # Leave open the bits of registers that some bit of the undefined results reaches, or all of them together.
    undefined = dict(found.expected.undefined)
    for values in each_bit(
        {name: width for name, width in asked.items() if "page-fault address" not in name}
    ):
        outcome = machine.step(instruction, state.with_undefined(values), parts)
        if isinstance(outcome, NotModelled):
            raise OutsideError("an undefined result decides what is modelled")
        other = translate(state, outcome, parts, set())
        same = (found.kind, found.expected.vector, found.information.get(code))
        if (other.kind, other.expected.vector, other.information.get(code)) != same:
            raise OutsideError("an undefined result decides more than registers")
        for register, value in found.expected.registers.items():
            if value != other.expected.registers[register]:
                undefined[register] = undefined.get(register, 0) | value ^ other.expected.registers[register]
    return attrs.evolve(found, expected=attrs.evolve(found.expected, undefined=undefined))


def left(
    outcome: Trap[S], information: Mapping[str, int], memory: Mapping[int, int], shadow: int, blocked: int = 0
) -> GuestPrediction:
    """The guest was left."""
    registers = shown_registers(outcome.state)
    expected = Expectation("exit", None, None, registers, HIDDEN, memory, {}, storage=outcome.memory)
    return GuestPrediction("exit", expected, information, shadow, blocked)


def stayed(
    instruction: Instruction,
    state: S,
    outcome: Next[S] | Trap[S],
    parts: Mapping[str, Word],
    *,
    marker: bytes,
    msrs: Mapping[int, int],
    memory: Mapping[int, int] | None = None,
    shadow: int = 0,
    blocked: int = 0,
) -> GuestPrediction:
    """The guest was not left: it goes on, rests, or takes an exception.

    Args:
        state: before the step.
        marker: what leaves the guest behind the instruction.
        msrs: values afterwards, by number.
        memory: bytes that differ from the start besides those of the guest's own memory, by address.
        shadow, blocked: as in `GuestPrediction`.

    Raises:
        OutsideError: the step leads where the harness cannot follow.
    """
    after = outcome.state
    changed = dict(changes(after.memory)) | dict(memory or {})
    registers = shown_registers(after)
    if isinstance(outcome, Trap):
        vector = outcome.vector.number
        code = None if outcome.error_code is None else int(outcome.error_code)
        registers["eip"] = int(state.eip)
        if not deliverable(after, vector, code is not None) and vector in BENIGN:
            raise OutsideError("a benign fault that cannot be delivered")
        raised = (vector, code)
        return GuestPrediction(
            "trap", Expectation("trap", *raised, registers, HIDDEN, changed, msrs, raised, outcome.memory)
        )
    kind = "halt" if after.halted.value == 1 else "next"
    start = int(state.cs.base) + int(state.eip)
    target = int(after.cs.base) + int(after.eip) & 0xFFFF_FFFF
    follows = start + int(parts["operand length"]) & 0xFFFF_FFFF
    if virtual_interrupt_pending(after) and target != follows:
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if target == start & 0xFFFF_FFFF:
        raise OutsideError("a jump to itself")
    if any(start - 4 <= address < follows + len(marker) for address in changed):
        raise OutsideError("an instruction that writes over itself")
    if kind == "next" and target != follows and not STUBS <= target < STUBS + 0x400:
        _check_landing(instruction, state, changed, target, range(follows + 1, follows + len(marker)))
    if instruction.form == "INT1" and int(after.eip) >= int(after.cs.limit):
        raise OutsideError("UD2 that crosses the limit of its segment")
    expected = Expectation(kind, None, None, registers, HIDDEN, changed, msrs)
    return GuestPrediction(kind, expected, {}, shadow, blocked)


def _check_landing(
    instruction: Instruction, state: Ia32, memory: Mapping[int, int], target: int, marker: range
) -> None:
    """Where a transfer leads, INT1 must leave the guest (or UD2, for INT1 itself)."""
    if target >= ARENA_BYTES:
        raise OutsideError(f"a transfer to {target:#x}")
    byte = memory.get(target)
    if byte is None:
        byte = int(state.memory.load(Word(32, target)))
    if byte != (0x0F if instruction.form == "INT1" else 0xF1) or target in marker:
        raise OutsideError(f"a transfer to {target:#x}, which is no landing place")


def without_fault_address(
    information: Mapping[str, int], name: str, asked: Collection[str]
) -> dict[str, int]:
    """The exit information without what may hold an address that the model leaves open."""
    open_address = any("page-fault address" in what for what in asked)
    return {field: value for field, value in information.items() if field != name or not open_address}


def ready_step(
    machine: Machine[S],
    case: ProtectedCase,
    text: str,
    code: bytes,
    marker: bytes,
    begin: Callable[[Ia32StepCase, bytes], S],
    predict: Callable[[Machine[S], Instruction, Mapping[str, int], S], GuestPrediction | NotModelled],
    run: Callable[[Ia32StepCase, S, bytes, GuestPrediction], Any],
) -> ReadyStep | NotModelled:
    """A case for the harness, with what the model says.

    Args:
        text, code: the instruction, as text and assembled.
        marker: what leaves the guest behind the instruction.
        begin: the state in which the guest starts, given the step and the arena.
        predict: what becomes of the step.
        run: the case as the harness takes it, given the step, the state, the arena and what is expected.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
        StepCaseError: likewise.
    """
    instruction = machine.instructions[case.form]
    step = step_of(case, code)
    arena = arena_of(step, marker)
    state = begin(step, arena)
    operands = {**case.guest.operands, "operand length": len(code)}
    found = predict(machine, instruction, operands, state)
    if isinstance(found, NotModelled):
        return found
    return ReadyStep(case, text, step, state, instruction, operands, run(step, state, arena, found), found)
