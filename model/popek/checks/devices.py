"""Safety and fidelity of a machine with agents, by induction over steps.

The invariant: the hardware is what the technique's map and the attachment's make of a guest and its device, whatever
their values, and the monitor's duties hold at every place.  From every such state one step is taken: a form of the
processor, a register that the driver sets, a step of the device.  Asked is

* *changes*: the step changes no cell that the monitor or another guest owns;
* *learns*: with other things of the monitor's the guest sees the same;
* *interrupts*: what the device sends as a message is the guest's to send;
* *invariant*: the duties hold afterwards;
* *fidelity*: the hardware ends where the guest's own machine does.

That it holds at the start is asked of the attachment's first state.  A question about a range that is empty, or of a
step that reaches nothing, is an error.

One module, though long: what one attachment is asked, what is assumed for that, and what must not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from popek.kernel import terms
from popek.kernel.agents import Attachment, Devices, World
from popek.kernel.exploration import Path, explore
from popek.kernel.machine import UnknownNameError
from popek.kernel.memory import Memory
from popek.kernel.state import State
from popek.kernel.words import FALSE, TRUE, Word, all_of, any_of, symbol
from popek.solving.asking import SolverQuery
from popek.solving.pruning import Pruner
from popek.solving.solver import Answer, Effort

from .induction import InductionRow
from .verdict import Evidence, Question, Status

CHANGES, LEARNS, INTERRUPTS, INVARIANT, FIDELITY = "changes", "learns", "interrupts", "invariant", "fidelity"
SAFETY = (CHANGES, LEARNS, INTERRUPTS, INVARIANT)
STATEMENTS: Mapping[str, str] = {
    CHANGES: "no cell of the monitor's or of another guest's changes",
    LEARNS: "with other things of the monitor's the guest sees the same",
    INTERRUPTS: "every interrupt that is raised is the guest's to raise",
    INVARIANT: "what the monitor sees to still holds",
    FIDELITY: "the driver sees what its own machine's device does",
}
BASE, REACHED, ANOTHER = "base", "reached", "'"


class VacuousError(RuntimeError):
    """A question ranges over nothing: the model or an arrangement is wrong."""


@attrs.frozen(eq=False)
class Parties:
    """Guest and device, as the guest knows them, and what the monitor has: all symbols, or all numbers."""

    guest: Any
    device: Any
    private: Any
    unit: Any


@attrs.frozen(eq=False, slots=False)
class Attached:
    """The questions about one attachment.

    Attributes:
        devices: the machine with its device.
        attachment: how it is attached; rules of it may be dropped already.
        dropped: duties and premises that are not in place.
        rules: of the unit, those that are dropped.
        serving: the unit's tables serve the guest; without a rule they may be any that keep the device in by it.
    """

    devices: Devices[Any]
    attachment: Attachment
    dropped: frozenset[str] = frozenset()
    effort: Effort = attrs.field(factory=Effort)
    rules: frozenset[str] = frozenset()
    serving: bool = True

    @classmethod
    def of(
        cls,
        devices: Devices[Any],
        name: str | None = None,
        dropped: Sequence[str] = (),
        *,
        serving: bool = False,
    ) -> Attached:
        """An attachment by name, the last by default, without some of its rules, duties or premises.

        Args:
            serving: without a rule of the unit, too, its tables serve the guest.

        Raises:
            UnknownNameError: no such attachment, rule, duty or premise.
        """
        known = devices.attachments
        name = list(known)[-1] if name is None else name
        if name not in known:
            raise UnknownNameError(f"attachment of {devices.name}", name, known)
        attachment, without = known[name], frozenset(dropped)
        names = droppable(attachment)
        for one in dropped:
            if one not in names:
                raise UnknownNameError(f"rule, duty or premise of {name}", one, names)
        rules = without & frozenset(attachment.rules)
        if not rules or attachment.without is None:
            return cls(devices, attachment, without)
        if serving:
            fewer = attrs.evolve(attachment.without(rules), first=attachment.first)
            return cls(devices, fewer, without, rules=rules)
        # Tables that would keep a device out by the rule alone are no tables that serve it.
        without |= {duty.name for duty in attachment.duties if duty.fidelity}
        return cls(devices, attachment.without(rules), without, rules=rules, serving=False)

    def with_rules(self) -> Attached:
        """The same with every rule in place."""
        whole = self.devices.attachments[self.attachment.name]
        return attrs.evolve(self, attachment=attrs.evolve(whole, first=self.attachment.first))

    @cached_property
    def machine(self) -> Any:
        """The machine."""
        return self.devices.machine()

    @cached_property
    def technique(self) -> Any:
        """Who owns which storage."""
        return self.machine.technique(self.devices.technique)

    # -- states -------------------------------------------------------------------------------

    @cached_property
    def place(self) -> Word:
        """Any place."""
        return symbol("place", self.devices.place)

    def symbolic(self, suffix: str = "") -> Parties:
        """Any guest and device; `suffix` tells apart what the monitor has."""
        return Parties(
            self.machine.state.symbolic(),
            self.devices.agent.registers.symbolic("@device"),
            self.machine.state.symbolic(f"@vmm{suffix}"),
            self.attachment.unit.symbolic(f"@unit{suffix}"),
        )

    def places(self, *all_parties: Parties) -> list[Word]:
        """Where the duties are relied on: wherever a step looks, and one place that may be any."""
        found = [self.place]
        for one in all_parties:
            found += self.attachment.places(one.guest, one.device, one.private, one.unit)
        return found

    def known(self, parties: Parties, another: Parties) -> list[Word]:
        """What two monitors keep for the guest, which is the guest's to know, is the same."""
        found = []
        for place in self.places(parties, another):
            held = (self.attachment.held(one.private, one.unit, place) for one in (parties, another))
            found += [a == b for a, b in zip(*held, strict=True)]
        return found

    def assumed(self, parties: Parties, *also: Parties) -> list[Word]:
        """The invariant, of guest, device and what the monitor has."""
        guest, private = parties.guest, parties.private
        promised = self.attachment.promised(
            guest, private, parties.unit, self.places(parties, *also), self.dropped
        )
        return [
            self.technique.guest(guest),
            self.machine.invariant(guest),
            self.technique.private(guest, private),
            self.machine.invariant(self.technique.map(guest, private)),
            self.devices.agent.exists(parties.device),
            self.reached(parties),
            *(holds for _, holds in promised),
        ]

    def reached(self, parties: Parties, device: Any = None) -> Word:
        """The hardware's device is in what it can be in (width 1); by default what the map makes of the guest's."""
        reached = self.attachment.reached
        if reached is None:
            return TRUE
        if device is None:
            device = self.attachment.device(parties.guest, parties.device, parties.private, parties.unit)
        held: Word = reached(parties.guest, device, parties.private, parties.unit)
        return held

    def with_storage(self, state: Any, content: Memory) -> Any:
        """A state with other storage."""
        changed = state.copy()
        changed._memories[self.devices.storage] = content
        return changed

    def hardware(self, parties: Parties) -> World[Any, Any]:
        """What the hardware is in."""
        return self.devices.arranged(
            self.attachment, self.technique, parties.guest, parties.device, parties.private, parties.unit
        )

    # -- runs ---------------------------------------------------------------------------------

    def explored(self, run: Callable[[], Any]) -> list[Path[Any]]:
        """Every way through, from any state: which are possible under the invariant is asked with each question."""
        return explore(run, Pruner(self.effort))

    def on_hardware(self, name: str, parties: Parties) -> list[Path[World[Any, Any]]]:
        """The device's step on the hardware."""
        before = self.hardware(parties)
        return self.explored(lambda: self.devices.hardware_step(self.attachment, name, before))

    def on_its_own(self, name: str, parties: Parties) -> list[Path[World[Any, Any]]]:
        """The device's step on the guest's own machine."""
        step = self.devices.own_step
        return self.explored(lambda: step(name, parties.guest, parties.device))

    # -- what must not be ---------------------------------------------------------------------

    def foreign_changes(self, parties: Parties, before: World[Any, Any], after: World[Any, Any]) -> Word:
        """A cell changed that is not the guest's (width 1)."""
        name = self.devices.storage
        old, new = before.state.memories()[name], after.state.memories()[name]
        owns, flags = self.technique.owns_address, self.attachment.flags
        found = FALSE
        for access in after.accesses:
            if access.kind in ("load", "message"):
                continue
            foreign = owns(parties.guest, parties.private, access.cell)
            if access.kind == "store":
                found = found | (foreign & (old.load(access.cell) != new.load(access.cell)))
            elif access.old is not None and access.new is not None:
                changed = (access.old ^ access.new) & ~Word(access.old.width, flags)
                found = found | (foreign & (changed != 0))
        return found

    def foreign_messages(self, parties: Parties, after: World[Any, Any]) -> Word:
        """A message was given to the processor that is not the guest's to send (width 1)."""
        mine = self.devices.interrupt
        return any_of(~mine(parties.guest, parties.private, parties.unit, given) for given in after.sent)

    def seen(self, parties: Parties, after: World[Any, Any], probe: Word) -> list[Word]:
        """What the guest can see of the hardware: the device's registers and a cell of its storage."""
        device = self.attachment.seen(after.device, parties.private, parties.unit)
        cell = self.cell(parties, after, probe)
        return [*device.words().values(), cell]

    def seen_of(self, parties: Parties, another: Parties) -> list[Word]:
        """What a guest sees of its registers as the monitor sets them."""
        mapped = self.attachment.device(parties.guest, parties.device, another.private, another.unit)
        return list(self.attachment.seen(mapped, another.private, another.unit).words().values())

    def cell(self, parties: Parties, after: World[Any, Any], probe: Word) -> Word:
        """The hardware's cell for a cell of the guest's."""
        where = self.technique.guest_address(parties.private, probe)
        found: Word = after.state.memories()[self.devices.storage].load(where)
        return found

    def has(self, parties: Parties, probe: Word) -> Word:
        """The guest has this cell (width 1)."""
        where = self.technique.guest_address(parties.private, probe)
        mine: Word = ~self.technique.owns_address(parties.guest, parties.private, where)
        return mine

    def probe(self) -> Word:
        """Any cell of the guest's storage."""
        return symbol("cell", self.memory(self.symbolic()).address_width)

    def memory(self, parties: Parties) -> Memory:
        """The guest's storage."""
        found: Memory = parties.guest.memories()[self.devices.storage]
        return found

    def unlike(self, parties: Parties, own: World[Any, Any], after: World[Any, Any], probe: Word) -> Word:
        """The hardware does not end where the guest's own machine does (width 1)."""
        expected = self.attachment.device(own.state, own.device, parties.private, parties.unit)
        device = any_of(word != after.device.words()[name] for name, word in expected.words().items())
        ours = own.state.memories()[self.devices.storage].load(probe)
        storage = self.has(parties, probe) & (ours != self.cell(parties, after, probe))
        same = self.devices.same_interrupt
        if len(own.sent) != len(after.sent):
            return TRUE
        messages = any_of(
            ~same(parties.private, parties.unit, a, b) for a, b in zip(own.sent, after.sent, strict=True)
        )
        unlike: Word = device | storage | messages
        return unlike

    # -- questions ----------------------------------------------------------------------------

    def rows(self) -> Iterator[InductionRow]:
        """Every question but those of the processor's forms.

        Raises:
            VacuousError: a question ranges over nothing.
        """
        yield from self.base()
        for register, how in self.devices.agent.programs.items():
            if register not in self.attachment.owned:
                yield from self.programmed(register, how)
        for name in self.devices.agent.steps:
            yield from self.stepped(name)

    def ask(
        self, promise: str, step: str, assumed: Sequence[Word], cases: Sequence[Sequence[Word]], why: str = ""
    ) -> InductionRow:
        """Can one of the cases be?  Then the promise is broken.

        Args:
            cases: conditions each.  All are asked at once, and one by one where that is not decided.
        """
        title = f"{self.devices.name}, {self.attachment.name}, {step}: {promise}"
        whole = Question(title, [*assumed, any_of(all_of(case) for case in cases)])
        asked: list[SolverQuery] = []
        whole_query = Question(title, [*assumed, simplified(whole.conditions[-1], assumed)]).put(self.effort)
        asked.append(whole_query)
        answer = whole_query.answer
        if answer is Answer.UNKNOWN:
            answers = {query.answer for query in self._case_by_case(title, assumed, cases, asked)}
            order = (Answer.SAT, Answer.UNKNOWN, Answer.UNSAT)
            answer = next(one for one in order if one in answers)
        status = {Answer.UNSAT: Status.HOLDS, Answer.SAT: Status.REFUTED}.get(answer, Status.UNKNOWN)
        return InductionRow(promise, step, status, Evidence(whole, answer, tuple(asked)), why)

    def _case_by_case(
        self, title: str, assumed: Sequence[Word], cases: Sequence[Sequence[Word]], asked: list[SolverQuery]
    ) -> Iterator[SolverQuery]:
        for *given, last in cases:
            known = [*assumed, *given]
            asked.append(Question(title, [*known, simplified(last, known)]).put(self.effort))
            yield asked[-1]
            if asked[-1].answer is Answer.SAT:
                return

    def assert_possible(self, what: str, conditions: Sequence[Word]) -> None:
        """There is something to ask about."""
        if Question(what, conditions).put(self.effort).answer is Answer.UNSAT:
            raise VacuousError(f"{self.devices.name}, {self.attachment.name}: {what}: there is no such state")

    def base(self) -> Iterator[InductionRow]:
        """The invariant is possible, and holds of the first state for every place."""
        parties = self.symbolic()
        self.assert_possible("the invariant", self.assumed(parties))
        if self.attachment.first is None or not self.serving:
            return
        guest, private, unit = self.attachment.first(self.dropped)
        yield self.ask(INVARIANT, BASE, [], [[~self.kept(guest, private, unit)]])

    def kept(self, guest: Any, private: Any, unit: Any) -> Word:
        """What the monitor sees to holds at any place (width 1)."""
        promised = self.attachment.promised(guest, private, unit, [self.place], self.dropped)
        known: Word = self.technique.private(guest, private)
        return all_of([known, *(holds for _, holds in promised)])

    def programmed(self, register: str, how: str) -> Iterator[InductionRow]:
        """The driver sets a register to anything."""
        parties = self.symbolic()
        device = parties.device.with_changes(
            {register: symbol(f"{register}@new", parties.device[register].width)}
        )
        after = attrs.evolve(parties, device=device)
        broken = ~(self.kept(after.guest, after.private, after.unit) & self.reached(after))
        mapped, before = self.hardware(after), self.hardware(parties)
        others = [
            name
            for name, word in mapped.device.words().items()
            if word.term is not before.device.words()[name].term and name != register
        ]
        why = f"; the hardware's {', '.join(others)} would change, too" if others else ""
        yield self.ask(INVARIANT, how, self.assumed(parties, after), [[broken]], why)

    def stepped(self, name: str) -> Iterator[InductionRow]:
        """The device's step: safety, the invariant, fidelity."""
        parties, another = self.symbolic(), self.symbolic(ANOTHER)
        assumed, service = self.assumed(parties), self.attachment.services.get(name)
        premises = [
            premise.holds(parties.guest, parties.device)
            for premise in self.attachment.premises
            if premise.name not in self.dropped
        ]
        own = self.on_its_own(name, parties)
        inner = name in self.devices.agent.inner
        if not inner and not any(path.result.accesses for path in own):
            raise VacuousError(f"{self.devices.name}: {name} reaches nothing on the guest's own machine")
        if service is not None:
            yield from self.served(name, parties, assumed, own)
            return
        before, probe = self.hardware(parties), self.probe()
        here = self.on_hardware(name, parties)
        if not inner and not any(path.result.accesses for path in here):
            raise VacuousError(f"{self.devices.name}, {self.attachment.name}: {name} reaches nothing")
        changed = [[path.condition, self.foreign_changes(parties, before, path.result)] for path in here]
        yield self.ask(CHANGES, name, assumed, changed)
        if self.devices.deliver is not None:
            sent = [[path.condition, self.foreign_messages(parties, path.result)] for path in here]
            yield self.ask(INTERRUPTS, name, assumed, sent)
        yield from self.still_kept(name, parties, before, here, assumed)
        if self.attachment.reached is not None:
            yield self.ask(INVARIANT, name, assumed, list(self.left(parties, here)), REACHED)
        cases = [
            [mine.condition, path.condition, self.unlike(parties, mine.result, path.result, probe)]
            for mine in own
            for path in here
        ]
        faithful = self.ask(FIDELITY, name, [*assumed, *premises], cases)
        yield faithful
        both = [*assumed, *self.assumed(another), *self.known(parties, another)]
        if faithful.status is Status.HOLDS:
            # Where the driver keeps to the premises, what the guest sees is what its own machine shows, whatever the
            # monitor has: what is left is the rest, and that the map shows nothing.
            shows = [self.seen_of(parties, parties), self.seen_of(parties, another)]
            yield self.ask(
                LEARNS,
                name,
                both,
                [
                    [any_of(a != b for a, b in zip(*shows, strict=True))],
                    *(
                        [*case[:-1], any_of(~one for one in premises), case[-1]]
                        for case in self.learnt(name, parties, another, here, probe)
                        if premises
                    ),
                ],
                "beyond the premises; within them it follows from fidelity",
            )
            return
        yield self.ask(LEARNS, name, both, self.learnt(name, parties, another, here, probe))

    def still_kept(
        self,
        name: str,
        parties: Parties,
        before: World[Any, Any],
        here: Sequence[Path[World[Any, Any]]],
        assumed: Sequence[Word],
    ) -> Iterator[InductionRow]:
        """Whether the duties hold after the step.

        They do where the step changes no cell that they read: they are functions of what they read.  Where it may,
        they are asked about the storage that it leaves.  That they do not depend on flags that the unit sets in
        passing is a question of its own.
        """
        content: Memory = parties.private.memories()[self.devices.storage]
        read: list[Word] = []

        def noted(address: Word) -> Word:
            read.append(address)
            return content.load(address)

        noting = Memory(content.address_width, content.cell_width, noted)
        self.kept(parties.guest, self.with_storage(parties.private, noting), parties.unit)
        touched = [
            [path.condition, any_of(access.cell == address for address in read)]
            for path in here
            for access in path.result.accesses
            if access.kind == "store"
        ]
        if self.attachment.flags:
            yield self._unflagged(name, parties, assumed)
        row = self.ask(INVARIANT, name, assumed, touched, "no cell that the duties read changes")
        if row.status is Status.HOLDS:
            yield row
            return
        broken = [
            [
                path.condition,
                ~self.kept(parties.guest, self.with_storage(parties.private, after), parties.unit),
            ]
            for path in here
            for after in [path.result.state.memories()[self.devices.storage]]
        ]
        yield self.ask(INVARIANT, name, assumed, broken)

    def _unflagged(self, name: str, parties: Parties, assumed: Sequence[Word]) -> InductionRow:
        """The duties hold whatever the unit's flags are in the cells that they read."""
        content: Memory = parties.private.memories()[self.devices.storage]
        flags = Word(content.cell_width, self.attachment.flags)
        others = Memory(content.address_width, content.cell_width, "flagged")

        def flagged(address: Word) -> Word:
            return (content.load(address) & ~flags) | (others.load(address) & flags)

        view = Memory(content.address_width, content.cell_width, flagged)
        kept = self.kept(parties.guest, self.with_storage(parties.private, view), parties.unit)
        return self.ask(INVARIANT, name, assumed, [[~kept]], "whatever the flags that the unit sets")

    def left(self, parties: Parties, here: Sequence[Path[World[Any, Any]]]) -> Iterator[list[Word]]:
        """Ways in which the device comes to be in what it cannot be in as it is attached."""
        for path in here:
            content = path.result.state.memories()[self.devices.storage]
            after = attrs.evolve(parties, private=self.with_storage(parties.private, content))
            yield [path.condition, ~self.reached(after, path.result.device)]

    def served(
        self, name: str, parties: Parties, assumed: Sequence[Word], own: Sequence[Path[World[Any, Any]]]
    ) -> Iterator[InductionRow]:
        """A step that the monitor takes: the device's registers are what the map says; its duties hold."""
        broken = []
        for path in own:
            guest, device = path.result.state, path.result.device
            for inner in self.explored(
                lambda guest=guest, device=device: self.attachment.services[name](  # type: ignore[misc]
                    guest, device, parties.private, parties.unit, parties.device
                )
            ):
                private, unit = inner.result
                after = Parties(guest, device, private, unit)
                kept = self.kept(guest, private, unit) & self.reached(after)
                broken.append([path.condition, inner.condition, ~kept])
        yield self.ask(INVARIANT, name, assumed, broken)

    def learnt(
        self,
        name: str,
        parties: Parties,
        another: Parties,
        here: Sequence[Path[World[Any, Any]]],
        probe: Word,
    ) -> list[list[Word]]:
        """With another monitor the guest sees another result."""
        there = self.on_hardware(name, another)
        mine = self.has(parties, probe) & self.has(another, probe)
        cases = []
        for a in here:
            for b in there:
                seen = zip(
                    self.seen(parties, a.result, probe), self.seen(another, b.result, probe), strict=True
                )
                *registers, cell = [x != y for x, y in seen]
                cases.append([a.condition, b.condition, any_of(registers) | (mine & cell)])
        return cases

    # -- what the invariant rests on ----------------------------------------------------------

    @cached_property
    def rests_on(self) -> frozenset[str]:
        """The guest's components that the duties speak of: no form of the processor may change them."""
        parties = self.symbolic()
        promised = self.attachment.promised(
            parties.guest, parties.private, parties.unit, self.places(parties)
        )
        known = {slot.name for slot in parties.guest.layout}
        mentioned = terms.variables_of([holds.term for _, holds in promised])
        return frozenset(name for name in mentioned if name in known)

    def invariant(self) -> list[tuple[str, str]]:
        """The conjuncts by name and in words."""
        found = [("map", f"the hardware is what the map of {self.technique.name} makes of the guest")]
        found += [(duty.name, duty.text) for duty in self.attachment.duties if duty.name not in self.dropped]
        if self.attachment.reached is not None:
            found.append((REACHED, self.attachment.reached_text))
        return found


def simplified(condition: Word, given: Sequence[Word]) -> Word:
    """A condition where others hold: what follows at once from them is put in, again and again."""
    known = terms.literals(one.term for one in given)
    term = condition.term
    while True:
        simpler = terms.Substitution(known=known)(term)
        if simpler is term:
            return Word(1, term)
        term = simpler


def droppable(attachment: Attachment) -> dict[str, str]:
    """What may be dropped, by name: rules of the unit, duties of the monitor, premises about the driver."""
    return {
        **attachment.rules,
        **{duty.name: duty.text for duty in attachment.duties},
        **{premise.name: premise.text for premise in attachment.premises},
    }


def states_of(parties: Parties) -> tuple[State, ...]:
    """All four."""
    return (parties.guest, parties.device, parties.private, parties.unit)
