"""Compare the IA-32 model with an emulator, Bochs by default, on random single instructions.

Each case starts from a random state (`popek.emulators.ia32.cases`), runs on the model
(`popek.emulators.ia32.expectation`) and, through the step harness (`popek.emulators.ia32.step`), on Bochs.  A
difference is a bug of the model until shown otherwise; what has been shown otherwise is in
``popek_specs/ia32/bochs-deviations.toml``, each with its evidence from the manual.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from popek.architectures.ia32 import machine as ia32
from popek.architectures.ia32.state import Ia32
from popek.emulators import differential
from popek.emulators.differential import chosen_forms, in_turns
from popek.emulators.ia32.assembly import assemble_all, assembly_text
from popek.emulators.ia32.cases import CaseMode, Ia32Case, random_case
from popek.emulators.ia32.cases_system import PRIVILEGED
from popek.emulators.ia32.deviations import explain
from popek.emulators.ia32.expectation import EXTENDED_STATE, expect
from popek.emulators.ia32.step import (
    ARENA_BYTES,
    Ia32StepCase,
    StepCaseError,
    initial_memory,
    initial_registers,
    run_steps,
)
from popek.emulators.x86.compare import Emulator, Isa, Ready
from popek.emulators.x86.expectation import Expectation, OutsideError, merged
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

LEVELS: Final = (0, 0, 0, 1, 1, 1, 2, 3, 3, 3)
"""The privilege levels cases are drawn from, by weight; forms that are for CPL 0 come there more often."""

_PRIVILEGED_LEVELS = (0, 0, 0, 0, 0, 0, 0, 1, 2, 3)
_PRIVILEGED = frozenset(
    (
        *("LGDT", "LIDT", "LLDT", "LTR", "LMSW", "CLTS", "HLT", "INVD", "WBINVD", "INVLPG", "RDMSR", "WRMSR"),
        *("MOV from CR", "MOV to CR", "MOV from DR", "MOV to DR"),
        *PRIVILEGED,
    )
)
_STRINGENT = frozenset(
    (
        *("CALL far", "JMP far", "RET far", "IRET", "INT n", "INT3", "INTO", "INT1", "MOV sreg", "POP sreg"),
        *("LAR", "LSL", "IN", "OUT", "CLI", "STI", "LLDT", "LTR"),
    )
)


MODES: Final = (CaseMode.PROTECTED,) * 6 + (CaseMode.REAL,) * 2 + (CaseMode.VIRTUAL_8086,) * 2
"""The modes cases are drawn from, by weight."""


Difference = differential.Difference[Ia32Case]
DifftestReport = differential.DifftestReport[Ia32Case]
Ia32Emulator = Emulator[Ia32Case, Ia32StepCase]

BOCHS: Final = Emulator("bochs", run_steps, explain, modes=MODES)


# -- drawing --------------------------------------------------------------------------------------


_Wanted = tuple[Instruction, CaseMode, int]
"""Form, mode and level of a case to draw."""


def _schedule(
    machine: Machine[Ia32], against: Ia32Emulator, cases: int, seed: int, forms: Sequence[str] | None
) -> Iterator[tuple[int, _Wanted]]:
    """What to draw; forms with more to go wrong come more often."""
    rng = random.Random(f"{seed}")
    chosen = chosen_forms(machine, forms)
    for number, instruction in enumerate(in_turns(chosen, _STRINGENT, cases, rng)):
        levels = _PRIVILEGED_LEVELS if instruction.mnemonic in _PRIVILEGED else LEVELS
        mode = rng.choice(against.modes)
        level = {CaseMode.REAL: 0, CaseMode.VIRTUAL_8086: 3}.get(mode, rng.choice(levels))
        yield number, (instruction, mode, level)


def _draw(
    machine: Machine[Ia32], against: Ia32Emulator, asked: _Wanted, attempt: int, rng: random.Random
) -> Ia32Case:
    instruction, mode, level = asked
    return random_case(instruction, level, rng, mode)


def _assemble(machine: Machine[Ia32], cases: Iterable[Ia32Case]) -> dict[str, bytes]:
    return assemble_all(_text(machine, case) for case in cases)


def _text(machine: Machine[Ia32], case: Ia32Case) -> str:
    return assembly_text(
        machine.instructions[case.form], case.operands, 32 if case.mode is CaseMode.PROTECTED else 16
    )


def _prepare(
    machine: Machine[Ia32], against: Ia32Emulator, case: Ia32Case
) -> Ready[Ia32Case, Ia32StepCase] | NotModelled:
    """The case for the harness, with what the model says and what memory to look at."""
    text = _text(machine, case)
    code = assemble_all([text])[text]
    msrs = (case.registers.get("ecx", 0),) if case.form == "WRMSR" and case.msrs else ()
    step = Ia32StepCase(
        code, case.cpl, case.registers, case.msrs, case.memory, case.stale, read_msrs=msrs, hidden=case.hidden
    )
    operands = {**case.operands, "operand length": len(code)}
    expected = expect(machine, machine.instructions[case.form], operands, step)
    if isinstance(expected, NotModelled):
        return expected
    refused = against.refuses(case, step, expected)
    if refused is not None:
        raise OutsideError(refused)
    watch = () if case.form in EXTENDED_STATE else watched(case, step, expected)
    return Ready(case, text, attrs.evolve(step, watch=watch), expected)


def watched(case: Ia32Case, step: Ia32StepCase, expected: Expectation) -> tuple[tuple[int, int], ...]:
    """What the model changes, the case's own memory, and the surroundings of the stack."""
    wanted = [(address - 4, address + 8) for address in expected.memory]
    wanted += [(address, address + min(len(data), 80)) for address, data in case.memory]
    registers = initial_registers(step)
    for name in ("esp", "ebp"):
        if registers[name] < ARENA_BYTES:
            wanted.append((registers[name] - 32, registers[name] + 16))
    return merged(wanted, ARENA_BYTES)


