"""Compare the IA-32 model with an emulator, Bochs by default, on random single instructions.

Each case starts from a random state (`popek.emulators.ia32.cases`), runs on the model
(`popek.emulators.ia32.expectation`) and, through the step harness (`popek.emulators.ia32.step`), on Bochs.  A
difference is a bug of the model until shown otherwise; what has been shown otherwise is in
``popek_specs/ia32/bochs-deviations.toml``, each with its evidence from the manual.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from popek.architectures.ia32 import machine as ia32
from popek.architectures.ia32.state import Ia32
from popek.emulators import differential
from popek.emulators.differential import chosen_forms, first_shrunk, in_chunks, in_turns
from popek.emulators.ia32.assembly import assemble_all, assembly_text
from popek.emulators.ia32.cases import Case, Mode, random_case
from popek.emulators.ia32.cases_system import PRIVILEGED
from popek.emulators.ia32.deviations import explain
from popek.emulators.ia32.expectation import (
    EXTENDED_STATE,
    Expectation,
    NotComparable,
    OutsideError,
    expect,
    memory_differences,
    vector_name,
)
from popek.emulators.ia32.step import (
    ARENA_BYTES,
    StepCase,
    StepCaseError,
    StepResult,
    initial_registers,
    run_steps,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine

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
_ATTEMPTS = 25
_STRINGENT = frozenset(
    (
        *("CALL far", "JMP far", "RET far", "IRET", "INT n", "INT3", "INTO", "INT1", "MOV sreg", "POP sreg"),
        *("LAR", "LSL", "IN", "OUT", "CLI", "STI", "LLDT", "LTR"),
    )
)


MODES: Final = (Mode.PROTECTED,) * 6 + (Mode.REAL,) * 2 + (Mode.VIRTUAL_8086,) * 2
"""The modes cases are drawn from, by weight."""


@attrs.frozen
class Emulator:
    """Something to compare with.

    Attributes:
        name: as reports give it.
        run: runs cases, in order.
        refuses: why a case with this expectation says nothing about the emulator; None when it does.
        explain: the known deviation that explains a difference, if one does.
        delivers: whether faults are delivered through the IDT and show their error codes.
        modes: the operating modes that cases start in, by weight.
    """

    name: str
    run: Callable[[Sequence[StepCase]], list[StepResult]]
    refuses: Callable[[Case, StepCase, Expectation], str | None]
    explain: Callable[[Case, StepCase, Expectation, StepResult, frozenset[str]], str | None]
    delivers: bool
    modes: tuple[Mode, ...] = (Mode.PROTECTED,)


BOCHS: Final = Emulator(
    "bochs", lambda cases: run_steps(cases), lambda *_: None, explain, delivers=True, modes=MODES
)


Difference = differential.Difference[Case]
DifftestReport = differential.DifftestReport[Case]
_Tally = differential.Tally[Case]


@attrs.frozen
class _Ready:
    """A case with what runs it, and what the model says of it."""

    case: Case
    assembly: str
    step: StepCase
    expected: Expectation


def difftest(
    cases: int,
    seed: int = 0,
    forms: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    against: Emulator = BOCHS,
    machine: Machine[Ia32] | None = None,
    kept: int = 20,
    shrinks: int = 3,
) -> DifftestReport:
    """Compare the model with an emulator on random cases.

    Args:
        cases: how many to compare; every form gets its share.
        seed: the same seed draws the same cases.
        forms: instruction forms or mnemonics; all by default.
        progress: called with the number of cases done, now and then.
        against: the emulator.
        machine: the model; the IA-32 machine by default.
        kept: how many unexplained differences to report in full.
        shrinks: how many of these to shrink, each of another form.

    Raises:
        UnknownNameError: no such form.
        BochsError: Bochs or nasm is missing.
    """
    started = time.monotonic()
    model = machine or ia32.build()
    tally = _Tally(kept)
    done = 0
    for jobs in in_chunks(_schedule(model, against, cases, seed, forms)):
        ready = _draw(model, against, jobs, seed, tally)
        for item, result in zip(ready, against.run([item.step for item in ready]), strict=True):
            found = _differ(against, item, result)
            tally.count(item.case, item.case.mode.value, found, traps=item.expected.kind == "trap")
        done += len(ready)
        if progress is not None:
            progress(done)
    differences = first_shrunk(
        tally.unexplained, lambda found: shrink(found, against=against, machine=model), shrinks
    )
    return tally.report(model.name, against.name, seed, differences, time.monotonic() - started)


def compare(
    cases: Iterable[Case], *, against: Emulator = BOCHS, machine: Machine[Ia32] | None = None
) -> list[Difference | None]:
    """Run given cases; None where the model and the emulator agree.

    Raises:
        OutsideError: a case leads where the harness cannot follow, or the model does not model it.
    """
    model = machine or ia32.build()
    items = list(cases)
    texts = [_text(model, case) for case in items]
    codes = assemble_all(texts)
    ready = []
    for case, text in zip(items, texts, strict=True):
        found = _prepare(model, against, case, text, codes[text])
        if isinstance(found, NotComparable):
            raise OutsideError(f"not modelled: {found.reason}")
        ready.append(found)
    results = against.run([item.step for item in ready])
    return [_differ(against, item, result) for item, result in zip(ready, results, strict=True)]


# -- drawing --------------------------------------------------------------------------------------


_Job = tuple[int, Instruction, Mode, int]
"""Number, form, mode and level of a case to draw."""


def _schedule(
    machine: Machine[Ia32], against: Emulator, cases: int, seed: int, forms: Sequence[str] | None
) -> Iterator[_Job]:
    """What to draw; forms with more to go wrong come more often."""
    rng = random.Random(f"{seed}")
    chosen = chosen_forms(machine, forms)
    for number, instruction in enumerate(in_turns(chosen, _STRINGENT, cases, rng)):
        levels = _PRIVILEGED_LEVELS if instruction.mnemonic in _PRIVILEGED else LEVELS
        mode = rng.choice(against.modes)
        level = {Mode.REAL: 0, Mode.VIRTUAL_8086: 3}.get(mode, rng.choice(levels))
        yield number, instruction, mode, level


def _draw(
    machine: Machine[Ia32],
    against: Emulator,
    jobs: list[_Job],
    seed: int,
    tally: _Tally,
) -> list[_Ready]:
    """Draw a case for each job, again where the model or the harness does not follow."""
    ready: dict[int, _Ready] = {}
    for attempt in range(_ATTEMPTS):
        drawn = []
        for number, instruction, mode, level in jobs:
            if number not in ready:
                rng = random.Random(f"{seed}:{number}:{attempt}")
                case = random_case(instruction, level, rng, mode)
                drawn.append((number, case, _text(machine, case)))
        codes = assemble_all(text for _, _, text in drawn)
        for number, case, text in drawn:
            try:
                found = _prepare(machine, against, case, text, codes[text])
            except (OutsideError, StepCaseError) as error:
                tally.outside[_reason(error)] += 1
                continue
            if isinstance(found, NotComparable):
                tally.not_modelled[found.reason] += 1
            else:
                ready[number] = found
    return [ready[number] for number, *_ in jobs if number in ready]


def _reason(error: Exception) -> str:
    """The message without its numbers, so that like ones count together."""
    return " ".join(word for word in str(error).split() if not word.strip(",()").startswith("0x"))


def _text(machine: Machine[Ia32], case: Case) -> str:
    return assembly_text(
        machine.instructions[case.form], case.operands, 32 if case.mode is Mode.PROTECTED else 16
    )


def _prepare(
    machine: Machine[Ia32], against: Emulator, case: Case, text: str, code: bytes
) -> _Ready | NotComparable:
    """The case for the harness, with what the model says and what memory to look at."""
    msrs = (case.registers.get("ecx", 0),) if case.form == "WRMSR" and case.msrs else ()
    step = StepCase(
        code, case.cpl, case.registers, case.msrs, case.memory, case.stale, read_msrs=msrs, hidden=case.hidden
    )
    operands = {**case.operands, "operand length": len(code)}
    expected = expect(machine, machine.instructions[case.form], operands, step)
    if isinstance(expected, NotComparable):
        return expected
    refused = against.refuses(case, step, expected)
    if refused is not None:
        raise OutsideError(refused)
    watch = () if case.form in EXTENDED_STATE else watched(case, step, expected)
    return _Ready(case, text, attrs.evolve(step, watch=watch), expected)


def watched(case: Case, step: StepCase, expected: Expectation) -> tuple[tuple[int, int], ...]:
    """What the model changes, the case's own memory, and the surroundings of the stack."""
    wanted = [(address - 4, address + 8) for address in expected.memory]
    wanted += [(address, address + min(len(data), 80)) for address, data in case.memory]
    registers = initial_registers(step)
    for name in ("esp", "ebp"):
        if registers[name] < ARENA_BYTES:
            wanted.append((registers[name] - 32, registers[name] + 16))
    merged: list[list[int]] = []
    for low, high in sorted(wanted):
        low, high = max(low, 0), min(high, ARENA_BYTES)
        if merged and low <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], high)
        elif low < high:
            merged.append([low, high])
    return tuple((low, high - low) for low, high in merged)


