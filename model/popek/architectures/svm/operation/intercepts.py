"""Which intercept an instruction has, and when it is checked: ``popek_specs/svm/instruction-intercepts.csv``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from popek_specs.svm import rows

from .state import Vector3, Vector4, Vector5

When = Literal["early", "checked", "late"]
"""Before the checks of privilege, after them, or after every check that is not one of a storage reference."""

FIELDS: Final = {"vector3": "INTERCEPTS_3", "vector4": "INTERCEPTS_4", "vector5": "INTERCEPTS_5"}
"""The VMCB's fields of the intercept vectors that have a bit per instruction or event."""


@attrs.frozen
class Intercept:
    """The intercept of an instruction.

    Attributes:
        name: the instruction as the hooks name it.
        control: its bit in the state.
        when: when it is checked.
        code: the exit code.
    """

    name: str
    control: str
    when: When
    code: int


@functools.cache
def codes() -> Mapping[str, int]:
    """The exit code of every bit of the intercept vectors, by names such as `vector3.rdtsc`."""
    by_bit = {(row["field"], int(row["bit"])): int(row["exit_code"], 16) for row in rows("intercepts.csv")}
    return {
        f"{component}.{name}": by_bit[FIELDS[component], place.low]
        for component, kind in (("vector3", Vector3), ("vector4", Vector4), ("vector5", Vector5))
        for name, place in kind.fields()
    }


@functools.cache
def intercepts() -> Mapping[str, Intercept]:
    """The intercepts by the instruction's name."""
    found = {}
    for row in rows("instruction-intercepts.csv"):
        when: When = {"early": "early", "checked": "checked", "late": "late"}[row["when"]]  # type: ignore[assignment]
        name, control = row["instruction"], row["intercept"]
        found[name] = Intercept(name, control, when, codes()[control])
    return found
