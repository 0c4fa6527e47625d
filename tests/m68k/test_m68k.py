"""The famous flip, derived: the 68000 fails by MOVE from SR alone, the 68010 does not."""

from __future__ import annotations

import pytest

import popek
from popek.architectures.m68k.machine import build

# By the Reference Manual: these check S, on the model (1: the 68010 alone).
PRIVILEGED = {
    "MOVE to SR": 0, "ANDI to SR": 0, "ORI to SR": 0, "EORI to SR": 0, "MOVE USP": 0, "RESET": 0, "STOP": 0, "RTE": 0,
    "MOVE from SR": 1, "MOVES": 1,
}  # fmt: skip


@pytest.mark.parametrize("model", [0, 1])
def test_each_instruction_that_checks_s_is_privileged_and_none_but_move_from_sr_is_critical(model: int) -> None:
    machine = build()
    told = [name for name in ("MOVE from SR", *PRIVILEGED, "MOVE from CCR", "RTR", "MOVE to CCR", "TRAP")]
    forms = [next(i.form for i in machine.instructions.values() if i.mnemonic == name) for name in dict.fromkeys(told)]
    table = popek.rows(popek.classify(machine, *forms, MODEL=model))
    critical = {row["mnemonic"] for row in table if row["critical"] == "yes"}
    privileged = {row["mnemonic"] for row in table if row["privileged"] == "yes"}
    assert critical == ({"MOVE from SR"} if model == 0 else set())
    assert privileged == {name for name, since in PRIVILEGED.items() if since <= model}
