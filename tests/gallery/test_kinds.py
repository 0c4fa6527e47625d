"""Kinds of mistake, each on more than one machine: escapes, settings, nothing to ask about, budgets, time, words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import attrs
import pytest
from test_gallery import WINDOW, WRITTEN

from commands import popek
from popek.architectures import ia32, pdp11
from popek.architectures.pg74.machine import Pg74, build
from popek.checks.classify import Classifier
from popek.checks.counterexample import ReplayError
from popek.checks.presence import NothingToAskError, present
from popek.checks.promises import Keeper
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.configuration import configure, default_configuration
from popek.kernel.exploration import Budget, PathBudgetError
from popek.kernel.machine import Machine
from popek.kernel.outcome import DeclarationError, Trap
from popek.kernel.words import FALSE, Word
from popek.machines import from_file
from popek.machines import machine as find_machine
from popek_proofs.theorems.instantiate import Instantiation, instantiate

HERE = Path(__file__).parent


def asked(machine: Machine[Any], form: str, *settings: str) -> tuple[Any, Any]:
    """Classes and promises of one form."""
    configuration, technique = configure(machine, settings), machine.technique()
    instruction = machine.instructions[form]
    run = explore_instruction(machine, instruction, configuration=configuration)
    found = Classifier(Subject.of(machine, technique, configuration), components=False).classify(
        instruction, run
    )
    return found, Keeper(Subject.of(machine, technique, configuration)).keeps(instruction, run)


def only(machine: Machine[Any], *forms: str) -> Machine[Any]:
    """The machine with these forms alone."""
    return attrs.evolve(machine, instructions={form: machine.instructions[form] for form in forms})


# -- escapes --------------------------------------------------------------------------------------


def pdp11_back_door(cpu: Any) -> None:
    """Kernel mode, and on with the next instruction."""
    cpu.ps.current = Word(2, 0)


def ia32_back_door(cpu: Any) -> None:
    """Ring 0, and on with the next instruction."""
    for segment in (cpu.cs, cpu.ss):
        segment.selector.rpl = 0
        segment.rights.dpl = 0


@pytest.mark.parametrize(
    ("made", "door"),
    [(pdp11.MACHINES["pdp11-45"], pdp11_back_door), (ia32.MACHINES["ia32"], ia32_back_door)],
)
def test_a_way_out_that_is_no_entry_is_control_sensitive_and_breaks_both_promises(
    made: Any, door: Any
) -> None:
    machine = made()
    machine.instruction("BACKDOOR")(door)
    found, kept = asked(machine, "BACKDOOR")
    assert (found.privileged, found.truth("control_sensitive"), found.critical) == (
        Truth.NO,
        Truth.YES,
        Truth.YES,
    )
    assert (kept.safety.status, kept.fidelity.status) == (Status.REFUTED, Status.REFUTED)
    assert kept.safety.witness is not None


def test_the_entries_of_the_fast_system_call_are_the_vmms() -> None:
    machine = ia32.MACHINES["ia32"]()
    found, kept = asked(machine, "SYSENTER")
    assert (found.privileged, kept.safety.status) == (Truth.YES, Status.HOLDS)


# -- settings -------------------------------------------------------------------------------------


def test_a_setting_counts_that_shows_only_in_the_result() -> None:
    for form, setting, expected in (
        ("MASKED a", "MASK=1", Truth.NO),
        ("MASKED a", "MASK=0", Truth.YES),
        ("MASKTRAP a", "MASK=1", Truth.NO),
        ("MASKTRAP a", "MASK=0", Truth.YES),
    ):
        found, _ = asked(WINDOW, form, setting)
        assert found.critical is expected, (form, setting)


def test_the_guest_host_mask_of_vt_x_hides_what_it_covers() -> None:
    machine = find_machine("ia32-vt-x")
    for setting in ("MASKS=1", "MASKS=2"):
        found, kept = asked(machine, "SMSW r32", setting)
        assert found.user_critical is Truth.NO
        assert kept.safety.status is Status.HOLDS


def test_a_witness_outside_of_its_question_stops_the_program() -> None:
    """A reset state that the configuration excludes is what nobody asked about is filled in with."""
    found, _ = asked(WINDOW, "TOPBIT a")
    assert found.witness is not None
    strange = attrs.evolve(
        WINDOW, invariant=lambda state: (state.acc if "acc" in state.words() else state.latch) == 7
    )
    right, _ = asked(strange, "TOPBIT a")
    assert right.witness is not None  # asked with the invariant, found within it
    configuration, technique = default_configuration(WINDOW), WINDOW.technique()
    classifier = Classifier(Subject.of(WINDOW, technique, configuration), components=False)
    answer = classifier.classify(WINDOW.instructions["TOPBIT a"])
    classifier.machine.invariant, before = (lambda state: FALSE), classifier.machine.invariant
    try:
        with pytest.raises(ReplayError, match="outside the invariant"):
            answer.witness  # noqa: B018 - replayed
    finally:
        classifier.machine.invariant = before


# -- nothing to ask about -------------------------------------------------------------------------


def test_a_configuration_without_states_is_refused_in_one_line() -> None:
    answer = popek("classify", "s370", "--set", "EC=0", "--set", "DAT=1")
    assert answer.returncode == 2
    assert answer.stderr.strip().count("\n") == 0
    assert "no state of s370 fulfils" in answer.stderr


@pytest.mark.parametrize(
    "empty",
    [
        {"instructions": {}},
        {"invariant": lambda state: FALSE},
        {"supervisor": lambda state: FALSE},
    ],
)
def test_nothing_is_said_of_nothing(empty: dict[str, Any]) -> None:
    machine = attrs.evolve(build(), **empty)
    with pytest.raises((NothingToAskError, DeclarationError)):
        present(Subject.of(machine))
    with pytest.raises((NothingToAskError, DeclarationError)):
        instantiate(Subject.of(machine))


def test_what_is_there_is_shown_as_numbers() -> None:
    machine = build()
    found = present(Subject.of(machine)).to_json()
    assert found["user state and supervisor twin"] == [{"mode": "0x1"}, {}]
    assert found["guest and what the VMM keeps"] == [{"last": "0xfd"}, {"relocation.base": "0x2"}]


def test_what_was_not_asked_says_why() -> None:
    machine = attrs.evolve(build(), relocate=None)
    found, _ = asked(machine, "GREL a", "GREL=0")
    location = found.findings["location_sensitive"]
    assert (location.truth, location.evidence) == (Truth.NOT_ASKED, None)
    assert "moving a program" in location.why
    assert found.truth("resource_sensitive") is Truth.NOT_ASKED
    assert found.sensitive is Truth.NO  # of what was asked


# -- budgets --------------------------------------------------------------------------------------


def spin_on_storage(cpu: Pg74, a: Word) -> None:
    """A loop that storage decides."""
    left = cpu.load(a)
    while left != 0:
        left = left - 1


def spin(cpu: Pg74, a: Word) -> None:
    """A loop that nothing ends."""
    while True:
        cpu.pc = a


def ways(cpu: Pg74, a: Word) -> None:
    """65,536 ways."""
    value = cpu.load(a)
    for bit in range(16):
        if value[bit]:
            cpu.pc = cpu.pc + bit


@pytest.mark.parametrize(
    ("semantics", "said"), [(spin_on_storage, "decisions"), (spin, "lines"), (ways, "paths")]
)
def test_what_does_not_end_is_unknown_and_says_where(semantics: Any, said: str) -> None:
    machine = only(build(), "SVC")
    machine.instruction("LONG a")(semantics)
    few = Budget(paths=60, forks=30, lines=2000)
    with pytest.raises(PathBudgetError, match=rf"budget of \d+ {said}.*, at .*test_kinds.py:\d+"):
        explore_instruction(machine, machine.instructions["LONG a"], budget=few)


def test_the_verdict_about_a_machine_with_an_endless_instruction_is_unknown() -> None:
    machine = only(build(), "SVC")
    machine.instruction("LONG a")(spin)
    found = instantiate(Subject.of(machine))
    assert (found.theorem1, found.theorem3) == (Status.UNKNOWN, Status.UNKNOWN)
    assert "budget of" in str(found)


# -- time -----------------------------------------------------------------------------------------


def test_a_clock_breaks_a_promise_only_where_time_is_state() -> None:
    instruction, configuration = WINDOW.instructions["CLOCK a"], default_configuration(WINDOW)
    for time_is_state, expected in ((False, Status.HOLDS), (True, Status.REFUTED)):
        keeper = Keeper(Subject.of(WINDOW, None, configuration, time_is_state=time_is_state))
        kept = keeper.keeps(instruction)
        assert (kept.fidelity.status, kept.safety.status) == (expected, expected)


# -- what must always agree -----------------------------------------------------------------------


def proved(*forms: str) -> Instantiation[Any]:
    """The theorems of the gallery's machine with these forms alone."""
    return instantiate(Subject.of(only(WINDOW, *forms)))


