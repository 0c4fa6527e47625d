"""The classes of Popek and Goldberg, generalised, as questions to a solver.

For one instruction form, one technique and one configuration:

| class | question that must be satisfiable |
|---|---|
| control-sensitive | a run that completes changes a mode or resource leaf that is not the guest's own |
| mode-sensitive | two states that differ only in mode, one user, one supervisor; both runs complete; results differ |
| resource-sensitive | two states that differ only in leaves the technique replaces; both complete; results differ |
| location-sensitive | relocating before and after the run does not give the same |
| user-sensitive | one of these with every run in user mode |
| privileged | *no* user-mode run completes, and one that differs only in mode completes in supervisor mode |

A user-mode run that goes in at an entry of the VMM's, as the technique declares them, has handed over control: it
counts as a trap.  Any other that ends in a supervisor mode has got out: it completes, and changes the mode.  Traps on
storage are left aside, as in the paper.  Where the model does not say what happens and nothing else decides a class,
the class is unknown.  A class that means nothing for a machine or a technique is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next
from popek.kernel.state import Leaf, Role, State, leaves_with
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import Word, all_of, any_of, symbol
from popek.solving.asking import Asker
from popek.solving.solver import Answer, Effort

from .counterexample import (
    Counterexample,
    Executed,
    ReplayError,
    assert_replay,
    assert_within,
    differences,
    execute,
)
from .runs import (
    PROBE,
    Case,
    Completion,
    Run,
    compared,
    conjunction,
    declared_order,
    explore_instruction,
    handed_over,
    operating_mode,
    probe,
    together,
)
from .verdict import Evidence, Question, Truth, any_asked, both, evidence_of, negate
from .witness import find_minimal

S = TypeVar("S", bound=State)

PRIME = "'"

# Solver resources for finding out whether one component leaks.
COMPONENT = 2_000_000


@attrs.frozen(eq=False, slots=False)
class Finding(Generic[S]):
    """The answer to one question.

    Attributes:
        truth: yes where the question is satisfiable.
        evidence: what was asked and answered; None where nothing was.
        components: the leaves that leak or change, where it is yes.
        undecided: leaves of which a short search could not tell.
        why: why it was not asked.
    """

    truth: Truth
    evidence: Evidence | None
    components: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    why: str = ""
    _make_witness: Callable[[], Counterexample[S] | None] | None = None

    @cached_property
    def witness(self) -> Counterexample[S] | None:
        """The counterexample, where the answer is yes: found, made minimal and replayed when asked for.

        None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()


@attrs.frozen(eq=False)
class Classification(Generic[S]):
    """The classes of one instruction form.

    Attributes:
        instruction: the form.
        findings: an answer per class name.
        privileged: never completes in user mode, and can in supervisor mode.
        completes: where it is privileged, that it cannot complete in user mode.
    """

    instruction: Instruction
    findings: Mapping[str, Finding[S]]
    privileged: Truth
    completes: Evidence | None = None

    def truth(self, name: str) -> Truth:
        """The answer for one class."""
        return self.findings[name].truth

    @property
    def sensitive(self) -> Truth:
        """Control, location, mode or resource sensitive."""
        return any_asked(self.truth(name) for name in SENSITIVE)

    @property
    def user_sensitive(self) -> Truth:
        """Sensitive with every run in user mode (Theorem 3)."""
        return any_asked(self.truth(name) for name in USER_SENSITIVE)

    @property
    def innocuous(self) -> Truth:
        """None of the sensitive classes."""
        return negate(self.sensitive)

    @property
    def critical(self) -> Truth:
        """Sensitive and not privileged: refutes the premise of Theorem 1."""
        return both(self.sensitive, negate(self.privileged))

    @property
    def user_critical(self) -> Truth:
        """User-sensitive and not privileged: refutes the premise of Theorem 3."""
        return both(self.user_sensitive, negate(self.privileged))

    @property
    def components(self) -> tuple[str, ...]:
        """The leaves that were seen to leak or change, over all sensitive classes."""
        return tuple(dict.fromkeys(c for name in SENSITIVE for c in self.findings[name].components))

    @property
    def undecided(self) -> tuple[str, ...]:
        """The leaves that may leak too: a short search could not tell."""
        maybe = dict.fromkeys(c for name in SENSITIVE for c in self.findings[name].undecided)
        return tuple(c for c in maybe if c not in self.components)

    @property
    def witnessed(self) -> str:
        """The class with the most telling counterexample; empty if none has one."""
        return next((name for name in TELLING if self.truth(name) is Truth.YES), "")

    @property
    def witness(self) -> Counterexample[S] | None:
        """The most telling counterexample: a difference in user mode before a change of resources."""
        return self.findings[self.witnessed].witness if self.witnessed else None


