"""RISC-V instructions on numbers: what the unprivileged manual says, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_rules import machine, state

from step_rows import Bench, check, rows


def _plain(how: Mapping[str, int]) -> Any:
    modes = {(3, 0): "M", (1, 0): "HS", (0, 0): "U", (1, 1): "VS", (0, 1): "VU"}
    return state(modes[how.get("prv", 3), how.get("v", 0)])


BENCH = Bench(machine(), _plain, ("prv", "v"), "pc", 4, "x")


@pytest.mark.parametrize(("form", "row"), list(rows(Path(__file__).with_name("rv64_rows.toml"))))
def test_rv64(form: str, row: str) -> None:
    check(BENCH, form, row)
