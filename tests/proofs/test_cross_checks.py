"""What one part of popek says must follow from what another says, whatever the machine, the technique and the form.

Some forms of each machine under each technique are asked; with CROSS_CHECK_FORMS=1000 in the environment, all of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs
import pytest

from popek.architectures.pg74.machine import build
from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.premise import A1, A1S, A4, A5, A5_VECTOR
from popek.checks.premises import Premises
from popek.checks.presence import present
from popek.checks.promise import Promises
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.exploration import PathBudgetError
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.state import State
from popek.kernel.words import Word
from popek.machines import machine, makers
from popek_proofs.theorems.instantiate import instantiate

EACH = int(os.environ.get("CROSS_CHECK_FORMS", "1"))
NEEDED = (A1, A1S, A4, A5, A5_VECTOR)
STATES = 40  # of a form
LONG = ("LDB AC, E, B", "DPB AC, E, B")  # twenty seconds each: asked with all the others alone
CASES = [(name, technique) for name in makers() for technique in machine(name).techniques]


@cache
def subject(name: str, technique: str) -> Subject[Any]:
    return Subject.of(name, technique)


def some(name: str, technique: str) -> list[str]:
    """Forms of a machine, the same each time."""
    known = sorted(form for form in machine(name).instructions if EACH > 1 or form not in LONG)
    return random.Random(f"{name} {technique}").sample(known, min(EACH, len(known)))


@cache
def asked(
    name: str, technique: str, form: str
) -> tuple[Classification[Any], Promises[Any], Mapping[str, Truth]] | None:
    """Classes, promises and premises of one form; None where it has too many paths."""
    about = subject(name, technique)
    instruction = about.machine.instructions[form]
    try:
        run = about.explore(instruction)
    except PathBudgetError:
        return None
    premises = Premises(about).of(instruction, run)
    return (
        Classifier(about, components=False).classify(instruction, run),
        Keeper(about).keeps(instruction, run),
        {premise.name: premise.truth for premise in premises},
    )


@pytest.mark.parametrize(("name", "technique"), CASES)
def test_what_prove_needs_of_a_form_implies_that_it_is_faithful_and_safe(name: str, technique: str) -> None:
    for form in some(name, technique):
        found = asked(name, technique, form)
        if found is not None and all(found[2].get(premise, Truth.YES) is Truth.YES for premise in NEEDED):
            assert found[1].fidelity.kept is Truth.YES, form
            assert found[1].safety.kept is Truth.YES, form


def test_what_is_delegated_past_the_monitor_is_asked_of_prove() -> None:
    """A trap that the system in S gets, where the guest's own machine has none: only fidelity knew of it."""
    found = asked("rv64", "firmware-in-u-delegated", "CSRRW rd, mtval2, rs1")
    assert found is not None
    assert found[1].fidelity.kept is found[2][A5_VECTOR] is Truth.NO


@pytest.mark.parametrize(("name", "technique"), CASES)
def test_an_innocuous_form_that_keeps_its_promises_satisfies_the_lemma(name: str, technique: str) -> None:
    for form in some(name, technique):
        found = asked(name, technique, form)
        if found is None or found[0].innocuous is not Truth.YES:
            continue
        if found[1].fidelity.kept is found[1].safety.kept is Truth.YES:
            assert found[2][A1] is not Truth.NO, form


def randomly(start: State, about: Subject[Any], chance: random.Random) -> State:
    """A user state of the configuration, with as many leaves drawn at random as leave it one."""

    def is_one(state: State) -> bool:
        conditions = (
            about.machine.invariant(state),
            about.technique.deprivileged(state),
            about.holds(state),
        )
        return all(condition.value == 1 for condition in conditions)

    def drawn(state: State, changes: list[tuple[str, int]]) -> State:
        changed = state.with_changes(dict(changes))
        if is_one(changed) or not changes:
            return changed
        if len(changes) == 1:
            return state
        half = len(changes) // 2
        return drawn(drawn(state, changes[:half]), changes[half:])

    leaves = chance.sample(start.leaves, max(1, len(start.leaves) // 2))
    return drawn(start, [(leaf.name, chance.getrandbits(leaf.width)) for leaf in leaves])


@pytest.mark.parametrize(("name", "technique"), CASES)
def test_a_privileged_form_traps_from_random_user_states(name: str, technique: str) -> None:
    about, chance = subject(name, technique), random.Random(f"states of {name}")
    (start,) = present(about).states["user state"]
    for form in some(name, technique):
        found = asked(name, technique, form)
        if found is None or found[0].privileged is not Truth.YES:
            continue
        instruction = about.machine.instructions[form]
        for _ in range(STATES):
            state = randomly(start, about, chance)
            operands = {
                n: Word(w, chance.getrandbits(w)) for o in instruction.inputs for n, w in o.part_names()
            }
            if instruction.valid(operands).value != 1:
                continue
            outcome = about.machine.step(instruction, state, operands)
            entered = not isinstance(outcome, Trap | NotModelled) and about.technique.entries(
                state, outcome.state
            )
            assert isinstance(outcome, Trap) or (entered is not False and entered.value == 1), form


@pytest.mark.parametrize("form", ["MOVE a, b", "JZERO a, b"])
def test_one_more_copy_of_an_innocuous_form_changes_no_verdict(form: str) -> None:
    plain, copied = build(), build()
    copied.instructions["COPY"] = attrs.evolve(copied.instructions[form], form="COPY", mnemonic="COPY")
    before, after = (instantiate(Subject.of(one)) for one in (plain, copied))
    assert (before.theorem1, before.theorem3) == (after.theorem1, after.theorem3)
    truths = {(p.name, p.form): p.truth for p in after.premises}
    assert all(truths[p.name, "COPY"] is p.truth for p in before.premises if p.form == form)
