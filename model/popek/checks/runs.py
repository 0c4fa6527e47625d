"""All that one instruction can do, from a symbolic state: explored once, asked many times.

A `Run` is explored from the state that may be anything.  Other states (another mode, the image under a
technique's map) are reached by substitution, so the semantics are never run again.

One module, though long: what a run is, how it is explored, and what is read of it, path by path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.exploration import Budget, Path, explore, looping_code, looping_methods
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import UNDEFINED, Leaf, Role, Slot, State, substitution
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, any_of
from popek.solving.pruning import Pruner
from popek.solving.solver import Effort, Model, Solver

S = TypeVar("S", bound=State)

PROBE = "probed address"
AGAIN = "'"  # of the names of undefined results of another run
EXCLUDED = "ends in a state that the machine's invariant excludes"


@attrs.frozen(eq=False, slots=False)
class Run(Generic[S]):
    """The paths of one instruction from one (symbolic) state.

    Attributes:
        before: the state it starts in.
        paths: the ways through it; their conditions exclude one another.
        operands: the words of the operand parts.
        known: by a path's conditions, an assignment that takes it, if one was met.
        translated: the solver of those assignments, whose translations others may share.
        origins: where it was made by `at`, for each path the number of the one that it comes from.
    """

    before: S
    paths: tuple[Path[Outcome[S]], ...]
    operands: Mapping[str, Word]
    known: Mapping[tuple[Term, ...], Model] = attrs.field(factory=dict)
    translated: Solver | None = None
    origins: tuple[int, ...] = ()

    def at(
        self,
        before: S,
        operands: Mapping[str, Word] | None = None,
        contents: Mapping[str, Callable[[Word], Word]] | None = None,
    ) -> Run[S]:
        """The same instruction from another state.

        `self.before` must be the state that may be anything (in an operating mode, `before` in the same).

        Args:
            operands: other words for operands, and for whatever else has a name, and
            contents: other contents of memories by theirs; by default they stay.
        """
        variables = {**before.words(), **(operands or {})}
        views = {name: content.load for name, content in before.memories().items()} | dict(contents or {})
        replace = substitution(variables, views)
        kept: list[Path[Outcome[S]]] = []
        known: dict[tuple[Term, ...], Model] = {}
        origins = []
        for number, path in enumerate(self.paths):
            conditions = tuple(replace(condition) for condition in path.conditions)
            if terms.ZERO not in conditions:
                result = path.result
                if isinstance(result, Trap) and result.state is self.before:  # a trap mostly changes nothing
                    code = result.error_code
                    new = None if code is None else Word(code.width, replace(code.term))
                    result = Trap(result.vector, new, result.memory, before, result.level)
                else:
                    result = _replaced(result, replace, views, (self.before, before))
                kept.append(Path(conditions, result))
                origins.append(number)
                if path.conditions in self.known:
                    known[conditions] = self.known[path.conditions]
        own = {name: (operands or {}).get(name, word) for name, word in self.operands.items()}
        return Run(before, tuple(kept), own, known, self.translated, tuple(origins))

    def without_assignments(self) -> Run[S]:
        """The same, for keeping: each assignment has a solver behind it, of megabytes."""
        return attrs.evolve(self, known={}, translated=None)

    def _when(self, kind: Callable[[Outcome[S]], bool]) -> Word:
        return any_of(path.condition for path in self.paths if kind(path.result))

    @cached_property
    def completes(self) -> Word:
        """It runs to its end without a trap (width 1)."""
        return self._when(lambda outcome: isinstance(outcome, Next))

    @cached_property
    def traps(self) -> Word:
        """It traps, on storage or otherwise (width 1)."""
        return self._when(lambda outcome: isinstance(outcome, Trap))

    @cached_property
    def traps_not_on_memory(self) -> Word:
        """It traps for another reason than a storage reference (width 1)."""
        return self._when(lambda outcome: isinstance(outcome, Trap) and not outcome.memory)

    @cached_property
    def not_modelled(self) -> Word:
        """The model does not say what happens (width 1)."""
        return self._when(lambda outcome: isinstance(outcome, NotModelled))

    def completing(self) -> Run[S]:
        """Only the ways through without a trap."""
        return Run(self.before, tuple(p for p in self.paths if isinstance(p.result, Next)), self.operands)

    def completions(self) -> Iterator[tuple[tuple[Term, ...], S]]:
        """The conditions and the final state of every way through without a trap."""
        for path in self.paths:
            if isinstance(path.result, Next):
                yield path.conditions, path.result.state

    @cached_property
    def _read(self) -> tuple[Term, ...]:
        """What decides it: its conditions, and whatever it changes."""
        roots = [condition for path in self.paths for condition in path.conditions]
        words, memories = self.before.words(), self.before.memories()
        for path in self.paths:
            if isinstance(path.result, Trap) and path.result.error_code is not None:
                roots.append(path.result.error_code.term)
            after = path.result.state if isinstance(path.result, Next | Trap) else self.before
            if after is not self.before:
                new, stored = after.words(), after.memories()
                roots += [new[name].term for name in words if new[name].term is not words[name].term]
                for name, content in memories.items():
                    if stored[name] is not content:
                        roots.append(stored[name].load(probe(content)).term)
        return tuple(roots)

    @cached_property
    def mentioned(self) -> frozenset[str]:
        """The components, memories among them, that decide it: its conditions and whatever it changes read them."""
        roots = self._read
        return frozenset(terms.variables_of(roots)) | {str(c.data) for c in terms.applications_of(roots)}

    @cached_property
    def undefined_again(self) -> Mapping[str, Word]:
        """Results that the manual leaves undefined, each by another name: they may be others in another run."""
        found = terms.variables_of(self._read)
        return {
            n: Word(t.width, terms.var(n + AGAIN, t.width))
            for n, t in found.items()
            if n.startswith(UNDEFINED)
        }

    @cached_property
    def bits_read(self) -> Mapping[str, int]:
        """Of every word that decides it, the bits that do, as a mask."""
        return terms.bits_of(self._read)


def _replaced(
    outcome: Outcome[S],
    replace: terms.Substitution,
    views: Mapping[str, Callable[[Word], Word]],
    kept: tuple[S, S],
) -> Outcome[S]:
    match outcome:
        case Next(state):
            return Next(state.replaced(replace, views, kept))
        case Trap(vector, code, memory, state, level):
            new = None if code is None else Word(code.width, replace(code.term))
            return Trap(vector, new, memory, state.replaced(replace, views, kept), level)
    return outcome


def operating_mode(machine: Machine[S], configuration: Configuration | None) -> dict[str, int]:
    """Leaves that the settings of the whole machine fix, by name.

    A setting that is no leaf and concerns no component in particular concerns every instruction: it is an
    operating mode.  What it says of leaves of one bit is known before an instruction is explored.
    """
    settings = {} if configuration is None else configuration.settings
    modes = [
        setting
        for setting in machine.settings
        if setting.name in settings and setting.leaf is None and not setting.concerns
    ]
    if not modes:
        return {}
    state = machine.state.symbolic()
    chosen = Configuration({setting.name: settings[setting.name] for setting in modes})
    known = terms.literals([chosen.holds(machine, state).term])
    fixed = {leaf.name: known.get(state[leaf.name].term) for leaf in state.leaves if leaf.width == 1}
    return {name: int(term is terms.ONE) for name, term in fixed.items() if term is not None}


@functools.lru_cache(maxsize=8)
def _anything(
    machine: Machine[S], invariant: Callable[[S], Word], settings: tuple[tuple[str, int], ...]
) -> tuple[S, Word]:
    """The state that may be anything in an operating mode, and that it exists; made once for all instructions."""
    state = machine.state.symbolic().with_changes(operating_mode(machine, Configuration(dict(settings))))
    return state, invariant(state)


def explore_instruction(
    machine: Machine[S],
    instruction: Instruction,
    effort: Effort | None = None,
    *,
    budget: int | Budget | None = None,
    configuration: Configuration | None = None,
    prefer: Callable[[S], Word] = lambda state: TRUE,
    traps: bool = True,
) -> Run[S]:
    """Every path of an instruction from any state that the machine's invariant allows.

    Args:
        configuration: where it fixes an operating mode, only states in that mode.
        budget: how much the exploration may do; a number is that of the paths.
        prefer: what the assignments that take the paths should fulfil where that costs nothing.
        traps: every path to a trap is feasible; otherwise some are there of which nobody asked.

    Raises:
        PathBudgetError: the instruction has more, or longer ones, than the budget.
    """
    settings = () if configuration is None else tuple(sorted(configuration.settings.items()))
    state, exists = _anything(machine, machine.invariant, settings)
    operands = instruction.symbols()
    pruner = Pruner(effort, prefer=[prefer(state)])
    found: list[Path[Outcome[S]]] = explore(
        lambda: machine.step(instruction, state, operands),
        pruner,
        assume=[exists, instruction.valid(operands)],
        budget=Budget() if budget is None else budget,
        looping=looping_code(instruction.semantics) | looping_methods(machine.state),
        unasked=None if traps else lambda outcome: isinstance(outcome, Trap),
    )
    known = {path.conditions: path.assignment for path in found if path.assignment is not None}
    # Only `known` has the assignments, so that they can be dropped.
    paths = tuple(Path(path.conditions, path.result) for path in found)
    return Run(state, paths, operands, known, pruner.translated)


def probe(memory: Memory, name: str = PROBE) -> Word:
    """An address that may be any, to ask whether two storages differ somewhere."""
    return Word(memory.address_width, terms.var(name, memory.address_width))


Completion = tuple[tuple[Term, ...], S]
"""The conditions under which a run completes in one way, and its final state."""


Pair = tuple[tuple[Term, ...], tuple[Term, ...], S, S]
"""The conditions under which two runs complete, each in one way (the first run's, the second's), and their
final states."""


def together(a: Iterable[Completion[S]], b: Iterable[Completion[S]]) -> Iterator[Pair[S]]:
    """The pairs of completions that do not exclude one another, few conditions first."""
    second = list(b)
    found: list[Pair[S]] = []
    for conditions, first_state in a:
        known = set(conditions)
        for others, second_state in second:
            if not any(terms.invert(other) in known for other in others):
                found.append((conditions, others, first_state, second_state))
    return iter(sorted(found, key=lambda pair: len({*pair[0], *pair[1]})))


def conjunction(conditions: Iterable[Term]) -> Word:
    """All of the conditions (width 1)."""
    total = terms.ONE
    for condition in conditions:
        total = terms.arithmetic("and", total, condition)
    return Word(1, total)


def handed_over(
    machine: Machine[S], technique: Technique[S], before: S, after: S, private: S | None = None
) -> Word:
    """Whether a run that began outside supervisor mode has ended at an entry of the VMM's (width 1).

    Args:
        before, after: the states of the hardware, without a trap between them.
        private: what the VMM keeps, where that is known.
    """
    there = machine.supervisor(after)
    if there.value == 0:
        return there
    if private is not None and technique.entered is not None:
        return there & technique.entered(private, after)
    return there & technique.entries(before, after)


def there_is_none(machine: Machine[S], before: S, after: S) -> Word:
    """Whether a run from a state that exists ends in one that the machine's invariant excludes (width 1).

    Then the model does not say what happens: the invariant is wrong, or the semantics are.
    """
    known = terms.literals([machine.invariant(before).term])
    return ~Word(1, terms.Substitution(known=known)(machine.invariant(after).term))


def kept_by_the_guest(run: Run[S], over: Callable[[Run[S], S], Word]) -> list[Completion[S]]:
    """The ways in which a run completes without having handed control to the VMM.

    Args:
        over: whether a run that completes in a state has (width 1).
    """
    found: list[Completion[S]] = []
    for conditions, after in run.completions():
        kept = ~over(run, after)
        if kept.value != 0:
            found.append(((*conditions, kept.term), after))
    return found


def declared_order(state: type[State], names: Iterable[str]) -> list[str]:
    """Names of leaves and memories, in the order in which the state declares them."""
    wanted = set(names)
    everything = [
        *(leaf.name for leaf in state.leaves),
        *(slot.name for slot in state.layout if slot.address),
    ]
    return [name for name in everything if name in wanted]


@attrs.frozen(eq=False, slots=False)
class PathPair:
    """A pair of states that a question compares; most are never looked at.

    Attributes:
        first, second: the conditions under which the two runs end so.
    """

    first: tuple[Term, ...]
    second: tuple[Term, ...]
    _compare: Callable[[], Mapping[str, Word]]

    @cached_property
    def unlike(self) -> Mapping[str, Word]:
        """Per leaf and memory the condition that they differ there; without those that cannot differ."""
        return self._compare()

    @property
    def given(self) -> tuple[Term, ...]:
        """The conditions under which there is such a pair."""
        return tuple(dict.fromkeys((*self.first, *self.second)))

    @property
    def when(self) -> Word:
        """There is such a pair (width 1)."""
        return conjunction(self.given)

    @property
    def differs(self) -> Word:
        """There is such a pair and it differs (width 1)."""
        return self.when & any_of(self.unlike.values())


def compared(
    pairs: Iterable[Pair[S]],
    *,
    ignoring: frozenset[str],
    time_is_state: bool,
    places: Mapping[str, int] | None = None,
    began: tuple[S, S] | None = None,
) -> list[PathPair]:
    """A case per pair.

    Leaves named in `ignoring` do not count, nor do clocks unless `time_is_state`, or a run has written to one.

    Args:
        places: where memories are compared, by name, for states of numbers; anywhere by default.
        began: where the two runs began: a clock that is another there does not count.
    """

    def case(first: tuple[Term, ...], second: tuple[Term, ...], a: S, b: S) -> PathPair:
        def counts(part: Leaf | Slot) -> bool:
            if part.name in ignoring:
                return False
            written = began is not None and (
                _written(part.name, began[0], a) or _written(part.name, began[1], b)
            )
            return time_is_state or part.role is not Role.TIME or written

        return PathPair(first, second, lambda: dict(_unlike(a, b, counts, places)))

    return [case(*pair) for pair in pairs]


def differing(
    pairs: Iterable[Pair[S]],
    *,
    began: tuple[S, S] | None = None,
    places: Mapping[str, int] | None = None,
    ignoring: frozenset[str],
    time_is_state: bool,
) -> list[PathPair]:
    """The cases of the pairs that may differ, as `compared`."""
    cases = compared(pairs, ignoring=ignoring, time_is_state=time_is_state, places=places, began=began)
    return [case for case in cases if case.unlike]


def place_of(memory: Memory, name: str, places: Mapping[str, int] | None) -> Word:
    """The address at which two contents of a memory are compared: any, or the one that is given."""
    if places is None:
        return probe(memory, f"{PROBE} in {name}")
    return Word(memory.address_width, places.get(name, 0))


def _written(name: str, before: S, after: S) -> bool:
    """Whether a run may have written to a leaf or a memory."""
    if name in before.memories():
        return before.memories()[name] is not after.memories()[name]
    return before[name].term is not after[name].term


def _unlike(
    a: S, b: S, counts: Callable[[Leaf | Slot], bool], places: Mapping[str, int] | None
) -> Iterator[tuple[str, Word]]:
    old, new = a.words(), b.words()
    for slot in a.layout:
        if slot.address:
            left, right = a.memories()[slot.name], b.memories()[slot.name]
            if left is not right and counts(slot):
                where = place_of(left, slot.name, places)
                condition = left.load(where) != right.load(where)
                if condition.value != 0:
                    yield slot.name, condition
        elif old[slot.name].term is not new[slot.name].term:
            for leaf in filter(counts, a.leaves_of[slot.name]):
                condition = a[leaf.name] != b[leaf.name]
                if condition.value != 0:
                    yield leaf.name, condition
