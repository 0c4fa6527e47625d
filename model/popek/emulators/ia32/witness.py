"""Run witnesses on an emulator, as `popek.emulators.ia32.witness_setup` sets them up."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs

from popek.architectures.ia32.state import GPR_NAMES, Ia32
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.witnesses import RunVerdict, WitnessRun, WitnessVerdict
from popek.emulators.x86.expectation import OutsideError, vector_name
from popek.emulators.x86.witness import OneInstruction, Prepared, Refused, effect_of, verdicts
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.program import run_lines

from .cases import Ia32Case
from .compare import Ia32Emulator, compare
from .expectation import expect, initial_state
from .step import (
    StepCaseError,
)
from .witness_run import WitnessSetup
from .witness_setup import set_up


def confirm(
    machine: Machine[Ia32], witnesses: Sequence[Sequence[WitnessRun]], against: Ia32Emulator
) -> list[list[RunVerdict]]:
    """Run the runs of each witness on an emulator and compare everything that can be seen.

    Raises:
        BochsError: Bochs or nasm is missing.
    """

    def prepared(setup: WitnessSetup | Refused) -> Prepared[Ia32Case]:
        if isinstance(setup, Refused):
            return setup
        if len(setup.run.lines) == 1:
            case, reason = _case(machine, setup, against)
            label = setup.run.label
            return OneInstruction(label, case) if reason is None else Refused(label, reason)
        return functools.partial(_several, machine, setup, against)

    runs = [[prepared(setup) for setup in set_up(machine, several)] for several in witnesses]
    return verdicts(runs, lambda cases: compare(cases, against=against, machine=machine), against)


def _case(machine: Machine[Ia32], made: WitnessSetup, against: Ia32Emulator) -> tuple[Ia32Case, str | None]:
    """The case that compares a run of one instruction, and why it cannot be compared, if it cannot."""
    (line,) = made.run.lines
    step = made.step
    operands = {name: value for name, value in line.operands.items() if name != "operand length"}
    case = Ia32Case(
        line.instruction.form, operands, step.cpl, step.registers, step.memory, step.stale, step.msrs
    )
    try:
        expected = expect(machine, line.instruction, line.operands, step)
    except (OutsideError, StepCaseError) as error:
        return case, str(error)
    if isinstance(expected, NotModelled):
        return case, f"not modelled: {expected.reason}"
    return case, against.refuses(case, step, expected)


def _several(machine: Machine[Ia32], made: WitnessSetup, against: Ia32Emulator) -> RunVerdict:
    """A program of several instructions, run as one."""
    label = made.run.label
    if not against.delivers:
        reason = f"{against.name} runs one instruction at a time"
        return RunVerdict(label, WitnessVerdict.IMPOSSIBLE, (reason,))
    before = initial_state(made.step)
    outcome, number = run_lines(machine, made.run.lines, before)
    effect = effect_of(before, outcome)
    watch = tuple((address, 1) for (name, address) in effect.cells if name == "memory")
    (result,) = against.run([attrs.evolve(made.step, watch=watch)])
    if result.kind == "setup-failed":
        return RunVerdict(label, WitnessVerdict.IMPOSSIBLE, (f"{against.name} refuses the state",))
    details: list[str] = []
    if isinstance(outcome, Trap):
        code = None if outcome.error_code is None else int(outcome.error_code)
        if (outcome.vector.number, code) != (result.vector, result.error_code):
            details.append(f"{effect.end} in instruction {number + 1}, {vector_name(result.vector)}")
    elif result.kind != "next":
        details.append(f"{effect.end}, {vector_name(result.vector)} {result.kind}")
    if isinstance(outcome, (Next, Trap)) and not details:
        after = outcome.state
        seen: dict[str, int] = {name: int(after[name]) for name in (*GPR_NAMES, "cr0", "cr2", "cr4")}
        seen |= {name: int(after[f"{name}.selector"]) for name in SEGMENT_NAMES}
        seen |= {
            f"{name}.{part}": int(after[f"{name}.{part}"])
            for name in SEGMENT_NAMES
            for part in ("base", "limit")
            if not int(after[f"{name}.rights.unusable"])
        }
        if isinstance(outcome, Next):
            seen["eip"] = int(after.eip)
        for name, value in seen.items():
            observed = result.registers.get(name, value)
            if observed != value:
                details.append(f"{name}: {value:#x}, {observed:#x}")
        for (address, _), data in zip(watch, result.memory, strict=True):
            value = effect.cells["memory", address]
            if data != bytes([value]):
                details.append(f"[{address:#x}]: {value:#04x}, {data.hex()}")
    return RunVerdict(label, WitnessVerdict.DIFFERS if details else WitnessVerdict.CONFIRMED, tuple(details))
