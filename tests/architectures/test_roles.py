"""Each leaf's role against `specs`' table, which was written from the manuals and not from the models."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

import pytest

from popek.architectures.ia32.state import Ia32
from popek.architectures.svm.operation.state import SvmIa32, SvmX64
from popek.architectures.vtx.operation.state import VmxIa32, VmxX64
from popek.architectures.x86_64.state import X64
from popek.kernel.state import Role, State
from popek.machines import machine, makers


def table(name: str) -> Mapping[str, Any]:
    """Of a file of `specs`."""
    return tomllib.loads((files("popek_specs.roles") / name).read_text("utf-8"))


TABLE = table("roles.toml")
ASSISTANCE = table("assistance.toml")
ASSISTED = (
    ("vt-x", Ia32, VmxIa32),
    ("vt-x", X64, VmxX64),
    ("svm", Ia32, SvmIa32),
    ("svm", X64, SvmX64),
)


def stated(table: Mapping[str, Any], name: str) -> Role:
    """The role whose pattern fits best."""
    fitting = [
        (sum(letter.isalnum() for letter in pattern), kind)
        for kind in Role
        for pattern in table.get(kind.value, ())
        if fnmatchcase(name, pattern)
    ]
    best = [kind for letters, kind in fitting if letters == max(fitting, key=lambda one: one[0])[0]]
    assert len(set(best)) <= 1, f"{name}: {best}"
    return best[0] if best else Role.GENERAL


def roles(state: type[State]) -> dict[str, Role]:
    """Of leaves and memories, as the model has them."""
    return {leaf.name: leaf.role for leaf in state.leaves} | {
        slot.name: slot.role for slot in state.layout if slot.address
    }


@pytest.mark.parametrize("name", TABLE)
def test_a_role_is_the_one_that_the_manual_gives(name: str) -> None:
    found = roles(machine(name).state)
    assert {leaf: (kind.value, stated(TABLE[name], leaf).value) for leaf, kind in found.items()} == {
        leaf: (kind.value, kind.value) for leaf, kind in found.items()
    }


@pytest.mark.parametrize("name", TABLE)
def test_every_pattern_names_something(name: str) -> None:
    """A leaf that was renamed takes its line along."""
    leaves = list(roles(machine(name).state))
    for kind in Role:
        for pattern in TABLE[name].get(kind.value, ()):
            assert any(fnmatchcase(leaf, pattern) for leaf in leaves), pattern


def test_every_machine_that_is_not_another_with_assistance_has_a_table() -> None:
    assert {name for name in makers() if not name.endswith("-vt-x")} == set(TABLE)


@pytest.mark.parametrize(
    ("name", "plain", "assisted"), ASSISTED, ids=lambda one: getattr(one, "__name__", one)
)
def test_assistance_adds_leaves_with_the_manuals_roles_and_changes_no_other(
    name: str, plain: type[State], assisted: type[State]
) -> None:
    found, before = roles(assisted), roles(plain)
    assert {leaf: found.get(leaf) for leaf in before} == before
    added = {leaf: kind.value for leaf, kind in found.items() if leaf not in before}
    assert added == {leaf: stated(ASSISTANCE[name], leaf).value for leaf in added}


@pytest.mark.parametrize("name", ASSISTANCE)
def test_every_pattern_of_assistance_names_something(name: str) -> None:
    leaves = [leaf for one, _, assisted in ASSISTED if one == name for leaf in roles(assisted)]
    for kind in Role:
        for pattern in ASSISTANCE[name].get(kind.value, ()):
            assert any(fnmatchcase(leaf, pattern) for leaf in leaves), pattern
