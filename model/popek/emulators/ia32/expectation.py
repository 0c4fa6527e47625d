"""What the IA-32 model expects of a case on the step harness: outcome, registers, memory.

The model decides what the instruction does; this module only translates.  Three things are added because the
harness sees them and the model leaves them out: a fault that the processor cannot deliver becomes #DF, #DB
sets DR6.BD and clears DR7.GD, and an interrupt that enters the harness's own gates is reported as a trap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from popek.architectures.ia32.state import EAX, ECX, GPR_NAMES, Ia32
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.ia32.delivery import deliverable, entered_stub, interrupted, through_task
from popek.emulators.ia32.step import (
    ARENA_BYTES,
    LANDING_BYTE,
    Ia32StepCase,
    direct,
    hidden_parts,
    initial_memory,
    initial_registers,
)
from popek.emulators.ia32.step_case import PLAIN_REGISTERS
from popek.emulators.x86.expectation import (
    Expectation,
    OutsideError,
    StepResult,
    each_bit,
    watched_differences,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word, ite

UNOBSERVED: Final[Mapping[str, str]] = {
    "tsc": "the emulator's clock runs during the harness's own code",
    "pmc": "Bochs counts nothing; only whether RDPMC is allowed is compared, and that it reads 0",
    "ports": "ports without a device read as ones; what OUT writes to them is gone",
    "cache_dirty": "Bochs has no caches: INVD and WBINVD are compared by their faults only",
    "tlb_stale": "the harness runs without paging: INVLPG is compared by its faults only",
    "shadow": "the harness asks for no interrupt in the shadow of STI or MOV SS",
    "cr4.vmxe": "an SMI hides it",
    "ldtr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
    "tr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
    "eflags.rf": "the SMI that ends a step comes after RF was cleared",
    "reserved": "pages kept from the guest need paging",
    "read_only": "pages kept from the guest need paging",
    "extended": "it stands for the x87 and SIMD registers; XSAVE and FXSAVE are compared by their faults only",
    "cpuid": "what CPUID says is the processor's own; the bits that show CR4 are compared, and the faults",
}
"""Components of the model that the harness cannot show, each with the reason."""

TIME_FORMS: Final[Mapping[str, str]] = {
    "RDTSC": "EDX:EAX is the emulator's clock; the faults are compared",
    "RDTSCP": "likewise",
    "RDMSR": "with ECX = 10H likewise",
}
"""Forms whose result is the time: the two registers of it are not compared."""

EXTENDED_STATE: Final = frozenset(
    f"{name} m"
    for name in ("XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS", "FXSAVE", "FXRSTOR")
)
"""Forms that move extended state, of whose image only a stand-in is in the model."""

_DF, _DB, _TS = 8, 1, 10
BENIGN = frozenset({1, 3, 4, 5, 6, 7, 17})
_RF, _AC = 1 << 16, 1 << 18
_MOST_ITERATIONS = 40
_HIDDEN: Final = {
    "eflags": _RF,
    "cr4": 1 << 13,
    "ldtr.access": 1 << 21,
    "tr.access": 1 << 21,
}  # see UNOBSERVED
_TIME_STAMP_COUNTER = 0x10
_INT1 = b"\xf1"


def memory_differences(
    case: Ia32StepCase, expected: Expectation, result: StepResult
) -> Iterator[tuple[int, int, int]]:
    """Watched bytes that are not as expected: address, expected value, observed value."""
    return watched_differences(initial_memory(case), case.watch, expected.memory, result.memory)


# -- the state ------------------------------------------------------------------------------------

_PLAIN: Final = Ia32.reset()


def arena_memory(arena: bytes) -> Memory:
    """The arena as storage; a load from elsewhere leads outside."""

    def cell(address: Word) -> Word:
        where = int(address)
        if where >= ARENA_BYTES:
            raise OutsideError(f"memory at {where:#x} is not in the arena")
        return Word(8, arena[where])

    return Memory(32, 8, cell)


def _descriptor(arena: bytes, registers: Mapping[str, int], selector: int) -> tuple[int, int, int] | None:
    """Base, limit and rights (17 bits) of a loaded selector; None for a null one."""
    if selector < 4:
        return None
    table = registers["gdtr.base"]
    if selector & 4:
        ldt = _descriptor(arena, registers, registers["ldtr"])
        if ldt is None:
            raise OutsideError("a selector of an LDT that is not loaded")
        table = ldt[0]
    low, high = struct.unpack_from("<II", arena, table + (selector & 0xFFF8))
    limit = low & 0xFFFF | high & 0xF0000
    if high & 1 << 23:
        limit = limit << 12 | 0xFFF
    base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
    return base, limit, high >> 8 & 0xFF | (high >> 20 & 0xF) << 12


def initial_state(case: Ia32StepCase) -> Ia32:
    """The model's state at the start of a case."""
    registers = initial_registers(case)
    state = _PLAIN.copy()
    loaded = initial_memory(attrs.evolve(case, stale=())) if case.stale else initial_memory(case)
    for name in (*PLAIN_REGISTERS, "xcr0", "pkru"):
        state[name] = registers[name]
    for name in ("gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit"):
        state[name] = registers[name]
    hidden = hidden_parts(case, registers) if direct(registers) else {}
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        found = hidden.get(name) or _descriptor(loaded, registers, registers[name])
        base, limit, rights = found or (0, 0, 0x10000)
        state[f"{name}.selector"] = registers[name]
        state[f"{name}.base"], state[f"{name}.limit"], state[f"{name}.rights"] = base, limit, rights
    memories = state.memories()
    arena = initial_memory(case) if case.stale else loaded
    state.memory = arena_memory(arena)
    state.ports = Memory(memories["ports"].address_width, 8, lambda port: Word(8, 0xFF))
    state.msr = Memory(32, 64, dict(case.msrs))
    return state


