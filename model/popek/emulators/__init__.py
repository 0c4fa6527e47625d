"""Emulators that were written by others, and what differential tests need of them.

A package of an emulator may declare, as "module:name" so that nothing is imported before it is asked for:

* `DIFFTESTS`: per machine and emulator a function `difftest`, which `popek difftest` offers under the machine's name;
* `GUESTS`: by the command's name what `popek difftest` compares of guests (`DeclaredGuests`);
* `WITNESSES`: per machine a `Harness` that writes its witnesses as assembly and runs them (`--asm`, `--confirm`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import attrs


@attrs.frozen
class DeclaredGuests:
    """Guests that run one instruction each.

    Attributes:
        does: what the command does, in one sentence.
        schema: of its JSON.
        kinds: the guests of each machine, the usual one first.
    """

    does: str
    schema: str
    kinds: Mapping[str, str]


def declared_difftests() -> Mapping[str, Mapping[str, str]]:
    """The differential tests of single instructions that packages declare, by machine and emulator."""
    found: dict[str, dict[str, str]] = {}
    for declared in _declared("DIFFTESTS"):
        for machine, tests in declared.items():
            found.setdefault(machine, {}).update(tests)
    return dict(sorted(found.items()))


def declared_guests() -> Mapping[str, DeclaredGuests]:
    """The comparisons of guests that packages declare, by the command's name."""
    return {name: guests for declared in _declared("GUESTS") for name, guests in declared.items()}


def declared_witnesses() -> Mapping[str, str]:
    """Where the harness for the witnesses of a machine is, by the machine's name."""
    found = {name: place for declared in _declared("WITNESSES") for name, place in declared.items()}
    return dict(sorted(found.items()))


def _declared(what: str) -> Iterator[Mapping[str, Any]]:
    for package in pkgutil.iter_modules(__path__):
        if package.ispkg:
            yield getattr(importlib.import_module(f"{__name__}.{package.name}"), what, {})


def load(place: str) -> Any:
    """What a declaration "module:name" means."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
