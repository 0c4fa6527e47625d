"""The rows of the atlas, derived: instruction by instruction, in several processes, with an optional cache.

A machine's instruction is explored once and asked about under every technique and configuration.  One mnemonic is
one task, so that which of its forms carries a witness does not depend on the number of processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
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
from popek.keeping.sources import Sources
from popek.keeping.sources import sources as sources_behind
from popek.keeping.store import Store, key_of
from popek.kernel.configuration import Configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.machines import machine as find_machine
from popek.machines import origin
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
    cache: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """The atlas of these places.

    Args:
        jobs: processes; 0 for one per processor.
        cache: where answers are kept for the next time.
        progress: called with the number of tasks that are done and of all known so far.
    """
    begin = time.perf_counter()
    # Parts are parts of the same whole.
    kept = _Kept(None if split() else cache, clock=depth.timeout > 0)
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
    """Answers in a store, by everything that they depend on: the sources, the solver, the task."""

    def __init__(self, store: Store | None, *, clock: bool) -> None:
        self._store = None if clock else store  # where the clock has a say, another run may say more
        self._converter = cattrs.Converter()
        self._sources: dict[str, Sources | None] = {}

    def get(self, task: _Task) -> Any:
        """What was found before; None where nothing is known."""
        key = self._key(task)
        told = None if key is None or self._store is None else self._store.get(key)
        if told is None:
            return None
        kind = FailedHypothesis if task.hypotheses else Form
        try:
            return self._converter.structure(json.loads(told), tuple[tuple[kind, ...], ...])  # type: ignore[valid-type]
        except (ValueError, BaseValidationError):
            return None

    def put(self, task: _Task, found: _Found) -> None:
        """Keep what was found."""
        key, sources = self._key(task), self._sources.get(task.places[0].machine)
        if self._store is not None and key is not None and sources is not None and sources.still_so():
            self._store.put(key, json.dumps(self._converter.unstructure(found)).encode())

    def _key(self, task: _Task) -> bytes | None:
        """The key of a task; None where it cannot be told what its answers depend on."""
        name = task.places[0].machine
        if self._store is not None and name not in self._sources:
            module, file = origin(name)
            modules = [__name__, *([module] if module else [])]
            self._sources[name] = sources_behind(
                _machine(name).instructions, modules, file, store=self._store
            )
        sources = self._sources.get(name)
        if sources is None:
            return None
        own = [
            sources.of(form)
            for form, instruction in _machine(name).instructions.items()
            if instruction.mnemonic == task.mnemonic
        ]
        return key_of("atlas", own, self._converter.unstructure(task), solver_version())