# -- what follows ---------------------------------------------------------------------------------


def expect(
    machine: Machine[Ia32], instruction: Instruction, operands: Mapping[str, int], case: Ia32StepCase
) -> Expectation | NotModelled:
    """What the model says about a case.

    Raises:
        OutsideError: the case leads out of what the harness can follow.
    """
    state = initial_state(case)
    if virtual_interrupt_pending(state):
        raise OutsideError("a virtual interrupt is pending (CR4.PVI, VIF and VIP at CPL 3)")
    parts = instruction.words(operands)
    asked: dict[str, int] = {}
    outcome = run_to_its_end(machine, instruction, state.with_undefined({}, asked), parts)
    if isinstance(outcome, NotModelled):
        return outcome
    expected = _translate(instruction, case, state, outcome)
    if asked:
        expected = _without_undefined(machine, instruction, parts, case, state, asked, expected)
    if expected.kind == "next" and _gives_time(instruction, state):
        kept = {n: v for n, v in expected.registers.items() if n not in ("eax", "edx")}
        expected = attrs.evolve(expected, registers=kept)
    if expected.kind == "next" and instruction.form == "CPUID":
        expected = _only_what_shows_cr4(expected, state)
    return expected


def _only_what_shows_cr4(expected: Expectation, state: Ia32) -> Expectation:
    """Of CPUID's result the bits that depend on CR4: 1:ECX[27] and 7.0:ECX[4]."""
    leaf, subleaf = int(state.gpr[EAX]), int(state.gpr[ECX])
    shown = 1 << 27 if leaf == 1 else 1 << 4 if (leaf, subleaf) == (7, 0) else 0
    kept = {n: v for n, v in expected.registers.items() if n not in ("eax", "ebx", "edx")}
    return attrs.evolve(expected, registers=kept, undefined={**expected.undefined, "ecx": shown ^ 0xFFFFFFFF})


def run_to_its_end(
    machine: Machine[Ia32], instruction: Instruction, state: Ia32, parts: Mapping[str, Word]
) -> Next[Ia32] | Trap[Ia32] | NotModelled:
    """One instruction to its end: with REP, one iteration after the other."""
    outcome = machine.step(instruction, state, parts)
    if instruction.form.startswith("REP"):
        for _ in range(_MOST_ITERATIONS):
            if not isinstance(outcome, Next) or int(outcome.state.eip) != int(state.eip):
                break
            outcome = machine.step(instruction, outcome.state, parts)
    return outcome


