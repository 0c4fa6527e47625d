"""The paper's machine: virtualizable with every strap, and what one silent instruction does to it."""

from __future__ import annotations

from typing import Any

import pytest
from machine_shop import NO, YES, assert_reruns, classified, promised

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import STRAPPED, Pg74
from popek.checks.classification import Classification
from popek.checks.subject import Subject
from popek.checks.survey import Request, Survey, Surveyor, survey
from popek.checks.verdict import Status
from popek.kernel.machine import Machine
from popek.kernel.words import Word


def surveyed(*settings: str) -> Survey:
    """The whole machine under some settings."""
    return survey(Request(Subject.of("pg74", None, settings), promises=True), jobs=1)


def premise(machine: Machine[Any]) -> Status:
    """The premise of Theorem 1 on a machine that is not in the registry."""
    surveyor = Surveyor(Request(Subject.of(machine)))
    rows = tuple(surveyor.row(form) for form in machine.instructions)
    return Survey("pg74", "", surveyor.subject.configuration, rows).theorem1


def test_with_every_strap_both_premises_hold_and_every_promise_is_kept() -> None:
    found = surveyed()
    assert (found.theorem1, found.theorem3) == (Status.HOLDS, Status.HOLDS)
    assert found.mnemonics("critical") == []
    assert set(found.mnemonics("privileged")) == set(STRAPPED)
    assert {row.faithful for row in found.rows} == {YES}
    assert {row.safe for row in found.rows} == {YES}


# Per instruction left silent: is it user-sensitive, and which promise does it break?  From the paper's
# definitions: GREL and LRA show the real relocation to a program in user mode; the others do less in
# user mode than in supervisor mode, which a user's program cannot tell.
SILENT = {
    "LPSW": (NO, "fidelity"),
    "SREL": (NO, "fidelity"),
    "GREL": (YES, "safety"),
    "GMODE": (NO, "fidelity"),
    "LRA": (YES, "safety"),
    "DROP": (NO, "fidelity"),
}


@pytest.mark.parametrize("strap", STRAPPED)
def test_one_silent_instruction_refutes_theorem_1_and_no_other_is_blamed(strap: str) -> None:
    found = surveyed(f"{strap}=0")
    assert found.theorem1 is Status.REFUTED
    assert found.mnemonics("critical") == [strap]
    user_sensitive, broken = SILENT[strap]
    assert found.theorem3 is (Status.REFUTED if user_sensitive is YES else Status.HOLDS)
    row = next(row for row in found.rows if row.mnemonic == strap)
    assert broken in row.breaches
    assert row.faithful is NO
    assert row.safe is (NO if broken == "safety" else YES)
    others = [row for row in found.rows if row.mnemonic != strap]
    assert all(row.faithful is YES and row.safe is YES for row in others)


def test_with_drop_alone_silent_theorem_3_still_holds() -> None:
    found = surveyed("DROP=0")
    assert (found.theorem1, found.theorem3) == (Status.REFUTED, Status.HOLDS)
    assert classified(build(), "DROP a", "DROP=0").user_sensitive is NO


def test_nothing_is_strapped_and_every_sensitive_instruction_is_critical() -> None:
    assert surveyed(*(f"{strap}=0" for strap in STRAPPED)).mnemonics("critical") == list(STRAPPED)


def test_planting_a_silent_mode_reader_flips_the_verdict_with_a_witness_of_one_step() -> None:
    machine = build()
    assert premise(machine) is Status.HOLDS

    @machine.instruction("SPY a")
    def spy(cpu: Pg74, a: Word) -> None:
        """E[a] := M, in both modes."""
        cpu.store(a, cpu.mode.zero_extend(32))

    assert premise(machine) is Status.REFUTED
    found: Classification[Any] = classified(machine, "SPY a", components=True)
    assert found.critical is YES
    assert found.components == ("mode",)
    witness = found.findings["mode_sensitive"].witness
    assert witness is not None
    assert witness.second is not None
    assert {int(run.before["mode"]) for run in (witness.first, witness.second)} == {0, 1}
    told = witness.to_json()
    assert list(told["apart"]) == ["mode"]  # type: ignore[call-overload]
    assert list(told["differ"]) == ["memory[0x0]"]  # type: ignore[call-overload]
    assert_reruns(machine, "SPY a", told, {"operand a": 0})

    del machine.instructions["SPY a"]
    assert premise(machine) is Status.HOLDS


def test_the_planted_reader_breaks_fidelity_and_is_safe() -> None:
    machine = build()

    @machine.instruction("SPY a")
    def spy(cpu: Pg74, a: Word) -> None:
        """E[a] := M, in both modes."""
        cpu.store(a, cpu.mode.zero_extend(32))

    kept = promised(machine, "SPY a")
    assert kept.fidelity.status is Status.REFUTED
    assert kept.safety.status is Status.HOLDS
    assert kept.fidelity.witness is not None


def test_a_silent_store_past_the_bound_would_be_unsafe() -> None:
    """A planted instruction that stores without relocation reaches the VMM's storage."""
    machine = build()

    @machine.instruction("POKE a, b")
    def poke(cpu: Pg74, a: Word, b: Word) -> None:
        """Real location a := E[b]."""
        cpu.memory = cpu.memory.store(a, cpu.load(b))

    kept = promised(machine, "POKE a, b")
    assert kept.safety.status is Status.REFUTED
    assert kept.safety.how == "changes the VMM's storage"
    assert promised(machine, "MOVE a, b").safety.status is Status.HOLDS


def test_only_the_trap_of_an_innocuous_instruction_is_needless() -> None:
    found = surveyed()
    assert {row.mnemonic for row in found.rows if row.needless_trap is YES} == {"GMODE"}


def test_a_witness_says_nothing_but_what_differs_from_the_reset_state() -> None:
    witness = classified(build(), "GMODE a", "GMODE=0").findings["mode_sensitive"].witness
    assert witness is not None
    assert set(witness.to_json()["before"]) <= {"mode", "straps.gmode"}  # type: ignore[call-overload]
