"""All that one instruction can do, from a symbolic state: explored once, asked many times.

A `Run` is explored from the state that may be anything.  Other states (another mode, the image under a
technique's map) are reached by substitution, so the semantics are never run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.exploration import Path, explore
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import Role, State, substitution
from popek.kernel.words import Word, any_of, ite

from .solver import Effort, Solver

S = TypeVar("S", bound=State)

PROBE = "probed address"


@attrs.frozen(eq=False, slots=False)
class Run(Generic[S]):
    """The paths of one instruction from one (symbolic) state.

    Attributes:
        before: the state it starts in.
        paths: pairs of condition (width 1) and outcome; the conditions exclude one another.
        operands: the words of the operand parts.
    """

    before: S
    paths: tuple[tuple[Word, Outcome[S]], ...]
    operands: Mapping[str, Word]

    def at(self, before: S) -> Run[S]:
        """The same instruction from another state with the same operands.

        `self.before` must be the state that may be anything.
        """
        variables = dict(before.words())
        views = {name: content.load for name, content in before.memories().items()}
        replace = substitution(variables, views)
        kept: list[tuple[Word, Outcome[S]]] = []
        for condition, outcome in self.paths:
            where = Word(1, replace(condition.term))
            if where.value != 0:
                kept.append((where, _replaced(outcome, replace, views)))
        return Run(before, tuple(kept), self.operands)

    @cached_property
    def completes(self) -> Word:
        """It runs to its end without a trap (width 1)."""
        return any_of(condition for condition, outcome in self.paths if isinstance(outcome, Next))

    @cached_property
    def traps(self) -> Word:
        """It traps, on storage or otherwise (width 1)."""
        return any_of(condition for condition, outcome in self.paths if isinstance(outcome, Trap))

    @cached_property
    def traps_not_on_memory(self) -> Word:
        """It traps for another reason than a storage reference (width 1)."""
        return any_of(c for c, outcome in self.paths if isinstance(outcome, Trap) and not outcome.memory)

    @cached_property
    def not_modelled(self) -> Word:
        """The model does not say what happens (width 1)."""
        return any_of(condition for condition, outcome in self.paths if isinstance(outcome, NotModelled))

    @cached_property
    def after(self) -> S:
        """The state after completion, as one term per component; arbitrary where it does not complete."""
        done = [(c, outcome.state) for c, outcome in self.paths if isinstance(outcome, Next)]
        if not done:
            return self.before
        state = done[-1][1].copy()
        for condition, other in reversed(done[:-1]):
            for name, new in other.words().items():
                state[name] = ite(condition, new, state[name])
        for name, old in state.memories().items():
            contents = [(c, s.memories()[name]) for c, s in done]
            state._memories[name] = _folded(old, contents)
        return state

    @cached_property
    def mentioned(self) -> frozenset[str]:
        """The components that its conditions read."""
        return frozenset(terms.variables_of([condition.term for condition, _ in self.paths]))

    def outcomes(self) -> Iterator[tuple[Word, Outcome[S]]]:
        """The paths."""
        return iter(self.paths)


def _folded(shape: Memory, contents: list[tuple[Word, Memory]]) -> Memory:
    def view(address: Word) -> Word:
        cell = contents[-1][1].load(address)
        for condition, content in reversed(contents[:-1]):
            cell = ite(condition, content.load(address), cell)
        return cell

    first = contents[0][1]
    if all(content is first for _, content in contents):
        return first
    return Memory(shape.address_width, shape.cell_width, view)


def _replaced(
    outcome: Outcome[S], replace: terms.Substitution, views: Mapping[str, Callable[[Word], Word]]
) -> Outcome[S]:
    match outcome:
        case Next(state):
            return Next(state.replaced(replace, views))
        case Trap(vector, code, memory, state):
            new = None if code is None else Word(code.width, replace(code.term))
            return Trap(vector, new, memory, state.replaced(replace, views))
    return outcome


def explore_instruction(
    machine: Machine[S], instruction: Instruction, effort: Effort | None = None, *, budget: int = 2000
) -> Run[S]:
    """Every path of an instruction from any state that the machine's invariant allows.

    Raises:
        PathBudgetError: the instruction has more paths than `budget`.
    """
    state = machine.state.symbolic()
    operands = instruction.symbols()
    found: list[Path[Outcome[S]]] = explore(
        lambda: machine.step(instruction, state, operands),
        Solver(effort),
        assume=[machine.invariant(state), instruction.valid(operands)],
        budget=budget,
    )
    return Run(state, tuple((path.condition, path.result) for path in found), operands)


def probe(memory: Memory, name: str = PROBE) -> Word:
    """An address that may be any, to ask whether two storages differ somewhere."""
    return Word(memory.address_width, terms.var(name, memory.address_width))


def differing(a: State, b: State, *, ignoring: frozenset[str], time_is_state: bool) -> dict[str, Word]:
    """Per leaf and memory, the condition (width 1) that the states differ there.

    Leaves named in `ignoring` are left out, and clocks unless `time_is_state`.  Leaves whose terms are
    the same are left out too: they cannot differ.
    """
    found: dict[str, Word] = {}
    for leaf in a.leaves:
        if leaf.name in ignoring or (leaf.role is Role.TIME and not time_is_state):
            continue
        left, right = a[leaf.name], b[leaf.name]
        condition = left != right
        if condition.value != 0:
            found[leaf.name] = condition
    for slot in a.layout:
        if slot.address and slot.name not in ignoring and not (slot.role is Role.TIME and not time_is_state):
            left_memory, right_memory = a.memories()[slot.name], b.memories()[slot.name]
            if left_memory is right_memory:
                continue
            where = probe(left_memory, f"{PROBE} in {slot.name}")
            condition = left_memory.load(where) != right_memory.load(where)
            if condition.value != 0:
                found[slot.name] = condition
    return found
