"""From theorem to machine: discharge the hypotheses for each instruction, and say what follows.

For one machine, technique and configuration the classifier answers, per instruction, whether it is sensitive,
user sensitive and privileged.  The theorems ask for more than the paper's sentence says (see
`theorems.theorem1`): what traps on the bare machine must trap in the virtual machine too, and a run must stay
inside the virtual machine's storage.  These premises are asked of the instructions that can complete in user
mode, through the technique's map.

    virtualizable by Theorem 1 (premises: ...)
    hybrid virtualizable by Theorem 3, not by Theorem 1, because DROP is ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.checks.classify import Classification, Classifier
from popek.checks.counterexample import Counterexample, Difference, assert_replay, differences, execute
from popek.checks.runs import Run, conjunction, explore_instruction, handed_over, probe
from popek.checks.verdict import Evidence, Question, Status, Truth, both, evidence_of, negate
from popek.checks.witness import find_minimal
from popek.kernel.configuration import Configuration, default_configuration
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.state import State
from popek.kernel.technique import Technique
from popek.kernel.words import Word, any_of
from popek.solving.solver import Answer, Effort, Model, Solver

from .mapped import changes_owned, mapped, owned_in

S = TypeVar("S", bound=State)

SENSITIVE_ARE_PRIVILEGED = "sensitive-are-privileged"
USER_SENSITIVE_ARE_PRIVILEGED = "user-sensitive-are-privileged"
COMPLETES_ALIKE = "completes-only-where-the-bare-machine-does"
USER_COMPLETES_ALIKE = "in-user-mode-completes-only-where-the-bare-machine-does"
CONFINED = "confined-to-the-virtual-machine"
BY_TRAP_ONLY = "supervisor-mode-by-trap-only"

STATEMENTS = {
    SENSITIVE_ARE_PRIVILEGED: "every sensitive instruction is privileged",
    USER_SENSITIVE_ARE_PRIVILEGED: "every user-sensitive instruction is privileged",
    COMPLETES_ALIKE: "an instruction that completes on f(S) completes on S: what traps in supervisor mode "
    "traps in user mode, and every reference is relocated and checked",
    USER_COMPLETES_ALIKE: "where S is in user mode, an instruction that completes on f(S) completes on S",
    BY_TRAP_ONLY: "user mode is left by a trap only",
    CONFINED: "an instruction that completes on f(S) leaves alone what the control program owns",
}
THEOREM1 = (SENSITIVE_ARE_PRIVILEGED, COMPLETES_ALIKE, CONFINED, BY_TRAP_ONLY)
THEOREM3 = (USER_SENSITIVE_ARE_PRIVILEGED, USER_COMPLETES_ALIKE, CONFINED, BY_TRAP_ONLY)


@attrs.frozen(eq=False, slots=False)
class Premise(Generic[S]):
    """One hypothesis of a theorem for one instruction.

    Attributes:
        name: which, of `STATEMENTS`.
        form: the instruction.
        truth: whether it holds.
        because: one sentence where it does not.
        evidence: what was asked and answered.
    """

    name: str
    form: str
    truth: Truth
    because: str
    evidence: tuple[Evidence, ...]
    _make_witness: Callable[[], Counterexample[S] | None] | None = None

    @cached_property
    def witness(self) -> Counterexample[S] | None:
        """The counterexample, where it does not hold: found, made minimal and replayed when asked for.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()

    def to_json(self) -> dict[str, object]:
        """By name and instruction."""
        return {
            "premise": self.name,
            "form": self.form,
            "holds": self.truth.value,
            "because": self.because or None,
            "evidence": [e.to_json() for e in self.evidence],
            "witness": None if self.witness is None else self.witness.to_json(),
        }


