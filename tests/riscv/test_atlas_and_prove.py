"""The atlas judges by the classes, `prove` by the premises: where they differ, the atlas says what it asked."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from popek.checks.subject import Subject
from popek.checks.verdict import Status
from popek.machines import machine as find_machine
from popek.report.atlas import atlas
from popek_proofs.atlas import Atlas, AtlasEntry, derive, places
from popek_proofs.theorems.instantiate import instantiate

FEW = """
import attrs

from popek.architectures.riscv.machine import build


def chosen(whole):
    names = ("ECALL", "ADD", "CSRRW sstatus", "CSRRW hstatus")
    techniques = ("hypervisor-in-vs", "hypervisor-and-guests-in-vs", "firmware-in-u")
    return attrs.evolve(
        whole,
        name="few",
        instructions={form.form: form for name in names for form in whole.find(name)},
        techniques={name: whole.techniques[name] for name in techniques},
    )


machine = chosen(build())
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[AtlasEntry, ...]:
    file = tmp_path_factory.mktemp("few") / "few.py"
    file.write_text(FEW, encoding="utf-8")
    return derive(places([str(file)]), jobs=1).entries


def test_the_atlas_and_prove_contradict_each_other_nowhere(rows: tuple[AtlasEntry, ...]) -> None:
    said = {}
    for row in rows:
        place = row.place
        machine = find_machine(place.machine)
        proved = instantiate(Subject.of(machine, place.technique, place.as_configuration()))
        said[place.technique] = (row.theorem1, proved.theorem1, row.by_classes)
        for theorem, here, there in ((1, row.theorem1, proved.theorem1), (3, row.theorem3, proved.theorem3)):
            assert here is there or theorem in row.by_classes, (place.id, theorem)
    nested = (Status.REFUTED, Status.HOLDS, (1,))
    assert said == {
        "hypervisor-in-vs": nested,
        "hypervisor-and-guests-in-vs": nested,
        "firmware-in-u": (Status.HOLDS, Status.HOLDS, ()),
    }


def test_a_row_says_that_classes_alone_refute(rows: tuple[AtlasEntry, ...]) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(atlas(Atlas(rows)))
    said = console.file.getvalue()
    assert "refuted by classes  holds      hybrid" in said
    assert "`popek prove` asks what the theorems rest on" in said
    assert [row.to_json()["refuted_by_classes"] for row in rows] == [list(row.by_classes) for row in rows]
