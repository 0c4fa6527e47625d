"""VM-entry checks as formulas: the predicates of `popek.architectures.vtx` on symbolic fields.

A rule set is a mapping from check ids to checks; nothing here depends on which one it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from popek.architectures.vtx.capabilities import Capabilities, CapabilityView
from popek.architectures.vtx.entry_checks import Check
from popek.architectures.vtx.view import View, field_symbol, view_of
from popek.architectures.vtx.vmcs import MemoryEntry, MissingField, Vmcs
from popek.kernel import terms
from popek.kernel.exploration import explore
from popek.kernel.terms import Term
from popek.kernel.words import FALSE, TRUE, SymbolicConditionError, Word, all_of, any_of, ite

LOAD_AREA = ("ENTRY_MSR_LOAD_COUNT", "ENTRY_MSR_LOAD_ADDR")
"""Fields that stay numbers: the checks of the MSR-load area count its entries."""

_ALL_ONES = (1 << 64) - 1
_MOST_PLACES = 128
_POINTERS: Mapping[str, Iterable[int]] = {
    "GUEST_CR3": range(0, 32, 8),
    "VIRTUAL_APIC_ADDR": (0x80,),
    "VMCS_LINK_POINTER": (0,),
    "EXECUTIVE_VMCS_PTR": (0,),
    "ENTRY_MSR_LOAD_ADDR": [16 * entry + part for entry in range(16) for part in (0, 4, 8)],
}
"""Fields that point to memory that checks read, and at which offsets."""


@attrs.frozen
class Read:
    """A read of memory at an address that is a symbol, or that nobody described.

    Attributes:
        address: physical, 64 bits.
        size: in bytes.
        value: what was read, 64 bits.
        known: whether memory was described there.
    """

    address: Word
    size: int
    value: Word
    known: Word


class _SymbolicView(View):
    """A view whose memory can be read at any address; it notes each such read."""

    def read(self, address: Any, size: int) -> Any:
        """`size` bytes at a physical address; bytes that nobody described can have any value."""
        if isinstance(address, Word) and address.concrete:
            address = int(address)
        if isinstance(address, int):
            try:
                return super().read(address, size)
            except MissingField:
                address = Word(64, address)
        if self._elsewhere is None:
            function = terms.apply(f"memory{8 * size}", 8 * size, address.term)
            value = Word(8 * size, function).zero_extend(64)
        else:
            value = Word(64, self._elsewhere & (1 << 8 * size) - 1)
        known: Word = FALSE
        for place in self._places:
            try:
                content = super().read(place, size)
            except MissingField:
                continue
            here = address == place
            value, known = ite(here, Word(64, content), value), known | here
        self._reads.append(Read(address, size, value, known))
        return value


def _places(known: Vmcs) -> list[int]:
    """Addresses that a symbolic one may equal: where described memory starts, and where fields point now."""
    found = {address for address, _, _ in known.memory}
    for name, offsets in _POINTERS.items():
        value = known.get(name)
        if value is not None:
            found |= {
                (value & _ALL_ONES - 31 if name == "GUEST_CR3" else value) + offset for offset in offsets
            }
    return sorted(place for place in found if place >> 64 == 0)[:_MOST_PLACES]


class _AllFeasible:
    """An oracle for explorations whose paths need no pruning."""

    assignment = None

    def push(self, condition: Term) -> None:
        """Take a condition for possible."""

    def pop(self) -> None:
        """Forget it."""

    def feasible(self) -> bool:
        """Say yes."""
        return True


class Formulas:
    """The violations of checks over one symbolic VMCS.

    Args:
        known: fields with a fixed value, memory and the launch.
        capabilities: of the processor.
        free: ids of the fields that are symbols; a field that is neither known nor free is missing.
        area: whether place and size of the MSR-load area may be symbols; its entries are then not checked.
    """

    def __init__(
        self, known: Vmcs, capabilities: Capabilities, free: Iterable[str], *, area: bool = False
    ) -> None:
        self._area = area
        self.symbols: Mapping[str, Word] = {
            name: field_symbol(name) for name in sorted(set(free)) if area or name not in LOAD_AREA
        }
        base = view_of(known, capabilities)
        values = {name: value for name, value in known.fields.items() if name not in self.symbols}
        notes = {"_reads": [], "_elsewhere": None, "_places": _places(known)}
        self._view = _SymbolicView(
            {**values, **self.symbols, **notes},
            CapabilityView(capabilities),
            known.launch,
            base._memory,
            known.default,
        )
        self._violations: dict[tuple[Check, bool], tuple[Word, tuple[Read, ...]] | None] = {}

    def violation(self, check: Check, *, doubt: bool = False) -> Word | None:
        """Where the check is violated; None if it lacks an input that is no memory.

        With `doubt`, also where it holds and fails on some processors.
        """
        found = self._found(check, doubt)
        return None if found is None else found[0]

    def reads(self, check: Check, *, doubt: bool = False) -> tuple[Read, ...]:
        """The reads of memory behind `violation`, those whose place is known for sure left out."""
        found = self._found(check, doubt)
        return () if found is None else found[1]

    def worst(self, check: Check) -> Word | None:
        """Where the check is violated, or would be if undescribed memory were all zeros or all ones."""
        violated = self.violation(check)
        if violated is None or violated.value == 0 or not self.reads(check):
            return violated
        if check.group.name == "msr-load-area":
            # Any entry may be a bad one.
            unknown = any_of(~read.known for read in self.reads(check))
            return violated | unknown & all_of(_word(gate.test(self._view)) for gate in check.gates)
        found: Word = FALSE
        for content in (0, _ALL_ONES):
            self._view.__dict__["_elsewhere"] = content
            violated = self._violated(check, doubt=False)
            found = found if violated is None else found | violated
        self._view.__dict__["_elsewhere"] = None
        return found

    def _found(self, check: Check, doubt: bool) -> tuple[Word, tuple[Read, ...]] | None:
        key = check, doubt
        if key not in self._violations:
            del self._view._reads[:]
            violated = self._violated(check, doubt)
            self._violations[key] = None if violated is None else (violated, tuple(self._view._reads))
        return self._violations[key]

    def _violated(self, check: Check, doubt: bool) -> Word | None:
        if self._area and check.group.name == "msr-load-area":
            return None
        applies: Word = TRUE
        missing = False
        for gate in check.gates:
            try:
                applies = applies & _word(gate.test(self._view))
            except MissingField:
                missing = True
            if applies.value == 0:
                return FALSE
        try:
            violated = ~self._truth(check.holds)
            if doubt and check.doubt is not None:
                violated = violated | ~self._truth(check.doubt)
        except MissingField:
            return None
        if violated.value == 0:
            return FALSE
        return None if missing else applies & violated

    def _truth(self, predicate: Any) -> Word:
        try:
            return _word(predicate(self._view))
        except SymbolicConditionError:
            # The checks of the MSR-load area look at one entry after the other.
            paths = explore(lambda: _word(predicate(self._view)), _AllFeasible())
            return any_of(path.condition & path.result for path in paths)


def _word(value: Any) -> Word:
    if isinstance(value, Word):
        return value
    return TRUE if value else FALSE


def memory_of(reads: Iterable[Read], model: Any) -> tuple[MemoryEntry, ...]:
    """What a model has in memory where it was read and nobody described it."""
    found: dict[tuple[int, int], int] = {}
    for read in reads:
        if not model(read.known.term):
            found[model(read.address.term), read.size] = model(read.value.term)
    return tuple((address, size, value) for (address, size), value in sorted(found.items()))