@attrs.frozen(eq=False)
class Instantiation(Generic[S]):
    """What the theorems say of one machine.

    Attributes:
        machine, technique, configuration: of what.
        classes: the classification of each form.
        premises: each hypothesis for each instruction.
        seconds: time spent.
    """

    machine: Machine[S]
    technique: Technique[S]
    configuration: Configuration
    classes: tuple[Classification[S], ...]
    premises: tuple[Premise[S], ...]
    seconds: float

    def verdict(self, names: Sequence[str]) -> Status:
        """Whether the premises of these names hold for all instructions."""
        total = Truth.YES
        for premise in self.premises:
            if premise.name in names:
                total = both(total, premise.truth)
        return Status.of(total)

    @property
    def theorem1(self) -> Status:
        """Whether the hypotheses of Theorem 1 hold."""
        return self.verdict(THEOREM1)

    @property
    def theorem3(self) -> Status:
        """Whether the hypotheses of Theorem 3 hold."""
        return self.verdict(THEOREM3)

    def failing(self, names: Sequence[str]) -> tuple[Premise[S], ...]:
        """The premises of these names that do not hold, or are unknown."""
        return tuple(p for p in self.premises if p.name in names and p.truth is not Truth.YES)

    def __str__(self) -> str:
        title = f"{self.machine.name} ({self.technique.name}; {self.configuration})"
        if self.theorem1 is Status.HOLDS:
            return f"{title} is virtualizable by Theorem 1 (premises: {self._premises(THEOREM1)})"
        why = _reasons(self.failing(THEOREM1))
        if self.theorem3 is Status.HOLDS:
            return f"{title} is hybrid virtualizable by Theorem 3, not by Theorem 1, because {why}"
        if Status.REFUTED not in (self.theorem1, self.theorem3):
            return f"{title}: the theorems do not decide, because {why}"
        why = _reasons(self.failing(THEOREM3))
        return f"{title} is virtualizable neither by Theorem 1 nor by Theorem 3, because {why}"

    def _premises(self, names: Sequence[str]) -> str:
        asked = {premise.name for premise in self.premises}
        told = "; ".join(STATEMENTS[name] for name in names if name in asked)
        open_ones = "; ".join(STATEMENTS[name] for name in names if name not in asked)
        return told + (f"; taken for granted: {open_ones}" if open_ones else "")

    def to_json(self) -> list[dict[str, object]]:
        """Two rows for `popek prove --json`: what each theorem says of this machine."""
        return [
            self._row("theorem1", self.theorem1, THEOREM1),
            self._row("theorem3", self.theorem3, THEOREM3),
        ]

    def _row(self, theorem: str, verdict: Status, names: Sequence[str]) -> dict[str, object]:
        failing = self.failing(names)
        return {
            "id": f"{theorem}.of.{self.machine.name}",
            "verdict": verdict.value,
            "statement": str(self),
            "technique": self.technique.name,
            "configuration": dict(self.configuration.settings),
            "hypotheses": [f"{name}: {STATEMENTS[name]}" for name in names],
            "failing": [premise.to_json() for premise in failing],
            "seconds": round(self.seconds, 3),
            "evidence": {
                "premises": [
                    {
                        "premise": p.name,
                        "form": p.form,
                        "holds": p.truth.value,
                        "queries": [e.to_json() for e in p.evidence],
                    }
                    for p in self.premises
                    if p.name in names
                ]
            },
            "vacuous": "no" if self.classes else "yes",
        }


def _reasons(premises: Sequence[Premise[S]]) -> str:
    """Why a theorem does not apply; where nothing refutes it, what is unknown."""
    refuted = [premise for premise in premises if premise.truth is Truth.NO]
    return "; ".join(dict.fromkeys(premise.because for premise in refuted or premises))


