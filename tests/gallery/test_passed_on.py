"""Traps that are said to be the guest's: that is asked of their delivery, not taken at the technique's word."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from passed_on import MACHINES, base

from popek.checks.passed_on import PassedOn
from popek.checks.premise import A1, A4, A5, A5_VECTOR
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek_proofs.theorems.instantiate import instantiate

WRITTEN = tomllib.loads((Path(__file__).parent / "passed_on.toml").read_text(encoding="utf-8"))


def answers(name: str) -> dict[str, str]:
    """What popek says of SVC on a machine, and of the machine; each witness is made, which replays it."""
    subject = Subject.of(MACHINES[name]())
    found = instantiate(subject)
    premises = {p.name: p for p in found.premises if p.form == "SVC"}
    assert premises[A1].truth.value == premises[A4].truth.value == "yes"
    kept = Keeper(subject).keeps(subject.machine.instructions["SVC"])
    for truth, witness in (
        *((promise.kept, promise.witness) for promise in (kept.fidelity, kept.safety)),
        *((premises[asked].truth, premises[asked].witness) for asked in (A5, A5_VECTOR)),
    ):
        assert (witness is None) == (truth is Truth.YES)
    return {
        "vector": premises[A5_VECTOR].truth.value,
        "control": premises[A5].truth.value,
        "faithful": kept.fidelity.kept.value,
        "safe": kept.safety.kept.value,
        "theorem1": found.theorem1.value,
    }


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_said_of_a_trap_is_asked(name: str) -> None:
    assert answers(name) == WRITTEN[name]


@pytest.mark.parametrize(
    ("question", "deceived", "as_if"),
    [
        ("unlike", "noted natively", "holds"),
        ("changes", "noted always", "refuted"),  # the guest's own machine notes it, too: `unlike` sees that
    ],
)
def test_each_question_is_needed(
    question: str, deceived: str, as_if: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PassedOn, question, lambda self: iter(()))
    found = answers(deceived)
    assert found != WRITTEN[deceived]
    assert found["theorem1"] == as_if


def test_where_nothing_is_delivered_it_is_the_techniques_word() -> None:
    made = base()
    made.deliver = None
    told = str(instantiate(Subject.of(made)))
    assert "where its traps go the machine does not say, and that supervisor call are the guest's" in told


@pytest.mark.parametrize(
    ("technique", "form", "kept"),
    [
        ("hypervisor-extension", "EBREAK", True),  # to VS, by hedeleg: as the kernel's own hart to S
        ("hypervisor-in-vs", "EBREAK", True),  # to the VMM
        ("firmware-in-u-delegated", "EBREAK", False),  # to the system in S, and not to the firmware
    ],
)
def test_traps_that_risc_v_delegates(technique: str, form: str, kept: bool) -> None:
    subject: Subject[Any] = Subject.of("rv64", technique)
    found = Keeper(subject).keeps(subject.machine.instructions[form])
    assert (found.fidelity.kept.value, found.safety.kept.value) == (("yes", "yes") if kept else ("no", "no"))
    assert found.fidelity.witness is not None or kept
