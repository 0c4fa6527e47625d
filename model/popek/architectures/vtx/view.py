"""What a check sees: VMCS fields, effective controls and memory, as integers or as symbols.

A check is plain Python over a `View`. `view.GUEST_CR0` is the field, `view.sec` the *effective* secondary
controls (0 when they are not activated). On the fast path every value is an `int` and every condition a
`bool`; with symbols a value is a `Word` of 64 bits, whatever the field's width, and a condition a `Word` of
one bit. So checks use only what means the same on both: ``& | ^ >> <<``, comparisons with what fits 64
bits, and `either`, `both` or `select` where something is asked for only if something else holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from popek.kernel import terms
from popek.kernel.words import Word, ite, symbol

from .capabilities import ONES64, Capabilities, CapabilityView
from .fields import FIELDS
from .vmcs import Launch, MissingField, PerhapsMissing, Vmcs

Value = Any
"""An `int`, or a `Word` of 64 bits."""

Decision = Any
"""A `bool`, or a `Word` of one bit."""


def on(value: Value, bit: int) -> Decision:
    """Whether a bit is 1."""
    return value & 1 << bit != 0


def off(value: Value, bit: int) -> Decision:
    """Whether a bit is 0."""
    return value & 1 << bit == 0


def select(condition: Decision, then: Callable[[], Value], otherwise: int) -> Value:
    """`then()` where the condition holds, else the number; asks for `then` only if it can matter."""
    known = _known(condition)
    if known is not None:
        return then() if known else otherwise
    chosen = _perhaps(then, condition)
    return ite(condition, chosen if isinstance(chosen, Word) else Word(64, chosen), Word(64, otherwise))


def either(condition: Decision, otherwise: Callable[[], Decision]) -> Decision:
    """Whether the condition holds, or else `otherwise()`, which is asked for only if it can matter."""
    known = _known(condition)
    if known is not None:
        return known or otherwise()
    return condition | _perhaps(otherwise, ~condition)


def both(condition: Decision, then: Callable[[], Decision]) -> Decision:
    """Whether the condition holds, and `then()`, which is asked for only if it can matter."""
    known = _known(condition)
    if known is not None:
        return known and then()
    return condition & _perhaps(then, condition)


def _known(condition: Decision) -> bool | None:
    if isinstance(condition, bool):
        return condition
    return bool(condition.value) if condition.concrete else None


Watcher = Callable[[Word, Callable[[], Any]], Any]
"""Told of what is asked for only where a condition holds; it asks, and may note what is asked for."""

_watcher: Watcher | None = None


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Have all that is asked for lazily go through a watcher."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def _perhaps(ask: Callable[[], Any], where: Word) -> Any:
    """What is asked for where a symbolic condition says so: if it is missing, it may not matter."""
    try:
        return ask() if _watcher is None else _watcher(where, ask)
    except MissingField as error:
        raise PerhapsMissing(error.what) from None


class View:
    """The fields of one VMCS, and what follows from them; see the module.

    Args:
        fields: values by field id: `int`, or `Word` of 64 bits.
        capabilities: of the processor.
        launch: what the processor is doing.
        memory: bytes by physical address.
        default: value of the fields that are not given, or None if they are unknown.
        areas: what the MSR areas list; see `Vmcs`.
    """

    cap: CapabilityView
    launch: Launch
    areas: Mapping[str, tuple[tuple[int, int], ...]]

    def __init__(
        self,
        fields: Mapping[str, Value],
        capabilities: CapabilityView,
        launch: Launch,
        memory: Mapping[int, int] | None = None,
        default: int | None = None,
        areas: Mapping[str, tuple[tuple[int, int], ...]] | None = None,
    ) -> None:
        """Look at these fields; see the class."""
        attributes = self.__dict__
        attributes.update(fields)
        attributes["cap"] = capabilities
        attributes["launch"] = launch
        attributes["_memory"] = memory or {}
        attributes["_default"] = default
        attributes["areas"] = areas or {}

    def __getattr__(self, name: str) -> Any:
        """Compute a derived value and keep it, or complain that a field is not known."""
        derive = _DERIVED.get(name)
        if derive is not None:
            value = derive(self)
        elif name in FIELDS:
            if self._default is None:
                raise MissingField(name)
            value = self._default & FIELDS[name].mask
        else:
            raise AttributeError(name)
        self.__dict__[name] = value
        return value

    def read(self, address: Value, size: int) -> Value:
        """`size` bytes of memory at a physical address, little-endian.

        Raises:
            MissingField: nobody said what is there.
        """
        if isinstance(address, Word):
            if not address.concrete:
                return Word(8 * size, terms.apply(f"memory{8 * size}", 8 * size, address.term)).zero_extend(
                    64
                )
            address = int(address)
        value = 0
        for offset in range(size):
            byte = self._memory.get(address + offset)
            if byte is None:
                raise MissingField(f"memory: {size} bytes at {address:#x}")
            value |= byte << 8 * offset
        return value


def view_of(vmcs: Vmcs, capabilities: Capabilities | CapabilityView) -> View:
    """A view on the integers of a VMCS."""
    if isinstance(capabilities, Capabilities):
        capabilities = CapabilityView(capabilities)
    memory: dict[int, int] = {}
    for address, size, value in vmcs.memory:
        for offset in range(size):
            memory[address + offset] = value >> 8 * offset & 0xFF
    return View(vmcs.fields, capabilities, vmcs.launch, memory, vmcs.default, vmcs.areas)


def symbolic_view(
    known: Vmcs, capabilities: Capabilities | CapabilityView, free: Mapping[str, Word] | None = None
) -> View:
    """A view whose fields are symbols, but for those that `known` gives.

    Args:
        known: fields with a fixed value, memory and the launch.
        capabilities: of the processor.
        free: symbols of 64 bits by field id; by default one for each field that `known` does not give.
    """
    if free is None:
        free = {name: field_symbol(name) for name in FIELDS if known.get(name) is None}
    base = view_of(known, capabilities)
    fields = {name: known.get(name) for name in FIELDS if known.get(name) is not None}
    return View({**fields, **free}, base.cap, known.launch, base._memory, known.default)


def field_symbol(field_id: str, name: str | None = None) -> Word:
    """A symbol for a field: 64 bits, those beyond the field's width 0."""
    return symbol(name or field_id, FIELDS[field_id].width).zero_extend(64)