def instantiate(
    machine: Machine[S],
    technique: Technique[S] | None = None,
    configuration: Configuration | None = None,
    *,
    effort: Effort | None = None,
    time_is_state: bool = False,
    through_map: bool = True,
) -> Instantiation[S]:
    """Discharge the hypotheses of Theorems 1 and 3 for each instruction.

    Args:
        technique: the machine's first by default.
        configuration: every setting at its default by default.
        effort: bounds of each query, and the tally.
        time_is_state: count clocks as resources.
        through_map: ask the premises that need the technique's map; without them the verdict is about
            sensitivity alone, as in the paper's sentence.

    Raises:
        PathBudgetError: an instruction has too many paths.
        ReplayError: a defect of popek.
    """
    start = time.perf_counter()
    chosen = technique or machine.technique()
    settings = configuration if configuration is not None else default_configuration(machine)
    effort = effort or Effort()
    classifier = Classifier(machine, chosen, settings, effort=effort, time_is_state=time_is_state)
    classes, premises = [], []
    for instruction in machine.instructions.values():
        run = explore_instruction(machine, instruction, effort, configuration=settings)
        found = classifier.classify(instruction, run)
        classes.append(found)
        premises += premises_of(classifier, found, run, through_map=through_map)
    return Instantiation(
        machine, chosen, settings, tuple(classes), tuple(premises), time.perf_counter() - start
    )


def premises_of(
    classifier: Classifier[S], found: Classification[S], run: Run[S], *, through_map: bool = True
) -> list[Premise[S]]:
    """The hypotheses of Theorems 1 and 3 for one instruction.

    Args:
        classifier: for the machine, the technique and the configuration.
        found: what it says of the instruction.
        run: every path of the instruction.
        through_map: ask the premises that need the technique's map, too.

    Raises:
        ReplayError: a defect of popek.
    """
    premises = [*_sensitivity(found), _by_trap_only(classifier, found.instruction, run)]
    if through_map and found.privileged is not Truth.YES:
        premises += _through_map(classifier, found.instruction, run)
    return premises


def _sensitivity(found: Classification[S]) -> list[Premise[S]]:
    form = found.instruction.form
    made = []
    for name, sensitive, critical, prefix in (
        (SENSITIVE_ARE_PRIVILEGED, found.sensitive, found.critical, ""),
        (USER_SENSITIVE_ARE_PRIVILEGED, found.user_sensitive, found.user_critical, "user_"),
    ):
        kinds = [n for n in found.findings if n.startswith(prefix) and found.truth(n) is Truth.YES]
        if not prefix:
            kinds = [n for n in kinds if not n.startswith("user_")]
        words = " and ".join(kind.replace("_", "-") for kind in kinds)
        unsure = "may be sensitive" if sensitive is Truth.UNKNOWN else words
        because = "" if critical is Truth.NO else f"{form} is {unsure}, and not privileged"
        if critical is Truth.UNKNOWN:
            because = (
                f"{form} {'may be sensitive' if not words else f'is {words}'}, and may not be privileged"
            )
        made.append(
            Premise(
                name,
                form,
                negate(critical),
                because,
                tuple(
                    finding.evidence for finding in found.findings.values() if finding.evidence is not None
                ),
                (lambda: found.witness) if critical is Truth.YES else None,
            )
        )
    return made


def _by_trap_only(classifier: Classifier[S], instruction: Instruction, general: Run[S]) -> Premise[S]:
    """The classifier takes a run that hands control over for a trap; that is so where a trap it is."""
    machine, state, form = classifier.machine, classifier.state, instruction.form
    gates = any_of(
        conjunction(when) & handed_over(machine, classifier.technique, state, after)
        for when, after in general.at(state).completions()
    )
    question = Question(
        f"{machine.name}: {form} violates {BY_TRAP_ONLY}",
        [
            classifier.configuration.holds(machine, state),
            classifier.invariant,
            instruction.valid(general.operands),
            classifier.technique.deprivileged(state),
            gates,
        ],
    )
    answer, _, _ = question.ask(classifier.effort)
    evidence = (evidence_of(question, answer),)
    if answer is Answer.UNSAT:
        return Premise(BY_TRAP_ONLY, form, Truth.YES, "", evidence)
    because = (
        f"{form} enters supervisor mode without a trap, and whose the place is it enters at was not asked"
    )
    return Premise(BY_TRAP_ONLY, form, Truth.UNKNOWN, because, evidence)


