"""What becomes of a trap: the machine as it should be, and one for each way in which its delivery can go wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from deliveries import MACHINES

from popek.checks.premise import A4
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek_proofs.theorems.instantiate import instantiate

HERE = Path(__file__).parent
WRITTEN = tomllib.loads((HERE / "deliveries.toml").read_text(encoding="utf-8"))


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_delivery_is_asked_about(name: str) -> None:
    found, written = instantiate(Subject.of(MACHINES[name]())), WRITTEN[name]
    assert found.theorem1.value == written["theorem1"], str(found)
    fails = {p.name for p in found.premises if p.truth is Truth.NO and p.name != "A8_efficiency"}
    assert set(written["fails"]) <= fails
    for one in found.premises:
        assert (one.witness is not None) == (one.truth is Truth.NO)  # replayed
    granted = " ".join(p.how for p in found.not_asked((A4,)))
    forms = written.get("granted", ())
    assert bool(granted) == bool(forms)
    assert all(form in granted for form in forms)
    if found.theorem1 is Status.HOLDS:
        assert granted in str(found)
