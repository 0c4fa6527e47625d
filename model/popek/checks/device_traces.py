"""A shortest trace in which a guest's device breaks a promise, from the monitor's first state, replayed on numbers.

The driver sets registers and lets the device run: first with as few of the device's steps as possible, then with as
few registers.  The unrolling only finds the trace; what is shown is what the same steps do on numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from popek.kernel import terms
from popek.kernel.agents import World
from popek.kernel.words import FALSE, TRUE, Word, any_of, symbol
from popek.solving.solver import Answer

from .counterexample import ReplayError, concretize, leaf_preferences
from .devices import ANOTHER, CHANGES, FIDELITY, INTERRUPTS, LEARNS, Attached, Parties
from .minimizer import Minimizer
from .verdict import Question

REPAIRS = 12
"""Places at which the tables that were found are mended, at most."""


@attrs.frozen(eq=False)
class DeviceStep:
    """One step, on numbers.

    Attributes:
        event: what happens, in words.
        accesses: what the device reached: kind, its address, the cell (or what a message gives the processor).
        refused: why an access of the step went nowhere.
    """

    event: str
    accesses: tuple[tuple[str, int, int], ...] = ()
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "event": self.event,
            "accesses": [
                {"kind": kind, "address": hex(address), "cell": hex(cell)}
                for kind, address, cell in self.accesses
            ],
            "refused": self.refused or None,
        }


@attrs.frozen(eq=False)
class DeviceTrace:
    """A trace that breaks a promise.

    Attributes:
        promise: which.
        steps: in order.
        broken: what the last step does, in words.
        guest, private, unit: what guest and monitor started with: components that are not zero, and cells.
    """

    promise: str
    steps: tuple[DeviceStep, ...]
    broken: str
    guest: Mapping[str, str]
    private: Mapping[str, str]
    unit: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "promise": self.promise,
            "steps": [step.to_json() for step in self.steps],
            "broken": self.broken,
            "guest": dict(self.guest),
            "monitor": dict(self.private),
            "unit": dict(self.unit),
        }


@attrs.frozen(eq=False)
class Taken:
    """Where a sequence of steps leads, on the guest's own machine and on the hardware."""

    parties: Parties  # with what the guest's own machine is in, before the last step
    own: World[Any, Any]
    before: World[Any, Any]
    after: World[Any, Any]
    steps: tuple[DeviceStep, ...]
    kept: Word  # the driver kept to the premises
    served: bool = False  # the monitor took the last step


Values = Mapping[str, Word]


def run_steps(
    attached: Attached, start: Parties, registers: Sequence[str], steps: Sequence[str], values: Values
) -> Taken:
    """The driver sets the registers, then the device takes the steps."""
    devices, attachment = attached.devices, attached.attachment
    told: list[DeviceStep] = []
    parties = start
    here = attached.hardware(parties)
    for register in registers:
        value = values[register]
        parties = attrs.evolve(parties, device=parties.device.with_changes({register: value}))
        mapped = attached.hardware(parties)
        device = (
            mapped.device if register in attachment.owned else here.device.with_changes({register: value})
        )
        here = attrs.evolve(here, device=device)
        how = devices.agent.programs[register]
        told.append(DeviceStep(f"{how} := {int(value):#x}" if value.concrete else how))
    own = before = here
    kept = TRUE
    for name in steps:
        for premise in attachment.premises:
            if premise.name not in attached.dropped:
                kept = kept & premise.holds(parties.guest, parties.device)
        device = parties.device
        if name in attachment.services:  # the monitor does it to the device as it knows it
            device = attachment.unmapped(here.device, parties.private, parties.unit)
            device = device.with_changes({name: parties.device[name] for name in attachment.kept})
        own = devices.own_step(name, parties.guest, device)
        before = here
        following = attrs.evolve(parties, guest=own.state, device=own.device)
        if name in attachment.services:
            private, unit = attachment.services[name](
                own.state, own.device, parties.private, parties.unit, device
            )
            following = attrs.evolve(following, private=private, unit=unit)
            here = attached.hardware(following)
        else:
            here = devices.hardware_step(attachment, name, before)
        accesses = tuple(
            (access.kind, int(access.address), int(access.cell))
            for access in here.accesses
            if access.address.concrete and access.cell.concrete
        )
        told.append(DeviceStep(f"the device: {name}", accesses, here.refused))
        last, parties = parties, following
    return Taken(last, own, before, here, tuple(told), kept, bool(steps) and steps[-1] in attachment.services)


def trace(attached: Attached, promise: str) -> DeviceTrace | None:
    """A shortest trace that breaks a promise; None where there is none."""
    return shortest(attached, lambda registers, steps: trace_by(attached, promise, registers, steps))


