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


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("SGDT m", "op.segment=3 op.offset=0x2000 -> mem.2000/2=0xFFFE mem.2002/4=0"),
        ("SGDT m", "op.segment=3 op.offset=0x2000 -> "),
        ("CLTS", "cr0+3 -> "),
        ("CLTS", "cr0+3 -> cr0-3 mem.5/1=1"),
        ("CLTS", "cpl=3 -> #UD"),
        ("OUT DX, AX", "eax=5 edx=0x60 -> port.60/2=4"),
        ("RDMSR", "ecx=0x174 msr.174=5 -> eax=5 msr.174=6"),
    ],
)
def test_a_row_that_is_wrong_is_told(form: str, row: str) -> None:
    with pytest.raises(AssertionError):
        check(BENCHES["ia32"], form, row)
