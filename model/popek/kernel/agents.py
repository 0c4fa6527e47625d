"""Agents: what reads and changes storage beside the processor, and how a monitor attaches a guest's device.

A step of a machine with agents is the processor's or an agent's.  An agent has registers, which the guest may set to
anything where it owns the device, and steps, which reach storage over a `Bus`.  On the guest's own machine an address
goes where the machine says; on the hardware it goes where the monitor's `Attachment` sends it: as it is, through a
unit that remaps it, or after the monitor has translated it.  The same step runs on both, on numbers and on symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from .machine import Machine
from .memory import Memory
from .state import State
from .technique import Technique
from .words import FALSE, TRUE, Word, all_of

S = TypeVar("S", bound=State)
D = TypeVar("D", bound=State)

Step = Callable[[Any, "Bus"], None]
Route = Callable[[Word, bool], Word]
"""From an agent's address, and whether it writes, to the cell of storage; raises `RefusedError`."""


class RefusedError(Exception):
    """An access goes nowhere; the agent is told no more than that."""

    def __init__(self, reason: str, code: Word | None = None) -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


@attrs.frozen(eq=False)
class Access:
    """One access that was let through: a cell that was read or written, or a message; or what a unit marks with it."""

    kind: str  # "load", "store", "message", "mark"
    address: Word  # the agent's
    cell: Word  # where it went; of a message, what was delivered
    old: Word | None = None  # of a mark: what the cell held
    new: Word | None = None


class Bus:
    """What an agent sees of a machine.

    Args:
        storage: all of it; `storage` is what it is after the accesses so far.
        route: where an address goes.
        message: which writes are messages (width 1).
        deliver: from the address and the data of a message to what the processor is given; raises `RefusedError`.
        marks: cells that the unit itself sets as it lets an access through, with their new values.
    """

    def __init__(
        self,
        storage: Memory,
        route: Route,
        message: Callable[[Word], Word] = lambda address: FALSE,
        deliver: Callable[[Word, Word], Word] | None = None,
        marks: Callable[
            [Memory, Word, bool], Sequence[tuple[Word, Word]]
        ] = lambda storage, address, write: (),
    ) -> None:
        self.storage, self.accesses = storage, tuple[Access, ...]()
        self.sent: tuple[Word, ...] = ()
        self._route, self._message, self._deliver, self._marks = route, message, deliver, marks

    def _mark(self, address: Word, write: bool) -> None:
        for cell, value in self._marks(self.storage, address, write):
            self.accesses += (Access("mark", address, cell, self.storage.load(cell), value),)
            self.storage = self.storage.store(cell, value)

    def load(self, address: Word) -> Word:
        """The cell that the agent's address means.

        Raises:
            RefusedError: it means none.
        """
        cell = self._route(address, False)
        found = self.storage.load(cell)
        self.accesses += (Access("load", address, cell),)
        self._mark(address, False)
        return found

    def store(self, address: Word, value: Word) -> None:
        """The cell that the agent's address means := value; or a message is sent.

        Raises:
            RefusedError: it means none, or the message is blocked.
        """
        if self._deliver is not None and self._message(address):
            given = self._deliver(address, value)
            self.accesses += (Access("message", address, given),)
            self.sent += (given,)
            return
        cell = self._route(address, True)
        self._mark(address, True)
        self.accesses += (Access("store", address, cell),)
        self.storage = self.storage.store(cell, value)


@attrs.frozen(eq=False)
class Agent(Generic[D]):
    """A device.

    Attributes:
        name: as the command line spells it.
        title: for people.
        registers: the class of its states.
        steps: what it does by itself, by name: each changes its registers and reaches storage over the bus.
        programs: the registers that a driver sets to what it likes, and how, in words.
        exists: which states of it there are (width 1).
        inner: steps that change its registers alone; every other one must reach storage.
        source: document and section.
    """

    name: str
    title: str
    registers: type[D]
    steps: Mapping[str, Step]
    programs: Mapping[str, str]
    exists: Callable[[D], Word] = lambda device: TRUE
    inner: tuple[str, ...] = ()
    source: str = ""


