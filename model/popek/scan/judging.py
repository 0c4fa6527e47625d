"""Occurrences judged: what the answers about forms come to at the places of a program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from popek.checks.subject import Subject
from popek.checks.survey import CLASSES, SurveyRow
from popek.checks.verdict import Truth

from .programs import Program, ScanError
from .sweep import Occurrence, Swept

SCHEMA = "popek/scan/1"


@attrs.frozen
class ScanFinding:
    """A form that breaks, with the places where it stands.

    Attributes:
        breaks: of `critical`, `unfaithful`, `unsafe`.
        why: in one line.
    """

    form: str
    breaks: tuple[str, ...]
    why: str
    places: tuple[Occurrence, ...]

    def to_json(self) -> dict[str, object]:
        """For `popek/scan/1`."""
        return {
            "form": self.form,
            "breaks": list(self.breaks),
            "why": self.why,
            "count": len(self.places),
            "places": [
                {
                    "section": place.section,
                    "address": hex(place.address),
                    "function": place.function or None,
                    "bytes": place.raw.hex(" "),
                    "text": place.text,
                }
                for place in self.places
            ],
        }


@attrs.frozen
class Scan:
    """A program scanned.

    Attributes:
        findings: in the order of their first places' forms.
        undecided: per form of which something is unknown and nothing is found, how often it occurs.
    """

    program: Program
    machine: str
    technique: str
    configuration: Mapping[str, int]
    mode: int
    swept: Swept
    findings: tuple[ScanFinding, ...]
    undecided: Mapping[str, int]

    @property
    def found(self) -> int:
        """How many places break."""
        return sum(len(one.places) for one in self.findings)

    @property
    def by_function(self) -> dict[str, Counter[str]]:
        """Per function how often each form that breaks occurs."""
        counts: dict[str, Counter[str]] = {}
        for one in self.findings:
            for place in one.places:
                counts.setdefault(place.function, Counter())[one.form] += 1
        return counts

    def to_json(self) -> dict[str, object]:
        """`popek/scan/1`."""
        return {
            "schema": SCHEMA,
            "file": self.program.source,
            "machine": self.machine,
            "technique": self.technique,
            "configuration": dict(self.configuration),
            "mode": self.mode,
            "remarks": list(self.program.remarks),
            "bytes": self.swept.size,
            "instructions": self.swept.instructions,
            "undecoded_bytes": self.swept.undecoded,
            "forms": dict(sorted(self.swept.counts.items())),
            "not_in_the_model": dict(sorted(self.swept.lacking.items())),
            "undecided": dict(self.undecided),
            "found": self.found,
            "findings": [one.to_json() for one in self.findings],
        }


def judge(swept: Swept, rows: Iterable[SurveyRow]) -> tuple[tuple[ScanFinding, ...], dict[str, int]]:
    """What breaks, and what is undecided, of the forms that occur."""
    findings, undecided, counts = [], {}, swept.counts
    for row in rows:
        if names := broken(row):
            findings.append(ScanFinding(row.form, names, _why(row), tuple(swept.places(row.form))))
        elif Truth.UNKNOWN in (row.classes["critical"], row.faithful, row.safe):
            undecided[row.form] = counts[row.form]
    return tuple(findings), undecided


def broken(row: SurveyRow) -> tuple[str, ...]:
    """What a form is of `critical`, `unfaithful` and `unsafe`."""
    breaks = {
        "critical": row.classes["critical"] is Truth.YES,
        "unfaithful": row.faithful is Truth.NO,
        "unsafe": row.safe is Truth.NO,
    }
    return tuple(name for name, broken in breaks.items() if broken)


def _why(row: SurveyRow) -> str:
    """In one line: what is sensitive, and how the promises are broken."""
    told = []
    if row.classes["critical"] is Truth.YES:
        kinds = ("control", "location", "mode", "resource")
        kind = ", ".join(f"{k}-sensitive" for k in kinds if row.classes[f"{k}_sensitive"] is Truth.YES)
        shown = ", ".join(row.components[:4]) + (" …" if len(row.components) > 4 else "")
        told.append(kind + (f" ({shown})" if shown else "") + " and not privileged")
    for name, kept in (("fidelity", row.faithful), ("safety", row.safe)):
        if kept is Truth.NO and name in row.breaches:
            told.append(row.breaches[name])
    return "; ".join(dict.fromkeys(told))


Counts = dict[tuple[str, str, str], int]


@attrs.frozen
class ScanDifference:
    """What an older scan lacks and what it has more: counts by section, function and form."""

    new: Counts
    gone: Counts

    def to_json(self) -> dict[str, object]:
        """For `popek/scan/1`."""
        return {
            name: [
                {"section": section, "function": function or None, "form": form, "count": count}
                for (section, function, form), count in sorted(counts.items())
            ]
            for name, counts in (("new", self.new), ("gone", self.gone))
        }


def difference(scan: Scan, old: Path) -> ScanDifference:
    """What changed since an older scan.

    Raises:
        ScanError: the file is none, or of another machine, technique or configuration.
    """
    then = _read(old, SCHEMA)
    _assert_same(old, then, scan.machine, scan.technique, scan.configuration)
    try:
        before = Counter(
            (place["section"], place["function"] or "", one["form"])
            for one in then["findings"]
            for place in one["places"]
        )
    except (KeyError, TypeError):
        raise ScanError(f"{old}: findings: expected what popek scan --json prints") from None
    now = Counter((p.section, p.function, one.form) for one in scan.findings for p in one.places)
    return ScanDifference(dict(now - before), dict(before - now))


def answered(path: Path, subject: Subject[Any]) -> dict[str, SurveyRow]:
    """What an earlier classification with promises says of forms.

    Raises:
        ScanError: the file is none, or of another machine, technique or configuration.
    """
    found = _read(path, "popek/classification/1")
    technique, settings = subject.technique.name, subject.configuration.settings
    _assert_same(path, found, subject.machine.name, technique, settings)
    rows = {}
    wanted = f"{path}: expected what popek classify --promises --json prints"
    try:
        for one in found["instructions"]:
            rows[one["form"]] = SurveyRow(
                one["form"],
                one["mnemonic"],
                one["source"],
                {name: Truth(one[name]) for name in CLASSES},
                tuple(one["components"]),
                faithful=Truth(one["faithful"]),
                safe=Truth(one["safe"]),
                breaches=dict(one.get("breaches", {})),
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ScanError(f"{wanted} ({type(error).__name__}: {error})") from None
    for row in rows.values():
        if Truth.NOT_ASKED in (row.faithful, row.safe):
            raise ScanError(f"{wanted}; of {row.form} it was not asked whether it is faithful and safe")
    return rows


def _assert_same(
    path: Path, found: Mapping[str, Any], machine: str, technique: str, settings: Mapping[str, int]
) -> None:
    for name, value in (("machine", machine), ("technique", technique), ("configuration", dict(settings))):
        if found.get(name) != value:
            raise ScanError(f"{path}: {name}: expected {value}, found {found.get(name)}")


def _read(path: Path, schema: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScanError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ScanError(f"{path}: expected JSON with the schema {schema}") from None
    if not isinstance(found, dict) or found.get("schema") != schema:
        raise ScanError(f"{path}: schema: expected {schema}")
    return found