# -- comparing ------------------------------------------------------------------------------------


def _differ(against: Emulator, item: _Ready, result: StepResult) -> Difference | None:
    expected = item.expected
    details: list[str] = []
    differing: set[str] = set()
    ends = expected.kind, expected.vector, expected.error_code
    if not against.delivers:
        ends = ("trap", expected.raised[0], None) if expected.raised else ("next", None, None)
    same_end = ends == (result.kind, result.vector, result.error_code)
    if same_end:
        for name, value in expected.registers.items():
            observed = result.registers.get(name)
            undefined = expected.undefined.get(name, 0)
            if observed is None or (value ^ observed) & ~undefined == 0 or _unusable(name, expected, result):
                continue
            details.append(f"{name}: {value:#x}, {observed:#x}")
            differing.add(name)
        for address, value, byte in memory_differences(item.step, expected, result):
            details.append(f"[{address:#x}]: {value:#04x}, {byte:#04x}")
            differing.add("memory")
        for number, value in expected.msrs.items():
            if result.msrs.get(number, value) != value:
                details.append(f"MSR {number:#x}: {value:#x}, {result.msrs[number]:#x}")
                differing.add("msr")
        if not differing:
            return None
    else:
        differing.add("outcome")
    deviation = None
    if result.kind != "setup-failed":
        deviation = against.explain(item.case, item.step, expected, result, frozenset(differing))
    return Difference(
        item.case,
        item.assembly,
        _end(*ends),
        _end(result.kind, result.vector, result.error_code),
        tuple(details),
        deviation,
    )


