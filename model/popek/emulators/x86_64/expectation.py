"""What the x86-64 model expects of a case on the step harness: outcome, registers, memory.

The model decides what the instruction does; this module only translates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from popek.architectures.x86_64.state import RCX, X64
from popek.emulators.x86.expectation import (
    Expectation,
    OutsideError,
    StepResult,
    each_bit,
    watched_differences,
)
from popek.emulators.x86_64.step import (
    ARENA_BYTES,
    LANDING_BYTE,
    READ_ONLY_BASE,
    RESERVED_SELECTOR,
    USER_BASE,
    X64StepCase,
    initial_memory,
    plain_state,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

UNOBSERVED: Final[Mapping[str, str]] = {
    "tsc, pmc, cpuid": "the processor's own; only whether the instruction is allowed is compared",
    "ports": "ports without a device read as ones; what OUT writes to them is gone",
    "cache_dirty, tlb_stale, monitored": "compared by the faults of the instructions that change them",
    "shadow": "the harness asks for no interrupt in the shadow of STI or MOV SS",
    "cr4.vmxe": "an SMI hides it",
    "ldtr.rights.l, tr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
    "rflags.rf": "visible only in the frame of a fault, where it is 1",
    "cr2 after #PF": "the model does not keep the address",
    "base and limit of null segments": "but for FS and GS, whose base 64-bit mode uses, they cannot be seen",
    "extended, xinuse": "x87 and SIMD registers are outside the model; XSAVES and XRSTORS: where they fault alone",
    "msr.apic_base, msr.misc_enable": "Bochs has other values",
}
"""Components of the model that are not compared, each with the reason."""

_RF = 1 << 16
HIDDEN: Final = {"rflags": _RF, "cr4": 1 << 13, "ldtr.rights": 1 << 13, "tr.rights": 1 << 13}
_DB, _PF = 1, 14
_STUBS = 0xF8000
_CLOCKS = {
    "RDTSC": ("rax", "rdx"),
    "RDTSCP": ("rax", "rdx"),
    "RDPMC": ("rax", "rdx"),
    "CPUID": ("rax", "rbx", "rcx", "rdx"),
}
_EXTENDED_STATE = ("XSAVES", "XRSTORS")
_TIME_STAMP_COUNTER, _APIC_BASE, _MISC_ENABLE = 0x10, 0x1B, 0x1A0


def arena_memory(arena: bytes) -> Memory:
    """The arena as storage; a load from elsewhere leads outside."""

    def byte(address: Word) -> Word:
        where = int(address)
        if where >= ARENA_BYTES:
            raise OutsideError("a load outside the arena")
        return Word(8, arena[where])

    return Memory(64, 8, byte)


def _nowhere(address: int) -> int:
    raise OutsideError("a store outside the arena")


def stored(before: X64, after: X64, elsewhere: Callable[[int], int] = _nowhere) -> dict[int, int]:
    """The bytes that a step wrote, by address.

    Args:
        elsewhere: where a byte outside the arena is reported.

    Raises:
        OutsideError: it wrote where nothing is reported, or where the harness cannot let it.
    """
    memory = {}
    for entry in after.memory.stores:
        assert isinstance(entry, tuple)
        address = int(entry[0])
        if int(before.cpl) != 3 and before.cr0.wp and 0 <= address - READ_ONLY_BASE < 0x1000:
            raise OutsideError("CR0.WP and a read-only page")
        place = address if address < ARENA_BYTES else elsewhere(address)
        memory[place] = int(after.memory.load(Word(64, address)))
    return memory


def initial_state(case: X64StepCase) -> X64:
    """The model's state at the start of a case."""
    state = X64.reset().with_changes(dict(case.state))
    state["reserved.base"], state["reserved.size"] = 0, USER_BASE
    state["read_only.base"], state["read_only.size"] = READ_ONLY_BASE, 0x1000
    state.memory = arena_memory(initial_memory(case))
    state.ports = Memory(16, 8, lambda port: Word(8, 0xFF))
    return state


@attrs.frozen
class StepOutcomes:
    """What a step comes to, over what the manual leaves undefined.

    Attributes:
        all: first with every undefined bit 0, then with each that was asked for 1, then with all of them.
        asked: the names of what was undefined.
    """

    all: tuple[Next[Any] | Trap[Any], ...]
    asked: frozenset[str]


def outcomes(
    machine: Machine[Any], instruction: Instruction, operands: Mapping[str, int], state: X64
) -> StepOutcomes | NotModelled:
    """What a step comes to.

    Raises:
        OutsideError: a state that does not exist, or a step that the harness cannot follow.
    """
    if machine.invariant(state).value == 0:
        raise OutsideError("a state that does not exist")
    parts = instruction.words(operands)
    asked: dict[str, int] = {}
    outcome = machine.step(instruction, state.with_undefined({}, asked), parts)
    if isinstance(outcome, NotModelled):
        return outcome
    if instruction.mnemonic in _EXTENDED_STATE and not isinstance(outcome, Trap):
        raise OutsideError("an area of extended state, for which the model has a stand-in")
    found = [outcome]
    for values in each_bit(asked):
        outcome = machine.step(instruction, state.with_undefined(values), parts)
        if isinstance(outcome, NotModelled):
            raise OutsideError("an undefined result decides what is modelled")
        found.append(outcome)
    return StepOutcomes(tuple(found), frozenset(asked))


