"""A question about storage after many stores, cut store by store.

Whether the hardware's storage is the image of the guest's is one question of any address, and after a dozen stores it
is too large: the image has cells that follow from the guest's by way of a table, and each load from that table is a
choice among all stores.  It is cut where a reader would cut it:

1. no store of the guest's goes to a cell of which the control program keeps a copy: the table is as it was;
2. at the address of each store of the hardware's, both are the same;
3. at any other address they are, with the table as it was.

Each is asked with the conditions of the whole question; where none is possible, nor is what they were cut from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from popek.kernel.memory import Block, Memory
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.terms import Substitution, const, invert
from popek.kernel.words import TRUE, Word, all_of, any_of, ite

from .runs import place_of

S = TypeVar("S", bound=State)


def unlike_the_image(
    technique: Technique[S], private: S, guests: tuple[S, S], ended: S, unlike: Mapping[str, Word]
) -> Iterator[Word]:
    """What must be impossible (each of width 1), so that `unlike` is.

    Args:
        guests: the guest's state before and after.
        ended: where the hardware is after.
        unlike: per leaf and memory that it differs from the image of the guest's state after.
    """
    before, after = guests
    stored = [name for name, content in ended.memories().items() if name in unlike and content.stores]
    yield any_of(condition for name, condition in unlike.items() if name not in stored)
    yield from copied(technique, guests)
    image, kept = (
        technique.map(after, private),
        technique.map(_with_copies(technique, before, after), private),
    )
    for name in stored:
        content, where = ended.memories()[name], place_of(ended.memories()[name], name, None)
        places = [one[0] for one in content.stores if not isinstance(one, Block)]
        for address in places:
            yield content.load(address) != image.memories()[name].load(address)
        elsewhere = [address != where for address in places]
        known = {one.term: const(1, 1) for one in elsewhere} | {
            invert(one.term): const(1, 0) for one in elsewhere
        }
        differ = content.load(where) != kept.memories()[name].load(where)
        yield all_of(elsewhere) & Word(1, Substitution(known=known)(differ.term))


def copied(technique: Technique[S], guests: tuple[S, S]) -> Iterator[Word]:
    """Per store of the guest's, that it is to a cell of which the control program keeps a copy (width 1).

    A store of many cells at once may be.  And that it keeps copies of other cells after it.
    """
    before, after = guests
    if technique.shadows_address is not None:
        for name in _storage(before):
            old, new = before.memories()[name], after.memories()[name]
            where = place_of(old, name, None)
            yield technique.shadows_address(before, where) != technique.shadows_address(after, where)
            for one in new.stores[len(old.stores) :]:
                yield TRUE if isinstance(one, Block) else technique.shadows_address(before, one[0])


def _with_copies(technique: Technique[S], before: S, after: S) -> S:
    """The guest after a run that stored to nothing of which a copy is kept: there, what was before."""
    shadows = technique.shadows_address
    if shadows is None:
        return after
    seen = after.copy()
    for name in _storage(before):
        old, new = before.memories()[name], after.memories()[name]
        if new is not old:

            def cell(address: Word, old: Memory = old, new: Memory = new) -> Word:
                return ite(shadows(before, address), old.load(address), new.load(address))

            seen._memories[name] = Memory(new.address_width, new.cell_width, cell)
    return seen


def _storage(state: State) -> list[str]:
    return [slot.name for slot in state.layout if slot.address and slot.role is Role.MEMORY]


__all__ = ["copied", "unlike_the_image"]
