"""Cells that a guest's own machine does not have: nothing that it does may go by one.

What a technique says of a memory's cells (`has_cell`) is where two guests need not be told apart.  So two that differ
in other cells alone must go on alike natively: their monitor has nowhere to keep those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from popek.kernel import terms
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import Role, State
from popek.kernel.words import TRUE, Word, any_of, ite

from .premise_reading import WayToFail
from .runs import PROBE, Run, probe

if TYPE_CHECKING:
    from popek.kernel.technique import Technique

    from .premises import Premises

S = TypeVar("S", bound=State)


def goes_by_absent_cells(premises: Premises[S], general: Run[S], native: Run[S]) -> Iterator[WayToFail]:
    """The ways in which a form of the guest's own machine goes by a cell that it does not have.

    Args:
        general: every path of it.
        native: those from a guest.
    """
    guest, has = premises.guest, partial(_has, premises)
    other, asked = guest.copy(), {}
    for slot in guest.layout:
        if slot.address:
            content = guest.memories()[slot.name]
            where = probe(content, f"{PROBE} in {slot.name}")
            asked[slot.name] = has(guest, slot.name, where)
            if asked[slot.name].value != 1 and slot.name in general.mentioned:
                fresh = premises.machine.state.symbolic(" absent").memories()[slot.name]
                other._memories[slot.name] = _mixed(premises, slot.name, content, fresh)
    absent = {name: there for name, there in asked.items() if there.value != 1}
    if not absent:
        return
    for path in native.paths:
        if isinstance(path.result, Next):
            for name, there in absent.items():
                where = probe(guest.memories()[name], f"{PROBE} in {name}")
                how = f"which cells of {name} the guest has is another thing after it"
                yield WayToFail(how, path.conditions, there != has(path.result.state, name, where))
    if not absent.keys() & general.mentioned:
        return
    how = "the guest's own machine goes by a cell that it does not have"
    others = general.at(other).paths
    for mine in native.paths:
        excluded = {terms.invert(condition) for condition in mine.conditions}
        for theirs in others:
            if excluded.isdisjoint(theirs.conditions):
                apart = _apart(mine.result, theirs.result, absent)
                given = tuple(dict.fromkeys((*mine.conditions, *theirs.conditions)))
                if apart.value != 0:
                    yield WayToFail(how, given, apart, hardware=False, states=(other,))


def _mixed(premises: Premises[S], name: str, mine: Memory, fresh: Memory) -> Memory:
    def cell(address: Word) -> Word:
        there = _has(premises, premises.guest, name, address)
        return ite(there, mine.load(address), fresh.load(address))

    return Memory(mine.address_width, mine.cell_width, cell)


def _has(premises: Premises[S], guest: S, name: str, cell: Word) -> Word:
    """Whether a guest has a cell, of another memory or of storage whose size is its own (width 1)."""
    technique, private = premises.technique, premises.private
    if next(slot for slot in guest.layout if slot.name == name).role is not Role.MEMORY:
        return technique.has_cell(guest, name, cell)
    owns = technique.owns_address
    if owns is None:
        return TRUE
    there = ~owns(guest, private, technique.guest_address(private, cell))
    # A hole at a place that is the same for every guest is the technique's to answer for, not a form's.
    mine = {str(word.term.data) for word in guest.words().values() if word.term.op == "var"}
    return there if mine & terms.variables_of([there.term]).keys() else TRUE


def _apart(a: Outcome[S], b: Outcome[S], absent: Mapping[str, Word]) -> Word:
    """Two runs end differently, absent cells aside (width 1)."""
    if isinstance(a, NotModelled) or isinstance(b, NotModelled):
        return ~TRUE
    if isinstance(a, Trap) and isinstance(b, Trap):
        if (a.vector, a.level) != (b.vector, b.level):
            return TRUE
        codes = [] if a.error_code is None or b.error_code is None else [a.error_code != b.error_code]
    elif isinstance(a, Trap) or isinstance(b, Trap):
        return TRUE
    else:
        codes = []
    old, new = a.state.words(), b.state.words()
    apart = [old[name] != new[name] for name in old if old[name].term is not new[name].term]
    for name, content in a.state.memories().items():
        other = b.state.memories()[name]
        if content is not other:
            where = probe(content, f"{PROBE} in {name}")
            apart.append((content.load(where) != other.load(where)) & absent.get(name, TRUE))
    return any_of([*codes, *apart])


def without_absent_cells(technique: Technique[S], guest: S) -> Callable[[str], bool]:
    """Whether a part of a guest of numbers is one that it has, by its name: a leaf, or a cell such as `keys[0x3]`."""

    def there(name: str) -> bool:
        memory, _, rest = name.partition("[")
        content = guest.memories().get(memory)
        if (
            content is None
            or guest.layout[[slot.name for slot in guest.layout].index(memory)].role is Role.MEMORY
        ):
            return True
        cell = Word(content.address_width, int(rest.rstrip("]"), 16))
        return technique.has_cell(guest, memory, cell).value == 1

    return there


__all__ = ["goes_by_absent_cells", "without_absent_cells"]
