"""No answer depends on what a component is called: asked of every machine again under names that say nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest

from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.kernel.machine import Machine
from popek.machines import machine as find_machine
from popek.machines import makers
from popek_proofs.eight_problems.problems import ask, find
from popek_proofs.eight_problems.search import Asking
from popek_proofs.safety import safety
from renaming import renamed

CASES = [(name, technique) for name in makers() for technique in find_machine(name).techniques]


@cache
def pair(name: str) -> tuple[Machine[Any], Machine[Any], dict[str, str]]:
    machine = find_machine(name)
    return machine, *renamed(machine)


def some(name: str, number: int, *, examples: bool = False) -> list[str]:
    """Forms of a machine, drawn from all, and with `examples` the first that it names for each question."""
    machine = find_machine(name)
    named = [
        next((f for f in e if f in machine.instructions), "") for e in machine.practice.examples.values()
    ]
    drawn = random.Random(f"names of {name}").sample(sorted(machine.instructions), number)
    return sorted({*drawn, *(filter(None, named) if examples else ())})


def mapped(found: Any, names: dict[str, str]) -> Any:
    """An answer as JSON, with the names of components as the renamed machine has them."""
    match found:
        case dict():
            return {
                called(key, names): mapped(value, names) for key, value in found.items() if key != "evidence"
            }
        case list() | tuple():
            return [mapped(value, names) for value in found]
        case str():
            return called(found, names)
    return found


def called(name: str, names: dict[str, str]) -> str:
    place, bracket, address = name.partition("[")
    return names.get(name) or (names.get(place, place) + bracket + address)


def rows(machine: Machine[Any], technique: str, forms: Iterable[str]) -> list[Any]:
    request = Request(Subject.of(machine, technique), promises=True)
    surveyor = Surveyor(request)
    return [surveyor.row(form).to_json() for form in forms]


@pytest.mark.parametrize(("name", "technique"), CASES)
def test_classes_and_promises(name: str, technique: str) -> None:
    machine, other, names = pair(name)
    forms = some(name, 3)
    assert mapped(rows(machine, technique, forms), names) == rows(other, technique, forms)


@pytest.mark.parametrize("name", makers())
def test_problems(name: str) -> None:
    machine, other, _ = pair(name)
    forms = some(name, 2, examples=name != "x86-64")  # which asks the same as ia32, and takes longer

    def found(asked: Machine[Any]) -> list[Any]:
        instructions = tuple(asked.instructions[form] for form in forms)
        asking = Asking(Subject.of(asked), instructions)
        answers = [answer for one in ask(find([]), asking) for answer in one.answers]
        return [(answer.question, answer.present, answer.forms, answer.witness is None) for answer in answers]

    assert found(machine) == found(other)


@pytest.mark.parametrize(
    "name", [name for name, technique in CASES if find_machine(name).technique(technique).hypotheses]
)
def test_safety(name: str) -> None:
    machine, other, names = pair(name)
    forms = some(name, 2)

    def found(asked: Machine[Any]) -> Any:
        instructions = [asked.instructions[form] for form in forms]
        technique = asked.technique()
        dropped = [technique.hypotheses[0].name]
        return safety(Subject.of(asked), without=dropped, forms=instructions).to_json()

    assert mapped(found(machine), names) == found(other)