# -- derived values ----------------------------------------------------------------------

SEGMENTS: Final = ("CS", "SS", "DS", "ES", "FS", "GS")


def _usable(segment: str) -> Callable[[View], Decision]:
    name = f"GUEST_{segment}_ACCESS_RIGHTS"
    return lambda v: getattr(v, name) & 0x1_0000 == 0


def _injects(kind: int) -> Callable[[View], Decision]:
    # Valid bit and type.
    return lambda v: 0x8000_0000 | kind << 8 == v.ENTRY_INTR_INFO & 0x8000_0700


def _given(name: str, words: str) -> Callable[[View], Value]:
    """Something of the launch that may be unknown."""

    def derive(v: View) -> Value:
        value = getattr(v.launch, name)
        if value is None:
            raise MissingField(words)
        return value

    return derive


def _x2apic(v: View) -> bool:
    """Whether the local APIC is in x2APIC mode: as the launch says, or IA32_APIC_BASE[10]."""
    if v.launch.x2apic is not None:
        return v.launch.x2apic
    base = v.cap.capabilities.msrs.get(0x1B)
    if base is None:
        raise MissingField("whether the local APIC is in x2APIC mode")
    return bool(base >> 10 & 1)


_DERIVED: Final[Mapping[str, Callable[[View], Any]]] = {
    "pin": lambda v: v.PIN_CONTROLS,
    "pri": lambda v: v.PRIMARY_PROC_CONTROLS,
    "sec": lambda v: select(on(v.PRIMARY_PROC_CONTROLS, 31), lambda: v.SECONDARY_PROC_CONTROLS, 0),
    "ter": lambda v: select(on(v.PRIMARY_PROC_CONTROLS, 17), lambda: v.TERTIARY_PROC_CONTROLS, 0),
    "exit": lambda v: v.EXIT_CONTROLS,
    "exit2": lambda v: select(on(v.EXIT_CONTROLS, 31), lambda: v.SECONDARY_EXIT_CONTROLS, 0),
    "entry": lambda v: v.ENTRY_CONTROLS,
    "ug": lambda v: v.sec & 0x80 != 0,
    "ia32e": lambda v: v.ENTRY_CONTROLS & 0x200 != 0,
    "v8086": lambda v: v.GUEST_RFLAGS & 0x2_0000 != 0,
    "cs_type": lambda v: v.GUEST_CS_ACCESS_RIGHTS & 0xF,
    "ss_dpl": lambda v: v.GUEST_SS_ACCESS_RIGHTS >> 5 & 3,
    "vector": lambda v: v.ENTRY_INTR_INFO & 0xFF,
    "injects_interrupt": _injects(0),
    "injects_nmi": _injects(2),
    "injects_exception": _injects(3),
    "injects_other": _injects(7),
    "current_vmcs": _given("current_vmcs", "address of the current VMCS"),
    "vmxon_pointer": _given("vmxon_pointer", "VMXON pointer"),
    "efer_lma": _given("efer_lma", "whether the VMM runs in IA-32e mode (IA32_EFER.LMA)"),
    "x2apic": _x2apic,
    **{f"{segment.lower()}_usable": _usable(segment) for segment in (*SEGMENTS, "LDTR")},
}


