"""What the page asks and what it is told: a message is a JSON object with `ask`, an answer is one or several.

    {"ask": "classify", "machine": "pg74", "settings": {"GMODE": 0}}
    {"forms": 11, …}   {"row": {…}} for each form   {"theorem1": "refuted", …}

What cannot be answered is one `{"error": "one line"}`.  Nothing here needs more than the standard library, attrs and a
solver, so that it runs in a browser.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

from popek import machines as registry
from popek.checks.counterexample import Counterexample, Executed, differences, show
from popek.checks.definitions_in_words import COLUMNS, DEFINITIONS
from popek.checks.names import shortened
from popek.checks.subject import Subject
from popek.errors import PopekError
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Trap

from .edits import edited, source_of

Message = Mapping[str, Any]
Answer = dict[str, Any]

OWN = "own"  # the name under which the page speaks of a machine that the user writes
KEPT = 24  # configurations whose rows are kept, so that flipping back takes no time
LONGEST_TEXT = 400_000


class MessageError(PopekError):
    """A message that means nothing."""


class Explorer:
    """Answers messages, and keeps what it found for the next ones."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[object, ...], dict[str, Answer]] = OrderedDict()
        self._subjects: OrderedDict[tuple[object, ...], Subject[Any]] = OrderedDict()

    def answers(self, message: Message) -> Iterator[Answer]:
        """The answers to a message, as they are found."""
        try:
            ask = _ASKED.get(str(message.get("ask")))
            if ask is None:
                raise MessageError(f"ask {message.get('ask')!r}: expected one of {', '.join(_ASKED)}")
            yield from ask(self, message)
        except PopekError as error:
            yield {"error": " ".join(str(error).split())}

    # -- machines ---------------------------------------------------------------------------------

    def machines(self, _: Message) -> Iterator[Answer]:
        """What can be chosen."""
        yield {
            "machines": [
                {"name": known.name, "title": known.title, "forms": len(known.instructions)}
                for known in (make() for make in registry.makers().values())
            ],
            "columns": [
                {"name": name, "title": title, "means": DEFINITIONS[name]}
                for name, title in (COLUMNS[-1], *COLUMNS[:-1])  # critical first, which a narrow page shows
            ],
            "example": (resources.files(__package__) / "example_machine.py").read_text(encoding="utf-8"),
            "promises": [{"name": n, "title": n, "means": DEFINITIONS[n]} for n in ("faithful", "safe")],
        }

    def machine(self, message: Message) -> Iterator[Answer]:
        """One machine: its techniques and settings."""
        known = self._machine(message)
        yield {
            "name": known.name,
            "title": known.title,
            "source": known.source,
            "notes": list(known.notes),
            "techniques": [{"name": t.name, "title": t.title} for t in known.techniques.values()],
            "settings": [
                {
                    "name": s.name,
                    "summary": s.summary,
                    "values": [{"value": v, "label": s.labels.get(v, str(v))} for v in s.values],
                    "default": s.default,
                }
                for s in known.settings
                if len(s.values) <= 64
            ],
            "forms": list(known.instructions),
        }

    # -- questions --------------------------------------------------------------------------------

    def classify(self, message: Message) -> Iterator[Answer]:
        """The table, row by row, and the premises of the theorems at the end."""
        from popek.checks.presence import present
        from popek.checks.survey import Request, Survey, Surveyor

        promises = bool(message.get("promises"))
        key, subject = self._subject(message)
        kept = self._rows.setdefault((*key, promises), {})
        self._rows.move_to_end((*key, promises))
        while len(self._rows) > KEPT:
            self._rows.popitem(last=False)
        forms = list(subject.machine.instructions)
        yield {"forms": len(forms), "configuration": dict(subject.configuration.settings)}
        present(subject)
        surveyor = Surveyor(Request(subject, promises=promises))
        found = []
        for form in forms:
            if form not in kept:
                row = surveyor.row(form)
                told = row.to_json()
                told |= {
                    "summary": subject.machine.instructions[form].summary,
                    "leaks": shortened(row.components),
                }
                kept[form] = {"row": told, "_row": row}
            yield {"row": kept[form]["row"]}
            found.append(kept[form]["_row"])
        survey = Survey(subject.machine.name, subject.technique.name, subject.configuration, tuple(found))
        yield {
            "theorem1": survey.theorem1.value,
            "theorem3": survey.theorem3.value,
            "critical": survey.mnemonics("critical"),
            "user_critical": survey.mnemonics("user_critical"),
        }

    def explain(self, message: Message) -> Iterator[Answer]:
        """One form: each question in words, what was answered, the path tree, witnesses as states, its Python."""
        from popek.checks.explanation import explain
        from popek.checks.path_tree import path_tree
        from popek.checks.survey import Request

        _, subject = self._subject(message)
        form = subject.machine.find(_text(message, "form"))[0]
        found = explain(Request(subject, promises=True), form.form).forms[0]
        tree = None if found.run is None else path_tree(subject.machine, found.run)
        yield {
            "form": form.form,
            "summary": found.summary,
            "source": form.source,
            "row": found.row.to_json(),
            "disagreement": found.disagreement,
            "definitions": DEFINITIONS,
            "asked": {name: _asked(evidence) for name, evidence in found.asked.items()},
            "tree": None if tree is None else tree.to_json(),
            "paths": 0 if found.run is None else len(found.run.paths),
            "witnesses": {name: _witness(one) for name, one in found.counterexamples.items()},
            "python": source_of(form),
            "edited": form.form in _edits(message),
        }

    def step(self, message: Message) -> Iterator[Answer]:
        """One form on numbers."""
        from popek.library.running import step

        known = self._machine(message)
        before, operands = (_numbers(message, name) for name in ("before", "operands"))
        yield step(known, _text(message, "form"), before, operands).to_json()

    def doctor(self, message: Message) -> Iterator[Answer]:
        """A pasted dump: the verdict in sentences."""
        from popek.library.code import diagnose

        text = _text(message, "text")
        if not text.strip():
            raise MessageError(
                "no dump: expected a VMCS dump of Linux KVM or Xen, NAME = value lines, or JSON"
            )
        found = diagnose(text if "\n" in text else text + "\n").diagnosis
        yield {
            "label": found.label,
            "kind": found.verdict.outcome.kind,
            "summary": found.summary,
            "agreement": found.agreement,
            "happened": list(found.happening.sentences),
            "failed": [
                {"id": f.id, "message": f.message, "fields": list(f.fields)} for f in found.verdict.failed
            ],
            "suspects": [
                {"id": f.id, "message": f.message, "fields": list(f.fields)} for f in found.suspects
            ],
            "near": [{"id": n.id, "message": n.message, "condition": n.condition} for n in found.near_misses],
            "undecided": len(found.verdict.undecided),
            "asked_for": [name for name, _ in (*found.fields_asked, *found.others_asked)][:12],
            "inferred": list(found.inferred),
            "next_step": found.next_step,
            "fields": len(found.dump.fields),
            "format": found.dump.format,
        }

    # -- names ------------------------------------------------------------------------------------

    def _machine(self, message: Message) -> Machine[Any]:
        name, edits = _text(message, "machine"), _edits(message)
        if name == OWN:
            known = registry.from_text(_text(message, "text"))
        elif name in registry.makers():
            known = registry.machine(name)
        else:  # a page names no files
            from popek.kernel.machine import UnknownNameError

            raise UnknownNameError("machine", name, registry.makers())
        return edited(known, edits) if edits else known

    def _subject(self, message: Message) -> tuple[tuple[object, ...], Subject[Any]]:
        name, technique = _text(message, "machine"), message.get("technique") or None
        settings = message.get("settings") or {}
        if not isinstance(settings, Mapping) or not (technique is None or isinstance(technique, str)):
            raise MessageError("settings: expected an object; technique: expected a name")
        if name != OWN:
            name = registry.assisted(name, technique)
        text = str(message.get("text", "")) if name == OWN else ""
        given = tuple(sorted((str(setting), str(value)) for setting, value in settings.items()))
        key = (name, technique, given, text, tuple(sorted(_edits(message).items())))
        if key not in self._subjects:
            known = self._machine({**message, "machine": name})
            self._subjects[key] = Subject.of(known, technique, [f"{n}={value}" for n, value in given])
            while len(self._subjects) > KEPT:
                self._subjects.popitem(last=False)
        self._subjects.move_to_end(key)
        return key, self._subjects[key]