@attrs.frozen(eq=False)
class World(Generic[S, D]):
    """Processor and storage, the device, the unit that stands before storage, and the messages of the latest step."""

    state: S
    device: D
    unit: Any
    sent: tuple[Word, ...] = ()
    accesses: tuple[Access, ...] = ()
    refused: str = ""


@attrs.frozen(eq=False)
class MonitorDuty:
    """One conjunct of the invariant: what the monitor sees to about what it owns.

    Attributes:
        name: as `--drop` spells it.
        text: for people: the invariant is printed from these.
        holds: `holds(guest, private, unit, place)`; it is promised for every place, of the devices' width.
        fidelity: it is owed to the guest alone; safety does not rest on it.
    """

    name: str
    text: str
    holds: Callable[[Any, Any, Any, Word], Word]
    fidelity: bool = False


@attrs.frozen(eq=False)
class DriverPremise:
    """What a guest's driver must keep to where the attachment is to do what its own machine does.

    Attributes:
        name: as `--drop` spells it.
        text: for people.
        holds: `holds(guest, device)` (width 1).
    """

    name: str
    text: str
    holds: Callable[[Any, Any], Word]


@attrs.frozen(eq=False)
class Attachment:
    """How a monitor attaches a guest's device to the hardware.

    Attributes:
        name: as the command line spells it.
        title: for people.
        route: `route(hardware, unit, device, address, write)`: the cell that an address of the hardware's device means.
        unit: the registers of what stands between; they are the monitor's.
        device: `device(guest, device, private, unit)`: what the hardware's registers hold for the guest's.
        seen: `seen(device, private, unit)`: what the guest learns of the hardware's registers.
        unmapped: `unmapped(device, private, unit)`: the guest's registers for the hardware's, as the monitor knows.
        kept: registers of the guest's that the monitor keeps itself: the hardware's say nothing of them.
        owned: registers that the guest does not set directly: the monitor sets what `device` says.
        deliver: `deliver(hardware, unit, device, address, data)`: what the processor is given for a message.
        marks: `marks(storage, unit, device, address, write)`: cells that the unit itself sets with an access.
        flags: the bits of a cell of the monitor's that the unit may set so: a change of these alone breaks no promise.
        duties: the invariant.
        premises: what fidelity asks of the driver.
        reached: `reached(guest, device, private, unit)`: what the hardware's device can be in (width 1): one more
            conjunct, which no step may leave; `reached_text` says it.
        held: `held(private, unit, place)`: what the monitor keeps for the guest at a place; it is the guest's to know.
        places: `places(guest, device, private, unit)`: the places at which a step relies on the duties.
        first: `first(dropped)`: guest, private and unit before the first step; the duties hold there, but for the
            dropped.  Where it says nothing, any that the duties admit.
        services: steps that the monitor takes: `service(guest, device, private, unit, before)`, from what the
            guest's own machine is in after the step, and the device before it, to the monitor's things after it.
        without: the attachment without some of its rules, by name; `rules` says which there are, and what each does.
        longest: steps of the device in a trace, at most; 0 for what the machine says.
        source: who describes it.
    """

    name: str
    title: str
    route: Callable[[Any, Any, Any, Word, bool], Word]
    unit: type[State]
    device: Callable[[Any, Any, Any, Any], Any] = lambda guest, device, private, unit: device
    seen: Callable[[Any, Any, Any], Any] = lambda device, private, unit: device
    unmapped: Callable[[Any, Any, Any], Any] = lambda device, private, unit: device
    kept: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()
    deliver: Callable[[Any, Any, Any, Word, Word], Word] | None = None
    marks: Callable[[Memory, Any, Any, Word, bool], Sequence[tuple[Word, Word]]] | None = None
    flags: int = 0
    duties: tuple[MonitorDuty, ...] = ()
    premises: tuple[DriverPremise, ...] = ()
    reached: Callable[[Any, Any, Any, Any], Word] | None = None
    reached_text: str = ""
    held: Callable[[Any, Any, Word], Sequence[Word]] = lambda private, unit, place: ()
    places: Callable[[Any, Any, Any, Any], Sequence[Word]] = lambda guest, device, private, unit: ()
    first: Callable[[frozenset[str]], tuple[Any, Any, Any]] | None = None
    services: Mapping[str, Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]] = attrs.field(factory=dict)
    rules: Mapping[str, str] = attrs.field(factory=dict)
    without: Callable[[frozenset[str]], Attachment] | None = None
    longest: int = 0
    source: str = ""

    def promised(
        self,
        guest: Any,
        private: Any,
        unit: Any,
        places: Sequence[Word],
        dropped: frozenset[str] = frozenset(),
    ) -> list[tuple[MonitorDuty, Word]]:
        """Each duty that is not dropped, at all of the places."""
        return [
            (duty, all_of(duty.holds(guest, private, unit, place) for place in places))
            for duty in self.duties
            if duty.name not in dropped
        ]


