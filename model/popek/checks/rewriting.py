"""The least set of forms to rewrite: what must not reach the processor so that a technique keeps its promises.

Binary translation and paravirtualization replace some instructions of the guest's kernel by calls into the VMM; the
rest runs directly.  A form must be replaced if and only if some run of it in the guest's kernel mode breaks a promise.
The promises are asked per form, so that the set of these forms is the least one: each member has a witness, and what
the others owe holds.  The questions are those of `promises`, the guest's states being those of its kernel mode; and
again those of its other modes, where a translator runs everything directly and the form breaks a promise all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.state import State
from popek.kernel.words import TRUE, Word

from .hosted import Hosted
from .presence import NothingToAskError, present
from .promise import Promise
from .promises import FormPromises
from .subject import Subject
from .verdict import Status, Truth, both
from .workers import Workers

S = TypeVar("S", bound=State)

FIDELITY, SAFETY = "fidelity", "safety"
PROMISES: Mapping[str, tuple[str, ...]] = {
    "both": (FIDELITY, SAFETY),
    FIDELITY: (FIDELITY,),
    SAFETY: (SAFETY,),
}
KERNEL, ELSEWHERE = "kernel", "elsewhere"
SMALL = 4  # bits that an operand has at most, each of whose values is asked about


@attrs.frozen
class Side:
    """What a form comes to in some of the guest's modes.

    Attributes:
        kept: per promise whether it is kept.
        breaches: per broken promise, how.
        witness: of the first broken promise; None where none is.
        evidence: per promise the hash of what was asked, and the answers.
    """

    kept: Mapping[str, Truth]
    breaches: Mapping[str, str] = attrs.field(factory=dict)
    witness: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    evidence: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    @property
    def direct(self) -> Truth:
        """Whether it may run directly: every promise that was asked about is kept."""
        answers = set(self.kept.values())
        return next((one for one in (Truth.NO, Truth.UNKNOWN, Truth.NOT_ASKED) if one in answers), Truth.YES)

    def to_json(self) -> dict[str, object]:
        """For `popek/rewriting/1`."""
        return {
            "direct": self.direct.value,
            "kept": {name: truth.value for name, truth in self.kept.items()},
            "breaches": dict(self.breaches),
            "witness": self.witness,
            "evidence": dict(self.evidence),
        }


@attrs.frozen
class Rewritten:
    """One form in the guest's kernel mode, and in its other modes.

    Attributes:
        remark: why something is unknown.
        concerns: settings on which its answers may depend.
        operands: where they were asked about and not all values break something in kernel mode: per operand those
            that do, as assembly spells them.
    """

    form: str
    mnemonic: str
    kernel: Side
    elsewhere: Side
    remark: str = ""
    concerns: tuple[str, ...] = ()
    operands: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, object]:
        """For `popek/rewriting/1`."""
        found: dict[str, object] = {
            "form": self.form,
            "mnemonic": self.mnemonic,
            KERNEL: self.kernel.to_json(),
            ELSEWHERE: self.elsewhere.to_json(),
            "concerns": list(self.concerns),
            "operands": {name: list(values) for name, values in self.operands.items()},
        }
        return found | ({"remark": self.remark} if self.remark else {})


@attrs.frozen
class JudgedRewriting:
    """A list of forms that somebody rewrites, held against the least set.

    Attributes:
        given: the forms that it names.
        missing: members of the least set that it leaves out.
        needless: forms that may run directly.
        open: forms left out of which nothing is known.
        unsure: forms named of which nothing is known.
    """

    given: tuple[str, ...]
    missing: tuple[str, ...]
    needless: tuple[str, ...]
    open: tuple[str, ...]
    unsure: tuple[str, ...]
    partial: bool

    @property
    def complete(self) -> Truth:
        """Whether what the list leaves out keeps the promises."""
        if self.missing:
            return Truth.NO
        return Truth.UNKNOWN if self.open or self.partial else Truth.YES

    def to_json(self) -> dict[str, object]:
        """For `popek/rewriting/1`."""
        names = ("given", "missing", "needless", "open", "unsure")
        return {"complete": self.complete.value} | {name: list(getattr(self, name)) for name in names}


@attrs.frozen
class SoftwareWay:
    """A way to do without hardware help.

    Attributes:
        kernel, elsewhere: how many forms run directly in the guest's kernel mode, and outside it; None: nothing does.
        keeps: whether what runs directly keeps the promises. Of what is emulated or interpreted nothing is asked.
    """

    name: str
    kernel: int | None
    elsewhere: int | None
    keeps: Truth

    def to_json(self) -> dict[str, object]:
        """For `popek/rewriting/1`."""
        return {"way": self.name, KERNEL: self.kernel, ELSEWHERE: self.elsewhere, "keeps": self.keeps.value}


@attrs.frozen
class Rewriting:
    """What must be rewritten on a machine under a technique.

    Attributes:
        promises: that are to be kept.
        not_asked: per kind of mode (`KERNEL`, `ELSEWHERE`) of which there is no guest, why nothing was asked.
        partial: some forms of the machine were left out.
    """

    machine: str
    technique: str
    configuration: Mapping[str, int]
    promises: tuple[str, ...]
    forms: tuple[Rewritten, ...]
    not_asked: Mapping[str, str]
    partial: bool

    def _forms(self, side: str, direct: Truth) -> tuple[Rewritten, ...]:
        return tuple(one for one in self.forms if getattr(one, side).direct is direct)

    @property
    def members(self) -> tuple[Rewritten, ...]:
        """The least set: forms that break a promise in the guest's kernel mode."""
        return self._forms(KERNEL, Truth.NO)

    @property
    def direct(self) -> tuple[Rewritten, ...]:
        """Forms that may run directly in the guest's kernel mode."""
        return self._forms(KERNEL, Truth.YES)

    @property
    def open(self) -> tuple[Rewritten, ...]:
        """Forms of which nothing is known in the guest's kernel mode."""
        return self._forms(KERNEL, Truth.UNKNOWN)

    @property
    def elsewhere(self) -> tuple[Rewritten, ...]:
        """Forms that break a promise where nothing is rewritten: in the guest's other modes."""
        return self._forms(ELSEWHERE, Truth.NO)

    @property
    def enough(self) -> Truth:
        """Whether rewriting the members keeps the promises in kernel mode, over all the machine's forms."""
        if KERNEL in self.not_asked:
            return Truth.NOT_ASKED
        return Truth.UNKNOWN if self.open or self.partial else Truth.YES

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing that was asked for."""
        return bool(self.open or self._forms(ELSEWHERE, Truth.UNKNOWN))

    @property
    def ways(self) -> tuple[SoftwareWay, ...]:
        """The ways to do without hardware help, each by what it lets run directly."""
        kernel, elsewhere = self._kept(KERNEL), self._kept(ELSEWHERE)
        everything, free = len(self.forms), len(self.direct)
        return (
            SoftwareWay("trap and emulate", everything, everything, _whole(kernel, elsewhere)),
            SoftwareWay("rewriting in kernel mode", free, everything, _whole(self.enough, elsewhere)),
            SoftwareWay("hybrid: kernel mode interpreted", None, everything, elsewhere),
            SoftwareWay("interpretation", None, None, Truth.YES),
        )

    def _kept(self, side: str) -> Truth:
        """Whether all forms may run directly there."""
        if side in self.not_asked:
            return Truth.NOT_ASKED
        answers = {getattr(one, side).direct for one in self.forms}
        return next((one for one in (Truth.NO, Truth.UNKNOWN) if one in answers), Truth.YES)

    def judge(self, given: Iterable[str]) -> JudgedRewriting:
        """Hold a list of forms against the least set."""
        named = tuple(dict.fromkeys(given))
        unknown, free = {one.form for one in self.open}, {one.form for one in self.direct}
        return JudgedRewriting(
            named,
            tuple(one.form for one in self.members if one.form not in named),
            tuple(form for form in named if form in free),
            tuple(one.form for one in self.open if one.form not in named),
            tuple(form for form in named if form in unknown),
            self.partial or KERNEL in self.not_asked,
        )

    def to_json(self) -> dict[str, object]:
        """`popek/rewriting/1`."""
        return {
            "schema": "popek/rewriting/1",
            "machine": self.machine,
            "technique": self.technique,
            "configuration": dict(self.configuration),
            "promises": list(self.promises),
            "rewrite": [one.form for one in self.members],
            "enough": self.enough.value,
            "open": [one.form for one in self.open],
            "breaks_elsewhere": [one.form for one in self.elsewhere],
            "not_asked": dict(self.not_asked),
            "partial": self.partial,
            "ways": [] if self.partial else [one.to_json() for one in self.ways],
            "forms": [one.to_json() for one in self.forms],
        }


def rewriting(
    subject: Subject[Any],
    *,
    promise: str = "both",
    forms: Sequence[str] | None = None,
    jobs: int = 0,
    evidence: bool = False,
    operands: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rewriting:
    """The least set to rewrite.

    Args:
        promise: a key of `PROMISES`.
        forms: only these.
        evidence: with hashes of what was asked, and a second solver's answers: that takes as long again.
        operands: find out with which values of its small operands a member breaks a promise.
        jobs: processes; 0 for one per processor.
        progress: called with the number of forms that are done and of all.

    Raises:
        NothingToAskError: the technique has no guest at all.
        ReplayError: a defect of popek.
    """
    machine = subject.machine
    present(subject)
    not_asked = {}
    for side in (KERNEL, ELSEWHERE):
        try:
            present(in_mode(subject, side))
        except NothingToAskError:
            where = "in its kernel mode" if side == KERNEL else "outside its kernel mode"
            not_asked[side] = f"there is no guest {where} that the technique can run"
    wanted = list(machine.instructions) if forms is None else list(forms)
    together: dict[str, list[str]] = {}
    for form in wanted:
        together.setdefault(machine.instructions[form].mnemonic, []).append(form)
    pieces = [
        (subject, PROMISES[promise], frozenset(not_asked), evidence, operands, tuple(some))
        for some in sorted(together.values(), key=len, reverse=True)
    ]
    found: dict[str, Rewritten] = {}
    alone = len(wanted) < 24 or subject.found_as is None
    with Workers(1 if alone else jobs) as workers:
        for some in workers.map(_judged, pieces):
            found |= {one.form: one for one in some}
            if progress is not None:
                progress(len(found), len(wanted))
    return Rewriting(
        machine.name,
        subject.technique.name,
        dict(subject.configuration.settings),
        PROMISES[promise],
        tuple(found[form] for form in wanted),
        not_asked,
        not found.keys() >= machine.instructions.keys(),
    )


def in_mode(subject: Subject[S], side: str) -> Subject[S]:
    """The same with fewer guests: those in the guest's kernel mode, or those elsewhere."""
    machine, technique = subject.machine, subject.technique

    def guest(state: S) -> Word:
        kernel = machine.supervisor(state)
        return technique.guest(state) & (kernel if side == KERNEL else ~kernel)

    return attrs.evolve(subject, technique=attrs.evolve(technique, guest=guest))


