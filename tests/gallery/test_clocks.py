"""Clocks: left out of comparisons where nothing writes to them, and no hiding place for anything else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from clocks import MACHINES

from popek.checks import runs
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek_proofs.theorems.instantiate import instantiate

WRITTEN = tomllib.loads((Path(__file__).parent / "clocks.toml").read_text(encoding="utf-8"))


def answers(name: str) -> dict[str, str]:
    """What popek says of the first form of its own, and of the machine; each witness is made, which replays it."""
    subject = Subject.of(MACHINES[name]())
    found = instantiate(subject)
    for one in found.premises:
        assert one.truth is not Truth.NO or one.witness is not None
    kept = Keeper(subject).keeps(list(subject.machine.instructions.values())[3])
    for promise in (kept.fidelity, kept.safety):
        assert (promise.witness is not None) == (promise.kept is Truth.NO)
    return {
        "faithful": kept.fidelity.kept.value,
        "safe": kept.safety.kept.value,
        "theorem1": found.theorem1.value,
        "theorem2": found.theorem2.value,
    }


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_to_a_clock_is_no_time(name: str) -> None:
    assert answers(name) == WRITTEN[name]


def test_the_question_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_written", lambda *_: False)
    assert answers("carries the base")["theorem1"] == "holds"
