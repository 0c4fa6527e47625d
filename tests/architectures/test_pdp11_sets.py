"""PDP-11/45: what an abort leaves for the control program, and FP11's conversions, by numbers from the handbook."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest

from popek.architectures.pdp11 import MACHINES
from popek.architectures.pdp11.state import FLOATING_TRAP, SEGMENT_FAULT, Pdp11
from popek.checks.premise import A4
from popek.checks.premises import Premises
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

MACHINE = MACHINES["pdp11-45"]()
LONG, DOUBLE, TRUNCATES, CONVERSION, OVERFLOW = 0o100, 0o200, 0o40, 0o400, 0o1000


def told_apart(machine: Machine[Pdp11], form: str) -> Truth:
    """A4 of a form: after its traps the control program can go on with the guest."""
    subject = Subject.of(machine, None, ())
    (instruction,) = machine.find(form)
    found = Premises(subject).of(instruction, subject.explore(instruction))
    return next(premise.truth for premise in found if premise.name == A4)


def test_mark_that_is_aborted_loses_its_place_but_mmr2_has_it() -> None:
    """MARK has put R5 into the PC when its stack is not there."""
    assert told_apart(MACHINE, "MARK o") is Truth.YES

    def silent(cpu: Pdp11, operands: Mapping[str, Word]) -> None:
        cpu.begun = Word(16, 0)  # a processor without MMR2
        cpu.pc = cpu.pc + 2

    assert told_apart(attrs.evolve(MACHINE, advance=silent), "MARK o") is Truth.NO


def test_an_abort_is_delivered_with_mmr2() -> None:
    cpu = Pdp11.reset(ps=0, pc=0o1000, sp=0o2000, mme=1)
    cpu.par, cpu.pdr = (
        cpu.par.store(Word(3, 0), Word(12, 0)),
        cpu.pdr.store(Word(3, 0), Word(16, 0o77406)),
    )
    cpu.r[5] = Word(16, 0o20000)  # a page that is not there
    outcome = run("MARK o", cpu, o=0o77)
    assert isinstance(outcome, Next), "the stack is there"
    cpu.pc = Word(16, 0o17776)
    outcome = run("MARK o", cpu, o=1)
    assert isinstance(outcome, Trap)
    assert (outcome.vector, int(outcome.state.pc)) == (SEGMENT_FAULT, 0o20000)
    assert MACHINE.deliver is not None
    assert int(MACHINE.deliver(cpu, outcome).mmr2) == 0o17776


# -- FP11 -------------------------------------------------------------------------------------------


def run(form: str, cpu: Pdp11, **parts: int) -> Outcome[Pdp11]:
    (instruction,) = MACHINE.find(form)
    words = {
        name: Word(width, parts.get(name.removeprefix("operand "), 0))
        for operand in instruction.inputs
        for name, width in operand.part_names()
    }
    return MACHINE.step(instruction, cpu, words)


def floating(cpu: Pdp11, form: str) -> Pdp11:
    """With R1 and accumulator 0."""
    outcome = run(form, cpu, R=1)
    assert isinstance(outcome, Next | Trap)
    assert not isinstance(outcome, Trap) or outcome.vector is FLOATING_TRAP
    return outcome.state


@pytest.mark.parametrize(
    ("fps", "register", "accumulator"),
    [
        (0, 1, 0x40800000),  # 1 is .1 times 2: exponent 201 octal
        (0, 0o177777, 0xC0800000),
        (0, 0o100000, 0xC8000000),  # -2^15: exponent 220 octal
        (0, 0, 0),
        (LONG, 1, 0x48800000),  # the left half: 2^16
    ],
)
def test_integers_become_numbers(fps: int, register: int, accumulator: int) -> None:
    cpu = Pdp11.reset(fps=fps, r01=register)
    assert int(floating(cpu, "LDCIF R, AC").fac[0]) >> 32 == accumulator


@pytest.mark.parametrize(
    ("fps", "accumulator", "register", "codes", "fec"),
    [
        (0, 0x40800000, 1, 0, 0),
        (0, 0xC0C00000, 0o177777, 8, 0),  # -1.5 is cut to -1
        (0, 0x40000000, 0, 4, 0),  # one half
        (0, 0xC8000000, 0o100000, 8, 0),  # -2^15 fits
        (0, 0x48000000, 0, 5, 0),  # 2^15 does not
        (CONVERSION, 0x48000000, 0, 5, 6),
        (LONG, 0x48800000, 1, 0, 0),  # 2^16: the left half
    ],
)
def test_numbers_become_integers(fps: int, accumulator: int, register: int, codes: int, fec: int) -> None:
    cpu = Pdp11.reset(fps=fps, fac0=accumulator << 32)
    after = floating(cpu, "STCFI AC, R")
    assert (int(after.r[1]), int(after.ps.value) & 15, int(after.fec)) == (register, codes, fec)


@pytest.mark.parametrize(
    ("fps", "accumulator", "stored"),
    [
        (DOUBLE, 0x40800000_80000000, 0x40800001),  # half of the last place rounds up
        (DOUBLE | TRUNCATES, 0x40800000_80000000, 0x40800000),
        (DOUBLE, 0x7FFFFFFF_80000000, 0),  # the exponent overflows: 0 unless that is enabled
        (DOUBLE | OVERFLOW, 0x7FFFFFFF_80000000, 0),  # the exponent is 0 then, too, with the sign as it was
        (DOUBLE, 0x00000001_00000000, 0),
    ],
)
def test_double_becomes_single(fps: int, accumulator: int, stored: int) -> None:
    after = floating(Pdp11.reset(fps=fps, fac0=accumulator), "STCFD AC, FS")
    assert int(after.fac[0]) >> 32 == stored
    assert int(after.fps.v) == int(accumulator >> 32 == 0x7FFFFFFF)


@pytest.mark.parametrize(("word", "fps", "exponent"), [(0o177, 0, 0o377), (0o177601, 0, 1), (0o200, 0, 0)])
def test_exponents_are_loaded(word: int, fps: int, exponent: int) -> None:
    cpu = Pdp11.reset(fps=fps, fac0=0x40400000 << 32, r01=word)
    assert int(floating(cpu, "LDEXP R, AC").fac[0]) >> 55 == exponent
