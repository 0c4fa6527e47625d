"""Every machine beside its architecture's list of instructions."""

from __future__ import annotations

import attrs
import pytest

from popek.kernel.machine import Machine
from popek.kernel.scope import scope_of
from popek.kernel.state import State
from popek.kernel.words import TRUE
from popek.machines import machine, makers

LISTED = ["ia32", "ia64", "pdp10-ka10", "pdp10-ks10", "pdp11-45", "pg74", "rv64", "s360-67", "s370", "x86-64"]


@pytest.mark.parametrize("name", LISTED)
def test_every_form_belongs_to_a_listed_instruction(name: str) -> None:
    model = machine(name)
    assert model.architecture is not None
    known = {mnemonic for listed in model.architecture().instructions for mnemonic in listed.mnemonics}
    assert {i.form for i in model.instructions.values() if i.mnemonic not in known} == set()


@pytest.mark.parametrize("name", LISTED)
def test_every_listed_instruction_is_modelled_or_left_out_with_a_reason(name: str) -> None:
    model = machine(name)
    assert model.architecture is not None
    listed = model.architecture().instructions
    ours = {i.mnemonic for i in model.instructions.values()}
    assert [i.name for i in listed if not (i.why or i.mnemonics)] == []
    assert [(i.name, m) for i in listed for m in i.mnemonics if m not in ours] == []
    assert len({i.name for i in listed}) == len(listed)


def test_the_scope_names_what_is_left_out() -> None:
    scope = scope_of(machine("pg74"))
    assert scope.forms == 11
    assert scope.architecture == "the paper's machine"
    assert scope.left_out == ("input and output",)
    assert scope.listed


def test_what_a_variant_lacks_is_left_out_of_it() -> None:
    model = machine("pg74")
    fewer = attrs.evolve(
        model, instructions={f: i for f, i in model.instructions.items() if i.mnemonic != "LRA"}
    )
    assert scope_of(fewer).left_out == ("LRA", "input and output")


def test_a_machine_without_a_list_says_so() -> None:
    own = Machine("own", "Own", State, supervisor=lambda state: TRUE, user=lambda state: TRUE)
    assert not scope_of(own).listed


def test_every_machine_has_a_list() -> None:
    assert {name for name, make in makers().items() if not scope_of(make()).listed} == set()
    assert set(LISTED) <= set(makers())


def test_parts_are_told_by_what_they_have_in_common() -> None:
    scope = scope_of(machine("s370"))
    assert "LM (1 and 2 registers)" in scope.partly
    assert any(part.instructions == ("LM", "STM") for part in scope.parts)
    assert "EX" not in scope.left_out
    assert {"ED", "PC"} <= set(scope.left_out)
