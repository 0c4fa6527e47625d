"""Nobody escapes while the hypotheses hold; each is needed, and a processor that checks less lets the guest out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from popek.architectures import ia32
from popek.architectures.ia32.state import Ia32
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.outcome import Next
from popek_proofs.safety import CHANGES, LEAVES, STORES, Safety, safety

IA32 = ia32.MACHINES["ia32"]()
ONE, THREE = "ring-deprivileging-0/1/3", "ring-deprivileging-0/3/3"
HOW = {
    "pages": STORES,
    "own-tables": LEAVES,
    "no-gates": LEAVES,
    "idt-gates": LEAVES,
    "no-ldt": LEAVES,
    "no-pke": CHANGES,
    "iopl": CHANGES,
    "io-map": CHANGES,
}


def asked(
    *forms: str,
    machine: Machine[Any] = IA32,
    technique: str = ONE,
    without: tuple[str, ...] = (),
    **options: Any,
) -> Safety:
    return safety(
        Subject.of(machine, technique),
        without=without,
        forms=[machine.instructions[form] for form in ("NOP", *forms)],
        shows=options.get("shows", False),
    )


@pytest.fixture(scope="module")
def whole() -> Safety:
    """Every hypothesis, and all but each, over the forms that matter to them and some others."""
    forms = {form for h in IA32.technique(ONE).hypotheses for form in h.examples}
    return asked(*sorted(forms), "SYSENTER", "POPFD", "PUSH CS", "STI", "LGDT m16&32", "MOV CR3, r32")


@pytest.mark.parametrize("name", HOW)
def test_without_a_hypothesis_there_is_a_way_out(whole: Safety, name: str) -> None:
    (dropped,) = (one for one in whole.dropped if one.names == (name,))
    assert dropped.safe is Truth.NO
    assert dropped.escape is not None
    assert dropped.escape.how == HOW[name]
    witness = dropped.escape.witness
    assert witness is not None
    run = witness.first
    assert isinstance(run.outcome, Next)
    assert int(run.before.cpl) != 0
    if HOW[name] == LEAVES:
        assert int(run.outcome.state.cpl) == 0
    if HOW[name] == STORES:
        assert any(d.name.startswith("memory[") for d in witness.differ)


def test_at_ring_3_virtual_interrupts_are_one_more() -> None:
    (dropped,) = asked("CLI", technique=THREE, without=("no-pvi",)).dropped
    assert dropped.escape is not None
    assert dropped.escape.how == CHANGES
    assert "no-pvi" not in {h.name for h in IA32.technique(ONE).hypotheses}


def test_with_every_hypothesis_nobody_escapes(whole: Safety) -> None:
    assert whole.held is not None
    assert (whole.held.safe, whole.held.undecided) == (Truth.YES, ())
    assert [one.names for one in whole.dropped] == [(name,) for name in HOW]


def test_what_shows_is_listed_apart() -> None:
    found = asked("SGDT m", "PUSH CS", shows=True)
    assert found.shows == ("SGDT m",)
    assert found.held is not None
    assert found.held.safe is Truth.YES


def test_where_the_model_ends_nobody_knows_that_it_is_no_way_out() -> None:
    """With NT = 1 IRET returns to another task, which is not modelled."""
    found = asked("IRETD")
    assert found.held is not None
    assert (found.held.safe, found.held.undecided) == (Truth.UNKNOWN, ("IRETD",))
    assert found.unknown


def test_what_changes_the_vmms_things_need_not_show_them() -> None:
    machine = ia32.MACHINES["ia32"]()

    def careless_cli(cpu: Ia32) -> None:
        cpu.eflags.if_ = 0

    machine.instructions["CLI"] = attrs.evolve(
        machine.instructions["CLI"], semantics=careless_cli, settings={}
    )
    found = asked("CLI", "SGDT m", machine=machine, shows=True)
    assert found.held is not None
    assert found.held.escape is not None
    assert (found.held.escape.form, found.held.escape.how) == ("CLI", CHANGES)
    assert found.shows == ("SGDT m",)


def test_hypotheses_can_be_dropped_together() -> None:
    (dropped,) = asked("OUT imm8, AL", "CLI", without=("iopl", "io-map")).dropped
    assert dropped.names == ("iopl", "io-map")
    assert dropped.safe is Truth.NO


def test_a_processor_that_forgets_a_check_lets_the_guest_out() -> None:
    """CLI without its look at IOPL, MOV to CR3 without its look at CPL; neither needs an LDT for it."""
    machine = ia32.MACHINES["ia32"]()

    def careless_cli(cpu: Ia32) -> None:
        cpu.eflags.if_ = 0

    def careless_load(cpu: Ia32, r32: Any, **_: Any) -> None:
        cpu.cr3 = cpu.gpr[r32]

    for form, semantics in (("CLI", careless_cli), ("MOV CR3, r32", careless_load)):
        instruction = machine.instructions[form]
        machine.instructions[form] = attrs.evolve(instruction, semantics=semantics, settings={})
        held = asked(form, machine=machine, without=("no-ldt",)).dropped[0]
        assert held.escape is not None
        assert (held.escape.form, held.escape.how) == (form, CHANGES)
        machine.instructions[form] = instruction


def test_an_unknown_hypothesis_is_refused_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="did you mean pages"):
        asked("NOP", without=("page",))
