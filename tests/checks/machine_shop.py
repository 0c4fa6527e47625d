"""Shared by these tests: classify forms of a machine that a test may have changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.promise import Promises
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.configuration import configure
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import State
from popek.kernel.words import Word

YES, NO, UNKNOWN = Truth.YES, Truth.NO, Truth.UNKNOWN


def classified(
    machine: Machine[Any],
    form: str,
    *settings: str,
    technique: str | None = None,
    components: bool = False,
) -> Classification[Any]:
    """The classes of one form."""
    configuration = configure(machine, settings)
    classifier = Classifier(Subject.of(machine, technique, configuration), components=components)
    return classifier.classify(machine.instructions[form])


def critical(
    machine: Machine[Any], forms: Iterable[str], *settings: str, technique: str | None = None
) -> dict[str, Truth]:
    """Which forms are critical."""
    return {form: classified(machine, form, *settings, technique=technique).critical for form in forms}


def promised(machine: Machine[Any], form: str, *settings: str, technique: str | None = None) -> Promises[Any]:
    """Whether the promises are kept for one form."""
    keeper = Keeper(Subject.of(machine, technique, settings))
    return keeper.keeps(machine.instructions[form])


def replaced(machine: Machine[Any], form: str, semantics: Any) -> Machine[Any]:
    """The machine with other semantics for one form."""
    machine.instructions[form] = attrs.evolve(machine.instructions[form], semantics=semantics)
    return machine


def from_json(machine: Machine[Any], *changes: Mapping[str, str]) -> State:
    """The reset state with leaves and cells set as a published witness writes them."""
    state = machine.state.reset()
    cells: dict[str, dict[int, int]] = {}
    for change in changes:
        for name, value in change.items():
            storage, bracket, where = name.partition("[0x")
            if bracket:
                cells.setdefault(storage, {})[int(where.rstrip("]"), 16)] = int(value, 16)
            else:
                state[name] = int(value, 16)
    for name, content in state.memories().items():
        filled = Memory(content.address_width, content.cell_width, cells.get(name, {}))
        state.memories()[name] = filled  # type: ignore[index]
    return state


def assert_reruns(
    machine: Machine[Any], form: str, witness: Mapping[str, Any], operands: Mapping[str, int]
) -> None:
    """A published witness, from its JSON alone and the operands, run again: what it says happens."""
    instruction = machine.instructions[form]
    words = {name: Word(width, operands[name]) for o in instruction.inputs for name, width in o.part_names()}
    runs = [(witness["before"], witness["native"])]
    if witness["virtualized"] is not None:
        runs.append(({**witness["before"], **witness["virtualized"]["before"]}, witness["virtualized"]))
    after = []
    for start, said in runs:
        outcome = machine.step(instruction, from_json(machine, start), words)
        if "trap" in said:
            assert isinstance(outcome, Trap)
            code = None if outcome.error_code is None else hex(int(outcome.error_code))
            assert (outcome.vector.name, code) == (said["trap"], said["error_code"])
        else:
            assert isinstance(outcome, Next)
            assert contents(outcome.state) == contents(from_json(machine, start, said["changes"]))
            after.append(outcome.state)
    for name, values in witness["differ"].items():
        storage, bracket, where = name.partition("[0x")
        for state, value in zip(after, values, strict=False):
            content = state.memories()[storage] if bracket else None
            address = None if content is None else Word(content.address_width, int(where.rstrip("]"), 16))
            found = state[name] if content is None else content.load(address)
            if len(after) == 2:
                assert hex(int(found)) == value, name


def contents(state: State) -> object:
    """A concrete state as plain data; cells that are 0 are left out."""
    words = {name: int(word) for name, word in state.words().items()}
    cells = {name: {a: c for a, c in m.cells().items() if c} for name, m in state.memories().items()}
    return words, cells
