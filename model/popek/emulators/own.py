"""A machine of a user's own beside an emulator of theirs: the same states, stepped on both, and what differs.

For example:

    def run(form, state, operands):
        ...                                    # load `state` into the emulator, run one instruction
        return {"acc": 3}                      # what it has then; a trap is its name: return "limit"

    report = compare(toy, run, cases=1000, seed=7)
    print(report)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import State

from .differential import EmulatorError, chosen_forms

KEPT: Final = 20
_TRIES: Final = 200  # draws of a state or of operands that exist, before it is given up
_CELLS: Final = 256  # random cells of a storage; where it has no more, all of them

Observed = Mapping[str, int | Mapping[int, int]] | str
Emulator = Callable[[str, State, Mapping[str, int]], Observed]
States = Callable[[str, Any, random.Random], Any]


@attrs.frozen
class OwnDifference:
    """A step on which the two do not agree.

    Attributes:
        form: the instruction.
        operands: the number of each part of its operands.
        before: the leaves that are not as after a reset, by name.
        details: one line for each thing that differs: model, then emulator.
    """

    form: str
    operands: Mapping[str, int]
    before: Mapping[str, int]
    details: tuple[str, ...]

    def __str__(self) -> str:
        start = ", ".join(f"{name} {value:#x}" for name, value in self.before.items()) or "the reset state"
        given = ", ".join(f"{value:#x}" for value in self.operands.values())
        return "\n".join(
            (f"{self.form} {given}".rstrip() + f" from {start}", *(f"  {d}" for d in self.details))
        )


@attrs.frozen
class OwnReport:
    """What a comparison found.

    Attributes:
        seed: of the states.
        completed, trapped: cases by form, as the model has it.
        not_modelled: draws where the model stops, by reason; nothing was compared.
        different: how many cases differ in each form.
        differences: the first of them.
    """

    seed: int
    completed: Mapping[str, int]
    trapped: Mapping[str, int]
    not_modelled: Mapping[str, int]
    different: Mapping[str, int]
    differences: tuple[OwnDifference, ...]

    @property
    def cases(self) -> int:
        """How many were compared."""
        return sum(self.completed.values()) + sum(self.trapped.values())

    @property
    def never_completed(self) -> tuple[str, ...]:
        """The forms that trapped in every case: of what they do nothing was compared."""
        return tuple(form for form in self.trapped if form not in self.completed)

    def __str__(self) -> str:
        head = f"{self.cases} cases, {sum(self.different.values())} differences (seed {self.seed})"
        always = f"never completed: {', '.join(self.never_completed)}"
        return "\n".join((head, *([always] if self.never_completed else ()), *map(str, self.differences)))


def compare(
    machine: Machine[Any],
    emulator: Emulator,
    forms: Sequence[str] | None = None,
    *,
    cases: int = 1000,
    seed: int = 0,
    ignore: Iterable[str] = (),
    states: States = lambda form, state, rng: state,
) -> OwnReport:
    """Step random states on the model and on an emulator.

    Args:
        emulator: `emulator(form, state, operands)` runs one instruction from `state`, whose components are numbers
            (`int(state["acc"])`, `state.memory.load(address)`), and says what it ended in: the components and leaves by
            name, a memory as the cells that changed; what it does not name was not observed, and a memory that it
            names has no other changed cell.  A trap is the name of its vector.
        forms: forms or mnemonics; all by default, in turn.
        ignore: components and leaves that are not compared.
        states: `states(form, state, rng)` makes of a random state the one to step: `state.with_changes({"pc": 0x1000})`
            where a form would only trap otherwise.

    Raises:
        UnknownNameError: no such form, or the emulator or `ignore` names what the machine does not have.
        EmulatorError: no state or no operands could be drawn, `states` returns none that exists, or the emulator
            neither a mapping nor a name.
    """
    rng = random.Random(seed)
    known = {leaf.name for leaf in machine.state.leaves} | {slot.name for slot in machine.state.layout}
    left_out = frozenset(ignore)
    for name in left_out - known:
        raise UnknownNameError(f"component of {machine.name}", name, sorted(known))
    completed, trapped, stopped, different = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    found: list[OwnDifference] = []
    chosen = chosen_forms(machine, forms)
    for number in range(cases):
        instruction = chosen[number % len(chosen)]
        form, parts = instruction.form, _operands(instruction, rng)
        before = _chosen(machine, states(form, _state(machine, rng), rng))
        expected = machine.step(instruction, before, instruction.words(parts))
        if isinstance(expected, NotModelled):
            stopped[expected.reason] += 1
            continue
        (trapped if isinstance(expected, Trap) else completed)[form] += 1
        observed = emulator(form, before.copy(), parts)
        details = tuple(_details(machine, before, expected, observed, known, left_out))
        if details:
            different[form] += 1
            if len(found) < KEPT:
                found.append(OwnDifference(form, parts, _shown(before), details))
    return OwnReport(seed, completed, trapped, stopped, different, tuple(found))


def _details(
    machine: Machine[Any],
    before: State,
    expected: Outcome[Any],
    observed: Observed,
    known: set[str],
    left_out: frozenset[str],
) -> Iterable[str]:
    """One line for each thing that differs."""
    if not isinstance(observed, str | Mapping):
        raise EmulatorError(
            f"the emulator returned {observed!r}: expected components by name, or a vector's name"
        )
    said = expected.vector.name if isinstance(expected, Trap) else "completes"
    seen = observed if isinstance(observed, str) else "completes"
    if said != seen:
        yield f"model: {said}; emulator: {seen}"
    if said != seen or isinstance(observed, str) or not isinstance(expected, Next):
        return
    for name, value in observed.items():
        if name not in known:
            raise UnknownNameError(f"component of {machine.name}", name, sorted(known))
        if name in left_out:
            continue
        if isinstance(value, Mapping):
            yield from _cells(name, before.memories()[name], expected.state.memories()[name], value)
        elif (wanted := int(expected.state[name])) != value:
            yield f"{name}: model {wanted:#x}, emulator {value:#x}"


def _cells(name: str, before: Memory, after: Memory, observed: Mapping[int, int]) -> Iterable[str]:
    """The cells that the model changed, or the emulator, and that are not the same."""
    changed = {a for a, cell in after.cells().items() if before.cells().get(a, 0) != cell}
    for address in sorted(changed | set(observed)):
        wanted = after.cells().get(address, 0)
        seen = observed.get(address, before.cells().get(address, 0))
        if wanted != seen:
            yield f"{name}[{address:#x}]: model {wanted:#x}, emulator {seen:#x}"


def _state(machine: Machine[Any], rng: random.Random) -> Any:
    """A random state that exists: of a kind that the invariant allows and with every setting at one of its values."""
    for _ in range(_TRIES):
        state = machine.state.reset()
        for leaf in rng.sample(state.leaves, len(state.leaves)):
            changed = state.with_changes({leaf.name: _number(leaf.width, rng)})
            if machine.invariant(changed).value == 1 or machine.invariant(state).value != 1:
                state = changed
        if machine.invariant(state).value == 1:
            break
    else:
        raise EmulatorError(f"{machine.name}: no state was found that its invariant allows")
    for name, content in state.memories().items():
        size = 1 << content.address_width
        addresses = range(size) if size <= _CELLS else [rng.randrange(size) for _ in range(_CELLS)]
        cells = {address: rng.getrandbits(content.cell_width) for address in addresses}
        state._memories[name] = attrs.evolve(content, root=cells)
    return state


def _chosen(machine: Machine[Any], state: object) -> Any:
    """A state that a user chose, if it is one."""
    if not isinstance(state, machine.state):
        raise EmulatorError(
            f"states(form, state, rng) gives {state!r}: expected a state of {machine.state.__name__}, "
            "such as state.with_changes({...})"
        )
    if machine.invariant(state).value != 1:
        raise EmulatorError(
            f"states(form, state, rng) gives a state that the invariant of {machine.name} excludes: {state!r}"
        )
    return state


def _operands(instruction: Instruction, rng: random.Random) -> dict[str, int]:
    for _ in range(_TRIES):
        numbers = {name: _number(width, rng) for name, width in instruction.widths.items()}
        if instruction.valid(instruction.words(numbers)).value == 1:
            return numbers
    raise EmulatorError(f"{instruction.form}: no operands were found that exist")


def _number(width: int, rng: random.Random) -> int:
    """Any number, and the ones at the edges more often."""
    top = (1 << width) - 1
    return rng.choice((0, 1, top, 1 << width - 1, *(rng.getrandbits(width),) * 4)) & top


def _shown(state: State) -> dict[str, int]:
    return {leaf.name: int(state[leaf.name]) for leaf in state.leaves if int(state[leaf.name]) != leaf.reset}


__all__ = ["OwnDifference", "OwnReport", "compare"]
