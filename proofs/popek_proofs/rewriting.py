"""Published lists of what is rewritten for a VMM, held against the least set that is derived.

A list is a TOML file in `popek_specs/rewriting`: who replaces which operations, what instructions these stand for, and
in what we expect the list to differ from the least set, with the reason of each difference.  What is missing has a
witness; what is needless traps, or breaks nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any

import attrs
import cattrs

from popek.checks.rewriting import JudgedRewriting, Rewriting, Rewritten, rewriting
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.machine import Machine

MISSING, NEEDLESS = "missing", "needless"


@attrs.frozen
class ReplacedOperation:
    """One operation of a list.

    Attributes:
        name: as the source spells it.
        forms: the instructions that it stands for, as forms, or mnemonics where no form is spelled so; none for what
            is no instruction, such as storing into a table.
        confidence: H, M or L: how sure it is that the operation stands for them.
    """

    name: str
    forms: tuple[str, ...] = ()
    confidence: str = "H"
    note: str = ""


@attrs.frozen
class ListDifference:
    """Forms that a list lacks, or names for nothing, and why.

    Attributes:
        kind: `missing` or `needless`.
        forms: mnemonics and forms.
        why: how those who wrote the list get along all the same, or why they replace what would trap.
        confidence: of the reason, which no solver looked at.
    """

    kind: str
    forms: tuple[str, ...]
    why: str
    confidence: str = "H"


@attrs.frozen
class PublishedList:
    """What somebody replaces.

    Attributes:
        id: stable.
        expected: the verdict that we expect of "the list is complete".
    """

    id: str
    title: str
    source: str
    machine: str
    technique: str
    expected: Status
    operations: tuple[ReplacedOperation, ...]
    differences: tuple[ListDifference, ...] = ()
    configuration: Mapping[str, int] = attrs.field(factory=dict)
    promise: str = "both"
    note: str = ""

    def subject(self, *, timeout: float = 0.0) -> Subject[Any]:
        """Of what it speaks."""
        settings = [f"{name}={value}" for name, value in self.configuration.items()]
        return Subject.of(self.machine, self.technique, settings, timeout=timeout)

    def forms(self, machine: Machine[Any]) -> list[str]:
        """The forms that it replaces."""
        return _forms(machine, (name for one in self.operations for name in one.forms))

    def explained(self, machine: Machine[Any], kind: str) -> set[str]:
        """The forms whose difference is explained."""
        return set(_forms(machine, (n for one in self.differences if one.kind == kind for n in one.forms)))


@attrs.frozen(slots=False)
class JudgedList:
    """A published list and what became of it.

    Attributes:
        asked: the least set over the forms that were asked about.
        judged: the list beside it.
    """

    published: PublishedList
    asked: Rewriting
    judged: JudgedRewriting

    @property
    def verdict(self) -> Status:
        """Whether the list is complete."""
        answers = {Truth.YES: Status.HOLDS, Truth.NO: Status.REFUTED}
        return answers.get(self.judged.complete, Status.UNKNOWN)

    @cached_property
    def unexplained(self) -> dict[str, tuple[str, ...]]:
        """Per kind the forms asked about in which the list differs otherwise than expected: more, or fewer."""
        machine = self.published.subject().machine
        asked = {one.form for one in self.asked.forms}
        found = {}
        for kind, forms in ((MISSING, self.judged.missing), (NEEDLESS, self.judged.needless)):
            odd = set(forms) ^ (self.published.explained(machine, kind) & asked)
            found[kind] = tuple(form for form in machine.instructions if form in odd)
        return found

    @property
    def unexpected(self) -> bool:
        """It turned out otherwise."""
        if self.verdict is not self.published.expected and self.verdict is not Status.UNKNOWN:
            return True
        return any(self.unexplained.values())

    @property
    def unknown(self) -> bool:
        """Something was not decided."""
        return self.verdict is Status.UNKNOWN and self.published.expected is not Status.UNKNOWN

    def witnesses(self) -> dict[str, Rewritten]:
        """One form of each difference that misses something, by its reason."""
        machine, by_form = self.published.subject().machine, {one.form: one for one in self.asked.forms}
        found = {}
        for one in self.published.differences:
            if one.kind == MISSING:
                wanted = (form for form in _forms(machine, one.forms) if form in self.judged.missing)
                first = next((by_form[form] for form in wanted if by_form[form].kernel.witness), None)
                if first is not None:
                    found[one.why] = first
        return found

    def to_json(self) -> dict[str, Any]:
        """For `popek/claims/1`."""
        return {
            "id": self.published.id,
            "title": self.published.title,
            "source": self.published.source,
            "machine": self.published.machine,
            "technique": self.published.technique,
            "configuration": dict(self.asked.configuration),
            "expected": self.published.expected.value,
            "verdict": self.verdict.value,
            "operations": [attrs.asdict(one) for one in self.published.operations],
            "differences": [attrs.asdict(one) for one in self.published.differences],
            "unexplained": {kind: list(forms) for kind, forms in self.unexplained.items()},
            "judged": self.judged.to_json(),
            "witnesses": {why: one.to_json() for why, one in self.witnesses().items()},
        }


def published_lists() -> list[PublishedList]:
    """Those that come with popek, by their ids."""
    folder = files("popek_specs") / "rewriting"
    texts = (one.read_text("utf-8") for one in folder.iterdir() if one.name.endswith(".toml"))
    return sorted((_read(text) for text in texts), key=lambda one: one.id)


def check_list(
    published: PublishedList,
    *,
    known: dict[Hashable, Rewriting] | None = None,
    forms: Sequence[str] | None = None,
    timeout: float = 0.0,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> JudgedList:
    """Hold a list against the least set.

    Args:
        known: least sets that were found for other lists; the one for this list is added.
        forms: ask about these alone; that a list is complete is then not known.
    """
    subject = published.subject(timeout=timeout)
    key = (str(subject), published.promise)
    asked = None if known is None else known.get(key)
    if asked is None:
        asked = rewriting(subject, promise=published.promise, forms=forms, jobs=jobs, progress=progress)
        if known is not None:
            known[key] = asked
    there = {one.form for one in asked.forms}
    given = (form for form in published.forms(subject.machine) if form in there)
    return JudgedList(published, asked, asked.judge(given))


def _forms(machine: Machine[Any], names: Iterable[str]) -> list[str]:
    """Forms, and all forms of what is a mnemonic alone (PUSHF is a form beside PUSHFD, and the mnemonic of both)."""
    known = machine.instructions
    found = (known.get(name, one) for name in names for one in machine.find(name))
    return list(dict.fromkeys(one.form for one in found))


def _read(text: str) -> PublishedList:
    converter = cattrs.Converter(forbid_extra_keys=True)
    found = converter.structure(tomllib.loads(text), PublishedList)
    odd = [one.kind for one in found.differences if one.kind not in (MISSING, NEEDLESS)]
    if odd:
        raise ValueError(f"{found.id}: kind {odd[0]}: expected {MISSING} or {NEEDLESS}")
    return found


__all__ = [
    "JudgedList",
    "ListDifference",
    "PublishedList",
    "ReplacedOperation",
    "check_list",
    "published_lists",
]