def derived(view: View, name: str) -> Any:
    """A derived value, worked out anew.

    Raises:
        AttributeError: none has this name.
    """
    try:
        return _DERIVED[name](view)
    except KeyError:
        raise AttributeError(name) from None


# -- words that checks are made of -------------------------------------------------------


def implies(premise: Decision, conclusion: Decision) -> Decision:
    """Whether the premise fails or the conclusion holds."""
    return (premise == False) | conclusion  # noqa: E712 -- a Word of one bit compares with False too


def one_of(value: Value, numbers: Collection[int]) -> Decision:
    """Whether a value is one of some numbers."""
    return value in numbers if isinstance(value, int) else value.isin(sorted(numbers))


def placed(v: View, address: Value, low: int = 0xFFF) -> Decision:
    """Whether a physical address has none of the `low` bits and fits the processor's width."""
    return address & (v.cap.beyond | low) == 0


def canonical(v: View, address: Value) -> Decision:
    """Whether bits 63:LW-1 of a linear address are equal, LW being the processor's linear-address width."""
    high = address >> v.cap.linear_shift
    return (high == 0) | (high == v.cap.linear_ones)


def extended(v: View, address: Value) -> Decision:
    """Whether bits 63:LW are equal; unlike `canonical`, bit LW-1 is free."""
    high = address >> v.cap.linear_address_width
    return (high == 0) | (high == v.cap.linear_ones >> 1)


def fixed(value: Value, must: int, may: int) -> Decision:
    """Whether all bits of `must` are 1 and all bits outside `may` are 0."""
    return (value & must == must) & (value & (ONES64 & ~may) == 0)


def last_byte(address: Value, count: Value) -> Value:
    """The address of the last byte of an MSR area with `count` entries of 16 bytes."""
    return address + (count << 4) - 1 & ONES64


def memory_types(pat: Value) -> Decision:
    """Whether each byte of a PAT value is a memory type: 0, 1, 4, 5, 6 or 7."""
    # Bits 7:3 are 0, and bit 1 comes only with bit 2.
    lonely = pat >> 1 & (pat >> 2 ^ ONES64)
    return (pat & 0xF8F8_F8F8_F8F8_F8F8 == 0) & (lonely & 0x0101_0101_0101_0101 == 0)
