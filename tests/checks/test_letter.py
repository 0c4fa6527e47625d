"""The classes by the letter of 1974.

The expected answers for the paper's machine are read off the paper's definitions by hand: a supervisor call is
control-sensitive, for only memory traps are left aside; an instruction that reads R, or the mode, is behavior-sensitive
where it completes so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from machine_shop import replaced

from commands import popek
from popek.architectures.pg74.machine import Pg74, build
from popek.checks.letter import Letter, Pair
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine
from popek.kernel.words import Word
from popek.machines import from_file

WINDOW = from_file(Path(__file__).parents[1] / "gallery" / "window.py")
NAMES = ("privileged", "control_sensitive", "behavior_sensitive", "critical")


def asked(machine: Machine[Any], form: str, *settings: str) -> tuple[str, ...]:
    """Privileged, control-sensitive, behavior-sensitive, critical; each witness is made, which replays it."""
    subject, instruction = Subject.of(machine, None, settings), machine.instructions[form]
    found = Letter(subject).of(instruction, subject.explore(instruction))
    for name, answer in found.answers.items():
        shown = (answer.truth is Truth.NO) if name == "privileged" else (answer.truth is Truth.YES)
        assert (answer.witness is not None) == shown, name
    return tuple(found.truths[name].value for name in NAMES)


@pytest.mark.parametrize(
    ("form", "settings", "expected"),
    [
        ("MOVE a, b", (), ("no", "no", "no", "no")),
        ("JZERO a, b", (), ("no", "no", "no", "no")),
        ("SVC", (), ("no", "yes", "no", "yes")),
        ("LPSW a", (), ("yes", "yes", "no", "no")),
        ("GREL a", (), ("yes", "yes", "yes", "no")),
        ("GREL a", ("GREL=0",), ("no", "no", "yes", "yes")),
        ("LRA a, b", ("LRA=0",), ("no", "no", "yes", "yes")),
        ("GMODE a", ("GMODE=0",), ("no", "no", "yes", "yes")),
        ("SREL a", ("SREL=0",), ("no", "yes", "no", "yes")),  # keeps R where it would show the mode
        ("DROP a", ("DROP=0",), ("no", "yes", "no", "yes")),
    ],
)
def test_the_papers_machine(form: str, settings: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert asked(build(), form, *settings) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("PARITY a", ("no", "yes", "yes", "yes")),  # mode and base together
        ("PEEKBELOW a", ("no", "no", "yes", "yes")),  # out of reach
        ("PEEKABOVE a", ("no", "no", "yes", "yes")),
        ("BOUND a", ("no", "no", "no", "no")),  # alike in both states
        ("POKEAWAY a", ("no", "no", "no", "no")),  # what is out of reach is not compared
        ("QUIET a", ("no", "yes", "no", "yes")),  # traps in supervisor mode
        ("DIRTYBASE", ("yes", "yes", "no", "no")),  # what a trap changes is nobody's question
    ],
)
def test_the_deceivers(form: str, expected: tuple[str, ...]) -> None:
    assert asked(WINDOW, form) == expected


def only_together(cpu: Pg74, a: Word) -> None:
    """Completes for (user, base even) and (supervisor, base odd) alone, and shows which."""
    if cpu.mode == cpu.relocation.base[0]:
        cpu.load(Word(8, 0xFF))  # out of bounds: a memory trap
        cpu.load(cpu.relocation.bound)
    cpu.store(a, cpu.mode.zero_extend(32))


def test_what_tells_two_things_apart_only_together_is_found_without_any_trap_but_on_storage() -> None:
    machine = replaced(build(), "GMODE a", only_together)
    privileged, control, behavior, critical = asked(machine, "GMODE a")
    assert (control, behavior, critical) == ("no", "yes", "not-asked")
    assert privileged == "not-asked"  # no two states that differ in mode alone run without a trap on storage


def test_mutants_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its second place or its unreached storage the letter misses what only they find."""
    whole = Pair.moved
    monkeypatch.setattr(Pair, "moved", lambda self, state: state)
    assert asked(WINDOW, "PARITY a")[2] == "no"
    assert asked(WINDOW, "XORBASE a")[2] == "no"
    monkeypatch.setattr(Pair, "moved", whole)
    monkeypatch.setattr(WINDOW, "reaches", None)
    assert asked(WINDOW, "PEEKBELOW a")[2] == "no"


def test_the_command() -> None:
    answer = popek("classify", "pg74", "SVC", "MOVE", "--by-the-letter", "--json")
    found = json.loads(answer.stdout)
    assert (answer.returncode, found["by_the_letter"]["critical_mnemonics"]) == (0, ["SVC"])
    assert (found["critical_mnemonics"], found["by_the_letter"]["theorem1"]) == ([], "refuted")
    call, move = found["instructions"]
    assert call["by_the_letter"]["witness"]["native"] == {"error_code": None, "trap": "supervisor call"}
    assert (move["by_the_letter"]["differs"], move["by_the_letter"]["witness"]) == ([], None)
    text = popek("classify", "pg74", "SVC", "--by-the-letter").stdout
    assert "by the letter alone: SVC" in text


@pytest.mark.parametrize("extra", [("--symbolic", "GREL"), ("--svg", "x.svg")])
def test_what_does_not_go_with_it_is_one_line(extra: tuple[str, ...]) -> None:
    answer = popek("classify", "pg74", "--by-the-letter", *extra)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