def test_a_machine_of_the_gallerys_good_forms_is_virtualizable_and_each_bad_one_spoils_it() -> None:
    good = [form for form, row in WRITTEN.items() if row["faithful"] == row["safe"] == row["a1"] == "yes"]
    found = proved(*good)
    assert found.theorem1 is Status.HOLDS, str(found)
    assert "for what is modelled" in str(found)
    assert "STACK a" in {one.form for one in found.disagreements}
    bad = [form for form in WRITTEN if form not in good]
    assert {
        p.form
        for p in instantiate(Subject.of(WINDOW)).failing(
            ("A1_fidelity", "A4_entry_tells_apart", "A5_control")
        )
    } == set(bad)


def test_one_more_copy_and_another_order_change_nothing() -> None:
    plain = proved("NOP", "MODE a", "GETBASE a")
    again = only(WINDOW, "GETBASE a", "MODE a", "NOP")
    again.instructions["NOP 2"] = attrs.evolve(again.instructions["NOP"], form="NOP 2")
    more = instantiate(Subject.of(again))
    assert (plain.theorem1, plain.theorem3) == (more.theorem1, more.theorem3)
    before = {(p.name, p.form): p.truth for p in plain.premises}
    after = {(p.name, p.form): p.truth for p in more.premises}
    assert before.items() <= after.items()
    assert {n: t for (n, f), t in after.items() if f == "NOP"} == {
        n: t for (n, f), t in after.items() if f == "NOP 2"
    }