_ASKED: Mapping[str, Callable[[Explorer, Message], Iterator[Answer]]] = {
    "machines": Explorer.machines,
    "machine": Explorer.machine,
    "classify": Explorer.classify,
    "explain": Explorer.explain,
    "step": Explorer.step,
    "doctor": Explorer.doctor,
}


def _text(message: Message, name: str) -> str:
    found = message.get(name, "")
    if not isinstance(found, str) or len(found) > LONGEST_TEXT:
        raise MessageError(f"{name}: expected a text of up to {LONGEST_TEXT} characters")
    return found


def _edits(message: Message) -> dict[str, str]:
    found = message.get("edits") or {}
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for text in found.values()):
        raise MessageError("edits: expected an object from a form to its Python")
    return dict(found)


def _numbers(message: Message, name: str) -> dict[str, int]:
    found = message.get(name) or {}
    try:
        return {
            str(key): value if isinstance(value, int) else int(str(value), 0) for key, value in found.items()
        }
    except (AttributeError, ValueError):
        raise MessageError(f"{name}: expected numbers by name, such as 0x10") from None


def _asked(evidence: Any) -> Answer:
    return {
        "question": evidence.question.name,
        "found": evidence.found,
        "by": [step.told for step in evidence.steps()[:1]],
    }


def _witness(found: Counterexample[Any]) -> Answer:
    runs = [run for run in (found.first, found.second) if run is not None]
    return {
        "claim": found.claim,
        "story": found.story,
        "assembly": found.assembly,
        "runs": [_run(run) for run in runs],
        "differ": [difference.name for difference in found.differ],
    }


def _run(run: Executed[Any]) -> Answer:
    reset = type(run.before).reset()
    outcome = run.outcome
    told: Answer = {
        "label": run.label,
        "before": {d.name: show(d.after, d.width) for d in differences(reset, run.before)},
        "reset": {d.name: show(d.before, d.width) for d in differences(reset, run.before)},
        "changes": {d.name: [show(d.before, d.width), show(d.after, d.width)] for d in run.changes},
        "describe": run.describe(),
        "kind": {Next: "completes", Trap: "trap", NotModelled: "not modelled"}[type(outcome)],
    }
    if run.lines:
        told["form"] = run.lines[0].instruction.form
        told["operands"] = {
            name.removeprefix("operand "): value for name, value in run.lines[0].operands.items()
        }
    return told


__all__ = ["OWN", "Explorer", "MessageError"]
