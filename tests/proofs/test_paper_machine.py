"""The theorems on the paper's machine: verdicts, planted faults, and programs that tell the difference."""

from __future__ import annotations

import json
from functools import cache

import pytest

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import STRAPPED
from popek.checks.premise import A1, A10, THEOREM1
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.configuration import Configuration, configure
from popek.kernel.words import Word
from popek_proofs import paper_machine, rocq
from popek_proofs.theorems.instantiate import Instantiation, instantiate
from popek_proofs.theorems.monitor import bare_step, shown
from popek_proofs.theorems.red_pill import lines, shortest_red_pill
from popek_proofs.theorems.single_step import tells_at_once

HYBRID = {"LPSW", "SREL", "GMODE", "DROP"}  # what Theorem 3 forgives: the difference is in supervisor mode


def silent(strap: str) -> Configuration:
    return configure(build(), [f"{strap}=0"])


@cache
def with_silent(strap: str) -> Instantiation[paper_machine.Pg74]:
    return instantiate(Subject.of(build(), configuration=silent(strap)))


@cache
def with_fault(fault: str) -> Instantiation[paper_machine.Pg74]:
    return instantiate(Subject.of(paper_machine.faulty(fault)))


def test_with_every_strap_the_machine_is_virtualizable_by_theorem_1() -> None:
    sound = instantiate(Subject.of(build()))
    assert sound.theorem1 is Status.HOLDS
    assert sound.theorem3 is Status.HOLDS
    assert "is virtualizable by Theorem 1 for what is modelled, over 11 modelled forms" in str(sound)
    sensitive = {c.instruction.mnemonic for c in sound.classes if c.sensitive is Truth.YES}
    privileged = {c.instruction.mnemonic for c in sound.classes if c.privileged is Truth.YES}
    # GMODE that traps is no longer sensitive: no run in user mode is left to compare.
    assert (sensitive, privileged) == (set(STRAPPED) - {"GMODE"}, set(STRAPPED))
    asked = {(p.name, p.form) for p in sound.premises}
    assert {form for name, form in asked if name == A1} == set(build().instructions)


def test_premises_that_were_not_asked_are_said_to_be_taken_for_granted() -> None:
    verdict = instantiate(Subject.of(build()))
    assert not verdict.not_asked(THEOREM1)
    assert "; taken for granted: what is fetched from f(S) is what is fetched from S; concluded by" in str(
        verdict
    )
    silent = build()
    silent.deliver = None
    verdict = instantiate(Subject.of(silent))
    assert "what is fetched from f(S) is what is fetched from S; where an entry is, is the control" in str(
        verdict
    )
    assert {p.name for p in verdict.not_asked(THEOREM1)} == {"A5_vector"}


def test_no_program_of_up_to_two_instructions_tells_where_theorem_1_holds() -> None:
    search = paper_machine.search(build(), longest=2)
    assert search.pill is None
    assert len(search.tried) == 2
    assert search.tried[1] > search.tried[0] > 0


@pytest.mark.parametrize("strap", STRAPPED)
def test_a_silent_instruction_refutes_theorem_1_and_a_short_program_tells(strap: str) -> None:
    verdict = with_silent(strap)
    assert verdict.theorem1 is Status.REFUTED
    assert verdict.theorem3 is (Status.HOLDS if strap in HYBRID else Status.REFUTED)
    assert {p.form.split()[0] for p in verdict.failing((A1,))} == {strap}
    expected = (
        "by Theorem 3, not by Theorem 1, because"
        if strap in HYBRID
        else "neither by Theorem 1 nor by Theorem 3"
    )
    assert expected in str(verdict)
    assert strap in str(verdict)
    pill = paper_machine.search(build(), silent(strap)).pill
    assert pill is not None
    assert len(pill.program) <= 3
    assert strap in {line.instruction.mnemonic for line in pill.program}


LENGTHS = {"GREL": 1, "GMODE": 1, "LRA": 1, "LPSW": 2, "SREL": 2, "DROP": 2}


@pytest.mark.parametrize(("strap", "length"), LENGTHS.items())
def test_the_shortest_program_is_as_long_as_the_difference_is_hidden(strap: str, length: int) -> None:
    """What reads a resource tells at once; what changes one needs a second instruction that shows it."""
    search = paper_machine.search(build(), silent(strap))
    assert search.pill is not None
    assert len(search.pill.program) == length
    assert len(search.tried) == length - 1