def shortest(
    attached: Attached, tried: Callable[[Sequence[str], Sequence[str]], DeviceTrace | None]
) -> DeviceTrace | None:
    """What is found with as few steps as possible, and then as few registers set."""
    names = list(attached.devices.agent.steps)
    registers = list(attached.devices.agent.programs)
    longest = attached.attachment.longest or attached.devices.longest
    for length in range(1, longest + 1):
        for steps in itertools.product(names, repeat=length):
            if tried(registers, steps) is None:
                continue
            for few in range(len(registers) + 1):
                for chosen in itertools.combinations(registers, few):
                    found = tried(chosen, steps)
                    if found is not None:
                        return found
    return None


def trace_by(
    attached: Attached, promise: str, registers: Sequence[str], steps: Sequence[str]
) -> DeviceTrace | None:
    """A trace of these registers set, and then these steps; None where there is none."""
    places: list[Word] = []
    for _ in range(REPAIRS):
        found = _tried(attached, promise, registers, steps, places)
        if not isinstance(found, Word):
            return found
        places.append(found)
    return None


def _tried(
    attached: Attached, promise: str, registers: Sequence[str], steps: Sequence[str], places: Sequence[Word]
) -> DeviceTrace | Word | None:
    """A trace; or a place at which what was found does not keep a duty; or None.

    Args:
        places: where the duties are kept, beside those where the steps look.
    """
    start, other = first_parties(attached, ""), first_parties(attached, ANOTHER)
    if promise in (CHANGES, INTERRUPTS):  # safety does not rest on what is owed to the guest alone
        owed = {duty.name for duty in attached.attachment.duties if duty.fidelity}
        attached = attrs.evolve(attached, dropped=attached.dropped | owed)
    values = {name: symbol(f"{name}@new", start.device[name].width) for name in registers}
    assumed = []
    for one in (start, other) if promise == LEARNS else (start,):
        programmed = attrs.evolve(one, device=one.device.with_changes(values))
        assumed += attached.assumed(one, programmed)
        promised = attached.attachment.promised(one.guest, one.private, one.unit, places, attached.dropped)
        assumed += [holds for _, holds in promised]
    if promise == LEARNS:  # what the monitor keeps for the guest is the guest's to know
        assumed += attached.known(start, other)
    probe = attached.probe()
    runs = attached.explored(lambda: run_steps(attached, start, registers, steps, values))
    others = (
        attached.explored(lambda: run_steps(attached, other, registers, steps, values))
        if promise == LEARNS
        else [None]
    )
    for path in runs:
        for twin in others:
            broken = _broken(attached, promise, path.result, None if twin is None else twin.result, probe)
            conditions = [*assumed, path.condition, broken, *([] if twin is None else [twin.condition])]
            question = Question(f"{promise} by {', '.join(steps)}", conditions)
            solved = numbers_of(attached, question, (start, other), values, probe)
            if solved is None:
                continue
            numbers, given, where = solved
            for one in numbers if promise == LEARNS else numbers[:1]:
                unkept = unkept_at(attached, one)
                if unkept is not None:
                    return unkept
            return _replayed(attached, promise, numbers, registers, steps, given, where)
    return None


def numbers_of(
    attached: Attached, question: Question, starts: Sequence[Parties], values: Values, probe: Word
) -> tuple[list[Parties], dict[str, Word], Word] | None:
    """Numbers for the starts, the registers and the cell that is looked at, as plain as can be; None without any."""
    answer, model, solver = question.ask(attached.effort)
    if answer is not Answer.SAT or model is None or solver is None:
        return None
    minimizer = Minimizer(solver, question.conditions)
    known, cells = minimizer.variables, minimizer.cells()
    guest = starts[0].guest
    wishes = [
        *leaf_preferences(guest, type(guest).reset(), known),
        *((known[name], terms.const(known[name].width, 0)) for name in sorted(known)),
        *((cell, terms.const(cell.width, 0)) for cell in cells),
    ]
    model = minimizer.run(model, wishes)
    numbers = [
        Parties(*(concretize(state, model, cells, known, type(state).reset()) for state in _all(one)))
        for one in starts
    ]
    given = {name: Word(v.width, model(v.term)) for name, v in values.items()}
    return numbers, given, Word(probe.width, model(probe.term))


def unkept_at(attached: Attached, parties: Parties) -> Word | None:
    """A place at which a duty that is not dropped does not hold of these numbers."""
    private, unit = map(_anywhere, (parties.private, parties.unit))
    question = Question("the duties", [~attached.kept(parties.guest, private, unit)])
    answer, model, _ = question.ask(attached.effort)
    if answer is Answer.SAT and model is not None:
        return Word(attached.place.width, model(attached.place.term))
    return None


def _anywhere(state: Any) -> Any:
    """The same numbers, with memories that can be asked at a symbol."""
    found = state.copy()
    for name, content in state.memories().items():
        cells = tuple(
            (Word(content.address_width, cell), Word(content.cell_width, value))
            for cell, value in content.cells().items()
            if value
        )
        nothing = Word(content.cell_width, 0)
        found._memories[name] = attrs.evolve(
            content, root=lambda address, nothing=nothing: nothing, stores=cells
        )
    return found


