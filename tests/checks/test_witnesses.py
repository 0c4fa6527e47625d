"""Counterexamples: minimal, replayed, shown by field; a time limit takes one away and never makes one up."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from machine_shop import YES, classified, promised, replaced

from popek.architectures.ia32 import MACHINES as IA32
from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import Pg74
from popek.checks.classification import Classification
from popek.checks.counterexample import Counterexample, ReplayError, differences
from popek.checks.verdict import Question, Status
from popek.kernel.outcome import Next
from popek.kernel.words import Word
from popek.solving.solver import Answer


@cache
def silent_gmode() -> Classification[Any]:
    return classified(build(), "GMODE a", "GMODE=0")


def witness_of(found: Classification[Any], name: str) -> Counterexample[Any]:
    witness = found.findings[name].witness
    assert witness is not None
    return witness


def test_a_witness_is_shown_side_by_side_with_field_names() -> None:
    text = str(witness_of(silent_gmode(), "mode_sensitive"))
    assert text.splitlines()[0].split("  ")[0].startswith("The two states differ only in mode")
    assert "user mode" in text
    assert "supervisor mode" in text
    assert "straps.gmode" in text
    assert "GMODE 0" in text


def test_a_change_names_register_and_field_with_both_values() -> None:
    machine = IA32["ia32"]()
    witness = witness_of(classified(machine, "CLI", "IOPL=1"), "control_sensitive")
    assert [str(change) for change in witness.differ if change.name.startswith("eflags.if")] == [
        "eflags.if 1 → 0"
    ]


def test_a_notebook_shows_a_table_whose_text_is_escaped() -> None:
    machine = build()

    @machine.instruction("A<B a")
    def spy(cpu: Pg74, a: Word) -> None:
        """E[a] := M."""
        cpu.store(a, cpu.mode.zero_extend(32))

    table = witness_of(classified(machine, "A<B a"), "mode_sensitive")._repr_html_()
    assert table.startswith("<table><caption>A&lt;B 0: ")
    assert "<b>" in table
    assert "A<B" not in table


@pytest.mark.parametrize("strap", ["GMODE", "LPSW", "SREL"])
def test_every_difference_from_the_reset_state_is_needed(strap: str) -> None:
    """Undoing any one of the differences undoes the witness."""
    machine = build()
    (instruction,) = machine.find(strap)
    witness = witness_of(classified(machine, instruction.form, f"{strap}=0"), "mode_sensitive")
    assert witness.second is not None
    assert witness.before
    operand = Word(8, int(witness.assembly.split()[1]))

    def tells(undone: str | None) -> bool:
        runs = [_undone(run.before, undone) for run in (witness.first, witness.second) if run is not None]
        ends = [machine.step(instruction, start, {"operand a": operand}) for start in runs]
        if not all(isinstance(end, Next) for end in ends):
            return False
        differ = differences(ends[0].state, ends[1].state, {"memory": (int(operand),)})  # type: ignore[union-attr]
        return any(difference.name != "mode" for difference in differ)

    assert tells(None)
    assert [needed.name for needed in witness.before if tells(needed.name)] == []


def _undone(state: Any, name: str | None) -> Any:
    """The state with one leaf or cell as in the reset state."""
    if name is None:
        return state
    storage, bracket, where = name.partition("[0x")
    if not bracket:
        return state.with_changes({name: int(type(state).reset()[name])})
    changed = state.copy()
    content = state.memories()[storage]
    changed.memory = content.store(Word(content.address_width, int(where.rstrip("]"), 16)), Word(32, 0))
    return changed


def test_a_witness_that_does_not_replay_is_a_defect_and_is_not_reported() -> None:
    def cheating(cpu: Pg74, a: Word) -> None:
        if not a.concrete:  # on symbols it shows the mode, on numbers it does not
            cpu.store(a, cpu.mode.zero_extend(32))

    machine = replaced(build(), "GMODE a", cheating)
    found = classified(machine, "GMODE a")
    assert found.truth("mode_sensitive") is YES
    with pytest.raises(ReplayError, match="does not replay"):
        _ = found.findings["mode_sensitive"].witness


def test_without_time_to_find_it_again_there_is_no_witness_and_the_answer_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = classified(build(), "GREL a", "GREL=0")
    kept = promised(build(), "GREL a", "GREL=0")
    monkeypatch.setattr(Question, "ask", lambda self, effort=None, **more: (Answer.UNKNOWN, None, None))
    assert found.truth("location_sensitive") is YES
    assert found.findings["location_sensitive"].witness is None
    assert kept.safety.status is Status.REFUTED
    assert kept.safety.witness is None


def test_the_same_question_gives_the_same_witness() -> None:
    first = witness_of(classified(build(), "LRA a, b", "LRA=0"), "location_sensitive").to_json()
    assert first == witness_of(classified(build(), "LRA a, b", "LRA=0"), "location_sensitive").to_json()
