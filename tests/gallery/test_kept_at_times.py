"""What a monitor keeps of its guest only at times: when that begins or ends unheard, the notes are wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from kept_at_times import MACHINES

from popek.checks import obligation, premise_meaning
from popek.checks.premise import A1
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.words import FALSE
from popek_proofs.theorems.instantiate import instantiate

WRITTEN = tomllib.loads((Path(__file__).parent / "kept_at_times.toml").read_text(encoding="utf-8"))


def answers(name: str) -> dict[str, str]:
    """What popek says of the form about the flag, and of the machine; each witness is made, which replays it."""
    subject = Subject.of(MACHINES[name]())
    found, keeper = instantiate(subject), Keeper(subject)
    kept = {form: keeper.keeps(one) for form, one in subject.machine.instructions.items()}
    if found.theorem1 is Status.HOLDS:
        assert all(one.fidelity.kept is one.safety.kept is Truth.YES for one in kept.values())
    form = list(kept)[1]
    (a1,) = [p for p in found.premises if (p.name, p.form) == (A1, form)]
    for truth, witness in (
        (a1.truth, a1.witness),
        *((one.kept, one.witness) for one in (kept[form].fidelity, kept[form].safety)),
    ):
        assert (witness is not None) == (truth is Truth.NO)
    return {
        "a1": a1.truth.value,
        "faithful": kept[form].fidelity.kept.value,
        "safe": kept[form].safety.kept.value,
        "theorem1": found.theorem1.value,
    }


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_kept_at_times(name: str) -> None:
    assert answers(name) == WRITTEN[name]


def test_the_question_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (obligation, premise_meaning):
        monkeypatch.setattr(module, "unlike_notes", lambda *_: FALSE)
    assert answers("begins")["theorem1"] == "holds"