def test_what_is_privileged_traps_on_numbers_from_every_user_state_tried() -> None:
    chance = random.Random(1974)
    for form, row in WRITTEN.items():
        if row["privileged"] == "yes":
            for _ in range(200):
                words = {leaf.name: chance.getrandbits(leaf.width) for leaf in WINDOW.state.leaves}
                state = WINDOW.state.reset().with_changes({**words, "mode": 1, "mask": 0xFF})
                instruction = WINDOW.instructions[form]
                operands = {
                    n: Word(w, chance.getrandbits(w)) for o in instruction.inputs for n, w in o.part_names()
                }
                assert isinstance(WINDOW.step(instruction, state, operands), Trap), form


def test_prove_says_over_what_and_the_premises_as_json(tmp_path: Path) -> None:
    answer = popek("prove", "pg74", "--json")
    first = json.loads(answer.stdout)["propositions"][0]
    assert first["scope"]["forms"] == 11
    assert first["scope"]["left_out"] == ["input and output"]
    assert first["taken_for_granted"] == ["A2_fetch"]
    assert first["theorem"]["name"] == "Theorem1.theorem_1_told_apart"
    assert first["theorem"]["assumptions"] == "Closed under the global context"
    assert first["while_the_guest_stays_ok"] is False
    assert {row["id"] for row in first["not_asked"]} >= {
        "A6_interrupt_tells_apart",
        "A6_interrupt_noticed",
        "A6_interrupt_closure",
    }
    path = tmp_path / "peek.py"
    path.write_text(PEEK, encoding="utf-8")
    answer = popek("prove", str(path), "--json")
    first = json.loads(answer.stdout)["propositions"][0]
    assert first["verdict"] == "refuted"
    # What is below may be none of the guest's cells: A4.
    assert [(row["id"], row["form"]) for row in first["failing"]] == [
        ("A1_fidelity", "PEEKB a"),
        ("A4_entry_tells_apart", "PEEKB a"),
    ]
    (one,) = first["disagreements"]
    assert (one["form"], one["how"]) == ("PEEKB a", "not sensitive, and not faithful")
    assert one["witness"]["assembly"].startswith("PEEKB")


PEEK = '''
from popek.architectures.pg74 import MACHINES

machine = MACHINES["pg74"]()


@machine.instruction("PEEKB a")
def peek(cpu, a):
    """E[a] := the cell below the window."""
    cpu.store(a, cpu.memory.load(cpu.relocation.base - 1))
'''


def test_a_machine_file_declares_the_gallery() -> None:
    assert from_file(HERE / "window.py").name == "window"
