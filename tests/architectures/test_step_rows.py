"""Instructions on numbers: what the manuals' instruction pages say, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ia32_steps import MACHINE as IA32
from ia32_steps import at_level

from popek.emulators.x86_64.expectation import initial_state
from popek.emulators.x86_64.step import X64StepCase, plain_state
from popek.machines import machine
from step_rows import Bench, check, rows

HERE = Path(__file__).parent


def _ia32(how: Mapping[str, int]) -> Any:
    return at_level(how.get("cpl", 0))


def _x86_64(how: Mapping[str, int]) -> Any:
    values = plain_state(how.get("cpl", 0), long=not how.get("compatibility", 0))
    return initial_state(X64StepCase(b"\x90\x90", values, ()))


BENCHES = {
    "ia32": Bench(IA32, _ia32, ("cpl",), "eip"),
    "x86_64": Bench(machine("x86-64"), _x86_64, ("cpl", "compatibility"), "rip"),
}


@pytest.mark.parametrize(("form", "row"), list(rows(HERE / "ia32_rows.toml")))
def test_ia32(form: str, row: str) -> None:
    check(BENCHES["ia32"], form, row)


@pytest.mark.parametrize(("form", "row"), list(rows(HERE / "x86_64_rows.toml")))
def test_x86_64(form: str, row: str) -> None:
    check(BENCHES["x86_64"], form, row)