@attrs.frozen(eq=False)
class Devices(Generic[S]):
    """A machine with an agent beside the processor.

    Attributes:
        name: as the command line spells it.
        title: for people.
        machine: makes the machine.
        technique: of the machine, by name: who owns which storage is its business.
        agent: the device that the guest owns.
        route: `route(state, address, write)`: where an address goes on the guest's own machine.
        attachments: ways to attach it, by name; the first is without any remapping.
        place: the width of the places that duties speak of.
        storage: the memory that the agent reaches.
        message: which writes are messages (width 1).
        deliver: `deliver(state, address, data)`: what a message gives the processor on the guest's own machine.
        interrupt: `interrupt(guest, private, unit, given)`: that this message is the guest's (width 1).
        same_interrupt: `same_interrupt(private, unit, own, given)`: that it is what its own machine is given (width 1).
        longest: steps of the device in a trace, at most.
        forms: forms of the processor that are asked by default; every one where it is empty.
        stands_for: machines beside its own whose device this is, by name.
        notes: what the model leaves out.
        source: what it was made from.
    """

    name: str
    title: str
    machine: Callable[[], Machine[S]]
    technique: str
    agent: Agent[Any]
    route: Callable[[S, Word, bool], Word]
    attachments: Mapping[str, Attachment]
    place: int
    storage: str = "memory"
    message: Callable[[Word], Word] = lambda address: FALSE
    deliver: Callable[[S, Word, Word], Word] | None = None
    interrupt: Callable[[S, S, Any, Word], Word] = lambda guest, private, unit, given: TRUE
    same_interrupt: Callable[[S, Any, Word, Word], Word] = lambda private, unit, own, given: own == given
    longest: int = 4
    forms: tuple[str, ...] = ()
    stands_for: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""

    # -- steps --------------------------------------------------------------------------------

    def own_step(self, name: str, guest: S, device: Any) -> World[S, Any]:
        """A step of the device on the guest's own machine."""
        send = self.deliver
        bus = Bus(
            guest.memories()[self.storage],
            lambda address, write: self.route(guest, address, write),
            self.message,
            None if send is None else lambda address, data: send(guest, address, data),
        )
        return self._taken(name, guest, device, None, bus)

    def hardware_step(self, attachment: Attachment, name: str, before: World[S, Any]) -> World[S, Any]:
        """The same step of the device on the hardware, as it is attached."""
        state, unit, device, send = before.state, before.unit, before.device, attachment.deliver
        marks = attachment.marks or (lambda storage, unit, device, address, write: ())
        bus = Bus(
            state.memories()[self.storage],
            lambda address, write: attachment.route(state, unit, device, address, write),
            self.message,
            None if send is None else lambda address, data: send(state, unit, device, address, data),
            lambda storage, address, write: marks(storage, unit, device, address, write),
        )
        return self._taken(name, state, device, unit, bus)

    def _taken(self, name: str, state: S, device: Any, unit: Any, bus: Bus) -> World[S, Any]:
        device, state = device.copy(), state.copy()
        reason = ""
        try:
            self.agent.steps[name](device, bus)
        except RefusedError as refused:  # an agent that does not mind what becomes of its access
            code = refused.code
            reason = (
                refused.reason if code is None or not code.concrete else f"{refused.reason} ({int(code):#x})"
            )
        state._memories[self.storage] = bus.storage
        return World(state, device, unit, bus.sent, bus.accesses, reason)

    def arranged(
        self, attachment: Attachment, technique: Technique[S], guest: S, device: Any, private: S, unit: Any
    ) -> World[S, Any]:
        """What the hardware is in for a guest with its device."""
        return World(technique.map(guest, private), attachment.device(guest, device, private, unit), unit)