@pytest.mark.parametrize("strap", STRAPPED)
def test_a_hybrid_monitor_is_told_exactly_where_theorem_3_fails(strap: str) -> None:
    pill = paper_machine.search(build(), silent(strap), hybrid=True, longest=2).pill
    assert (pill is None) is (strap in HYBRID)


def test_the_search_keeps_guests_apart_that_the_bare_machine_does_not_tell() -> None:
    """JUMP in user mode and DROP lead the bare machine to one state, and the virtual machine to two."""
    configuration = silent("DROP")
    starts = [paper_machine.guest(configuration, user=True), paper_machine.guest(configuration)]
    wanted = {"JUMP a", "DROP a", "SVC"}
    few = [line for line in lines(build(), [2]) if line.instruction.form in wanted]
    search = shortest_red_pill(paper_machine.monitor(build(), configuration), starts, few, 2)
    assert search.pill is not None
    assert [line.instruction.form for line in search.pill.program] == ["DROP a", "SVC"]


def test_a_red_pill_replays_step_by_step() -> None:
    configuration = silent("DROP")
    pill = paper_machine.search(build(), configuration).pill
    assert pill is not None
    machine, monitor = build(), paper_machine.monitor(build(), configuration)
    bare = virtual = pill.start
    for line in pill.program:
        assert shown(machine, bare, monitor.cells) == shown(machine, virtual, monitor.cells)
        bare = bare_step(machine, bare, line.instruction, line.words)
        virtual = monitor.step(virtual, line.instruction, line.words).guest
    left, right = shown(machine, bare, monitor.cells), shown(machine, virtual, monitor.cells)
    assert {n: left[n] for n in left if left[n] != right[n]} == pill.bare
    assert pill.to_json()["breaks"] == "equivalence"