def _unusable(name: str, expected: Expectation, result: StepResult) -> bool:
    """Base and limit of an unusable register cannot be seen."""
    register, _, part = name.partition(".")
    return part in ("base", "limit") and result.registers.get(f"{register}.access") == 0


def _end(kind: str, vector: int | None, code: int | None) -> str:
    if kind == "hang":
        return "does not go on"
    if vector is None:
        return {"next": "completes"}.get(kind, kind)
    return (
        vector_name(vector)
        + (f"({code:#x})" if code is not None else "")
        + ("" if kind == "trap" else f" {kind}")
    )


# -- shrinking ------------------------------------------------------------------------------------


def shrink(
    difference: Difference, *, against: Emulator = BOCHS, machine: Machine[Ia32] | None = None
) -> Difference:
    """Take back, greedily, every change of the plain state that the difference does not need."""
    model = machine or ia32.build()
    best = difference
    while True:
        tried = _still_differing(model, against, list(_simpler(best.case)), best)
        if not tried:
            return best
        # All that can go alone may well go together.
        together = _together(best.case, [d.case for d in tried])
        both = _still_differing(model, against, [together], best)
        best = both[0] if both else tried[0]


def _still_differing(
    machine: Machine[Ia32], against: Emulator, cases: Sequence[Case], like: Difference
) -> list[Difference]:
    texts = [_text(machine, case) for case in cases]
    codes = assemble_all(texts)
    ready = []
    for case, text in zip(cases, texts, strict=True):
        try:
            item = _prepare(machine, against, case, text, codes[text])
        except (OutsideError, StepCaseError):
            continue
        if isinstance(item, _Ready):
            ready.append(item)
    results = against.run([item.step for item in ready])
    found = [_differ(against, item, result) for item, result in zip(ready, results, strict=True)]
    return [
        d
        for d in found
        if d is not None
        and d.deviation == like.deviation
        and (d.expected, d.observed) == (like.expected, like.observed)
    ]


def _simpler(case: Case) -> Iterator[Case]:
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


def _together(case: Case, simpler: Sequence[Case]) -> Case:
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


__all__ = ["BOCHS", "LEVELS", "Difference", "DifftestReport", "Emulator", "compare", "difftest", "shrink"]
