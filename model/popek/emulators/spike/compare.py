"""The RV64 model and Spike, case by case: modes, registers, every CSR, storage, and where a trap leads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from popek.architectures.riscv.encoding import encode
from popek.architectures.riscv.exceptions import ILLEGAL, VIRTUAL
from popek.architectures.riscv.instructions.zicsr import all_csrs
from popek.architectures.riscv.machine import build
from popek.architectures.riscv.paged import build as build_paged
from popek.architectures.riscv.state import Rv64
from popek.emulators.differential import Difference, DifftestReport, Tally, chosen_forms, in_turns
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.words import Word

from .cases import MODES, SpikeCase, draw, draw_paged, outside
from .deviations import SpikeDifference, explanation
from .hart import BEFORE, HartResult, HartStep, hart

CSRS: Final = {csr.name: csr for csr in all_csrs()}
COMPARED: Final = (
    *BEFORE, "mepc", "mstatus", "mie", "mip", "menvcfg", "henvcfg", "mstateen0", "hstateen0", "vstimecmp", "stimecmp",
    "senvcfg", "fcsr", "misa",
)  # fmt: skip
_SHOWN = {mode: name for name, mode in MODES.items()}


@attrs.frozen
class Expected:
    """What the model says."""

    traps: str | None
    result: HartResult


def expected(machine: Machine[Rv64], case: SpikeCase, word: int) -> Expected | NotModelled:
    """The state after an instruction and, where it traps, after the entry of the handler.

    Spike puts the word of an instruction that it does not execute into xtval, as the manual allows.
    """
    instruction = machine.instructions[case.form]
    before = case.state(machine.state)
    outcome = machine.step(instruction, before, instruction.words(case.operands))
    if isinstance(outcome, NotModelled):
        return outcome
    traps = None
    after = outcome.state
    if isinstance(outcome, Trap):
        traps = str(outcome.vector)
        if outcome.vector in (ILLEGAL, VIRTUAL):
            outcome = attrs.evolve(outcome, error_code=Word(64, word))
        assert machine.deliver is not None
        after = machine.deliver(before, outcome)
    csrs = {name: int(CSRS[name].read(after)) for name in COMPARED}
    return Expected(
        traps,
        HartResult(
            int(after.prv),
            int(after.v),
            int(after.pc),
            {number: int(after.x.load(Word(5, number))) for number in range(1, 32)},
            csrs,
            {a: int(after.memory.load(Word(53, a >> 3))) >> 8 * (a & 7) & 0xFF for a in case.data},
            None if case.f is None else int(after.f.load(Word(5, case.f[0]))),
        ),
    )


def observed(case: SpikeCase, word: int) -> HartResult:
    """What Spike does.

    Raises:
        SpikeError: it cannot be run.
    """
    prv, v = MODES[case.mode]
    reset = Rv64.reset()
    names = set(reset.words())
    csrs = {name: int(reset[name]) for name in names} | dict(case.components)
    return hart().run(HartStep(word, HartResult(prv, v, csrs["pc"], case.x, csrs, case.data), case.f))


def differing(model: HartResult, spike: HartResult) -> tuple[str, ...]:
    """One line for each component that differs."""
    lines = []
    here, there = (_SHOWN.get((r.prv, r.v), "?") for r in (model, spike))
    if here != there:
        lines.append(f"mode: {here}, {there}")
    if model.pc != spike.pc:
        lines.append(f"pc: {model.pc:#x}, {spike.pc:#x}")
    for number in range(1, 32):
        if model.x[number] != spike.x[number]:
            lines.append(f"x{number}: {model.x[number]:#x}, {spike.x[number]:#x}")
    for name in COMPARED:
        if model.csrs[name] != spike.csrs[name]:
            lines.append(f"{name}: {model.csrs[name]:#x}, {spike.csrs[name]:#x}")
    if model.f != spike.f:
        lines.append(f"f: {model.f}, {spike.f}")
    for address, value in model.data.items():
        if spike.data[address] != value:
            lines.append(f"memory[{address:#x}]: {value:#x}, {spike.data[address]:#x}")
    return tuple(lines)


@attrs.frozen
class ComparedOnHart:
    """A case that was run on both: what the model says, and how Spike differs, if it does."""

    expected: Expected
    difference: Difference[SpikeCase] | None


def compare(machine: Machine[Rv64], case: SpikeCase) -> ComparedOnHart | NotModelled:
    """Run one case on both.

    Raises:
        SpikeError: Spike cannot be run.
    """
    instruction = machine.instructions[case.form]
    word = encode(instruction, case.operands)
    model = expected(machine, case, word)
    if isinstance(model, NotModelled):
        return model
    spike = observed(case, word)
    details = differing(model.result, spike)
    if not details:
        return ComparedOnHart(model, None)
    names = frozenset(line.split(":")[0] for line in details)
    return ComparedOnHart(
        model,
        Difference(
            case,
            f"{instruction.assembly(case.operands)} in {case.mode}",
            _ends(model.traps or "completes", model.result),
            _ends("ends", spike),
            details,
            explanation(SpikeDifference(case, names, model.result, spike)),
        ),
    )


def _ends(how: str, result: HartResult) -> str:
    mode = _SHOWN.get((result.prv, result.v), "?")
    cause = {"M": "mcause", "HS": "scause", "VS": "vscause"}.get(mode)
    return f"{how} in {mode} at {result.pc:#x}" + (f", {cause} {result.csrs[cause]:#x}" if cause else "")


def difftest(
    cases: int,
    seed: int = 0,
    forms: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    machine: Machine[Any] | None = None,
    drawn: Callable[[Instruction, random.Random], SpikeCase] = draw,
    kept: int = 20,
) -> DifftestReport[SpikeCase]:
    """Compare the model with Spike on random cases.

    Args:
        cases: how many to compare; every form gets its share.
        seed: the same seed draws the same cases.
        forms: instruction forms or mnemonics; all by default.
        progress: called with the number of cases done, now and then.
        machine: the model; `rv64` by default.
        drawn: draws a case.
        kept: how many unexplained differences to report in full.

    Raises:
        UnknownNameError: no such form.
        SpikeError: Spike or what it needs is missing.
    """
    started = time.monotonic()
    model: Machine[Any] = machine or build()
    tally: Tally[SpikeCase] = Tally(kept)
    rng = random.Random(seed)
    for done, instruction in enumerate(in_turns(chosen_forms(model, forms), (), cases, rng)):
        while True:
            case = drawn(instruction, rng)
            reason = outside(case, case.state())
            if reason is not None:
                tally.outside[reason] += 1
                continue
            found = compare(model, case)
            if isinstance(found, NotModelled):
                tally.not_modelled[found.reason] += 1
                continue
            break
        tally.count(case, case.mode, found.difference, traps=found.expected.traps is not None)
        if progress is not None and done % 100 == 99:
            progress(done + 1)
    report = tally.report(model.name, "Spike", seed, tally.unexplained, time.monotonic() - started)
    return attrs.evolve(report, level="privilege")


def difftest_paged(
    cases: int,
    seed: int = 0,
    forms: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> DifftestReport[SpikeCase]:
    """As `difftest`, for the machine that walks page tables."""
    return difftest(cases, seed, forms, progress, machine=build_paged(), drawn=draw_paged)