def expect(
    machine: Machine[X64], instruction: Instruction, operands: Mapping[str, int], case: X64StepCase
) -> Expectation | NotModelled:
    """What the model says about a case.

    Raises:
        OutsideError: the case leads out of what the harness can follow.
    """
    state = initial_state(case)
    found = outcomes(machine, instruction, operands, state)
    if isinstance(found, NotModelled):
        return found
    expected, *others = (_translate(instruction, case, state, one.state, one) for one in found.all)
    undefined = dict(HIDDEN)
    for again in others:
        for component, value in expected.registers.items():
            undefined[component] = undefined.get(component, 0) | value ^ again.registers[component]
    if expected.vector == _DB and expected.kind == "trap":
        undefined["dr6"] = 0xF  # "certain debug exceptions may clear bits 0-3" (SDM vol. 3B, DR6)
    return attrs.evolve(expected, undefined=undefined)


def _translate(
    instruction: Instruction, case: X64StepCase, before: X64, after: X64, outcome: object
) -> Expectation:
    memory = stored(before, after)
    registers = {name: int(after[name]) for name in plain_state(0)}
    drop_unseen(registers, instruction, before)
    if isinstance(outcome, Trap):
        vector, code = outcome.vector.number, outcome.error_code
        if vector == _PF:
            del registers["cr2"]
        if vector == _DB:
            registers["dr6"], registers["dr7"] = registers["dr6"] | 1 << 13, registers["dr7"] & ~(1 << 13)
        _check_delivery(before)
        number = None if code is None else int(code)
        return Expectation("trap", vector, number, registers, {}, memory, storage=outcome.memory)
    if after.halted.value == 1:
        return Expectation("hang", None, None, registers, {}, memory)
    _check_landing(case, before, after, memory)
    return Expectation("next", None, None, registers, {}, memory)


def drop_unseen(registers: dict[str, int], instruction: Instruction, before: X64) -> None:
    """Take away what cannot be seen of a step that completes."""
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr"):
        if registers[f"{name}.rights"] >> 16:
            registers[f"{name}.rights"] = 0x10000
            del registers[f"{name}.limit"]
            if name not in ("fs", "gs"):
                del registers[f"{name}.base"]
    for name in _CLOCKS.get(instruction.mnemonic, ()):
        del registers[name]
    unlike = (_TIME_STAMP_COUNTER, _APIC_BASE, _MISC_ENABLE)
    if instruction.form == "RDMSR" and int(before.gpr[RCX]) & 0xFFFFFFFF in unlike:
        del registers["rax"], registers["rdx"]


def _check_delivery(state: X64) -> None:
    """The harness's gates and its interrupt stack must be reachable."""
    if int(state.idtr.limit) < 16 * 15 - 1 or int(state.tr.limit) < 0x2B:
        raise OutsideError("a fault that cannot be delivered")


def _check_landing(case: X64StepCase, before: X64, after: X64, changed: Mapping[int, int]) -> None:
    """The transfer goes to the next instruction or to where a marker is."""
    long = bool(after.long.value)
    target = int(after.rip) + (0 if long else int(after.cs.base)) & 0xFFFFFFFF_FFFFFFFF
    follows = case.start + len(case.code)
    if any(case.start - 16 <= address < follows + 16 for address in changed):
        raise OutsideError("an instruction that writes over itself")
    if int(after.cs.selector.value) & ~3 == RESERVED_SELECTOR and 0 <= target - _STUBS < 0x400:
        raise OutsideError("an interrupt that enters the harness's own gate")
    if target >= ARENA_BYTES - 2:
        raise OutsideError("a transfer out of the arena")
    level = int(after.cpl)
    if (level == 3) != (target >= USER_BASE) and (level == 3 or int(after.cr4.smep)):
        raise OutsideError("a transfer to a page of the other kind")
    flags, four = after.rflags, after.cr4
    if level == 3 and bool(four.pvi & flags.vif & flags.vip):
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if bool(flags.tf):
        raise OutsideError("a single-step trap")
    if target == follows:
        return
    if target not in case.landings:
        raise NeedsLandingError(target)
    if any(address in (target, target + 1) for address in changed):
        raise OutsideError("a landing place that was written to")
    _check_delivery(after)


class NeedsLandingError(Exception):
    """The case ends at an address that has no marker yet; `address` is where."""

    def __init__(self, address: int) -> None:
        super().__init__(f"landing at {address:#x}")
        self.address = address


def with_landing(case: X64StepCase, address: int) -> X64StepCase:
    """The case with a marker at an address where nothing is.

    Raises:
        OutsideError: something is there.
    """
    arena = initial_memory(case)
    if arena[address : address + 2] != bytes([LANDING_BYTE] * 2):
        raise OutsideError("a transfer to where something else is")
    return attrs.evolve(case, landings=(*case.landings, address))


def memory_differences(
    case: X64StepCase, expected: Expectation, result: StepResult
) -> Iterator[tuple[int, int, int]]:
    """Watched bytes that are not as expected: address, expected value, observed value."""
    return watched_differences(initial_memory(case), case.watch, expected.memory, result.memory)
