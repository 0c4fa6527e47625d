"""What one part of popek says and what another says agree, on every machine of this gallery."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from agreement import MACHINES

from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek_proofs.theorems.instantiate import instantiate

HERE = Path(__file__).parent
WRITTEN = tomllib.loads((HERE / "agreement.toml").read_text(encoding="utf-8"))
PAPERS = ("MOVE a, b", "SVC", "LPSW a")
OTHERS = sorted(path.stem for path in HERE.glob("*.py") if "MACHINES = {" in path.read_text(encoding="utf-8"))
EVERY = [
    (module, name)
    for module in OTHERS
    if not module.startswith("test_")
    for name in importlib.import_module(module).MACHINES
]


def answers(name: str) -> dict[str, str]:
    """What popek says of the machine's own form, and of the machine."""
    subject = Subject.of(MACHINES[name]())
    found = instantiate(subject)
    form = next(form for form in subject.machine.instructions if form not in PAPERS)
    kept = Keeper(subject).keeps(subject.machine.instructions[form])
    for promise in (kept.fidelity, kept.safety):
        assert (promise.witness is not None) == (promise.kept is Truth.NO)
    return {
        "theorem1": found.theorem1.value,
        "theorem2": found.theorem2.value,
        "faithful": kept.fidelity.kept.value,
        "safe": kept.safety.kept.value,
    }


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_said_of_one_machine_agrees(name: str) -> None:
    assert answers(name) == WRITTEN[name]


def test_of_interrupts_theorem_2_says_nothing() -> None:
    found = instantiate(Subject.of(MACHINES["clock in the interrupt"]()))
    assert "while no interrupt comes" in found.recursively
    told: Any = {row["id"].partition(".")[0]: row["interrupts"] for row in found.to_json()}  # type: ignore[attr-defined]
    assert (told["theorem1"]["found"], told["theorem2"]["found"]) == ("yes", "not-asked")


@pytest.mark.parametrize(("module", "name"), EVERY)
def test_where_theorem_1_holds_every_form_is_faithful_and_safe(module: str, name: str) -> None:
    subject = Subject.of(importlib.import_module(module).MACHINES[name]())
    found, keeper = instantiate(subject), Keeper(subject)
    assert found.theorem1 is Status.HOLDS or found.theorem2 is not Status.HOLDS
    if found.theorem1 is Status.HOLDS:
        for instruction in subject.machine.instructions.values():
            kept = keeper.keeps(instruction)
            assert (kept.fidelity.kept, kept.safety.kept) == (Truth.YES, Truth.YES), instruction.form
