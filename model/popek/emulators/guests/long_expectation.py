"""What a model expects of one step of a 64-bit guest: an exit and its information, or the state afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from popek.emulators.x86.expectation import OutsideError, merged
from popek.emulators.x86_64.expectation import outcomes, stored
from popek.emulators.x86_64.step import (
    ARENA_BYTES,
    LANDING_BYTE,
    RESERVED_SELECTOR,
    USER_BASE,
    X64StepCase,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

from .case import LongCase
from .expectation import without_fault_address
from .long_drawing import Key
from .long_memory import FRAME, STACK_TOP, STUBS, arena_of
from .observation import ReadyStep

HIDDEN: Final = {"rflags": 1 << 16, "ldtr.rights": 1 << 13, "tr.rights": 1 << 13}
"""Bits that no exit shows: RF, and what is reserved in a system segment's descriptor."""


@attrs.frozen
class LongPrediction:
    """What the model says of a case.

    Attributes:
        kind: ``exit``, ``next``, ``halt`` or ``trap``.
        state: the state then; of a trap the one that the fault leaves.
        information: exit information by the model's names; a field that is missing is not defined.
        vector, error_code: of a trap.
        undefined: bits of components that the manual leaves undefined.
        memory: bytes that differ from the start, by physical address.
        storage: what ends the step is a fault on a storage reference.
    """

    kind: str
    state: Any
    information: Mapping[str, int] = attrs.field(factory=dict)
    vector: int | None = None
    error_code: int | None = None
    undefined: Mapping[str, int] = attrs.field(factory=dict)
    memory: Mapping[int, int] = attrs.field(factory=dict)
    storage: bool = False


def predicted(
    machine: Machine[Any],
    instruction: Instruction,
    operands: Mapping[str, int],
    state: Any,
    step: X64StepCase,
    information: Callable[[Trap[Any]], dict[str, int] | None],
    elsewhere: Callable[[Any], Mapping[int, int]],
    address: str,
) -> LongPrediction | NotModelled:
    """What becomes of one step.

    Args:
        information: what an exit tells; None of an exception that the guest takes.
        elsewhere: bytes outside the guest's memory that the step may have changed, by physical address.
        address: the exit information that may hold the address of a page fault.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    found = outcomes(machine, instruction, operands, state)
    if isinstance(found, NotModelled):
        return found
    first, *others = found.all
    told = None
    if isinstance(first, Trap):
        told = information(first)
    shown = _prediction(instruction, state, step, first, told, elsewhere(first.state))
    shown = attrs.evolve(shown, information=without_fault_address(shown.information, address, found.asked))
    undefined = dict(HIDDEN)
    for other in others:
        for component, value in shown.state.words().items():
            undefined[component] = undefined.get(component, 0) | int(value) ^ int(other.state[component])
    return attrs.evolve(shown, undefined=undefined)


def _prediction(
    instruction: Instruction,
    before: Any,
    step: X64StepCase,
    outcome: Next[Any] | Trap[Any],
    told: dict[str, int] | None,
    elsewhere: Mapping[int, int],
) -> LongPrediction:
    after = outcome.state
    memory = stored(before, after, _on_interrupt_stack) | dict(elsewhere)
    if isinstance(outcome, Trap) and told is not None:
        return LongPrediction("exit", after, told, memory=memory, storage=outcome.memory)
    if isinstance(outcome, Trap):
        if int(before.idtr.limit) < 16 * 15 - 1 or int(before.tr.limit) < 0x2B:
            raise OutsideError("a fault that cannot be delivered")
        code = None if outcome.error_code is None else int(outcome.error_code)
        number = outcome.vector.number
        return LongPrediction("trap", after, {}, number, code, memory=memory, storage=outcome.memory)
    if after.halted.value == 1:
        return LongPrediction("halt", after, memory=memory)
    _check_landing(instruction, step, after, memory)
    return LongPrediction("next", after, memory=memory)


def _on_interrupt_stack(address: int) -> int:
    """Where the harness reports a byte of the frame of an exception."""
    if not STACK_TOP - 0x1000 <= address < STACK_TOP:
        raise OutsideError("a store outside the arena")
    return address - STACK_TOP + FRAME + 48


def watched(
    prediction: LongPrediction, state: Any, memory: tuple[tuple[int, bytes], ...]
) -> tuple[tuple[int, int], ...]:
    """The memory of the arena that is looked at afterwards: what is written, what a case put there, the stack."""
    wanted = [(at - 4, at + 12) for at in prediction.memory if at < ARENA_BYTES]
    wanted += [(at, at + len(data)) for at, data in memory]
    top = int(state["rsp"])
    if top < ARENA_BYTES:
        wanted.append((top - 48, top + 16))
    return merged(wanted, ARENA_BYTES)


def _check_landing(
    instruction: Instruction, step: X64StepCase, after: Any, memory: Mapping[int, int]
) -> None:
    """The transfer goes to the next instruction, to a stub, or to where INT1 leaves the guest."""
    target = int(after.rip) + (0 if after.long.value else int(after.cs.base)) & 0xFFFFFFFF_FFFFFFFF
    follows = step.start + len(step.code)
    if any(step.start - 16 <= address < follows + 16 for address in memory):
        raise OutsideError("an instruction that writes over itself")
    if after.rflags.tf.value:
        raise OutsideError("a single-step trap")
    level = int(after.cpl)
    if level == 3 and (after.cr4.pvi & after.rflags.vif & after.rflags.vip).value:
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if STUBS <= target < STUBS + 0x400:
        if int(after.cs.selector.value) & ~3 != RESERVED_SELECTOR or target % 4 or level == 3:
            raise OutsideError("a transfer to a stub by another way")
        return
    if target >= ARENA_BYTES - 2:
        raise OutsideError("a transfer out of the arena")
    if (level == 3) != (target >= USER_BASE) and (level == 3 or int(after.cr4.smep)):
        raise OutsideError("a transfer to a page of the other kind")
    if target == follows:
        return
    if target == step.start:
        raise OutsideError("a jump to itself")
    byte = memory.get(target, int(after.memory.load(Word(64, target))))
    if byte != LANDING_BYTE or instruction.form == "INT1":
        raise OutsideError("a transfer to where something else is")


def ready_step(
    machine: Machine[Any],
    case: LongCase,
    key: Key,
    code: bytes,
    marker: bytes,
    begin: Callable[[X64StepCase, bytes], Any],
    predict: Callable[[Instruction, Mapping[str, int], Any, X64StepCase], LongPrediction | NotModelled],
    run: Callable[[X64StepCase, Any, bytes, LongPrediction], Any],
) -> ReadyStep | NotModelled:
    """A case for the harness, with what the model says.

    Args:
        key, code: the instruction, as text and assembled.
        marker: what leaves the guest behind the instruction.
        begin: the state in which the guest starts, given the step and the arena.
        predict: what becomes of the step.
        run: the case as the harness takes it, given the step, the state, the arena and what is expected.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    instruction = machine.instructions[case.form]
    step = X64StepCase(code, case.guest.state(), case.guest.memory)
    arena = arena_of(step, marker)
    state = begin(step, arena)
    operands = {**case.guest.operands, "operand length": len(code)}
    found = predict(instruction, operands, state, step)
    if isinstance(found, NotModelled):
        return found
    return ReadyStep(case, key[1], step, state, instruction, operands, run(step, state, arena, found), found)
