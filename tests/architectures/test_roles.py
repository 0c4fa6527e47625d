"""Each leaf's role against `specs`' table, which was written from the manuals and not from the models."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

import pytest

from popek.kernel.state import Role
from popek.machines import machine, makers

TABLE: Mapping[str, Any] = tomllib.loads((files("popek_specs.roles") / "roles.toml").read_text("utf-8"))


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


def roles(name: str) -> dict[str, Role]:
    """Of leaves and memories, as the model has them."""
    state = machine(name).state
    return {leaf.name: leaf.role for leaf in state.leaves} | {
        slot.name: slot.role for slot in state.layout if slot.address
    }


@pytest.mark.parametrize("name", TABLE)
def test_a_role_is_the_one_that_the_manual_gives(name: str) -> None:
    found = roles(name)
    assert {leaf: (kind.value, stated(TABLE[name], leaf).value) for leaf, kind in found.items()} == {
        leaf: (kind.value, kind.value) for leaf, kind in found.items()
    }


@pytest.mark.parametrize("name", TABLE)
def test_every_pattern_names_something(name: str) -> None:
    """A leaf that was renamed takes its line along."""
    leaves = list(roles(name))
    for kind in Role:
        for pattern in TABLE[name].get(kind.value, ()):
            assert any(fnmatchcase(leaf, pattern) for leaf in leaves), pattern


def test_every_machine_that_is_not_another_with_assistance_has_a_table() -> None:
    assert {name for name in makers() if not name.endswith("-vt-x")} == set(TABLE)