def first_parties(attached: Attached, suffix: str) -> Parties:
    """The first state; storage that nobody has set is unknown."""
    if attached.attachment.first is None:
        any_state = attached.symbolic(suffix)
        return attrs.evolve(any_state, device=attached.devices.agent.registers.reset())
    guest, private, unit = attached.attachment.first(attached.dropped)
    storage = attached.devices.storage
    private = private.copy()
    old = private._memories[storage]
    private._memories[storage] = attrs.evolve(old, root=f"{storage}@vmm{suffix}")
    return Parties(
        guest.with_contents({storage: storage}), attached.devices.agent.registers.reset(), private, unit
    )


def _all(parties: Parties) -> tuple[Any, ...]:
    return (parties.guest, parties.device, parties.private, parties.unit)


def _broken(attached: Attached, promise: str, taken: Taken, twin: Taken | None, probe: Word) -> Word:
    """The last step breaks the promise (width 1)."""
    parties = taken.parties
    if promise == CHANGES:
        return attached.foreign_changes(parties, taken.before, taken.after)
    if promise == INTERRUPTS:
        return attached.foreign_messages(parties, taken.after)
    if promise == FIDELITY and taken.served:
        return FALSE  # the monitor sets what the map says
    if promise == FIDELITY:
        return taken.kept & attached.unlike(parties, taken.own, taken.after, probe)
    if promise == LEARNS and twin is not None:
        mine = attached.has(parties, probe) & attached.has(twin.parties, probe)
        seen = zip(
            attached.seen(parties, taken.after, probe),
            attached.seen(twin.parties, twin.after, probe),
            strict=True,
        )
        *registers, cell = [a != b for a, b in seen]
        return any_of(registers) | (mine & cell)
    return FALSE


def _replayed(
    attached: Attached,
    promise: str,
    starts: Sequence[Parties],
    registers: Sequence[str],
    steps: Sequence[str],
    values: Values,
    probe: Word,
) -> DeviceTrace:
    """The same steps on numbers; they must break the promise.

    Raises:
        ReplayError: they do not.
    """
    taken = run_steps(attached, starts[0], registers, steps, values)
    twin = run_steps(attached, starts[1], registers, steps, values) if promise == LEARNS else None
    if _broken(attached, promise, taken, twin, probe).value != 1:
        raise ReplayError(
            f"{attached.devices.name}: the trace that breaks {promise!r} does not do so on numbers"
        )
    return DeviceTrace(
        promise,
        taken.steps,
        _words(attached, promise, taken, twin, probe),
        shown(starts[0].guest),
        shown(starts[0].private),
        shown(starts[0].unit),
    )


def _words(attached: Attached, promise: str, taken: Taken, twin: Taken | None, probe: Word) -> str:
    """What the last step does, from what it did on numbers."""
    storage = attached.devices.storage
    if promise == CHANGES:
        for access in taken.after.accesses:
            old, new = (
                int(world.state.memories()[storage].load(access.cell))
                for world in (taken.before, taken.after)
            )
            if access.kind == "store" and old != new:
                return f"cell {int(access.cell):#x}, not the guest's, {old:#x} → {new:#x}"
    if promise == INTERRUPTS:
        return f"the processor is given {', '.join(f'{int(given):#x}' for given in taken.after.sent)}"
    expected = attached.attachment.device(
        taken.own.state, taken.own.device, taken.parties.private, taken.parties.unit
    )
    if promise == FIDELITY:
        return (
            "; ".join(
                _differences(
                    expected,
                    taken.after.device,
                    "on its own machine",
                    "here",
                    int(taken.own.state.memories()[storage].load(probe)),
                    int(attached.cell(taken.parties, taken.after, probe)),
                    int(probe),
                )
            )
            or "another message"
        )
    assert twin is not None
    return "; ".join(
        _differences(
            taken.after.device,
            twin.after.device,
            "with this monitor",
            "with another",
            int(attached.cell(taken.parties, taken.after, probe)),
            int(attached.cell(twin.parties, twin.after, probe)),
            int(probe),
        )
    )


def _differences(
    one: Any, two: Any, left: str, right: str, first: int, second: int, probe: int
) -> Iterator[str]:
    for name, word in one.words().items():
        other = two.words()[name]
        if int(word) != int(other):
            yield f"{name}: {int(word):#x} {left}, {int(other):#x} {right}"
    if first != second:
        yield f"the guest's cell {probe:#x}: {first:#x} {left}, {second:#x} {right}"


def shown(state: Any) -> dict[str, str]:
    """Components and cells that are not what they are after a reset."""
    plain = type(state).reset()
    found = {
        name: f"{int(word):#x}"
        for name, word in state.words().items()
        if word.concrete and int(word) != int(plain.words()[name])
    }
    for name, content in state.memories().items():
        if content.concrete:
            found |= {
                f"{name}[{cell:#x}]": f"{value:#x}"
                for cell, value in sorted(content.cells().items())
                if value
            }
    return found
