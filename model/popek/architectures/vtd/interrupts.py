"""What a unit does with an interrupt request: compatibility and remappable format, source-id check, posting."""

from __future__ import annotations

import attrs

from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .dma import Checks, Remapped
from .unit import Read, RemappingCapabilities, Unit, frame

GIVEN = 1 + 3 + 8 + 32
"""What the processor is given: whether it was posted, delivery mode, vector, destination."""

RANGE = 0xFEE
"""Bits 63:20 of an address that is an interrupt request."""


def is_message(address: Word) -> Word:
    """A write to this address is an interrupt request (width 1)."""
    return address[63:20] == RANGE


def given(posted: Word, mode: Word, vector: Word, destination: Word) -> Word:
    """What the processor is given, in one word."""
    return concat(posted, mode, vector, destination)


def compatible(address: Word, data: Word) -> Word:
    """A request in compatibility format, as a machine without remapping takes it."""
    return given(FALSE, data[10:8], data[7:0], address[19:12].zero_extend(32))


def remap(
    read: Read,
    unit: Unit,
    source: Word,
    address: Word,
    data: Word,
    can: RemappingCapabilities,
    without: frozenset[str] = frozenset(),
) -> Remapped:
    """An interrupt request; the outcome's address is what the processor is given (`given`).

    Args:
        source: the request's source-id.
        address: 64 bits, in the interrupt range.
        data: 32 bits.
        without: rules of the unit that are dropped.
    """
    table = frame(unit.interrupt_table, can.host_width)
    checks, remappable = Checks(without, read, table), address[4]
    extended = unit.interrupt_table[11]
    checks.check("INT-COMPATIBILITY", ~remappable & (extended | ~unit.compatibility))
    subhandle = address[3]
    checks.check("INT-REQUEST-RSVD", remappable & subhandle & (data[31:16] != 0))
    handle = concat(Word(1, 0), address[2], address[19:5])
    index = handle + ite(subhandle, data[15:0], Word(16, 0)).zero_extend(17)
    size = Word(17, 2) << unit.interrupt_table[3:0].zero_extend(17)
    checks.check("INT-INDEX", remappable & (index >= size) & (unit.interrupt_table[3:0] != 15))
    at = table + (index[15:0].zero_extend(64) << 4)
    low, high = checks.read(at, remappable), checks.read(at + 8, remappable)
    checks.check("INT-ENTRY-P", remappable & ~low[0])
    posted, check = low[15] & int(can.posting), high[19:18]
    reserved = (high[63:20] != 0) | (low[14:12] != 0) | (low[31:24] != 0) | (check == 3)
    if not can.posting:
        reserved = reserved | low[15]
    reserved = ite(posted, (check == 3) | (low[7:2] != 0) | (low[13:12] != 0) | (low[37:24] != 0), reserved)
    reserved = reserved | (~posted & ~extended & ((low[63:48] != 0) | (low[39:32] != 0)))
    checks.check("INT-ENTRY-RSVD", remappable & reserved)
    checks.check("INT-SOURCE", remappable & ~admitted(source, high))
    destination = ite(extended, low[63:32], low[47:40].zero_extend(32))
    remapped = given(posted, low[7:5], low[23:16], destination)
    on = unit.interrupt_remapping == 1
    return Remapped(
        ite(on, checks.reason(), Word(8, 0)),
        ite(on & remappable, remapped, compatible(address, data)),
        low[1],
        tuple(checks.made),
    )


def admitted(source: Word, high: Word) -> Word:
    """An entry's SVT, SQ and SID admit a source-id (width 1)."""
    identifier, qualifier, kind = high[15:0], high[17:16], high[19:18]
    unlike = source ^ identifier
    mask = ite(
        qualifier == 0,
        Word(16, 0xFFFF),
        ite(qualifier == 1, Word(16, 0xFFFB), ite(qualifier == 2, Word(16, 0xFFF9), Word(16, 0xFFF8))),
    )
    exact = (unlike & mask) == 0
    bus = source[15:8]
    ranged = (bus >= identifier[15:8]) & (bus <= identifier[7:0])
    return ite(kind == 0, TRUE, ite(kind == 1, exact, ranged))


@attrs.frozen(eq=False)
class PostedDescriptor:
    """A posted-interrupt descriptor's fields.

    Attributes:
        requests: PIR, 256 bits.
        outstanding: ON.
        suppressed: SN.
        notification: NV, 8 bits.
        destination: NDST, 32 bits.
    """

    requests: Word
    outstanding: Word
    suppressed: Word
    notification: Word
    destination: Word


def post(descriptor: PostedDescriptor, vector: Word, urgent: Word) -> tuple[PostedDescriptor, Word]:
    """What posting a vector makes of a descriptor, and whether the processor is notified (width 1)."""
    requests = descriptor.requests | (Word(256, 1) << vector.zero_extend(256))
    notified = ~descriptor.outstanding & (urgent | ~descriptor.suppressed)
    return attrs.evolve(
        descriptor, requests=requests, outstanding=descriptor.outstanding | notified
    ), notified
