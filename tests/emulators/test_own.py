"""A machine of one's own beside an interpreter of one's own: a bug of the interpreter is found, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from popek.emulators.differential import EmulatorError
from popek.emulators.own import Observed, compare
from popek.kernel.instruction import OperandKind
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.outcome import Fault, Vector
from popek.kernel.state import Role, State, memory, word
from popek.kernel.words import Word


class Tiny(State):
    mode = word(1, role=Role.MODE)
    acc = word(8)
    memory = memory(address=4, cell=8)


tiny = Machine(
    "tiny",
    "tiny",
    Tiny,
    supervisor=lambda s: s.mode == 0,
    user=lambda s: s.mode == 1,
    operands={"m": OperandKind("m", {"": 4})},
)


@tiny.instruction("ADD m")
def add(cpu: Tiny, m: Word) -> None:
    cpu.acc = cpu.acc + cpu.memory.load(m)


@tiny.instruction("PUT m")
def put(cpu: Tiny, m: Word) -> None:
    if cpu.mode == 1:
        raise Fault(Vector("privileged", 1))
    cpu.memory = cpu.memory.store(m, cpu.acc)


def interpreter(bug: str = "") -> Any:
    def run(form: str, state: State, operands: Mapping[str, int]) -> Observed:
        (m,) = operands.values()
        acc, cell = int(state["acc"]), state.memories()["memory"].cells()[m]
        if form == "ADD m":
            total = acc + cell
            return {"acc": min(total, 255) if bug == "saturates" else total % 256, "memory": {}}
        if int(state["mode"]) == 1 and bug != "never traps":
            return "privileged"
        return {"acc": acc, "memory": {(m + 1) % 16 if bug == "next cell" else m: acc}}

    return run


def test_two_that_agree_have_no_difference() -> None:
    report = compare(tiny, interpreter(), cases=200, seed=1)
    assert (report.cases, report.differences) == (200, ())
    assert report.trapped["PUT m"]
    assert report.completed["PUT m"]


@pytest.mark.parametrize(
    ("bug", "form", "line"),
    [
        ("saturates", "ADD m", "acc: model "),
        ("never traps", "PUT m", "model: privileged; emulator: completes"),
        ("next cell", "PUT m", "memory["),
    ],
)
def test_a_bug_is_found_in_its_form_alone(bug: str, form: str, line: str) -> None:
    report = compare(tiny, interpreter(bug), cases=200, seed=1)
    assert set(report.different) == {form}
    assert report.differences[0].details[0].startswith(line)
    assert report == compare(tiny, interpreter(bug), cases=200, seed=1)


def test_a_name_that_the_machine_does_not_have_is_told() -> None:
    with pytest.raises(UnknownNameError, match="did you mean acc"):
        compare(tiny, lambda form, state, operands: {"ac": 1}, ["ADD"], cases=1)
    with pytest.raises(UnknownNameError, match="ADD"):
        compare(tiny, interpreter(), ["AD"])


def test_the_states_can_be_chosen_and_what_never_completed_is_told() -> None:
    def users(form: str, state: Tiny, rng: Any) -> Tiny:
        return state.with_changes({"mode": 1})

    report = compare(tiny, interpreter(), cases=50, seed=1, states=users)
    assert (report.never_completed, report.differences) == (("PUT m",), ())
    assert str(report) == "50 cases, 0 differences (seed 1)\nnever completed: PUT m"
    kernels = compare(
        tiny, interpreter(), cases=50, seed=1, states=lambda f, s, r: s.with_changes({"mode": 0})
    )
    assert (kernels.never_completed, kernels.trapped) == ((), {})


def test_a_chosen_state_is_one_that_exists() -> None:
    with pytest.raises(
        EmulatorError, match=r"states\(form, state, rng\) gives None: expected a state of Tiny"
    ):
        compare(tiny, interpreter(), cases=1, states=lambda form, state, rng: None)
    narrow = attrs.evolve(tiny, invariant=lambda state: state.acc != 9)
    with pytest.raises(EmulatorError, match="a state that the invariant of tiny excludes"):
        compare(narrow, interpreter(), cases=1, states=lambda f, s, r: s.with_changes({"acc": 9}))