TELLING = (
    "mode_sensitive",
    "user_resource_sensitive",
    "resource_sensitive",
    "user_location_sensitive",
    "location_sensitive",
    "user_control_sensitive",
    "control_sensitive",
)
SENSITIVE = ("control_sensitive", "location_sensitive", "mode_sensitive", "resource_sensitive")
USER_SENSITIVE = ("user_control_sensitive", "user_location_sensitive", "user_resource_sensitive")


class Classifier(Generic[S]):
    """Asks the questions for one machine, technique and configuration.

    Args:
        machine: what is classified.
        technique: decides what "user mode" and "replaced" mean.
        configuration: settings that both runs share.
        effort: bounds, and the tally of solver time.
        time_is_state: count clocks as resources.
        components: find out which leaves leak or change.
    """

    def __init__(
        self,
        machine: Machine[S],
        technique: Technique[S],
        configuration: Configuration,
        *,
        effort: Effort | None = None,
        time_is_state: bool = False,
        components: bool = True,
    ) -> None:
        self.machine, self.technique, self.configuration = machine, technique, configuration
        self.effort = effort or Effort()
        self.time_is_state, self.components = time_is_state, components
        self.state = configured(machine, configuration)
        self.invariant = machine.invariant(self.state)
        self._twins: dict[_Varied, tuple[S, Word]] = {}
        self._moved: tuple[Word, S, Word] | None = None

    def classify(self, instruction: Instruction, run: Run[S] | None = None) -> Classification[S]:
        """Every class of one form.

        Raises:
            PathBudgetError: too many paths.
            ReplayError: a defect of popek.
        """
        general = run
        if general is None:
            general = explore_instruction(
                self.machine,
                instruction,
                self.effort,
                configuration=self.configuration,
                prefer=self.likely,
            )
        return _Questions(self, instruction, general).answer()

    def likely(self, state: S) -> Word:
        """What most questions assume of a state (width 1)."""
        return self.configuration.holds(self.machine, state) & self.technique.deprivileged(state)

    def twin(self, varied: _Varied) -> tuple[S, Word]:
        """A second state that differs only in what is varied, settings kept, and that it exists (width 1)."""
        if varied not in self._twins:
            fresh = {
                leaf.name: symbol(leaf.name + PRIME, leaf.width)
                for leaf in varied.leaves
                if not self.state[leaf.name].concrete
            }
            contents = {name: name + PRIME for name in varied.contents}
            state = self.state.with_changes(dict(fresh)).with_contents(contents)
            self._twins[varied] = state, self.machine.invariant(state)
        return self._twins[varied]

    @cached_property
    def modes(self) -> frozenset[str]:
        """The mode leaves that can differ between a state and a supervisor's: the invariant fixes the others."""
        varied = _Varied(leaves_with(self.machine.state, [Role.MODE]))
        state, exists = self.twin(varied)
        settings = [self.configuration.holds(self.machine, one) for one in (self.state, state)]
        ask = Asker(self.effort, [self.invariant, exists, *settings, self.machine.supervisor(state)])
        return frozenset(
            leaf.name
            for leaf in varied.leaves
            if ask.first([[self.state[leaf.name] != state[leaf.name]]]) is not Answer.UNSAT
        )

    def moved(self, relocate: Callable[[S, Word], S]) -> tuple[Word, S, Word]:
        """An offset, the state moved by it, and that this exists (width 1)."""
        if self._moved is None:
            offset = symbol("relocation", self.machine.relocation_width)
            state = relocate(self.state, offset)
            self._moved = offset, state, self.machine.invariant(state)
        return self._moved


def configured(machine: Machine[S], configuration: Configuration) -> S:
    """The state that may be anything but for the settings that are one leaf each, and the operating mode."""
    state = machine.state.symbolic().with_changes(operating_mode(machine, configuration))
    fixed = {
        machine.setting(name).leaf: value
        for name, value in configuration.settings.items()
        if machine.setting(name).leaf is not None
    }
    return state.with_changes({str(leaf): value for leaf, value in fixed.items()})