def _gives_time(instruction: Instruction, state: Ia32) -> bool:
    """See `TIME_FORMS`."""
    clock = instruction.form == "RDMSR" and int(state.gpr[ECX]) == _TIME_STAMP_COUNTER
    return instruction.form in ("RDTSC", "RDTSCP") or clock


def virtual_interrupt_pending(state: Ia32) -> bool:
    """Then #GP(0) comes before the instruction (SDM vol. 3B, "Protected-Mode Virtual Interrupts")."""
    flags = state.eflags
    virtual = ite(state.virtual_8086, state.cr4.vme, state.cr4.pvi)
    return bool((state.cpl == 3) & virtual & flags.vif & flags.vip)


def _without_undefined(
    machine: Machine[Ia32],
    instruction: Instruction,
    parts: Mapping[str, Word],
    case: Ia32StepCase,
    state: Ia32,
    asked: Mapping[str, int],
    expected: Expectation,
) -> Expectation:
    """Leave open the bits of registers that some bit of the undefined results reaches, or all of them together."""
    undefined = dict(expected.undefined)
    for values in each_bit(asked):
        outcome = run_to_its_end(machine, instruction, state.with_undefined(values), parts)
        if isinstance(outcome, NotModelled):
            raise OutsideError("an undefined result decides what is modelled")
        other = _translate(instruction, case, state, outcome)
        fixed = (expected.kind, expected.vector, expected.error_code, expected.memory)
        if (other.kind, other.vector, other.error_code, other.memory) != fixed:
            raise OutsideError("an undefined result decides more than registers")
        for register, value in expected.registers.items():
            if value != other.registers[register]:
                undefined[register] = undefined.get(register, 0) | value ^ other.registers[register]
    return attrs.evolve(expected, undefined=undefined)


def _translate(
    instruction: Instruction, case: Ia32StepCase, state: Ia32, outcome: Next[Ia32] | Trap[Ia32]
) -> Expectation:
    if isinstance(outcome, Trap):
        vector = outcome.vector.number
        code = None if outcome.error_code is None else int(outcome.error_code)
        fault = _fault(case, state, outcome.state, vector, code)
        return attrs.evolve(fault, raised=(vector, code), storage=outcome.memory)
    after = outcome.state
    memory = dict(changes(after.memory))
    msrs = {number: int(after.msr.load(Word(32, number))) for number in _watched_msrs(case)}
    registers = shown_registers(after)
    entered = entered_stub(after, case.reserved)
    if entered is not None:
        registers, at, pushed = interrupted(after, registers)
        memory = {address: value for address, value in memory.items() if not at <= address < at + pushed}
        undefined = {**_HIDDEN, "eflags": _RF | _AC} if after.real else _HIDDEN
        return Expectation("trap", entered, None, registers, undefined, memory, msrs)
    if after.halted.value == 1:
        return Expectation("hang", None, None, registers, _HIDDEN, memory, msrs)
    start = int(state.cs.base) + int(state.eip)
    if (int(after.cs.base) + int(after.eip) - start) & 0xFFFFFFFF == 0:
        return Expectation("hang", None, None, registers, _HIDDEN, memory, msrs)
    _check_landing(case, state, after, memory)
    # The interrupt at a landing place clears AC before it can be seen (SDM vol. 2A, INT n, real-address mode).
    undefined = {**_HIDDEN, "eflags": _RF | _AC} if after.real else _HIDDEN
    return Expectation("next", None, None, registers, undefined, memory, msrs)


def _watched_msrs(case: Ia32StepCase) -> Iterator[int]:
    yield from dict.fromkeys((*case.msrs, *case.read_msrs))


def changes(after: Memory) -> Iterator[tuple[int, int]]:
    """Every byte that was stored, with its last value."""
    addresses: list[int] = []
    for entry in after.stores:
        if isinstance(entry, Block):
            addresses.extend(int(entry.destination) + i & 0xFFFFFFFF for i in range(int(entry.cells)))
        else:
            addresses.append(int(entry[0]))
    for address in sorted(set(addresses)):
        if address >= ARENA_BYTES:
            raise OutsideError(f"a store at {address:#x} is not in the arena")
        yield address, int(after.load(Word(32, address)))


