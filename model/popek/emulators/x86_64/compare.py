"""Compare the x86-64 model with Bochs on random single instructions.

Each case starts from a random state (`popek.emulators.x86_64.cases`), runs on the model
(`popek.emulators.x86_64.expectation`) and, through the step harness (`popek.emulators.x86_64.step`), on Bochs.  A
difference is a bug of the model until shown otherwise; what has been shown otherwise is in
``popek_specs/x86_64/bochs-deviations.toml``, each with its evidence from the manual.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from popek.architectures.x86_64 import machine as x86_64
from popek.architectures.x86_64.state import X64
from popek.emulators import differential
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.differential import chosen_forms, first_shrunk, in_chunks, in_turns
from popek.emulators.x86_64.assembly import assemble_all, assembly_text
from popek.emulators.x86_64.cases import LEFT_OUT, Case, random_case
from popek.emulators.x86_64.deviations import explain
from popek.emulators.x86_64.expectation import (
    Expectation,
    NeedsLandingError,
    OutsideError,
    expect,
    memory_differences,
    vector_name,
    with_landing,
)
from popek.emulators.x86_64.step import ARENA_BYTES, StepCase, StepResult, run_steps
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
_ATTEMPTS = 30


@attrs.frozen
class Emulator:
    """Something to compare with.

    Attributes:
        name: as reports give it.
        run: runs cases, in order.
        refuses: why a case with this expectation says nothing about the emulator; None when it does.
        explain: the known deviation that explains a difference, if one does.
        shows_codes: whether faults show their error codes.
        levels, modes: the privilege levels and modes (True for 64-bit) it is asked in.
        mnemonics: those it is asked about; all if empty.
        left_out: forms of these that it is not asked about.
    """

    name: str
    run: Callable[[Sequence[StepCase]], list[StepResult]]
    refuses: Callable[[Case, StepCase, Expectation], str | None]
    explain: Callable[[Case, StepCase, Expectation, StepResult, frozenset[str]], str | None]
    shows_codes: bool
    levels: tuple[int, ...] = (0, 1, 2, 3)
    modes: tuple[bool, ...] = (True, False)
    mnemonics: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


BOCHS: Final = Emulator("bochs", run_steps, lambda *_: None, explain, shows_codes=True)


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
    machine: Machine[X64] | None = None,
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
        machine: the model; the x86-64 machine by default.
        kept: how many unexplained differences to report in full.
        shrinks: how many of these to shrink, each of another form.

    Raises:
        UnknownNameError: no such form.
        BochsError: Bochs or nasm is missing.
    """
    started = time.monotonic()
    model = machine or x86_64.build()
    tally = _Tally(kept)
    done = 0
    for jobs in in_chunks(_schedule(model, against, cases, seed, forms)):
        ready = _draw(model, against, jobs, seed, tally)
        for item, result in zip(ready, against.run([item.step for item in ready]), strict=True):
            found = _differ(against, item, result)
            tally.count(item.case, item.case.mode, found, traps=item.expected.kind == "trap")
        done += len(ready)
        if progress is not None:
            progress(done)
    differences = first_shrunk(
        tally.unexplained, lambda found: shrink(found, against=against, machine=model), shrinks
    )
    return tally.report(model.name, against.name, seed, differences, time.monotonic() - started)


def compare(
    cases: Sequence[Case], *, against: Emulator = BOCHS, machine: Machine[X64] | None = None
) -> list[Difference | None]:
    """Run given cases; None where the model and the emulator agree.

    Raises:
        OutsideError: a case leads where the harness cannot follow, or the model does not model it.
    """
    model = machine or x86_64.build()
    ready = []
    for case in cases:
        found = _prepare(model, against, case)
        if isinstance(found, NotModelled):
            raise OutsideError(f"not modelled: {found.reason}")
        ready.append(found)
    results = against.run([item.step for item in ready])
    return [_differ(against, item, result) for item, result in zip(ready, results, strict=True)]


# -- drawing --------------------------------------------------------------------------------------

Job = tuple[int, Instruction, int]


def _schedule(
    machine: Machine[X64], against: Emulator, cases: int, seed: int, forms: Sequence[str] | None
) -> Iterator[Job]:
    """Number, form and level of each case; forms with more to go wrong come more often."""
    chosen = [i for i in chosen_forms(machine, forms) if i.form not in LEFT_OUT]
    chosen = [i for i in chosen if i.form not in against.left_out]
    if against.mnemonics:
        chosen = [i for i in chosen if i.mnemonic in against.mnemonics]
    rng = random.Random(f"{seed}")
    for number, instruction in enumerate(in_turns(chosen, _STRINGENT, cases, rng)):
        levels = _PRIVILEGED_LEVELS if instruction.mnemonic in _PRIVILEGED else LEVELS
        yield number, instruction, rng.choice([level for level in levels if level in against.levels])


