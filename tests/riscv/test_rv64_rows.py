"""RISC-V instructions on numbers: what the unprivileged manual says, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_rules import machine, state

from popek.architectures.riscv import paged
from step_rows import Bench, check, rows


def _plain(how: Mapping[str, int]) -> Any:
    modes = {(3, 0): "M", (1, 0): "HS", (0, 0): "U", (1, 1): "VS", (0, 1): "VU"}
    return state(modes[how.get("prv", 3), how.get("v", 0)])


BENCH = Bench(machine(), _plain, ("prv", "v"), "pc", 4, "x")


def _paged(how: Mapping[str, int]) -> Any:
    """Storage protection lets S and U have all."""
    protection = {"pmpaddr3": (1 << 54) - 1, "pmpcfg0": 0x1F << 24}
    return paged.PagedRv64.reset(prv=how.get("prv", 3), v=how.get("v", 0), **protection)


PAGED = Bench(paged.build(), _paged, ("prv", "v"), "pc", 4, "x")


@pytest.mark.parametrize(("form", "row"), list(rows(Path(__file__).with_name("rv64_rows.toml"))))
def test_rv64(form: str, row: str) -> None:
    check(BENCH, form, row)


@pytest.mark.parametrize(("form", "row"), list(rows(Path(__file__).with_name("rv64_paged_rows.toml"))))
def test_rv64_with_page_tables(form: str, row: str) -> None:
    check(PAGED, form, row)
