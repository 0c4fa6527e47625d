"""Safety of a whole machine under a technique, hypothesis by hypothesis.

A guest *escapes* when a run that does not trap changes something that the VMM owns, or leaves the deprivileged
mode for any other place than an entry of the VMM's own.  With every hypothesis that the technique names, no
instruction escapes; what still shows something of the VMM's is listed.  Each hypothesis is needed: without it
there is a way out, with a witness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from popek.checks.carrying import packing, unpacked
from popek.checks.counterexample import Counterexample
from popek.checks.cycles import no_search_for_cycles
from popek.checks.promises import Keeper
from popek.checks.situation import Situation, holds_together, plainest
from popek.checks.subject import Runs, Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.configuration import Configuration
from popek.kernel.instruction import Instruction
from popek.kernel.machine import UnknownNameError
from popek.kernel.technique import Hypothesis
from popek.kernel.words import Word
from popek.solving.solver import Answer
from popek.work import results

CHANGES = "changes what the VMM owns"
STORES = "changes the VMM's storage"
LEAVES = "leaves the deprivileged mode, and not for an entry of the VMM's"


@attrs.frozen(eq=False)
class Escape:
    """A way out.

    Attributes:
        how: one of `CHANGES`, `STORES`, `LEAVES`.
        witness: minimal and replayed; None where there was no time to find it again.
    """

    form: str
    how: str
    witness: Counterexample[Any] | None

    def to_json(self) -> dict[str, object]:
        """With the witness as the classification has it."""
        witness = None if self.witness is None else self.witness.to_json()
        return {"form": self.form, "how": self.how, "witness": witness}


@attrs.frozen(eq=False)
class Dropped:
    """What happens without some hypotheses.

    Attributes:
        names: the hypotheses that are dropped.
        escape: the first way out, if there is one.
        undecided: forms of which it could not be said, where no way out was found.
    """

    names: tuple[str, ...]
    escape: Escape | None
    undecided: tuple[str, ...]

    @property
    def safe(self) -> Truth:
        """Whether nobody escapes."""
        if self.escape is not None:
            return Truth.NO
        return Truth.UNKNOWN if self.undecided else Truth.YES

    def to_json(self) -> dict[str, object]:
        """An entry of `popek/safety/1`."""
        return {
            "without": list(self.names),
            "safe": self.safe.value,
            "escape": None if self.escape is None else self.escape.to_json(),
            "undecided": list(self.undecided),
        }


@attrs.frozen(eq=False)
class Safety:
    """The safety of a machine under a technique.

    Attributes:
        hypotheses: what the VMM sees to.
        held: with every hypothesis.
        dropped: without each of them, or without those that were asked about.
        shows: forms whose result shows something of the VMM's; None where it was not asked.
        unknown_shows: forms of which that could not be said.
    """

    machine: str
    technique: str
    configuration: Configuration
    hypotheses: tuple[Hypothesis, ...]
    held: Dropped | None
    dropped: tuple[Dropped, ...]
    shows: tuple[str, ...] | None = None
    unknown_shows: tuple[str, ...] = ()

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        answers = [*([] if self.held is None else [self.held]), *self.dropped]
        return bool(self.unknown_shows) or any(one.safe is Truth.UNKNOWN for one in answers)

    def to_json(self) -> dict[str, object]:
        """`popek/safety/1`."""
        return {
            "schema": "popek/safety/1",
            "machine": self.machine,
            "technique": self.technique,
            "configuration": dict(self.configuration.settings),
            "hypotheses": {h.name: h.summary for h in self.hypotheses},
            "held": None if self.held is None else self.held.to_json(),
            "dropped": [one.to_json() for one in self.dropped],
            "shows": None if self.shows is None else list(self.shows),
            "shows_undecided": list(self.unknown_shows),
        }


def safety(
    subject: Subject[Any],
    *,
    without: Sequence[str] = (),
    forms: Sequence[Instruction] | None = None,
    shows: bool = True,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Safety:
    """Whether anybody escapes: with every hypothesis, and without each; or without those that are named, together.

    Args:
        forms: only these.
        shows: find the forms that show something of the VMM's, too.
        jobs: processes; 0 for one per processor.
        progress: called with the number of searches that are done and of all.

    Raises:
        UnknownNameError: no such hypothesis.
        ReplayError: a defect of popek.
    """
    machine, technique = subject.machine, subject.technique
    known = {h.name: h for h in technique.hypotheses}
    for name in without:
        if name not in known:
            raise UnknownNameError(f"hypothesis of {technique.name}", name, known)
    wanted = tuple(machine.instructions if forms is None else (one.form for one in forms))
    searches = [tuple(without)] if without else [(name,) for name in known]
    # Without a hypothesis one search goes through the forms up to the first way out; with all of them, through all.
    pieces: list[_Piece] = [(names, wanted) for names in searches]
    pieces += [] if without else [((), (form,)) for form in wanted]
    asked = (subject, shows and not without)
    dropped: list[Dropped] = []
    held: list[Dropped] = []
    seen: list[str] = []
    unsure: list[str] = []
    if subject.found_as is None:
        found: Iterator[_Found] = map(_searching(*asked), pieces)
    else:
        sent = results(_packed, asked, pieces, jobs=jobs)
        found = unpacked(subject, pieces, sent, lambda: _searching(*asked))
    for number, (piece, (one, status)) in enumerate(zip(pieces, found, strict=True), 1):
        (held if piece[0] == () and not without else dropped).append(one)
        if status is not None and status is not Status.HOLDS:
            (seen if status is Status.REFUTED else unsure).extend(piece[1])
        if progress is not None:
            progress(number, len(pieces))
    return Safety(
        machine.name,
        technique.name,
        subject.configuration,
        technique.hypotheses,
        None if without else _together(held),
        tuple(dropped),
        tuple(seen) if shows and not without else None,
        tuple(unsure),
    )


_Piece = tuple[tuple[str, ...], tuple[str, ...]]
"""The hypotheses that are dropped, and the forms that are searched."""


_Found = tuple[Dropped, Status | None]
"""A search, and of one form whether it shows something, where that is asked."""


def _packed(subject: Subject[Any], shows: bool) -> Callable[[_Piece], bytes | None]:
    return packing(subject, _searching(subject, shows))


def _searching(subject: Subject[Any], shows: bool) -> Callable[[_Piece], _Found]:
    """What does a piece."""
    explored, keeper = Runs(subject), Keeper(subject)
    known = {h.name: h for h in subject.technique.hypotheses}

    def search(piece: _Piece) -> _Found:
        names, forms = piece
        instructions = [subject.machine.instructions[form] for form in forms]
        with no_search_for_cycles():
            one = _search(explored, instructions, [known[name] for name in names])
            status = None
            if shows and not names:
                run = explored.of(instructions[0])
                status = Status.UNKNOWN if run is None else keeper.secrecy(instructions[0], run).status
            return one, status

    return search


def _together(found: Sequence[Dropped]) -> Dropped:
    """The searches of single forms as one: the first way out, or what is left undecided."""
    escape = next((one.escape for one in found if one.escape is not None), None)
    undecided = tuple(form for one in found for form in one.undecided)
    return Dropped((), escape, () if escape is not None else undecided)


def _search(
    explored: Runs[Any],
    forms: Sequence[Instruction],
    dropped: Sequence[Hypothesis],
) -> Dropped:
    """The first way out without some hypotheses."""
    names = frozenset(h.name for h in dropped)
    left_open = {h.setting for h in dropped if h.setting}
    settings = explored.subject.configuration.settings
    left = Configuration({k: v for k, v in settings.items() if k not in left_open})
    technique = explored.subject.technique
    if technique.without is not None and names:
        technique = technique.without(names)
    subject = attrs.evolve(explored.subject, technique=technique, configuration=left)
    examples = {form: place for place, form in enumerate(form for h in dropped for form in h.examples)}
    undecided: list[str] = []
    dropped_names = tuple(h.name for h in dropped)
    ordered = sorted(forms, key=lambda i: examples.get(i.form, len(examples)))
    # A way out is looked for beside a plain VMM first, which is quicker, and decides if there is one.
    near = plainest(subject, forms[0]) if dropped else None
    for instruction in ordered[: len(examples)] if near is not None else ():
        run = explored.of(instruction)
        if run is not None:
            s = Situation(subject, instruction, run=run, near=near)
            escape, _ = _escape(s)
            if escape is not None:
                return Dropped(dropped_names, escape, ())
    for instruction in ordered:
        run = explored.of(instruction)
        if run is None:
            undecided.append(instruction.form)
            continue
        s = Situation(subject, instruction, run=run)
        escape, decided = _escape(s)
        if escape is not None:
            return Dropped(dropped_names, escape, ())
        if not decided:
            undecided.append(instruction.form)
    return Dropped(dropped_names, None, tuple(undecided))


def _escape(s: Situation[Any]) -> tuple[Escape | None, bool]:
    """A way out of one form, and, where there is none, whether that is certain."""
    decided = True
    for how, conditions, nicer in _ways_out(s):
        answer = s.first(iter([conditions]))[0]
        decided = decided and answer is not Answer.UNKNOWN
        if answer is Answer.SAT:
            if nicer and s.first(iter([[*conditions, *nicer]]))[0] is Answer.SAT:
                conditions = [*conditions, *nicer]
            story = f"A run that does not trap {how}."
            witness = s.witness(how, story, conditions, ("on the hardware",), (s.guest, s.private))
            return Escape(s.instruction.form, how, witness), True
    # Where the model does not say what happens, nobody can say that it is no way out.
    silent = s.hardware.not_modelled & ~s.machine.supervisor(s.hardware.before)
    return None, decided and s.first(iter([[silent]]))[0] is Answer.UNSAT


def _ways_out(s: Situation[Any]) -> Iterator[tuple[str, list[Word], list[Word]]]:
    """How, the conditions, and what makes a witness easier to run elsewhere; the worst first."""
    technique, before = s.technique, s.hardware.before
    deprivileged = ~s.machine.supervisor(before)
    ends = [
        (conditions, after, s.over(s.hardware, after))
        for conditions, after in s.hardware.completions()
        # Most of the ways through a far transfer cannot be taken from where the technique puts the guest.
        if s.first(iter([[*holds_together(conditions), deprivileged]]))[0] is not Answer.UNSAT
    ]
    for conditions, after, over in ends:
        left = s.machine.supervisor(after) & ~over
        if left.value != 0:
            yield (
                LEAVES,
                [*holds_together(conditions), left, deprivileged],
                [s.machine.practice.easy_end(after)],
            )
    for conditions, after, over in ends:
        if over.value == 1:
            continue
        given = [*holds_together(conditions), ~over, deprivileged]
        for changed in s.changed(before, after, technique.owned):
            yield CHANGES, [*given, changed], []
        owns = technique.owns_address
        if owns is not None:
            for where, changed in s.stored(before, after):
                theirs = owns(s.guest, s.private, where) & changed
                if theirs.value != 0:
                    yield STORES, [*given, theirs], []
