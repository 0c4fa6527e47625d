"""Entries without a trap: that one is the monitor's is asked of the hardware's state, and not believed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from without_trap import MACHINES, base

from popek.checks.losses import Losses
from popek.checks.premise import A1, A4, A5, A5_VECTOR
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.checks.without_trap import WithoutTrap
from popek.kernel.declaration import assert_declared
from popek.kernel.outcome import DeclarationError
from popek_proofs.theorems.instantiate import instantiate

WRITTEN = tomllib.loads((Path(__file__).parent / "without_trap.toml").read_text(encoding="utf-8"))


def answers(name: str) -> dict[str, str]:
    """What popek says of the call, and of the machine; each witness is made, which replays it."""
    subject = Subject.of(MACHINES[name]())
    found = instantiate(subject)
    (form,) = [form for form in subject.machine.instructions if form.startswith("CALL")]
    premises = {p.name: p for p in found.premises if p.form == form}
    assert premises[A1].truth is Truth.YES
    kept = Keeper(subject).keeps(subject.machine.instructions[form])
    asked = {"vector": A5_VECTOR, "control": A5, "tells": A4}
    for truth, witness in (
        *((promise.kept, promise.witness) for promise in (kept.fidelity, kept.safety)),
        *((premises[one].truth, premises[one].witness) for one in asked.values()),
    ):
        assert (witness is not None) == (truth is Truth.NO)
    return {
        **{told: premises[one].truth.value for told, one in asked.items()},
        "faithful": kept.fidelity.kept.value,
        "safe": kept.safety.kept.value,
        "theorem1": found.theorem1.value,
    }


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_said_of_an_entry_is_asked(name: str) -> None:
    assert answers(name) == WRITTEN[name]


@pytest.mark.parametrize(
    ("owner", "question", "deceived"),
    [
        (WithoutTrap, "places", "back"),
        (WithoutTrap, "changes", "the program says the bound"),
        (Losses, "by_entries", "forgets"),
    ],
)
def test_each_question_is_needed(
    owner: type, question: str, deceived: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> Iterator[object]:
        return iter(())

    monkeypatch.setattr(owner, question, nothing)
    assert answers(deceived)["theorem1"] == "holds"


@pytest.mark.parametrize("what", ["entries", "entered"])
def test_an_entry_is_a_condition(what: str) -> None:
    said: Any = {what: lambda one, other: True}
    made: Any = base(**said)
    with pytest.raises(DeclarationError, match=f"{what} gives True: expected a condition"):
        assert_declared(made)
