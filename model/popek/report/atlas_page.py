"""The atlas as one page: data, style and script in a single file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from popek import __version__
from popek.checks.definitions_in_words import DEFINITIONS
from popek.checks.names import shortened
from popek.checks.premise import TITLES
from popek.checks.survey import CLASSES
from popek.checks.verdict import Truth
from popek_proofs.atlas import Asked, Atlas, AtlasEntry, Efficiency, Form, Verdict
from popek_proofs.atlas.entries import KINDS

from .atlas import BY_CLASSES, needless

# The page stays below ten megabytes: the texts of questions get what the rest of the data leave, in bytes.
PAGE = 9_500_000

SCRIPTS = ("states.js", "atlas.js")
ANSWERS = (*CLASSES, "needless_trap", "faithful", "safe")


def page(found: Atlas) -> str:
    """The HTML of the atlas."""
    environment = Environment(
        loader=PackageLoader("popek.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = resources.files("popek.report") / "templates"
    return environment.get_template("atlas.html").render(
        groups=_groups(found.entries),
        entries=found.entries,
        verdicts=list(Verdict),
        kinds=KINDS,
        needless=needless,
        segments=segments,
        said=said,
        version=__version__,
        style=Markup((folder / "atlas.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        data=Markup(_in_script(_data(found, _kept_texts(found, _room(found))))),
    )


def _groups(entries: Sequence[AtlasEntry]) -> dict[str, list[AtlasEntry]]:
    groups: dict[str, list[AtlasEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.place.name, []).append(entry)
    return groups


@attrs.frozen
class BarSegment:
    """A part of a bar: a kind of `KINDS`, how many forms, and where it is, in hundredths of the whole."""

    kind: str
    count: int
    start: float
    width: float


def segments(efficiency: Efficiency) -> list[BarSegment]:
    """The parts of the bar that are not empty."""
    total = sum(efficiency.counts.values()) or 1
    parts, start = [], 0.0
    for kind, count in efficiency.counts.items():
        if count:
            parts.append(BarSegment(kind, count, round(start, 3), round(100 * count / total, 3)))
            start += 100 * count / total
    return parts


def said(efficiency: Efficiency) -> str:
    """A bar in words."""
    return "; ".join(f"{count} {KINDS[kind]}" for kind, count in efficiency.counts.items() if count)


# -- data -----------------------------------------------------------------------------------------


def _in_script(data: object) -> str:
    """JSON that can stand in a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


class _Shared:
    """Values that occur many times, kept once and named by their number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        """The number of a value."""
        key = json.dumps(value, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value)
        return self._numbers[key]


def _room(found: Atlas) -> int:
    return PAGE - len(_in_script(_data(found, {})).encode())


def _data(found: Atlas, texts: Mapping[str, str]) -> dict[str, Any]:
    words, witnesses = _Shared(), _Shared()
    numbers = {sha256: number for number, sha256 in enumerate(texts)}
    return {
        "answers": ANSWERS,
        "definitions": DEFINITIONS,
        "kinds": KINDS,
        "places": {entry.place.id: _place(entry, words, witnesses, numbers) for entry in found.entries},
        "words": words.values,
        "witnesses": witnesses.values,
        "texts": list(texts.values()),
    }


def _kept_texts(found: Atlas, room: int) -> dict[str, str]:
    """The packed texts by hash: those behind a witness first, then small ones, as far as there is room."""
    behind: dict[str, Asked] = {}
    others: dict[str, Asked] = {}
    for entry in found.entries:
        for form in entry.forms:
            for name, asked in form.asked.items():
                if asked.packed:
                    (behind if name in form.witnesses else others)[asked.sha256] = asked
    order = [
        *sorted(behind.values(), key=lambda asked: len(asked.packed)),
        *sorted(others.values(), key=lambda asked: len(asked.packed)),
    ]
    kept: dict[str, str] = {}
    for asked in order:
        if asked.sha256 not in kept and len(asked.packed) <= room:
            kept[asked.sha256] = asked.packed
            room -= len(asked.packed)
    return kept


def _place(entry: AtlasEntry, words: _Shared, witnesses: _Shared, texts: Mapping[str, int]) -> dict[str, Any]:
    place, efficiency = entry.place, entry.efficiency
    return {
        "name": place.name,
        "title": place.title,
        "technique": place.technique,
        "techniqueTitle": place.technique_title,
        "label": place.label,
        "settings": dict(place.settings),
        "configuration": dict(place.configuration),
        "note": place.note,
        "source": place.source,
        "verdict": entry.verdict.value,
        "judged": BY_CLASSES if entry.by_classes else "",
        "theorem1": entry.theorem1.value,
        "theorem3": entry.theorem3.value,
        "critical": entry.critical,
        "userCritical": entry.survey.mnemonics("user_critical"),
        "hypotheses": [
            {"statement": TITLES[h.name], "because": h.because, "holds": h.truth.value}
            for h in entry.hypotheses
        ],
        "counts": dict(efficiency.counts),
        "needless": needless(efficiency),
        "defects": entry.defects,
        "forms": [_form(form, words, witnesses, texts) for form in entry.forms],
    }


_LETTERS = {Truth.YES: "y", Truth.NO: "n", Truth.UNKNOWN: "u", Truth.NOT_ASKED: "-", None: "-"}


def _form(form: Form, words: _Shared, witnesses: _Shared, texts: Mapping[str, int]) -> dict[str, Any]:
    row = form.row
    promises = (row.needless_trap, row.faithful, row.safe)
    told: dict[str, Any] = {
        "form": row.form,
        "mnemonic": row.mnemonic,
        "kind": form.kind,
        "answers": "".join(
            _LETTERS[truth] for truth in (*(row.classes[name] for name in CLASSES), *promises)
        ),
        "words": words.number(
            {
                "summary": form.summary,
                "source": row.source,
                "leaks": shortened(row.components),
                "undecided": shortened(row.undecided),
            }
        ),
    }
    if row.breaches:
        told["breaches"] = dict(row.breaches)
    if row.remark:
        told["remark"] = row.remark
    if form.witnesses:
        told["witnesses"] = {
            name: witnesses.number(dict(witness)) for name, witness in form.witnesses.items()
        }
    if form.asked:
        told["asked"] = {name: _asked(asked, texts) for name, asked in form.asked.items()}
    return told


def _asked(asked: Asked, texts: Mapping[str, int]) -> list[Any]:
    """Truth, the solver's answer, solver, hash, the number of its text (-1: not here), the text's size."""
    if not asked.sha256:
        return [_LETTERS[asked.truth], asked.answer, asked.solver]
    return [
        _LETTERS[asked.truth],
        asked.answer,
        asked.solver,
        asked.sha256,
        texts.get(asked.sha256, -1),
        asked.size,
    ]