def _through_map(classifier: Classifier[S], instruction: Instruction, general: Run[S]) -> list[Premise[S]]:
    """The premises about f(S): the run on it and the run on S."""
    runs = mapped(classifier, instruction, general)
    guest, technique = runs.guest, classifier.technique
    completes_there, traps_here = runs.completes_there, runs.traps_here
    escapes = any_of(
        when & changes_owned(technique, guest, runs.private, runs.image, after)
        for when, after in runs.completions
    )
    form = instruction.form
    ask = _Asking(classifier, instruction, general, runs.private, runs.assumed)
    alike = ask.premise(
        COMPLETES_ALIKE,
        [completes_there, traps_here],
        f"{form} completes in the virtual machine where it traps on the bare machine",
    )
    # Runs in user mode are among all runs: what holds of all holds of them.
    in_user = attrs.evolve(alike, name=USER_COMPLETES_ALIKE)
    if alike.truth is not Truth.YES:
        in_user = ask.premise(
            USER_COMPLETES_ALIKE,
            [completes_there, traps_here, classifier.machine.user(guest)],
            f"{form} completes in the virtual machine where it traps in user mode on the bare machine",
        )
    confined = ask.premise(
        CONFINED,
        [escapes],
        f"{form} completes in the virtual machine and changes what the control program owns",
    )
    return [alike, in_user, confined]


@attrs.frozen(eq=False)
class _Asking(Generic[S]):
    """What the premises of one instruction that need the map have in common."""

    classifier: Classifier[S]
    instruction: Instruction
    general: Run[S]
    private: S
    assumed: Sequence[Word]

    def premise(self, name: str, conditions: Sequence[Word], because: str) -> Premise[S]:
        """The premise holds where the conditions cannot."""
        form = self.instruction.form
        question = Question(
            f"{self.classifier.machine.name}: {form} violates {name}", [*self.assumed, *conditions]
        )
        answer, model, solver = question.ask(self.classifier.effort)
        evidence = (evidence_of(question, answer),)
        if model is not None and solver is not None:
            witness = self._witness(name, because, question, solver, model)
            return Premise(name, form, Truth.NO, because, evidence, lambda: witness)
        # Where the model does not say what happens, no premise is discharged by it.
        silent = any(isinstance(path.result, NotModelled) for path in self.general.paths)
        if answer is Answer.UNKNOWN or silent:
            return Premise(name, form, Truth.UNKNOWN, f"it is unknown whether {because}", evidence)
        return Premise(name, form, Truth.YES, "", evidence)

    def _witness(
        self, name: str, story: str, question: Question, solver: Solver, model: Model
    ) -> Counterexample[S]:
        """The smallest case, run on numbers: on f(S) and on S."""
        machine, technique = self.classifier.machine, self.classifier.technique
        starts = [self.classifier.state, self.private]
        probes = {
            slot.name: probe(starts[0].memories()[slot.name], owned_in(slot.name)).term
            for slot in machine.state.layout
            if slot.address
        }
        found = find_minimal(machine, self.instruction, question, solver, model, starts, probes)
        guest, private = found.states
        image = technique.map(guest, private)
        there = execute(machine, self.instruction, "in the virtual machine", image, found.operands)
        here = execute(machine, self.instruction, "on the bare machine", guest, found.operands)
        completed = isinstance(there.outcome, Next)
        differ: tuple[Difference, ...] = ()
        if isinstance(there.outcome, Next):
            differ = differences(image, there.outcome.state, found.addresses)
        if name == CONFINED and isinstance(there.outcome, Next):
            replays = (
                changes_owned(technique, guest, private, image, there.outcome.state, found.addresses).value
                == 1
            )
        else:
            replays = completed and isinstance(here.outcome, Trap)
        assert_replay(replays, self.instruction, name, (there.describe(), here.describe()))
        return Counterexample(
            name,
            story,
            self.instruction,
            self.instruction.assembly(found.operands),
            differences(machine.state.reset(), guest),
            here,
            there,
            differ,
        )