def _draw(
    machine: Machine[X64], against: Emulator, jobs: list[Job], seed: int, tally: _Tally
) -> list[_Ready]:
    """Draw a case for each job, again where the model or the harness does not follow."""
    ready: dict[int, _Ready] = {}
    for attempt in range(_ATTEMPTS):
        drawn = []
        for number, instruction, level in jobs:
            if number not in ready:
                rng = random.Random(f"{seed}:{number}:{attempt}")
                long = attempt > 4 or rng.random() >= _COMPATIBLE_SHARE
                long = long or False not in against.modes or not exists_in_compatibility_mode(instruction)
                long = long and instruction.form not in _ONLY_COMPATIBLE
                drawn.append((number, random_case(instruction, level, long, rng)))
        assemble_all(_key(machine, case) for _, case in drawn)
        for number, case in drawn:
            try:
                found = _prepare(machine, against, case)
            except OutsideError as error:
                tally.outside[str(error)] += 1
                continue
            if isinstance(found, NotModelled):
                tally.not_modelled[found.reason] += 1
            else:
                ready[number] = found
    return [ready[number] for number, _, _ in jobs if number in ready]


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


def _key(machine: Machine[X64], case: Case) -> tuple[bool, str]:
    return case.long, assembly_text(machine.instructions[case.form], case.operands, long=case.long)


def _prepare(machine: Machine[X64], against: Emulator, case: Case) -> _Ready | NotModelled:
    """The case for the harness, with what the model says and what memory to look at."""
    key = _key(machine, case)
    try:
        code = assemble_all([key])[key]
    except BochsError as error:
        raise OutsideError(f"no encoding: {error}") from None
    step = StepCase(code, case.state(), case.memory)
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
    return _Ready(case, key[1], attrs.evolve(step, watch=_watched(case, expected)), expected)


def _watched(case: Case, expected: Expectation) -> tuple[tuple[int, int], ...]:
    """What the model changes, the case's own memory, and the surroundings of the stack."""
    wanted = [(address - 4, address + 12) for address in expected.memory]
    wanted += [(address, address + len(data)) for address, data in case.memory]
    state = case.state()
    for name in ("rsp", "rbp"):
        if state[name] < ARENA_BYTES:
            wanted.append((state[name] - 48, state[name] + 16))
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
    ends = expected.kind, expected.vector, expected.error_code if against.shows_codes else None
    if ends == (result.kind, result.vector, result.error_code):
        for name, value in expected.state.items():
            observed = result.state.get(name)
            undefined = expected.undefined.get(name, 0)
            if observed is None or (value ^ observed) & ~undefined == 0:
                continue
            details.append(f"{name}: {value:#x}, {observed:#x}")
            differing.add(name)
        for address, value, byte in memory_differences(item.step, expected, result):
            details.append(f"[{address:#x}]: {value:#04x}, {byte:#04x}")
            differing.add("memory")
        if not differing:
            return None
    else:
        differing.add("outcome")
    deviation = against.explain(item.case, item.step, expected, result, frozenset(differing))
    return Difference(
        item.case,
        item.assembly,
        _end(*ends),
        _end(result.kind, result.vector, result.error_code),
        tuple(details),
        deviation,
    )


def _end(kind: str, vector: int | None, code: int | None) -> str:
    if kind == "hang":
        return "does not go on"
    if vector is None:
        return {"next": "completes"}.get(kind, kind)
    return vector_name(vector) + (f"({code:#x})" if code is not None else "")


# -- shrinking ------------------------------------------------------------------------------------


def shrink(
    difference: Difference, *, against: Emulator = BOCHS, machine: Machine[X64] | None = None
) -> Difference:
    """Take back, greedily, every change of the plain state that the difference does not need."""
    model = machine or x86_64.build()
    best = difference
    while True:
        ready = []
        for case in _simpler(best.case):
            try:
                item = _prepare(model, against, case)
            except OutsideError:
                continue
            if isinstance(item, _Ready):
                ready.append(item)
        results = against.run([item.step for item in ready])
        for item, result in zip(ready, results, strict=True):
            found = _differ(against, item, result)
            like = (best.expected, best.observed, best.deviation)
            if found is not None and (found.expected, found.observed, found.deviation) == like:
                best = found
                break
        else:
            return best


def _simpler(case: Case) -> Iterator[Case]:
    """The case with changes taken back: many at once first, then one."""
    names = list(case.registers)
    for size in sorted({len(names) // 2, len(names) // 4, 1} - {0}, reverse=True):
        for at in range(0, len(names), size):
            gone = set(names[at : at + size])
            yield attrs.evolve(case, registers={n: v for n, v in case.registers.items() if n not in gone})
    for at in range(len(case.memory)):
        yield attrs.evolve(case, memory=case.memory[:at] + case.memory[at + 1 :])
