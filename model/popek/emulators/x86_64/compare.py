"""Compare the x86-64 model with Bochs on random single instructions.

Each case starts from a random state (`popek.emulators.x86_64.cases`), runs on the model
(`popek.emulators.x86_64.expectation`) and, through the step harness (`popek.emulators.x86_64.step`), on Bochs.  A
difference is a bug of the model until shown otherwise; what has been shown otherwise is in
``popek_specs/x86_64/bochs-deviations.toml``, each with its evidence from the manual.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from popek.architectures.x86_64 import machine as x86_64
from popek.architectures.x86_64.state import X64
from popek.emulators import differential
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.differential import chosen_forms, in_turns
from popek.emulators.x86.compare import Emulator, Isa, Ready
from popek.emulators.x86.expectation import Expectation, OutsideError, merged
from popek.emulators.x86_64.assembly import assemble_all, assembly_text
from popek.emulators.x86_64.cases import LEFT_OUT, X64Case, random_case
from popek.emulators.x86_64.deviations import explain
from popek.emulators.x86_64.expectation import NeedsLandingError, expect, with_landing
from popek.emulators.x86_64.step import ARENA_BYTES, X64StepCase, initial_memory, run_steps
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

LEVELS: Final = (0, 0, 0, 1, 2, 3, 3, 3, 3)
"""The privilege levels cases are drawn from, by weight; forms that are for CPL 0 come there more often."""
_PRIVILEGED_LEVELS = (0, 0, 0, 0, 0, 0, 1, 2, 3, 3)
_PRIVILEGED = frozenset(
    (
        *("LGDT", "LIDT", "LLDT", "LTR", "LMSW", "CLTS", "HLT", "INVD", "WBINVD", "INVLPG", "RDMSR", "WRMSR"),
        *("MOV from CR", "MOV to CR", "MOV from DR", "MOV to DR", "SYSRET", "SYSEXIT", "SWAPGS", "INVPCID"),
        *("XSETBV", "MONITOR", "MWAIT"),
    )
)
_STRINGENT = frozenset(
    (
        *("CALL far", "JMP far", "RET far", "IRET", "INT n", "INT3", "INTO", "INT1", "MOV sreg", "POP sreg"),
        *("LAR", "LSL", "IN", "OUT", "CLI", "STI", "LLDT", "LTR", "MOV to CR", "WRMSR", "SYSCALL", "SYSRET"),
    )
)
_COMPATIBLE_SHARE = 0.15
MODES: Final = (True, False)
"""64-bit mode and compatibility mode."""


Difference = differential.Difference[X64Case]
DifftestReport = differential.DifftestReport[X64Case]
X64Emulator = Emulator[X64Case, X64StepCase]

BOCHS: Final = Emulator("bochs", run_steps, explain, modes=MODES)


# -- drawing --------------------------------------------------------------------------------------

_Wanted = tuple[Instruction, int]
"""Form and level of a case to draw."""


def _schedule(
    machine: Machine[X64], against: X64Emulator, cases: int, seed: int, forms: Sequence[str] | None
) -> Iterator[tuple[int, _Wanted]]:
    """Number, form and level of each case; forms with more to go wrong come more often."""
    chosen = [i for i in chosen_forms(machine, forms) if i.form not in LEFT_OUT]
    chosen = [i for i in chosen if i.form not in against.left_out]
    if against.mnemonics:
        chosen = [i for i in chosen if i.mnemonic in against.mnemonics]
    rng = random.Random(f"{seed}")
    for number, instruction in enumerate(in_turns(chosen, _STRINGENT, cases, rng)):
        levels = _PRIVILEGED_LEVELS if instruction.mnemonic in _PRIVILEGED else LEVELS
        yield number, (instruction, rng.choice([level for level in levels if level in against.levels]))


def _draw(
    machine: Machine[X64], against: X64Emulator, asked: _Wanted, attempt: int, rng: random.Random
) -> X64Case:
    instruction, level = asked
    long = attempt > 4 or rng.random() >= _COMPATIBLE_SHARE
    long = long or False not in against.modes or not exists_in_compatibility_mode(instruction)
    long = long and instruction.form not in _ONLY_COMPATIBLE
    return random_case(instruction, level, long, rng)


def _assemble(machine: Machine[X64], cases: Iterable[X64Case]) -> dict[tuple[bool, str], bytes]:
    return assemble_all(_key(machine, case) for case in cases)


_ONLY_LONG: Final = frozenset(
    (
        *(
            "CALL m16:64",
            "JMP m16:64",
            "o64 RETF",
            "IRETQ",
            "SYSRETQ",
            "SYSEXITQ",
            "CMPXCHG16B m128",
            "STOSQ",
        ),
        *("MOVSQ", "SKINIT", "MOV r64, CR8", "MOV CR8, r64", "SWAPGS", "RDPKRU", "WRPKRU"),
    )
)
_ONLY_COMPATIBLE: Final = ("LDS r32, m16:32", "LES r32, m16:32")
"""Forms whose opcode is the VEX prefix in 64-bit mode."""
_NATURAL_R64: Final = frozenset(
    (
        *("MOV from CR", "MOV to CR", "MOV from DR", "MOV to DR", "INVPCID", "RDPID", "VMREAD", "VMWRITE"),
        *("INVEPT", "INVVPID", "JMP near", "CALL near", "PUSH", "POP"),
    )
)


def exists_in_compatibility_mode(instruction: Instruction) -> bool:
    """Whether nasm writes the form for a 32-bit code segment as the model means it."""
    form = instruction.form
    if form in _ONLY_LONG or "BASE" in form or "MOVSXD" in form:
        return False
    if "r64" in form or "imm64" in form:
        return instruction.mnemonic in _NATURAL_R64
    return True


def only_in_compatibility_mode(instruction: Instruction) -> bool:
    """Whether 64-bit mode has another instruction of this opcode."""
    return instruction.form in _ONLY_COMPATIBLE


def _key(machine: Machine[X64], case: X64Case) -> tuple[bool, str]:
    return case.long, assembly_text(machine.instructions[case.form], case.operands, long=case.long)


def prepare(
    machine: Machine[X64], against: X64Emulator, case: X64Case
) -> Ready[X64Case, X64StepCase] | NotModelled:
    """The case for the harness, with what the model says and what memory to look at.

    Raises:
        OutsideError: the harness cannot follow it.
    """
    key = _key(machine, case)
    try:
        code = assemble_all([key])[key]
    except BochsError as error:
        raise OutsideError(f"no encoding: {error}") from None
    step = X64StepCase(code, case.state(), case.memory)
    operands = {**case.operands, "operand length": len(code)}
    instruction = machine.instructions[case.form]
    try:
        expected = expect(machine, instruction, operands, step)
    except NeedsLandingError as needed:
        step = with_landing(step, needed.address)
        try:
            expected = expect(machine, instruction, operands, step)
        except NeedsLandingError:
            raise OutsideError("a transfer that reads its own landing place") from None
    if isinstance(expected, NotModelled):
        return expected
    refused = against.refuses(case, step, expected)
    if refused is not None:
        raise OutsideError(refused)
    return Ready(case, key[1], attrs.evolve(step, watch=_watched(case, expected)), expected)


def _watched(case: X64Case, expected: Expectation) -> tuple[tuple[int, int], ...]:
    """What the model changes, the case's own memory, and the surroundings of the stack."""
    wanted = [(address - 4, address + 12) for address in expected.memory]
    wanted += [(address, address + len(data)) for address, data in case.memory]
    state = case.state()
    for name in ("rsp", "rbp"):
        if state[name] < ARENA_BYTES:
            wanted.append((state[name] - 48, state[name] + 16))
    return merged(wanted, ARENA_BYTES)


# -- shrinking ------------------------------------------------------------------------------------


def _simpler(case: X64Case) -> Iterator[X64Case]:
    """The case with changes taken back: many at once first, then one."""
    names = list(case.registers)
    for size in sorted({len(names) // 2, len(names) // 4, 1} - {0}, reverse=True):
        for at in range(0, len(names), size):
            gone = set(names[at : at + size])
            yield attrs.evolve(case, registers={n: v for n, v in case.registers.items() if n not in gone})
    for at in range(len(case.memory)):
        yield attrs.evolve(case, memory=case.memory[:at] + case.memory[at + 1 :])


X86_64: Final = Isa(
    x86_64.build,
    standard=BOCHS,
    attempts=30,
    schedule=_schedule,
    draw=_draw,
    assemble=_assemble,
    prepare=prepare,
    refused=(OutsideError,),
    mode=lambda case: case.mode,
    arena=initial_memory,
    simpler=_simpler,
)

difftest: Final = X86_64.difftest
compare: Final = X86_64.compare
shrink: Final = X86_64.shrink
