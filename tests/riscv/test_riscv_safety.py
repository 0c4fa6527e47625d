"""What a guest in VS can learn or change: nothing of the VMM's, and what each thing the VMM sees to is good for."""

from __future__ import annotations

from functools import cache

import pytest
from test_rules import machine

from popek.checks.subject import Subject
from popek_proofs.safety import Safety, safety

FORMS = (
    "SD rs2, offset(rs1)",
    "CSRRW rd, scounteren, rs1",
    "CSRRW rd, senvcfg, rs1",
    "FMV.D.X fd, rs1",
    "SRET",
)


@cache
def asked(technique: str) -> Safety:
    known = machine()
    forms = [known.instructions[form] for form in FORMS]
    return safety(Subject.of(known, technique), forms=forms)


@pytest.mark.parametrize("technique", ["hypervisor-extension", "hypervisor-in-vs"])
def test_each_thing_that_the_vmm_sees_to_keeps_the_guest_in(technique: str) -> None:
    found = asked(technique)
    ways = {one.names: one.escape.form for one in found.dropped if one.escape is not None}
    assert ways == {
        ("own-storage",): "SD rs2, offset(rs1)",
        ("scounteren",): "CSRRW rd, scounteren, rs1",
        ("senvcfg",): "CSRRW rd, senvcfg, rs1",
        ("dirty",): "FMV.D.X fd, rs1",
    }
    assert found.held is not None
    assert found.held.escape is None
    assert found.shows == ()
