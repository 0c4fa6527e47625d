"""The law that ties a machine's uses together, tried from random states.

Of every state on numbers exactly one path of the exploration is taken, and what the path says comes to the same as the
run on numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.state import UNDEFINED, State
from popek.kernel.words import Word

from .runs import Run

S = TypeVar("S", bound=State)


@attrs.frozen
class _Contents:
    """Storage with something at every address."""

    seed: int
    width: int

    def __call__(self, address: Word) -> Word:
        mixed = (int(address) * 0x9E3779B97F4A7C15 + self.seed * 0xBF58476D1CE4E5B9) & (1 << 64) - 1
        return Word(self.width, (mixed >> 11 ^ mixed >> 37) & (1 << self.width) - 1)


@attrs.frozen
class RandomStates(Generic[S]):
    """Random states that exist, not too far from one that is known to.

    Attributes:
        start: a state that is known to exist, on numbers.
    """

    machine: Machine[S]
    start: S
    rng: random.Random

    def state(self, such: Callable[[S], bool] = lambda state: True) -> S:
        """Another one each time.

        Args:
            such: holds of `start`, and is to hold of the state.
        """
        state = self.start.with_changes({})
        for name, content in state.memories().items():
            made = Memory(
                content.address_width,
                content.cell_width,
                _Contents(self.rng.getrandbits(32), content.cell_width),
            )
            state._memories[name] = made
        for leaf in self.rng.sample(state.leaves, len(state.leaves)):
            changed = state.with_changes({leaf.name: self.number(leaf.width)})
            if self.machine.invariant(changed).value == 1 and such(changed):
                state = changed
        return state

    def number(self, width: int) -> int:
        """A number, the ends of the range more often than the rest."""
        return self.rng.choice(
            (0, 1, (1 << width) - 1, 1 << width - 1, *(self.rng.getrandbits(width),) * 4)
        ) & ((1 << width) - 1)

    def words(
        self, widths: Mapping[str, int], valid: Callable[[Mapping[str, Word]], Word]
    ) -> dict[str, Word] | None:
        """Random words that can be; None where none were met."""
        for _ in range(64):
            parts = {name: Word(width, self.number(width)) for name, width in widths.items()}
            if valid(parts).value == 1:
                return parts
        return None

    def operands(self, instruction: Instruction) -> dict[str, Word] | None:
        """Random operands of a form."""
        return self.words(instruction.widths, instruction.valid)


def unlike(run: Run[S], state: S, given: Mapping[str, Word], concrete: Outcome[S]) -> str:
    """What differs between the path that is taken and the run on numbers; empty if nothing does.

    Args:
        run: every path, from any state.
        given: operands, or what else the run is of.
    """
    variables = {name: int(word) for name, word in (*state.words().items(), *given.items())}
    functions = {name: _reader(content) for name, content in state.memories().items()}

    def numbers(roots: list[terms.Term]) -> list[int]:
        undefined = {name: 0 for name in terms.variables_of(roots) if name.startswith(UNDEFINED)}
        return evaluate(roots, undefined | variables, functions)

    taken = [path for path in run.paths if all(numbers(list(path.conditions)))]
    if len(taken) != 1:
        return f"{len(taken)} paths of the exploration are taken: it is to be a function of the state"
    said = taken[0].result
    if type(said) is not type(concrete):
        return f"explored it ends in {type(said).__name__}, on numbers in {type(concrete).__name__}"
    if not (isinstance(said, Next | Trap) and isinstance(concrete, Next | Trap)):
        return ""
    if isinstance(said, Trap) and isinstance(concrete, Trap):
        if said.vector != concrete.vector:
            return f"explored it raises {said.vector}, on numbers {concrete.vector}"
        codes = [trap.error_code for trap in (said, concrete)]
        told = [None if code is None else numbers([code.term])[0] for code in codes]
        if told[0] != told[1]:
            return (
                f"the error code of {said.vector} is {_hex(told[0])} explored and {_hex(told[1])} on numbers"
            )
    words = said.state.words()
    for (name, _), expected in zip(words.items(), numbers([w.term for w in words.values()]), strict=True):
        if int(concrete.state.words()[name]) != expected:
            return f"{name} is {expected:#x} explored and {int(concrete.state.words()[name]):#x} on numbers"
    for name, content in said.state.memories().items():
        for where, _ in _stores(content) | _stores(concrete.state.memories()[name]):
            address = numbers([where.term])[0] if not where.concrete else int(where)
            cell = Word(content.address_width, address)
            expected = numbers([content.load(cell).term])[0]
            if int(concrete.state.memories()[name].load(cell)) != expected:
                return f"{name} at {address:#x} differs between exploration and numbers"
    return ""


def breaks_the_law(
    instruction: Instruction, run: Run[S], known: RandomStates[S], fixed: Mapping[str, int], states: int
) -> str:
    """How a form does something else on numbers than explored; empty where some random states show nothing.

    Args:
        run: every path of it.
        fixed: numbers of leaves, in all these states.
    """
    for _ in range(states):
        state = known.state(lambda state: all(int(state[name]) == number for name, number in fixed.items()))
        operands = known.operands(instruction)
        if operands is None:
            return ""
        how = unlike(run, state, operands, known.machine.step(instruction, state, operands))
        if how:
            return f"{instruction.form}: {how}, from {state!r}"
    return ""


def _hex(number: int | None) -> str:
    return "none" if number is None else hex(number)


def _reader(content: Memory) -> Callable[..., int]:
    return lambda address: int(content.load(Word(content.address_width, address)))


def _stores(content: Memory) -> set[tuple[Word, Any]]:
    return {(s[0], None) for s in content.stores if isinstance(s, tuple)}