FAULTS = {
    # fault: (theorem 1, theorem 3), the premise that fails
    "silent-relocation": (Status.REFUTED, Status.HOLDS, A1),
    "readable-mode": (Status.REFUTED, Status.HOLDS, A1),
    "absolute-move": (Status.REFUTED, Status.REFUTED, A1),
    "forgetful-trap": (Status.REFUTED, Status.REFUTED, A1),
    "quiet-call": (Status.REFUTED, Status.HOLDS, A1),
    "unchecked-store": (Status.REFUTED, Status.REFUTED, A1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_flips_the_verdict_and_a_short_guest_program_shows_it(fault: str) -> None:
    machine = paper_machine.faulty(fault)
    form, _ = paper_machine.FAULTS[fault]
    first, third, premise = FAULTS[fault]
    verdict = with_fault(fault)
    assert (verdict.theorem1, verdict.theorem3) == (first, third)
    failing = verdict.failing((premise,))
    assert [p.form for p in failing] == [form]
    assert failing[0].witness is not None
    assert form in str(verdict)
    json.dumps(verdict.to_json())
    pill = paper_machine.search(machine).pill
    assert pill is not None
    assert len(pill.program) <= 3
    assert form in {line.instruction.form for line in pill.program}
    hybrid = paper_machine.search(machine, hybrid=True, longest=2).pill
    assert (hybrid is None) is (third is Status.HOLDS)


def test_the_fault_that_the_paper_s_definitions_do_not_see() -> None:
    """SVC that traps in supervisor mode and does nothing in user mode is neither sensitive nor privileged."""
    verdict = with_fault("quiet-call")
    assert all(one.critical is Truth.NO for one in verdict.classes)
    (premise,) = verdict.failing((A1,))
    assert premise.witness is not None
    assert premise.witness["native"]["trap"] == "supervisor call"
    assert "changes" in premise.witness["virtualized"]
    assert verdict.failing((A10,)) == ()
    (one,) = verdict.disagreements
    assert (one.form, one.how) == ("SVC", "not sensitive, and not faithful")
    assert one.witness is not None
    assert one.witness["assembly"] == "SVC"


def test_an_escape_is_reported_as_broken_resource_control() -> None:
    pill = paper_machine.search(paper_machine.faulty("unchecked-store")).pill
    assert pill is not None
    assert pill.breaks == "resource control"
    assert "of the monitor" in pill.escape


def promoting_jump(cpu: paper_machine.Pg74, a: Word) -> None:
    """JUMP that also enters supervisor mode."""
    cpu.mode, cpu.pc = Word(1, 0), a


def test_a_way_into_supervisor_mode_that_is_no_trap_is_not_waved_through() -> None:
    machine = paper_machine.with_semantics(build(), "JUMP a", promoting_jump)
    verdict = instantiate(Subject.of(machine))
    assert (verdict.theorem1, verdict.theorem3) == (Status.REFUTED, Status.REFUTED)
    assert "neither by Theorem 1 nor by Theorem 3, because JUMP a" in str(verdict)
    pill = paper_machine.search(machine).pill
    assert pill is not None
    assert pill.escape == "the guest runs in supervisor mode"


@pytest.mark.parametrize("strap", STRAPPED)
def test_what_one_instruction_can_tell_is_settled_for_every_state(strap: str) -> None:
    told = tells_at_once(Subject.of(build(), None, silent(strap)))
    alone = {form.split()[0] for form, truth in told.items() if truth is Truth.YES}
    assert alone == ({strap} if LENGTHS[strap] == 1 else set())
    assert Truth.UNKNOWN not in told.values()


def test_the_monitor_runs_innocuous_instructions_directly_and_interprets_the_rest() -> None:
    machine = build()
    guest = paper_machine.guest()
    operands = {"operand a": Word(8, 2), "operand b": Word(8, 3)}
    plain, hybrid = paper_machine.monitor(machine), paper_machine.monitor(machine, hybrid=True)
    for form, how in (("MOVE a, b", "direct"), ("GMODE a", "interpreted"), ("SVC", "interpreted")):
        instruction = machine.instructions[form]
        assert plain.step(guest, instruction, operands).how == how
        assert hybrid.step(guest, instruction, operands).how == "interpreted"
    user = paper_machine.guest(user=True)
    assert hybrid.step(user, machine.instructions["MOVE a, b"], operands).how == "direct"


def test_rows_for_the_report_say_which_premise_fails_for_which_instruction() -> None:
    first, second, third = with_silent("DROP").to_json()
    assert (first["id"], first["verdict"]) == ("theorem1.of.pg74", "refuted")
    assert (second["id"], second["verdict"]) == ("theorem2.of.pg74", "refuted")
    assert (third["id"], third["verdict"]) == ("theorem3.of.pg74", "holds")
    (failing,) = first["failing"]  # type: ignore[misc]
    assert failing["form"] == "DROP a"
    assert failing["witness"]["assembly"].startswith("DROP")


def test_over_a_part_of_the_forms_no_theorem_holds_and_the_verdict_says_over_how_many() -> None:
    told: list[tuple[int, int]] = []
    found = instantiate(
        Subject.of(build()), ["MOVE a, b", "JUMP a"], lambda done, total: told.append((done, total))
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert {s.value for s in (found.theorem1, found.theorem2, found.theorem3)} == {"unknown"}
    assert "over 2 forms asked of 11 no premise fails" in str(found)
    rows = found.to_json()
    assert [(row["verdict"], row["forms_asked"]) for row in rows] == [("unknown", 2)] * 3
    once = {p.name: p.truth.value for p in found.premises if not p.form}
    assert set(once.values()) == {"not-asked"}
    whole = {p.name for p in instantiate(Subject.of(build())).premises if not p.form}
    assert whole <= set(once)
    part = ["DROP a", "MOVE a, b"]
    without = instantiate(Subject.of(build(), configuration=silent("DROP")), part)
    assert (without.theorem1.value, without.theorem3.value) == ("refuted", "unknown")
    assert "over 2 forms asked of 11, is not virtualizable by Theorem 1, because DROP a" in str(without)


def test_theorem_2_says_what_it_takes_for_granted_of_control_programs() -> None:
    second = instantiate(Subject.of(build())).to_json()[1]
    assert second["verdict"] == "holds"
    assert second["taken_for_granted"] == [
        *("A2_fetch", "A9_fetch"),
        *("any_notes_kept", "told_by_image", "room", "coded_at"),
    ]
    assert "to any depth to which each control program can keep its notes" in str(second["statement"])
    statement = rocq.load().theorem("Theorem2.theorem_2_from_premises").statement
    assert all(f" {name} " in statement for name in second["taken_for_granted"])  # type: ignore[attr-defined]