# -- shrinking ------------------------------------------------------------------------------------


def _simpler(case: Ia32Case) -> Iterator[Ia32Case]:
    """The case with one change taken back, or one register's value made plainer."""
    for name in case.registers:
        yield attrs.evolve(case, registers={n: v for n, v in case.registers.items() if n != name})
    for index in range(len(case.memory)):
        yield attrs.evolve(case, memory=case.memory[:index] + case.memory[index + 1 :])
    for index in range(len(case.stale)):
        yield attrs.evolve(case, stale=case.stale[:index] + case.stale[index + 1 :])
    for name in ("cr0", "cr4", "eflags"):
        value = case.registers.get(name, 0)
        for bit in range(32):
            if value >> bit & 1 and value != 1 << bit and not (name == "eflags" and bit == 1):
                yield attrs.evolve(case, registers={**case.registers, name: value & ~(1 << bit)})


def _together(case: Ia32Case, simpler: Sequence[Ia32Case]) -> Ia32Case:
    """Everything taken back that one of the simpler cases takes back."""
    registers = dict(case.registers)
    for other in simpler:
        for name in case.registers:
            if name not in other.registers:
                registers.pop(name, None)
            elif name in registers and other.registers[name] != case.registers[name]:
                registers[name] &= other.registers[name]
    memory = tuple(m for m in case.memory if all(m in other.memory for other in simpler))
    stale = tuple(m for m in case.stale if all(m in other.stale for other in simpler))
    return attrs.evolve(case, registers=registers, memory=memory, stale=stale)


IA32: Final = Isa(
    ia32.build,
    standard=BOCHS,
    attempts=25,
    schedule=_schedule,
    draw=_draw,
    assemble=_assemble,
    prepare=_prepare,
    refused=(OutsideError, StepCaseError),
    mode=lambda case: case.mode.value,
    arena=initial_memory,
    simpler=_simpler,
    together=_together,
)

difftest: Final = IA32.difftest
compare: Final = IA32.compare
shrink: Final = IA32.shrink


__all__ = ["BOCHS", "LEVELS", "Difference", "DifftestReport", "Ia32Emulator", "compare", "difftest", "shrink"]
