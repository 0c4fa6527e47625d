"""A function that gives what it should not is told in one line that says where; no hang, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import popek

HEAD = """
import attrs
from popek.architectures.pg74.machine import ADDRESS, Pg74, build
from popek.kernel.interruption import Interruption
from popek.kernel.outcome import Vector
from popek.kernel.state import memory
from popek.kernel.words import Word


def made(technique={}, **changed):
    paper = build()
    known = attrs.evolve(paper.technique(), **technique)
    forms = {form: paper.instructions[form] for form in ("SVC",)}
    return attrs.evolve(
        paper, techniques={known.name: known}, instructions=forms, architecture=None, name="bad", **changed
    )


"""


def entering(state: str) -> str:
    """An interrupt that is entered so."""
    return f'made(interruptions=(Interruption("tick", lambda s, g: Word(1, 1), lambda s, g: {state}),))'


BAD = {
    "machine = made(deliver=lambda before, trap: None)": (
        "bad.py:19: bad: deliver(before, supervisor call) gives None: expected a state of Pg74"
    ),
    "machine = made(deliver=lambda before, trap: trap.state.nothing)": (
        "bad.py:19: bad, deliver(before, supervisor call): Pg74 has no component 'nothing'"
    ),
    'machine = made(deliver=lambda before, trap: before.with_changes({"pc": before.undefined("K", 8)}))': (
        "undefined('K'): expected one of the machine's left_open"
    ),
    "machine = " + entering("None"): "enter of the interrupt 'tick' gives None: expected a state of Pg74",
    "machine = "
    + entering("s.nothing"): "bad, enter of the interrupt 'tick': Pg74 has no component 'nothing'",
    'machine = made(technique={"target": lambda trap: None})': (
        "target of supervisor call gives None: expected one of Target.VMM"
    ),
    'machine = made(technique={"target": lambda trap: trap.nothing})': "target of supervisor call: AttributeError",
    'machine = made(technique={"owns_address": lambda guest, private, address: address})': (
        "owns_address of memory gives a word of 8 bits: expected a condition"
    ),
    'machine = made(technique={"shadows_address": lambda guest, address: address})': (
        "shadows_address of memory gives a word of 8 bits: expected a condition"
    ),
    'machine = made(technique={"guest_address": lambda private, address: Word(16, 0)})': (
        "guest_address of memory gives Word(16, 0x0): expected an address of 8 bits"
    ),
    "class Two(Pg74):\n    other = memory(address=16, cell=8)\n\n\nmachine = made(state=Two)": (
        "owns_address of other: WidthError: a 16-bit and a 8-bit word do not mix"
    ),
    "tick = Interruption('tick', lambda s, g: Word(1, 1), lambda s, g: s)\n"
    "machine = made(interruptions=(tick, tick))": (
        "2 interrupts are called 'tick': expected names of their own"
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=range(len(BAD)))
def test_what_a_function_gives_is_looked_at(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(HEAD + text + "\n", encoding="utf-8")
    answer = popek("prove", str(path))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert answer.stderr.strip().count("\n") == 0


def test_a_delivery_without_end_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "endless.py"
    endless = "def deliver(before, trap):\n    while True: pass\n\n\nmachine = made(deliver=deliver)\n"
    path.write_text(HEAD + endless, encoding="utf-8")
    answer = popek("prove", str(path))
    assert answer.returncode == 3
    assert "budget of 200000 lines on one path, at" in answer.stdout
    assert "endless.py:20" in answer.stdout.replace("\n", "")