@attrs.frozen
class _Varied:
    """What two compared states differ in: leaves, and memories by name."""

    leaves: tuple[Leaf, ...]
    contents: tuple[str, ...] = ()

    def names(self, before: State, read: set[str]) -> list[str]:
        """Those of them that a run reads."""
        found = [
            x.name for x in self.leaves if not read.isdisjoint(terms.variables_of([before[x.name].term]))
        ]
        return [*found, *(name for name in self.contents if name + PRIME in read)]


@attrs.frozen(eq=False)
class _Problem(Generic[S]):
    """What a question asks: conditions, cases of which one must be possible, and the runs they are about."""

    conditions: list[Word]
    cases: list[Case]
    runs: list[Run[S]]
    varied: _Varied | None = None
    offset: Word | None = None
    not_asked: str = ""


class _Questions(Generic[S]):
    """The questions about one form."""

    def __init__(self, classifier: Classifier[S], instruction: Instruction, general: Run[S]) -> None:
        self._c = classifier
        self._machine, self._technique = classifier.machine, classifier.technique
        self._instruction, self._general = instruction, general
        self._completing = general.completing()
        self._run = general.at(classifier.state)
        self._assumed = [
            self._settings(classifier.state),
            classifier.invariant,
            instruction.valid(general.operands),
        ]
        self._in_user = [self._technique.deprivileged(classifier.state)]
        self._ask = Asker(classifier.effort, self._assumed, general.translated)

    def answer(self) -> Classification[S]:
        completes_in_user = self._completes_in_user()
        findings = {
            "mode_sensitive": self._finding("mode_sensitive", self._mode(), self._in_user, completes_in_user)
        }
        problems = {"control": self._control(), "location": self._location(), "resource": self._resource()}
        for name, problem in problems.items():
            user = self._finding(f"user_{name}_sensitive", problem, self._in_user, completes_in_user)
            findings[f"user_{name}_sensitive"] = user
            # What is so in user mode is so; only where it is not must every mode be asked about.
            findings[f"{name}_sensitive"] = self._finding(f"{name}_sensitive", problem, [], user)
        privileged = self._privileged(completes_in_user)
        completes = Question(
            f"{self._machine.name}: {self._instruction.form} completes in user mode, or is not modelled there "
            f"({self._technique.name}; {self._c.configuration})",
            lambda: [*self._assumed, *self._in_user, self._completes(self._run) | self._run.not_modelled],
        )
        asked = evidence_of(completes, Answer.UNSAT) if privileged is Truth.YES else None
        return Classification(self._instruction, findings, privileged, asked)

    def _completes_in_user(self) -> Answer:
        ways = [conditions for conditions, _ in self._completions(self._run)]
        if any(self._like_explored(way, *self._in_user, conjunction(way)) for way in ways):
            return Answer.SAT
        return self._ask.first((*self._in_user, conjunction(way)) for way in ways)

    def _like_explored(self, way: tuple[Term, ...], *conditions: Word) -> bool:
        """Whether the assignment that the exploration met for a way to complete answers a question."""
        known = self._run.known.get(way[:-1])  # the last says that control stays with the guest
        return known is not None and self._ask.fulfilled(known, *conditions)

    def _settings(self, state: S) -> Word:
        return self._c.configuration.holds(self._machine, state, mentioned=self._general.mentioned)

    # -- the questions ------------------------------------------------------------------------

    def _completions(self, run: Run[S]) -> list[Completion[S]]:
        """The ways in which it completes and has not handed control to the VMM."""
        was_deprivileged = self._technique.deprivileged(run.before)
        found = []
        for conditions, after in run.completions():
            kept = ~(was_deprivileged & handed_over(self._machine, self._technique, run.before, after))
            if kept.value != 0:
                found.append(((*conditions, kept.term), after))
        return found

    def _completes(self, run: Run[S]) -> Word:
        return any_of(conjunction(conditions) for conditions, _ in self._completions(run))

    def _control(self) -> _Problem[S]:
        roles = [Role.MODE, Role.RESOURCE, *([Role.TIME] if self._c.time_is_state else [])]
        elsewhere = frozenset(slot.name for slot in self._machine.state.layout if slot.role not in roles)
        other_leaves = frozenset(leaf.name for leaf in self._machine.state.leaves if leaf.role not in roles)
        before = self._run.before
        pairs = [(when, (), before, after) for when, after in self._completions(self._run)]
        ignored = elsewhere | other_leaves | frozenset(self._technique.guests_own)
        changed = compared(pairs, ignoring=ignored, time_is_state=self._c.time_is_state)
        return _Problem([], changed, [self._run])

    def _mode(self) -> _Problem[S]:
        if not self._c.modes:
            why = "no user state has a supervisor twin"
            return _Problem([], [], [self._run], not_asked=why)
        modes = leaves_with(self._machine.state, [Role.MODE])
        if not modes:
            return _Problem([], [], [self._run], not_asked="the state has no mode")
        return self._two_states(_Varied(modes), self._general)

    def _resource(self) -> _Problem[S]:
        stored = tuple(n for n in self._technique.replaced if n in self._run.before.memories())
        replaced = [self._machine.state.leaf(n) for n in self._technique.replaced if n not in stored]
        if not self._c.time_is_state:
            replaced = [leaf for leaf in replaced if leaf.role is not Role.TIME]
        if not replaced and not stored:
            return _Problem(
                [], [], [self._run], not_asked="the technique replaces nothing by a value of its own"
            )
        return self._two_states(_Varied(tuple(replaced), stored), self._general)

    def _location(self) -> _Problem[S]:
        relocate = self._machine.relocate
        if relocate is None:
            return _Problem(
                [], [], [self._run], not_asked="the machine does not say what moving a program is"
            )
        offset, elsewhere, exists = self._c.moved(relocate)
        other = self._general.at(elsewhere)
        moved = [(when, relocate(after, offset)) for when, after in self._completions(self._run)]
        cases = compared(
            together(moved, self._completions(other)),
            ignoring=frozenset(),
            time_is_state=self._c.time_is_state,
        )
        return _Problem([exists], cases, [self._run, other], offset=offset)

    def _two_states(self, varied: _Varied, paths: Run[S]) -> _Problem[S]:
        """Two states that differ only in what is varied; the second a supervisor's if that is the mode."""
        state, exists = self._c.twin(varied)
        other = paths.at(state)
        conditions = [self._settings(other.before), exists]
        if any(leaf.role is Role.MODE for leaf in varied.leaves):
            conditions.append(self._machine.supervisor(other.before))
        cases = compared(
            together(self._completions(self._run), self._completions(other)),
            ignoring=frozenset((*(leaf.name for leaf in varied.leaves), *varied.contents)),
            time_is_state=self._c.time_is_state,
        )
        return _Problem(conditions, cases, [self._run, other], varied)

    def _privileged(self, completes_in_user: Answer) -> Truth:
        """Never completes in user mode; where it traps, the supervisor twin can complete."""
        if completes_in_user is Answer.SAT:
            return Truth.NO
        state, exists = self._c.twin(_Varied(leaves_with(self._machine.state, [Role.MODE])))
        twin = self._general.at(state)
        traps = [*self._in_user, ~self._completes(self._run), ~self._run.not_modelled]
        where = [*traps, self._machine.supervisor(twin.before), exists]
        works = self._ask.first(
            (*where, conjunction(conditions)) for conditions, _ in self._completions(twin)
        )
        silent = self._ask.first([(*self._in_user, self._run.not_modelled)])
        return both(both(_no(completes_in_user), _no(silent)), _yes(works))

    # -- machinery ----------------------------------------------------------------------------

    def _finding(
        self, name: str, problem: _Problem[S], also: Sequence[Word], known: Finding[S] | Answer
    ) -> Finding[S]:
        """The answer to one question.

        Args:
            also: conditions besides the problem's own.
            known: the finding of a narrower question, or whether any run meets the conditions.
        """
        if problem.not_asked:
            return Finding(Truth.NOT_ASKED, None, why=problem.not_asked)
        conditions = [*also, *problem.conditions]
        question = Question(
            f"{self._machine.name}: {self._instruction.form} is {name.replace('_', '-')} "
            f"({self._technique.name}; {self._c.configuration})",
            lambda: [*self._assumed, *conditions, any_of(case.differs for case in problem.cases)],
        )
        narrower = known if isinstance(known, Finding) else None
        possible: Case | None = None
        if known is Answer.UNSAT:
            answer = Answer.UNSAT
        elif narrower is not None and narrower.truth is Truth.YES:
            answer = Answer.SAT
        else:
            answer, possible = self._first_case(problem.cases, conditions)
        evidence = evidence_of(question, answer)
        if answer is Answer.SAT:
            # Questions about user mode are parts of the general ones, which list the components.
            wanted = self._c.components and name in SENSITIVE
            shown = self._components(problem, conditions) if wanted else ((), ())
            if narrower is not None and narrower.truth is Truth.YES:
                return Finding(Truth.YES, evidence, *shown, make_witness=narrower._make_witness)
            assert possible is not None
            # A witness needs no more than the case that was found possible.
            within = [self._c.configuration.holds(self._machine, run.before) for run in problem.runs]
            narrow = Question(question.name, [*self._assumed, *within, *conditions, possible.differs])
            return Finding(
                Truth.YES, evidence, *shown, make_witness=lambda: self._witness(name, narrow, problem)
            )
        if answer is Answer.UNKNOWN:
            return Finding(Truth.UNKNOWN, evidence)
        # Where the model does not say what happens, nothing is known unless no such runs are possible.
        silent = _gap(problem.runs)
        if self._ask.first([(*conditions, silent)]) is not Answer.UNSAT:
            return Finding(Truth.UNKNOWN, evidence)
        gap = Question(f"{question.name}, and not modelled", lambda: [*self._assumed, *conditions, silent])
        return Finding(Truth.NO, evidence_of(question, answer, [gap]))

    def _first_case(self, cases: Iterable[Case], conditions: Sequence[Word]) -> tuple[Answer, Case | None]:
        """Whether one of the cases is possible, and which."""
        total = Answer.UNSAT
        for case in cases:
            if case.differs.value == 0:
                continue
            answer = Answer.SAT
            if not self._like_explored(case.first, *conditions, case.differs):
                answer = self._ask.solver(*conditions, case.differs).check()
            if answer is Answer.SAT:
                return answer, case
            if answer is Answer.UNKNOWN:
                total = answer
        return total, None

    def _components(
        self, problem: _Problem[S], conditions: Sequence[Word]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Which leaves, varied alone, make the results differ; for one run, which leaves change.

        Returns:
            Those that were seen to, and those of which a short search could not tell.
        """
        varied, runs = problem.varied, problem.runs
        if varied is None:
            return self._that_differ(problem.cases, conditions)
        read = self._read_by(runs[1])
        before = runs[1].before
        alone = [_Varied((leaf,)) for leaf in varied.leaves if leaf.role is not Role.MODE]
        alone += [_Varied((), (name,)) for name in varied.contents]
        modes = [leaf for leaf in varied.leaves if leaf.role is Role.MODE]
        if modes:  # they change together
            alone.append(_Varied(tuple(leaf for leaf in modes if leaf.name in self._c.modes)))
        alone = [one for one in alone if one.names(before, read)]
        if len(alone) == 1:
            return self._ordered(alone[0].names(before, read)), ()
        found: dict[Answer, list[str]] = {answer: [] for answer in Answer}
        for one in alone:
            found[self._leaks(one)] += one.names(before, read)
        return self._ordered(found[Answer.SAT]), self._ordered(found[Answer.UNKNOWN])

    def _ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(declared_order(self._machine.state, names))

    def _leaks(self, varied: _Varied) -> Answer:
        """Whether varying this alone can make the results differ."""
        problem = self._two_states(varied, self._completing)
        return self._ask.first(
            ((*problem.conditions, case.differs) for case in problem.cases), rlimit=COMPONENT
        )

    def _that_differ(
        self, cases: Sequence[Case], conditions: Sequence[Word]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names whose conditions are possible, several per model, and the undecided ones."""
        found: set[str] = set()
        undecided: set[str] = set()
        for case in cases:
            if self._seen(case, conditions, found):
                undecided |= case.unlike.keys()
        return self._ordered(found), self._ordered(undecided - found)

    def _seen(self, case: Case, conditions: Sequence[Word], found: set[str]) -> bool:
        """Add the names that can differ in a case, several per model, to those found.

        Returns:
            Whether the solver could not tell of some.
        """
        left = {name: condition for name, condition in case.unlike.items() if name not in found}
        solver = self._ask.solver(*conditions, case.when) if left else None
        while solver is not None and left:
            solver.add(any_of(left.values()))
            answer = solver.check(rlimit=COMPONENT)
            if answer is not Answer.SAT:
                return answer is Answer.UNKNOWN
            model = solver.model()
            found |= {name for name, condition in left.items() if model(condition.term)}
            left = {name: condition for name, condition in left.items() if name not in found}
        return False

    @staticmethod
    def _read_by(run: Run[S]) -> set[str]:
        """Variables and contents that decide the run: its conditions and whatever it changes."""
        roots = [condition for path in run.paths for condition in path.conditions]
        old = run.before
        for _, new in run.completions():
            roots += [new[n].term for n in old.words() if new[n].term is not old[n].term]
            for name, content in new.memories().items():
                if content is not old.memories()[name]:
                    roots.append(content.load(probe(content)).term)
        names = set(terms.variables_of(roots))
        return names | {str(cell.data) for cell in terms.applications_of(roots)}

    def _witness(self, name: str, question: Question, problem: _Problem[S]) -> Counterexample[S] | None:
        runs, offset = problem.runs, problem.offset
        answer, model, solver = question.ask(self._c.effort)
        if answer is Answer.UNKNOWN:  # there is one, and no time to find it again
            return None
        if model is None or solver is None:
            raise ReplayError(f"{self._instruction.form}: {name} was satisfiable and is no more")
        machine, instruction = self._machine, self._instruction
        relocate = machine.relocate if offset is not None else None
        starts = [run.before for run in (runs[:1] if relocate else runs)]
        found = find_minimal(machine, instruction, question, solver, model, starts, self._probes())
        states, claim = list(found.states), name.replace("_", "-")
        kind = name.removeprefix("user_")
        if relocate:
            assert offset is not None
            distance = Word(offset.width, found.model(offset.term))
            states.append(relocate(states[0], distance))
        for state in states:
            assert_within(
                machine,
                instruction,
                claim,
                the_invariant=machine.invariant(state),
                the_configuration=self._c.configuration.holds(machine, state),
            )
        executed = [
            execute(machine, instruction, label, state, found.operands)
            for label, state in zip(LABELS[kind], states, strict=True)
        ]
        after = [_after(run, instruction, claim) for run in executed]
        if relocate:
            differ = differences(relocate(after[0], distance), after[1], found.addresses)
        elif len(executed) == 2:
            # A leaf that was made to differ counts only where a run changed it.
            varied = {d.name for d in differences(states[0], states[1])}
            changed = {d.name for run in executed for d in run.changes}
            differ = tuple(
                d
                for d in differences(after[0], after[1], found.addresses)
                if d.name not in varied or d.name in changed
            )
        else:
            differ = executed[0].changes
        assert_replay(bool(differ), instruction, claim, [run.describe() for run in executed])
        return Counterexample(
            claim,
            STORIES[kind],
            instruction,
            instruction.assembly(found.operands),
            differences(machine.state.reset(), states[0]),
            executed[0],
            executed[1] if len(executed) == 2 else None,
            differ,
        )

    def _probes(self) -> dict[str, Term]:
        return {
            name: probe(content, f"{PROBE} in {name}").term
            for name, content in self._run.before.memories().items()
        }


LABELS = {
    "control_sensitive": ("run",),
    "mode_sensitive": ("user mode", "supervisor mode"),
    "resource_sensitive": ("one value", "another value"),
    "location_sensitive": ("here", "relocated"),
}
STORIES = {
    "control_sensitive": "It completes and changes a mode or resource.",
    "mode_sensitive": "The two states differ only in mode, neither run traps, and the results differ.",
    "resource_sensitive": (
        "The two states differ only in what the technique replaces, neither run traps, and the results differ."
    ),
    "location_sensitive": "Moving the program in storage before the run or after it does not give the same.",
}


def _gap(runs: Sequence[Run[S]]) -> Word:
    """No run traps, and of one the model does not say what happens (width 1)."""
    untrapped = [run.completes | run.not_modelled for run in runs]
    return all_of(untrapped) & any_of(run.not_modelled for run in runs)


def _after(executed: Executed[S], instruction: Instruction, claim: str) -> S:
    outcome = executed.outcome
    if not isinstance(outcome, Next):
        raise ReplayError(f"{instruction.form}: the witness for {claim!r} {executed.describe()}")
    return outcome.state


def _no(answer: Answer) -> Truth:
    return {Answer.UNSAT: Truth.YES, Answer.SAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]


def _yes(answer: Answer) -> Truth:
    return {Answer.SAT: Truth.YES, Answer.UNSAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]


__all__ = ["SENSITIVE", "USER_SENSITIVE", "Classification", "Classifier", "Finding", "configured"]
