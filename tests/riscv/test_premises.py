"""The theorems' premises for guests in VS: that there are guests to ask about, and what a nested hypervisor needs."""

from __future__ import annotations

from functools import cache

import attrs
import pytest
from test_rules import machine

from popek.architectures.riscv.state import Rv64
from popek.checks.premises import Premises
from popek.checks.presence import NothingToAskError
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine
from popek_proofs.theorems.instantiate import Instantiation, instantiate

HANDFUL = ("SRET", "CSRRW sstatus", "CSRRW hstatus", "HLV.D", "CSRRS sip", "CSRRW scounteren", "FMV.D.X")


@cache
def small() -> Machine[Rv64]:
    """A few forms of each kind."""
    known = machine()
    return attrs.evolve(known, instructions={i.form: i for name in HANDFUL for i in known.find(name)})


def asked(technique: str, *settings: str) -> Instantiation[Rv64]:
    known = small()
    return instantiate(Subject.of(known, technique, settings))


def test_a_hypervisor_in_vs_is_virtualized_by_theorem_1_where_sret_traps() -> None:
    """What Theorem 2 asks of the hart; without VTSR one instruction refutes it."""
    assert asked("hypervisor-in-vs", "VTSR=1").theorem1.value == "holds"
    opened = asked("hypervisor-in-vs", "VTSR=0")
    assert opened.theorem1.value == "refuted"
    failing = {p.form for p in opened.premises if p.name == "A1_fidelity" and p.truth is Truth.NO}
    assert failing == {"SRET"}


def test_a_guest_without_h_is_asked_about_on_a_hart_with_it() -> None:
    known = machine()
    technique = known.technique("hypervisor-extension")
    Premises(Subject.of(known, technique)).assert_some()
    as_the_hart = attrs.evolve(technique, guest_settings={})
    with pytest.raises(NothingToAskError, match="whatever is said of nothing is true"):
        Premises(Subject.of(known, as_the_hart)).assert_some()
