"""A hypervisor and its guests in VS: Theorem 2's premises, and that each control is merged for a reason.

That a hypervisor finds its guests as on its own hart is derived; what the VMM must merge for that is what the manual
says of each control ("Hypervisor and Virtual Supervisor CSRs"), and leaving it out is noticed by the form named here.
"""

from __future__ import annotations

from functools import partial

import attrs
import pytest
from test_rules import machine

from commands import popek
from popek.architectures.riscv.nesting import MERGED, merged
from popek.architectures.riscv.state import Rv64
from popek.checks.premise import A1, A3_TRAP, A4, A7
from popek.checks.premises import Premises
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.declaration import mistakes
from popek.kernel.technique import Technique
from popek.kernel.words import TRUE
from popek.solving.solver import Answer
from popek_proofs.theorems.instantiate import instantiate

NAME = "hypervisor-and-guests-in-vs"
HANDFUL = ("SRET", "ECALL", "CSRRW sstatus", "CSRRW hstatus", "HLV.D", "CSRRS sip", "FMV.D.X", "CSRRW satp")
COUNTERS = ("CY", "TM", "IR", "HPM3")
WITHOUT_CLOCKS = ("VTSR=1", "SSTC=0", *(f"MCOUNTEREN_{name}=0" for name in COUNTERS))
EVERYTHING_OPEN = ("VTSR=1", *(f"HCOUNTEREN_{name}=1" for name in COUNTERS), "HSE0=1", "HENVCFG=1")
NOTICED = {
    "vtvm": "CSRRW rd, satp, rs1",
    "vtw": "WFI",
    "hcounteren": "CSRRS rd, cycle, rs1",
    "hstateen0": "CSRRS rd, sstateen0, rs1",
    "hideleg": "CSRRS rd, sie, rs1",
    "fs": "FMV.D.X fd, rs1",
    "htimedelta": "CSRRS rd, time, rs1",
}


def subject(*settings: str, **changes: object) -> Subject[Rv64]:
    known = machine()
    technique: Technique[Rv64] = attrs.evolve(known.technique(NAME), **changes)
    return Subject.of(known, technique, settings)


def of_form(about: Subject[Rv64], form: str, name: str) -> Truth:
    instruction = about.machine.instructions[form]
    found = Premises(about).of(instruction, about.explore(instruction))
    return next(one.truth for one in found if one.name == name)


def test_theorem_2_holds_of_a_hart_on_which_no_clock_is_read() -> None:
    known = machine()
    few = attrs.evolve(known, instructions={i.form: i for name in HANDFUL for i in known.find(name)})
    found = instantiate(Subject.of(few, NAME, WITHOUT_CLOCKS))
    assert (found.theorem1.value, found.theorem2.value) == ("holds", "holds")


def test_a_hypervisors_guests_are_among_those_asked_about() -> None:
    asked = Premises(subject("VTSR=1"))
    for v in (0, 1):
        for prv in (0, 1):
            guest = asked.guest
            assert asked.ask.first([[guest.v == v, guest.prv == prv]]) is Answer.SAT


@pytest.mark.parametrize("name", MERGED)
def test_each_control_is_merged_for_a_reason(name: str) -> None:
    form = NOTICED[name]
    assert of_form(subject(*EVERYTHING_OPEN), form, A1) is Truth.YES
    alone = partial(merged, without=frozenset((name,)))
    assert of_form(subject(*EVERYTHING_OPEN, map=alone), form, A1) is Truth.NO


def test_the_promises_are_kept() -> None:
    """As `popek classify --promises` asks them: the hart's settings are the image's, the guest's own are open."""
    about = subject("VTSR=1")
    keeper = Keeper(about)
    for form in (*NOTICED.values(), "SRET"):
        kept = keeper.keeps(about.machine.instructions[form])
        assert (kept.fidelity.kept, kept.safety.kept) == (Truth.YES, Truth.YES), form


def test_sret_must_trap_while_the_hypervisor_runs() -> None:
    assert of_form(subject("VTSR=0"), "SRET", A1) is Truth.NO


def test_what_is_kept_of_some_guests_alone_is_live_in_the_others() -> None:
    """Kept of all, it would change natively behind the VMM's back; kept of none, guests could not be told apart."""
    form = "CSRRW rd, sscratch, rs1"
    assert of_form(subject(*EVERYTHING_OPEN), form, A1) is Truth.YES
    assert of_form(subject(*EVERYTHING_OPEN, shadowed_when={}), form, A1) is Truth.NO
    technique = machine().technique(NAME)
    dropped = tuple(name for name in technique.shadowed if name not in technique.shadowed_when)
    told_apart = {shadowed: _told_apart(shadowed) for shadowed in (technique.shadowed, dropped)}
    assert told_apart == {technique.shadowed: Truth.YES, dropped: Truth.NO}


def _told_apart(shadowed: tuple[str, ...]) -> Truth:
    """Whether two guests of which the same is noted have different images."""
    asked = Premises(subject("VTSR=1", shadowed=shadowed))
    asked._asked = set(asked.machine.instructions)  # as if each had been explored, and they change everything
    asked._changed = {leaf.component for leaf in asked.machine.state.leaves}
    return next(one.truth for one in asked.once() if one.name == A4)


def test_a_platform_that_keeps_exceptions_ends_a_guest_and_the_nesting() -> None:
    """A3 and A7 say so of a firmware that is no part of the guest."""
    anyhow = subject("VTSR=1", guest=lambda state: (state.prv != 3) & state.misa.h)
    assert of_form(anyhow, "ECALL", A3_TRAP) is Truth.NO
    asked = Premises(subject("VTSR=1", private=lambda guest, private: TRUE))
    assert next(one.truth for one in asked.once() if one.name == A7) is Truth.NO


def test_what_a_technique_owns_is_told_in_a_few_words() -> None:
    said = popek("machines", "rv64").stdout
    described = " ".join(said[said.index(NAME) :].split())
    assert "owned: v, misa, mstatus but .fs, medeleg, mideleg, mie but .vssi .vsti .vsei, mip," in described
    assert (
        "shadowed of some guests alone: mstatus.sie .spie .spp .vs .sum .mxr .uxl, mie.ssi .vssi .sti"
        in described
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"shadowed_when": {"mip.ssj": lambda guest: guest.v}},
            "shadowed_when names 'mip.ssj', which is not shadowed; near: mip.ssi",
        ),
        (
            {"shadowed_when": {"mip.ssi": lambda guest: guest.prv}},
            "shadowed_when['mip.ssi'] gives a word of 2 bits: expected a condition",
        ),
        (
            {"guest_settings": {"VTSX": None}},
            "guest_settings names 'VTSX', which is no setting; near: VTSR",
        ),
    ],
)
def test_a_wrong_declaration_is_one_line(changes: dict[str, object], line: str) -> None:
    known = machine()
    technique = attrs.evolve(known.technique(NAME), **changes)
    (said,) = mistakes(known, [technique])
    assert line in said
