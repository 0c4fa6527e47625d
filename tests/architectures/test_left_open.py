"""What the architectures leave open is declared, is what a verdict is for, and decides what it decides."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from commands import popek
from popek.checks.conditions import critical_when
from popek.checks.scope_words import scope_json, scope_line
from popek.checks.subject import Subject
from popek.checks.survey import Request
from popek.kernel import terms
from popek.kernel.left_open import LeftOpen
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, SemanticsError
from popek.kernel.scope import scope_of
from popek.kernel.words import Word
from popek.machines import makers

MACHINES = sorted(makers())

USES = {
    "ia32": (
        "SHL r32, imm8",
        "AND r32, r32",
        "DIV r8",
        "AAM imm8",
        "LAR r32, r16",
        "RDRAND r32",
        "RDSEED r32",
    ),
    "x86-64": ("AND r64, r64", "LAR r32, r16"),
    "ia64": ("mov cr.eoi = r", "mov r = cr.ivr", "mov ar.bspstore = r"),
    "s360-67": ("DIAGNOSE D1(B1),I2",),
    "s370": ("DIAGNOSE D1(B1),I2", "STIDC D2(B2)"),
}
"""Forms that use what is declared to have any value."""


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_declared_is_there(name: str) -> None:
    """Settings exist; what may have any value is a component, a leaf, or a name that semantics leave undefined."""
    machine: Machine[Any] = makers()[name]()
    parts = {*machine.state.reset().words(), *machine.state.reset().memories()}
    parts |= {leaf.name for leaf in machine.state.leaves}
    settings = {setting.name for setting in machine.settings}
    found: set[str] = set()
    for form in USES.get(name, ()):
        (instruction,) = machine.find(form)
        run = Subject.of(machine).explore(instruction)
        ends = [path.result.state for path in run.paths if isinstance(path.result, Next)]
        roots = [word.term for end in ends for word in end.words().values()]
        roots += [
            e[1].term
            for end in ends
            for m in end.memories().values()
            for e in m.stores
            if isinstance(e, tuple)
        ]
        found |= {
            n.removeprefix("undefined ") for n in terms.variables_of(roots) if n.startswith("undefined ")
        }
    for one in machine.left_open:
        assert one.what
        assert one.source
        assert set(one.settings) <= settings
        for value in one.values:
            if name in USES:
                used = value in parts or any(fnmatchcase(other, value) for other in found)
                assert used or value in (NOT_IN_EVERY_MACHINE.get(name, ())), (
                    f"{name}: nothing is called {value}"
                )


OF_GUESTS = ("page-fault address", "whether the address-range monitor is armed", "of an MSR, *")
NOT_IN_EVERY_MACHINE = {
    "ia32": (
        "PF",
        "ZF",
        "SF",
        *OF_GUESTS,
    ),  # DIV, which the model has with 8 bits alone, leaves these to a product
    "x86-64": ("CF", "PF", "ZF", "SF", "OF", "RDRAND", "RDRAND CF", "RDSEED", "RDSEED CF", *OF_GUESTS),
}


def test_semantics_that_leave_open_what_is_not_declared_are_refused() -> None:
    """The mutation: without its declaration no step is taken, on numbers or on symbols."""
    machine = makers()["s370"]()
    (instruction,) = machine.find("DIAGNOSE D1(B1),I2")
    state = machine.state.reset(psw__problem=0)
    numbers = {name: Word(word.width, 0) for name, word in instruction.symbols().items()}
    machine.step(instruction, state, numbers)
    machine.left_open = tuple(one for one in machine.left_open if "DIAGNOSE" not in one.values)
    with pytest.raises(SemanticsError, match="DIAGNOSE"):
        machine.step(instruction, state, numbers)


def test_a_declaration_says_one_of_three_things() -> None:
    for given in ({}, {"taken": "0", "settings": ("A",)}):
        with pytest.raises(ValueError, match="one of the three"):
            LeftOpen("what", "where", **given)  # type: ignore[arg-type]


OPEN_TIME = ("FS=3", "MCOUNTEREN_TM=1", "SCOUNTEREN_TM=1")


@pytest.mark.parametrize(
    ("name", "technique", "form", "settings", "when"),
    [
        (
            "rv64",
            "ring-deprivileging-u",
            "CSRRS rd, time, rs1",
            [*OPEN_TIME, "TIME_CSR=?"],
            {"TIME_CSR": (1,)},
        ),
        ("s370", "ring-deprivileging", "SPKA D2(B2)", ["DAS=?"], {"DAS": (1,)}),
    ],
)
def test_verdicts_that_depend_on_what_is_left_open(
    name: str, technique: str, form: str, settings: list[str], when: dict[str, tuple[int, ...]]
) -> None:
    """Where the manual leaves it open, the verdict says for which choice it is given."""
    request = Request(Subject.of(name, technique, settings, time_is_state=True), components=False)
    assert request.subject.machine.left_open
    (row,) = critical_when(request, forms=[form]).rows
    assert (row.when, row.unknown) == ((when,), ())


def test_scope_and_machines_show_it() -> None:
    machine = makers()["rv64"]()
    scope = scope_of(machine)
    assert "left open by the architecture: 8 as set, 7 taken one way" in scope_line(scope)
    told = {one["what"]: one for one in scope_json(scope)["left_open"]}  # type: ignore[attr-defined]
    assert told["whether misaligned references are executed or trap"]["taken"] == "they trap"
    assert told["whether reads of time go to memory or trap to M"]["settings"] == ["TIME_CSR"]
    (shown,) = json.loads(popek("machines", "s370", "--json").stdout)["machines"]
    assert {one["how"] for one in shown["left_open"]} == {"any", "settings", "taken"}
    text = " ".join(popek("machines", "s370").stdout.split())
    assert "left open by the architecture" in text
    assert "as set by DAS" in text
    assert popek("machines", "s730").returncode == 2