def shown_registers(state: Ia32) -> dict[str, int]:
    """By the names of the harness."""
    names = (
        *(*GPR_NAMES, "eip", "cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
        *("xcr0", "pkru"),
    )
    found = {name: int(state[name]) for name in names}
    found["eflags"] = int(state.eflags.value) & ~_RF
    found["cpl"] = int(state.cpl)
    for name in ("gdtr", "idtr"):
        found[f"{name}.base"], found[f"{name}.limit"] = (
            int(state[f"{name}.base"]),
            int(state[f"{name}.limit"]),
        )
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        found[name] = int(state[f"{name}.selector"])
        rights = int(state[f"{name}.rights"])
        if rights & 0x10000:
            found[f"{name}.access"] = 0
            continue
        found[f"{name}.access"] = (rights & 0xFF) << 8 | (rights & 0xF000) << 8
        found[f"{name}.base"], found[f"{name}.limit"] = (
            int(state[f"{name}.base"]),
            int(state[f"{name}.limit"]),
        )
    return found


def _fault(case: Ia32StepCase, before: Ia32, after: Ia32, vector: int, code: int | None) -> Expectation:
    """A fault as the harness sees it, delivered through its gates."""
    undefined = dict(_HIDDEN)
    if vector == _DB:
        after = after.copy()
        after.dr6.bd, after.dr7.gd = 1, 0
        undefined["dr6"] = 0xF  # "certain debug exceptions may clear bits 0-3" (SDM vol. 3B, DR6)
    registers = shown_registers(after)
    registers["eip"] = int(before.eip)
    if after.real:
        undefined["eflags"] = _RF | _AC
    narrow_task = not int(before.tr.rights.type) & 8
    if not deliverable(after, vector, code is not None):
        if vector in BENIGN:
            raise OutsideError("a benign fault that cannot be delivered")
        vector, code = _DF, 0
    if through_task(after, vector):
        if int(after.tr.limit) < 0x67:
            raise OutsideError("a task switch out of a TSS that is too small")
        # These go through a task gate, after which only the TSS shows the old state.
        for name in (*SEGMENT_NAMES, "ldtr", "tr"):
            for part in ("base", "limit", "access"):
                registers.pop(f"{name}.{part}", None)
        if narrow_task:
            registers.clear()
    msrs = {number: int(after.msr.load(Word(32, number))) for number in _watched_msrs(case)}
    return Expectation("trap", vector, code, registers, undefined, dict(changes(after.memory)), msrs)


def _check_landing(case: Ia32StepCase, before: Ia32, after: Ia32, changed: Mapping[int, int]) -> None:
    """The transfer goes to the next instruction or to a byte that the harness recognises."""
    target = int(after.cs.base) + int(after.eip) & 0xFFFFFFFF
    start = int(before.cs.base) + int(before.eip)
    follows = start + len(case.code) & 0xFFFFFFFF
    if any(start - 4 <= address < follows + 2 for address in changed):
        raise OutsideError("an instruction that writes over itself")
    if target == follows and case.code[-1:] not in (b"\x9d", b"\xcf"):  # see `_with_marker` of the harness
        return
    if virtual_interrupt_pending(after):
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if target >= ARENA_BYTES:
        raise OutsideError(f"a transfer to {target:#x}")
    byte = changed.get(target)
    if byte is None:
        byte = int(before.memory.load(Word(32, target)))
    recognised = LANDING_BYTE if case.code != _INT1 else 0x0F
    if case.code == _INT1 and int(after.eip) >= int(after.cs.limit):
        raise OutsideError("UD2 does not fit")
    if target != follows and (byte != recognised or follows < target < follows + 2):
        raise OutsideError(f"a transfer to {target:#x}, which is no landing place")
    if not deliverable(after, 1, False) and (int(after.cpl) == 0 or int(after.tr.limit) < 0x67):
        raise OutsideError("landing with no room on the stack")
