"""Problems 1 to 3: what a guest sees of the VMM, and what it finds taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from popek.checks.promises import Keeper
from popek.checks.runs import Run
from popek.checks.situation import Situation, holds_together
from popek.checks.verdict import Status, Truth
from popek.kernel import terms
from popek.kernel.outcome import Trap
from popek.kernel.state import Role, State

from .search import Answered, Asking, Way, mode_leaves, search

# -- 1. ring aliasing -----------------------------------------------------------------------------


def ring_aliasing(asking: Asking, every: bool) -> Answered:
    """The guest's kernel reads off the level at which it really runs."""

    def ways(s: Situation[Any]) -> Iterator[Way]:
        real = s.hardware.before
        other = s.guest.with_changes({name: real[name] for name in mode_leaves(s.machine)})
        run = s.general.at(other)
        given = [
            s.machine.supervisor(s.guest),
            s.technique.guest(s.guest),
            s.technique.deprivileged(other),
            *(s.machine.invariant(state) for state in (s.guest, other)),
            *(s.subject.holds(state, mentioned=s.general.mentioned) for state in (s.guest, other)),
            s.instruction.valid(s.general.operands),
        ]
        for conditions, a, b in s.pairs(list(s.native.completions()), s.kept(run)):
            for _, differs in s.visible(a, b):
                yield Way(
                    [*given, *holds_together(conditions), differs],
                    (s.guest, other),
                    ("at the level it was written for", "at the level it runs at"),
                    False,
                )

    return search(
        asking,
        every,
        "the guest's kernel sees the level at which it really runs",
        "The two states differ only in the level, neither run traps, and the program sees the difference.",
        lambda run: True,
        ways,
        "ring-aliasing",
    )


# -- 2. address-space compression -----------------------------------------------------------------


def taken_addresses(asking: Asking, every: bool) -> Answered:
    """A reference that the guest's own machine completes traps, because the VMM lives there."""

    def ways(s: Situation[Any]) -> Iterator[Way]:
        kernel = s.machine.supervisor(s.guest)
        for conditions, _ in s.native.completions():
            for others in s.storage_traps(s.hardware):
                yield Way(
                    [kernel, *holds_together(others, conditions)],
                    (s.guest, s.private),
                )

    return search(
        asking,
        every,
        "storage of the guest's is not there: the VMM lives at its addresses",
        "The guest's own machine completes the reference; on the hardware the address is the VMM's, and it traps.",
        _loads_or_stores,
        ways,
        "taken-addresses",
    )


def seen_storage(asking: Asking, every: bool) -> Answered:
    """What the VMM keeps in storage for the processor shows without a trap: its tables, where the guest has its own.

    The VMM's tables are what the processor finds through a register that the technique replaces.
    """
    machine, technique = asking.subject.machine, asking.subject.technique
    tables = {
        machine.state.leaf(name).component
        for name in technique.replaced
        if name not in machine.state.reset().memories()
    }
    keeper = Keeper(asking.subject)
    found: list[str] = []
    witness = None
    unknown = False
    for s in asking.situations(lambda run: _looks_through(run, tables), "seen-storage"):
        if s is None:
            unknown = True
            continue
        secrecy = keeper.secrecy(s.instruction, s.general)
        unknown = unknown or secrecy.status is Status.UNKNOWN
        if secrecy.status is Status.REFUTED:
            found.append(s.instruction.form)
            witness = witness or secrecy.witness
            if not every:
                break
    present = Truth.YES if found else (Truth.UNKNOWN if unknown else Truth.NO)
    return Answered("what the VMM keeps in its tables shows", present, witness, tuple(found))


def _loads_or_stores(run: Run[Any]) -> bool:
    return any(isinstance(path.result, Trap) and path.result.memory for path in run.paths)


def _looks_through(run: Run[Any], tables: set[str]) -> bool:
    """It reads storage at an address that one of these components decides, and changes no resource."""
    if any(
        after[leaf.name].term is not run.before[leaf.name].term
        for _, after in run.completions()
        for leaf in run.before.leaves
        if leaf.role in (Role.RESOURCE, Role.MODE)
    ):
        return False
    roots = [condition for path in run.paths for condition in path.conditions]
    roots += [term for _, after in run.completions() for term in _results(run.before, after)]
    storage = {slot.name for slot in run.before.layout if slot.address and slot.role is Role.MEMORY}
    places = [cell.args[0] for cell in terms.applications_of(roots) if cell.data in storage]
    return not tables.isdisjoint(terms.variables_of(places))


# -- 3. non-faulting access to privileged state ---------------------------------------------------


def silent_reads(asking: Asking, every: bool) -> Answered:
    """A register that the VMM holds for itself shows without a trap."""
    machine, technique = asking.subject.machine, asking.subject.technique
    memories = {slot.name for slot in machine.state.layout if slot.address}
    replaced = tuple(
        name
        for name in technique.replaced
        if name not in memories and machine.state.leaf(name).role is not Role.TIME
    )

    def wanted(run: Run[Any]) -> bool:
        read = {machine.state.leaf(name).component for name in replaced}
        return any(
            not read.isdisjoint(terms.variables_of(_results(run.before, after)))
            for _, after in run.completions()
        )

    def ways(s: Situation[Any]) -> Iterator[Way]:
        fixed = {
            setting.leaf for setting in machine.settings if setting.name in s.subject.configuration.settings
        }
        other = s.with_fresh(s.guest, [name for name in replaced if name not in fixed])
        run = s.general.at(other)
        given = [
            s.instruction.valid(s.general.operands),
            *(
                condition
                for state in (s.guest, other)
                for condition in (
                    technique.deprivileged(state),
                    machine.invariant(state),
                    s.subject.holds(state, mentioned=s.general.mentioned),
                )
            ),
        ]
        for conditions, a, b in s.pairs(s.kept(s.native), s.kept(run)):
            for _, differs in s.visible(a, b):
                yield Way(
                    [*given, *holds_together(conditions), differs],
                    (s.guest, other),
                    ("one value of the VMM's", "another one"),
                    False,
                )

    return search(
        asking,
        every,
        "privileged state can be read without a fault",
        "The two states differ only in what the VMM holds for itself, neither run traps, and the program sees it.",
        wanted,
        ways,
        "silent-reads",
    )


def _results(before: State, after: State) -> list[terms.Term]:
    """The terms that a program can see, where a run changed them."""
    found = [
        after[leaf.name].term
        for leaf in after.leaves
        if leaf.role is Role.GENERAL and after[leaf.name].term is not before[leaf.name].term
    ]
    for slot in after.layout:
        if slot.address and slot.role is Role.MEMORY:
            for entry in after.memories()[slot.name].stores:
                if isinstance(entry, tuple):
                    found.append(entry[1].term)
    return found
