"""The rows of the atlas, derived: instruction by instruction, in several processes, with an optional cache.

A machine's instruction is explored once and asked about under every technique and configuration.  One mnemonic is
one task, so that which of its forms carries a witness does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import cattrs
from cattrs.errors import BaseValidationError

from popek.checks.classification import Classification, Finding
from popek.checks.classify import Classifier
from popek.checks.counterexample import Counterexample, ReplayError
from popek.checks.premise import A1, THEOREM1, THEOREM3
from popek.checks.premises import Premises
from popek.checks.promise import Promise, Promises
from popek.checks.promises import Keeper
from popek.checks.runs import Run, explore_instruction
from popek.checks.subject import Subject
from popek.checks.survey import CLASSES, SurveyRow, row_of
from popek.checks.verdict import Evidence, Status, Truth, both
from popek.kernel.configuration import Configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.machines import machine as find_machine
from popek.solving.solver import solver_version
from popek.work import results, split

from .entries import Asked, Atlas, AtlasEntry, FailedHypothesis, Form, pack
from .places import AtlasPlace

# A text without a witness is kept if it is not larger than this (packed, bytes): the page has to stay small.
LARGEST_KEPT = 3_000


@attrs.frozen
class Depth:
    """How much to find out.

    Attributes:
        promises: fidelity and safety, too.
        witnesses: a witness per mnemonic and class, and the text of the questions.
        timeout: seconds a single question may take; 0 for no bound but the solver's own.
    """

    promises: bool = False
    witnesses: bool = False
    timeout: float = 0.0


@attrs.frozen
class _Task:
    """A mnemonic of a machine in several rows.

    Attributes:
        hypotheses: ask for the theorems' hypotheses instead of the classes.
    """

    places: tuple[AtlasPlace, ...]
    mnemonic: str
    depth: Depth
    hypotheses: bool = False


_Found = tuple[tuple[Form, ...] | tuple[FailedHypothesis, ...], ...]  # per place


def derive(
    places: Sequence[AtlasPlace],
    depth: Depth = Depth(),
    *,
    jobs: int = 0,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """The atlas of these places.

    Args:
        jobs: processes; 0 for one per processor.
        cache: a folder to keep answers in; those of another version of popek are not used.
        progress: called with the number of tasks that are done and of all known so far.

    Raises:
        OSError: the cache cannot be written.
    """
    begin = time.perf_counter()
    kept = _Kept(None if split() else cache)  # parts are parts of the same whole
    by_machine: dict[str, list[AtlasPlace]] = {}
    for place in places:
        by_machine.setdefault(place.machine, []).append(place)
    tasks = [
        _Task(tuple(group), mnemonic, depth)
        for machine, group in by_machine.items()
        for mnemonic in reversed(
            _mnemonics(machine)
        )  # the most involved ones tend to come last; begin with them
    ]
    forms: dict[str, dict[str, Form]] = {place.id: {} for place in places}
    hypotheses: dict[str, list[FailedHypothesis]] = {place.id: [] for place in places}
    for number, (task, found) in enumerate(_each(tasks, kept, jobs)):
        for place, its_forms in zip(task.places, found, strict=True):
            forms[place.id] |= {form.row.form: form for form in its_forms}
        if progress is not None:
            progress(number + 1, len(tasks))
    done = len(tasks)
    tasks = _open_theorems(by_machine, forms, depth)
    for number, (task, found) in enumerate(_each(tasks, kept, jobs)):
        for place, failing in zip(task.places, found, strict=True):
            hypotheses[place.id] += failing
        if progress is not None:
            progress(done + number + 1, done + len(tasks))
    entries = []
    for place in places:
        order = find_machine(place.machine).instructions
        entries.append(
            AtlasEntry(place, tuple(forms[place.id][form] for form in order), tuple(hypotheses[place.id]))
        )
    return Atlas(tuple(entries), time.perf_counter() - begin)


def _mnemonics(machine: str) -> list[str]:
    return list(dict.fromkeys(i.mnemonic for i in find_machine(machine).instructions.values()))


def _open_theorems(
    by_machine: Mapping[str, Sequence[AtlasPlace]], forms: Mapping[str, Mapping[str, Form]], depth: Depth
) -> list[_Task]:
    """The places where sensitivity does not refute both theorems: there, the other hypotheses matter."""
    tasks = []
    for machine, group in by_machine.items():
        open_ones = []
        for place in group:
            if AtlasEntry(place, tuple(forms[place.id].values())).by_classes != (1, 3):
                open_ones.append(place)
        if open_ones:
            tasks += [_Task(tuple(open_ones), mnemonic, depth, True) for mnemonic in _mnemonics(machine)]
    return tasks


# -- processes ------------------------------------------------------------------------------------


def _each(tasks: Iterable[_Task], kept: _Kept, jobs: int) -> Iterator[tuple[_Task, Any]]:
    """The tasks with what was found, those that are known already first."""
    missing = []
    for task in tasks:
        known = kept.get(task)
        if known is None:
            missing.append(task)
        else:
            yield task, known
    for task, found in zip(missing, results(_working, (), missing, jobs=jobs, least=8), strict=True):
        kept.put(task, found)
        yield task, found


def _working() -> Callable[[_Task], _Found]:
    return _work


@cache
def _machine(name: str) -> Machine[Any]:
    """A machine, once per process."""
    return find_machine(name)


@cache
def _asking(name: str, technique: str, settings: tuple[tuple[str, int], ...], depth: Depth) -> _Asking:
    """What asks for one row, once per process."""
    return _Asking(_machine(name), technique, dict(settings), depth)


def _work(task: _Task) -> _Found:
    machine = _machine(task.places[0].machine)
    askers = [
        _asking(place.machine, place.technique, tuple(place.configuration.items()), task.depth)
        for place in task.places
    ]
    found: list[list[Any]] = [[] for _ in askers]
    shown: list[set[str]] = [set() for _ in askers]
    # Not `machine.find`: one form may be called what the mnemonic is.
    for instruction in (i for i in machine.instructions.values() if i.mnemonic == task.mnemonic):
        try:
            run = explore_instruction(machine, instruction, askers[0].effort)
        except PathBudgetError as error:
            nothing = dict.fromkeys(CLASSES, Truth.UNKNOWN)
            row = SurveyRow(
                instruction.form, instruction.mnemonic, instruction.source, nothing, remark=str(error)
            )
            for forms in found:
                forms += [_unasked(row)] if task.hypotheses else [Form(row, instruction.summary)]
            continue
        for asker, forms, told in zip(askers, found, shown, strict=True):
            if task.hypotheses:
                forms += asker.failing(instruction, run)
            else:
                forms.append(asker.form(instruction, run, told))
    return tuple(tuple(forms) for forms in found)


def _unasked(row: SurveyRow) -> FailedHypothesis:
    return FailedHypothesis(A1, row.form, Truth.UNKNOWN, f"{row.form}: {row.remark}")


class _Asking:
    """Asks everything about the instructions of one row."""

    def __init__(
        self, machine: Machine[Any], technique: str, settings: Mapping[str, int], depth: Depth
    ) -> None:
        self.depth = depth
        subject = Subject.of(machine, technique, Configuration(settings), timeout=depth.timeout)
        self.effort = subject.effort
        self.classifier, self.keeper = Classifier(subject), Keeper(subject)
        self.premises = Premises(subject)

    def form(self, instruction: Instruction, run: Run[Any], told: set[str]) -> Form:
        """Everything about one form.

        Args:
            told: the classes that another form of the mnemonic has a witness for; it is added to.
        """
        found = self.classifier.classify(instruction, run)
        kept = self.keeper.keeps(instruction, run) if self.depth.promises else None
        row = row_of(found, kept)
        if kept is None:
            needless = self.keeper.needless_trap(instruction, run)
            row = attrs.evolve(row, needless_trap=both(needless, found.innocuous))
        if not self.depth.witnesses:
            return Form(row, instruction.summary)
        witnesses: dict[str, dict[str, Any]] = {}
        defects = []
        for name, make in _witnesses(found, kept):
            if name in told:
                continue
            try:
                witness = make()
            except ReplayError as error:
                defects.append(str(error))
                continue
            if witness is not None:
                told.add(name)
                witnesses[name] = witness.to_json()
        asked = {
            name: _asked(truth, evidence, name in witnesses)
            for name, truth, evidence in _evidence(found, kept)
        }
        return Form(row, instruction.summary, witnesses, asked, tuple(defects))

    def failing(self, instruction: Instruction, run: Run[Any]) -> list[FailedHypothesis]:
        """The premises that do not hold, or are unknown."""
        return [
            FailedHypothesis(p.name, p.form, p.truth, p.how)
            for p in self.premises.of(instruction, run)
            if p.name in (*THEOREM1, *THEOREM3) and p.truth in (Truth.NO, Truth.UNKNOWN)
        ]


def _witnesses(
    found: Classification[Any], kept: Promises[Any] | None
) -> Iterator[tuple[str, Callable[[], Counterexample[Any] | None]]]:
    """What can be shown, by class or promise; what is so in user mode is shown in user mode."""
    for name, finding in found.findings.items():
        user = found.findings.get(f"user_{name}")
        if finding.truth is Truth.YES and not (user is not None and user.truth is Truth.YES):
            yield name, partial(_witness_of, finding)
    if kept is not None:
        for name, promise in (("fidelity", kept.fidelity), ("safety", kept.safety)):
            if promise.status is Status.REFUTED:
                yield name, partial(_witness_of, promise)


def _witness_of(answered: Finding[Any] | Promise[Any]) -> Counterexample[Any] | None:
    return answered.witness


def _evidence(
    found: Classification[Any], kept: Promises[Any] | None
) -> Iterator[tuple[str, Truth, Evidence]]:
    for name, finding in found.findings.items():
        if finding.evidence is not None:
            yield name, finding.truth, finding.evidence
    if kept is not None:
        yield "fidelity", kept.fidelity.kept, kept.fidelity.evidence
        yield "safety", kept.safety.kept, kept.safety.evidence


def _asked(truth: Truth, evidence: Evidence, shown: bool) -> Asked:
    question = evidence.question
    ((solver, answer),) = evidence.answers.items()
    if question.trivial:
        return Asked(truth, question.name, answer.value, "simplification")
    text = question.smtlib
    packed = pack(text)
    if len(packed) > LARGEST_KEPT and not shown:
        packed = ""
    return Asked(truth, question.name, answer.value, solver, question.sha256, packed, len(text))


# -- cache ----------------------------------------------------------------------------------------


class _Kept:
    """Answers in files, by everything that they depend on: the source of popek, the solver, the task."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._converter = cattrs.Converter()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._version = source_hash()

    def get(self, task: _Task) -> Any:
        """What was found before; None where nothing is known."""
        if self._folder is None:
            return None
        kind = FailedHypothesis if task.hypotheses else Form
        try:
            data = json.loads(self._file(task).read_text(encoding="utf-8"))
            return self._converter.structure(data, tuple[tuple[kind, ...], ...])  # type: ignore[valid-type]
        except (OSError, ValueError, BaseValidationError):
            return None  # a file that is missing or spoilt is made anew

    def put(self, task: _Task, found: _Found) -> None:
        """Keep what was found."""
        if self._folder is not None:
            text = json.dumps(self._converter.unstructure(found), ensure_ascii=False)
            file = self._file(task)
            unfinished = file.with_suffix(f".{os.getpid()}")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(file)

    def _file(self, task: _Task) -> Path:
        assert self._folder is not None
        machine = task.places[0].machine
        own = Path(machine).read_text(encoding="utf-8") if machine.endswith(".py") else ""
        what = json.dumps([self._version, own, self._converter.unstructure(task)], sort_keys=True)
        return self._folder / f"{hashlib.sha256(what.encode()).hexdigest()[:40]}.json"


def source_hash() -> str:
    """The hash of everything that answers depend on: semantics, questions, facts and the solver's version."""
    total = hashlib.sha256(solver_version().encode())
    for package in ("popek.kernel", "popek.architectures", "popek.checks", "popek_proofs", "popek_specs"):
        root = Path(str(resources.files(package)))
        for file in sorted(root.rglob("*")):
            if file.suffix in (".py", ".toml", ".csv"):
                total.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return total.hexdigest()