def _whole(*sides: Truth) -> Truth:
    """Of all the guest's modes, as far as there are guests in them."""
    asked = [one for one in sides if one is not Truth.NOT_ASKED]
    return both(asked[0], asked[-1]) if asked else Truth.NOT_ASKED


_Piece = tuple[Subject[Any], tuple[str, ...], frozenset[str], bool, bool, tuple[str, ...]]


def _judged(piece: _Piece) -> list[Rewritten]:
    subject, promises, not_asked, evidence, operands, forms = piece
    judge = _Judge(subject, promises, not_asked, evidence=evidence, operands=operands)
    return [judge.form(subject.machine.instructions[form]) for form in forms]


class _Judge(Generic[S]):
    """Asks about forms: of every guest at once, and where that breaks, of those of each side."""

    def __init__(
        self,
        subject: Subject[S],
        promises: Sequence[str],
        not_asked: frozenset[str],
        *,
        evidence: bool,
        operands: bool,
    ) -> None:
        self._subject, self._promises = subject, promises
        self._evidence, self._operands = evidence, operands
        self._sides = [side for side in (KERNEL, ELSEWHERE) if side not in not_asked]

    def form(self, instruction: Instruction) -> Rewritten:
        try:
            return self._found(instruction)
        except PathBudgetError as error:
            unknown = Side(dict.fromkeys(self._promises, Truth.UNKNOWN))
            told = f"unknown: {error}"
            settings = tuple(self._subject.configuration.settings)
            return Rewritten(instruction.form, instruction.mnemonic, unknown, unknown, told, settings)

    def _found(self, instruction: Instruction) -> Rewritten:
        hosted = Hosted(self._subject, instruction, self._subject.explore(instruction))
        kernel = self._subject.machine.supervisor(hosted.guest)
        # Where all guests are of one side, there is nothing to tell apart.
        where = {KERNEL: kernel, ELSEWHERE: ~kernel} if len(self._sides) > 1 else {self._sides[0]: TRUE}
        questions = FormPromises(hosted)
        found = {name: self._asked(questions, name, where) for name in self._promises}
        sides = dict.fromkeys((KERNEL, ELSEWHERE), Side(dict.fromkeys(self._promises, Truth.NOT_ASKED)))
        for side in self._sides:
            asked = {name: found[name][side] for name in self._promises}
            sides[side] = _side(asked, evidence=self._evidence)
        matter: dict[str, tuple[str, ...]] = {}
        if self._operands and sides[KERNEL].direct is Truth.NO:
            broken = [name for name, kept in sides[KERNEL].kept.items() if kept is Truth.NO]
            matter = self._that_matter(questions, instruction, hosted.general.operands, where[KERNEL], broken)
        concerns = self._subject.concerned(hosted.general.mentioned)
        return Rewritten(
            instruction.form, instruction.mnemonic, sides[KERNEL], sides[ELSEWHERE], "", concerns, matter
        )

    def _asked(
        self, questions: FormPromises[S], name: str, where: Mapping[str, Word]
    ) -> dict[str, Promise[S]]:
        return questions.promise_on(
            name, questions.fidelity() if name == FIDELITY else questions.safety(), where
        )

    def _that_matter(
        self,
        questions: FormPromises[S],
        instruction: Instruction,
        words: Mapping[str, Word],
        kernel: Word,
        broken: Sequence[str],
    ) -> dict[str, tuple[str, ...]]:
        """Per operand of few values those with which a promise is broken, where these are not all."""
        found = {}
        for operand in instruction.operands:
            (part, (name, width)), *more = zip(operand.kind.parts, operand.part_names(), strict=True)
            if more or width > SMALL:
                continue
            there = [n for n in range(1 << width) if operand.kind.valid({part: Word(width, n)}).value != 0]
            cases = {str(number): kernel & (words[name] == number) for number in there}
            breaks = set[str]()
            for promise in broken:
                asked = self._asked(questions, promise, cases)
                breaks |= {one for one, kept in asked.items() if kept.status is not Status.HOLDS}
            if len(breaks) < len(there):
                numbers = sorted(map(int, breaks))
                found[operand.name] = tuple(operand.kind.spell({part: number}) for number in numbers)
        return found


def _side(asked: Mapping[str, Promise[Any]], *, evidence: bool) -> Side:
    """What the answers come to, with a witness of the first promise that is broken."""
    broken = {name: promise for name, promise in asked.items() if promise.status is Status.REFUTED}
    witnesses = (promise.witness for promise in broken.values())
    witness = next((one for one in witnesses if one is not None), None)
    return Side(
        {name: promise.kept for name, promise in asked.items()},
        {name: promise.how for name, promise in asked.items() if promise.how},
        None if witness is None else witness.to_json(),
        {name: promise.evidence.to_json() for name, promise in asked.items()} if evidence else {},
    )
