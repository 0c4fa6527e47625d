"""What an interrupt changes, cells said to be absent, what a trap lets in unheard, and semantics with two faces."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from unseen import MACHINES, TWO_FACED, base

from popek.checks import form_premises
from popek.checks.entries import Entries
from popek.checks.premise import A4
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.outcome import SemanticsError
from popek_proofs.theorems.instantiate import instantiate

WRITTEN = tomllib.loads((Path(__file__).parent / "unseen.toml").read_text(encoding="utf-8"))


def answers(name: str) -> dict[str, Any]:
    """What popek says of a machine; each witness is made, which replays it."""
    found = instantiate(Subject.of(MACHINES[name]()))
    for one in found.premises:
        assert one.truth is not Truth.NO or one.witness is not None
    return {
        "a4": [one.form for one in found.premises if one.name == A4 and one.truth is Truth.NO],
        "theorem1": found.theorem1.value,
        "interrupts": found.interrupts.value,
    }


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_left_out_of_sight(name: str) -> None:
    assert answers(name) == WRITTEN[name]


def test_each_question_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form_premises, "goes_by_absent_cells", lambda *_: iter(()))
    monkeypatch.setattr(Entries, "changed_by_interrupts", frozenset())
    for name in ("the interrupt changes it", "absent at times", "storage behind the last"):
        assert answers(name)["theorem1"] == "holds"


@pytest.mark.parametrize("name", TWO_FACED)
def test_what_does_something_else_on_numbers_is_no_semantics(name: str) -> None:
    with pytest.raises(SemanticsError, match="on numbers"):
        instantiate(Subject.of(base({"FACE": TWO_FACED[name]})))
