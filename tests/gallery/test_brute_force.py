"""Tiny machines of a grammar: classes, promises and premises by going through every state equal the solver's.

About 0.2 CPU seconds a machine; `python tests/gallery/brute.py 5000` compares as many as wanted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import brute
import pytest
import tiny

from popek.checks import promises
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

SEEDS = range(41)


@pytest.mark.parametrize("seed", SEEDS)
def test_brute_force_and_solver_say_the_same(seed: int) -> None:
    assert brute.differences(seed) == {}, tiny.program(seed)


def test_the_machines_are_of_every_kind() -> None:
    """Each answer is yes for some machine and no for another, so that nothing is compared in vain."""
    answers: dict[str, Counter[bool]] = {}
    for seed in SEEDS:
        machine = tiny.machine(tiny.semantics(tiny.program(seed)))
        for name, answer in brute.by_brute_force(machine).items():
            answers.setdefault(name, Counter())[answer] += 1
    lacking = {name for name, counted in answers.items() if len(counted) < 2}
    assert lacking <= {"A3_closure_next"}, answers  # nothing in the grammar changes how many cells there are


def dirty(cpu: tiny.Tiny, x: Word) -> None:
    """Change the base in user mode, and trap."""
    if cpu.mode == 1:
        cpu.base = cpu.base + 1
        raise Fault(tiny.TRAP, keeps=True)


def test_brute_force_finds_a_checker_that_overlooks_what_a_trap_leaves(monkeypatch: Any) -> None:
    machine = tiny.machine(dirty)
    assert brute.by_brute_force(machine)["safe"] is brute.by_solver(machine)["safe"] is False
    monkeypatch.setattr(promises._Promises, "changed_before_a_trap", lambda self: iter(()))
    assert brute.by_solver(machine)["safe"] is True
