"""A machine under each of its techniques: what is asked once is what each would have been told alone."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs
import pytest

from commands import popek
from popek.checks.classify import Classifier
from popek.checks.every_technique import READ, asked_of, surveys
from popek.checks.letter import Letter
from popek.checks.subject import Subject
from popek.checks.survey import ONE_EACH, Request, survey
from popek.checks.verdict import Truth
from popek.machines import machine

HANDFUL = ("ADD", "SRET", "WFI", "CSRRW sstatus", "CSRRS cycle", "FMV.D.X")
NAMES = frozenset(("name", "source", "title"))  # for people
SOME = {"rv64": HANDFUL, "pg74": ("GMODE", "LPSW"), "ia64": ("thash", "epc")}


class Watched:
    """A technique that notes what is looked at."""

    def __init__(self, technique: object) -> None:
        self.technique, self.seen = technique, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.seen.add(name)
        return getattr(self.technique, name)


@pytest.mark.parametrize("name", SOME)
def test_the_classes_look_at_nothing_else_of_a_technique(name: str) -> None:
    """Otherwise an answer under one technique would be passed off as the answer under another."""
    subject = Subject.of(name)
    seen = set[str]()
    for technique in subject.machine.techniques.values():
        watched: Any = Watched(technique)
        own = attrs.evolve(subject, technique=watched)
        classifier, letter = Classifier(own), Letter(own)
        for form in (i for some in SOME[name] for i in subject.machine.find(some)[:1]):
            _ = classifier.classify(form).witness
            letter.of(form, own.explore(form))
        seen |= watched.seen
    assert seen - NAMES <= set(READ)


def requests(name: str = "rv64") -> list[Request]:
    subject = Subject.of(name)
    return [
        Request(attrs.evolve(subject, technique=one), witnesses=ONE_EACH)
        for one in subject.machine.techniques.values()
    ]


def test_each_is_told_what_it_would_have_been_told_alone() -> None:
    forms = [i.form for name in HANDFUL for i in machine("rv64").find(name)]
    together = surveys(requests(), forms=forms, jobs=1)
    alone = [survey(request, forms=forms, jobs=1) for request in requests()]
    assert [one.to_json() for one in together] == [one.to_json() for one in alone]
    assert len({str(one.to_json()["instructions"]) for one in together}) == 2  # in U, and in VS


def test_what_differs_is_asked_again() -> None:
    """Each thing that the classes look at tells two techniques apart."""
    technique = machine("rv64").technique("ring-deprivileging-u")
    others = (
        attrs.evolve(technique, deprivileged=lambda state: state.v),
        attrs.evolve(technique, entries=lambda before, after: after.v),
        attrs.evolve(technique, guests_own=()),
        attrs.evolve(technique, replaced=()),
    )
    assert all(asked_of(other) != asked_of(technique) for other in others)
    request = requests()[0]
    changed = attrs.evolve(
        request, subject=attrs.evolve(request.subject, technique=attrs.evolve(others[2], name="mine"))
    )
    form = [i.form for i in machine("rv64").find("FMV.D.X")]
    first, second = surveys([request, changed], forms=form, jobs=1)
    assert first.rows[0].classes["critical"] is Truth.NO
    assert second.rows[0].classes["critical"] is Truth.YES
    assert second.technique == "mine"


def test_promises_are_asked_of_each() -> None:
    form = [i.form for i in machine("rv64").find("SRET")]
    asked = [attrs.evolve(request, promises=True) for request in requests()]
    faithful = {one.technique: one.rows[0].faithful for one in surveys(asked, forms=form, jobs=1)}
    assert faithful["hypervisor-extension"] is Truth.YES
    assert faithful["hypervisor-in-vs"] is Truth.NO  # VTSR is 0


def test_the_command_shows_them_in_one_table() -> None:
    said = popek("classify", "rv64", "SRET", "CSRRS cycle", "ADD", "--technique", "all")
    assert said.returncode == 0
    cells = [line.split()[1:8] for line in said.stdout.splitlines() if line.startswith("SRET    ")]
    assert cells[:1] == [["1", *["privileged"] * 3, *["critical"] * 3]]
    assert re.search(r"unknown  under 1, 2, 3\n", said.stdout)  # not all forms were asked about
    assert "refuted  under 4, 5, 6: 1 critical instruction in 1 form: SRET" in said.stdout
    assert "Witnesses under 4, 5, 6" in said.stdout


def test_the_command_prints_json() -> None:
    said = popek("classify", "rv64", "SRET", "--technique", "all", "--json")
    found = json.loads(said.stdout)
    assert found["schema"] == "popek/classifications/1"
    assert [one["technique"] for one in found["classifications"]] == list(machine("rv64").techniques)
    assert {one["schema"] for one in found["classifications"]} == {"popek/classification/1"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--svg", "x.svg"), "--svg x.svg"),
        (("--symbolic", "VTSR"), "--symbolic VTSR"),
        (("--set", "VTSR=?"), "--set VTSR=?"),
    ],
)
def test_what_is_about_one_technique_is_refused(options: tuple[str, ...], named: str) -> None:
    said = popek("classify", "rv64", "SRET", "--technique", "all", *options)
    assert said.returncode == 2
    assert (
        said.stderr == f"popek: {named}: expected with one technique, and --technique all asks about each\n"
    )
