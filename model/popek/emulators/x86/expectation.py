"""What a model expects of a case on a step harness, and what the harness shows; the same for every mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import attrs

from popek.architectures.x86.exceptions import VECTORS

_NAMES: Final = {vector.number: vector.name for vector in VECTORS} | {8: "#DF"}


class OutsideError(Exception):
    """A case leads where the harness cannot follow; the message says where."""


def vector_name(number: int | None) -> str:
    """The manual's name of a vector."""
    return _NAMES.get(number, str(number)) if number is not None else "none"


def each_bit(asked: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Numbers for undefined results: each bit of each alone, and in the end all bits of all together.

    Args:
        asked: their widths by name.
    """
    for name, width in asked.items():
        yield from ({name: 1 << bit} for bit in range(width))
    if asked:
        # RDRAND has a number only where CF says so.
        yield {name: (1 << width) - 1 for name, width in asked.items()}


@attrs.frozen
class Expectation:
    """What the harness should report.

    Attributes:
        kind: ``next``, ``trap`` or ``hang`` (HLT).
        vector, error_code: of a trap.
        registers: by the harness's names; a register that is missing is not compared.
        undefined: bits of registers that the manual leaves undefined, or the harness hides.
        memory: bytes that differ from the start, by linear address.
        msrs: by number, where they are no registers of the harness.
        raised: of a fault, vector and error code of the instruction itself, delivered or not.
        storage: whether it is a fault on a storage reference.
    """

    kind: str
    vector: int | None
    error_code: int | None
    registers: Mapping[str, int]
    undefined: Mapping[str, int]
    memory: Mapping[int, int]
    msrs: Mapping[int, int] = attrs.field(factory=dict)
    raised: tuple[int, int | None] | None = None
    storage: bool = False


StepEnd = Literal["next", "trap", "hang", "triple-fault", "setup-failed"]


@attrs.frozen
class StepResult:
    """What one instruction did.

    Attributes:
        kind: ``next``: completed, with the state it left.  ``trap``: an exception, or an interrupt through a
            gate of the harness, with the state as the gate's frame has it.  ``hang``: stopped by the
            watchdog.  ``triple-fault``: the processor shut down; no state.  ``setup-failed``: the initial state
            could not be loaded; `vector` and `error_code` tell why, or are None if IRET made a data segment
            register null.
        vector: of the trap.
        error_code: of the trap, if its vector has one.
        registers: by the harness's names; what is not known is missing, like hidden parts of CS and SS after a
            trap.
        memory: the watched memory, in the case's order.
        msrs: the MSRs of the case after the step, where they are no registers of the harness.
    """

    kind: StepEnd
    vector: int | None = None
    error_code: int | None = None
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[bytes, ...] = ()
    msrs: Mapping[int, int] = attrs.field(factory=dict)


def watched_differences(
    arena: bytes, watch: Sequence[tuple[int, int]], expected: Mapping[int, int], observed: Sequence[bytes]
) -> Iterator[tuple[int, int, int]]:
    """Watched bytes that are not as expected: address, expected value, observed value.

    Args:
        arena: memory at the start.
        watch: (linear address, length).
        expected: bytes that differ from the start.
        observed: the watched memory after.
    """
    for (address, length), data in zip(watch, observed, strict=True):
        wanted = bytearray(arena[address : address + length])
        for where, value in expected.items():
            if address <= where < address + length:
                wanted[where - address] = value
        if wanted != data:
            for index, (value, byte) in enumerate(zip(wanted, data, strict=True)):
                if value != byte:
                    yield address + index, value, byte


def merged(spans: Sequence[tuple[int, int]], end: int) -> tuple[tuple[int, int], ...]:
    """Spans (from, to) inside memory of so many bytes, joined where they meet, as (address, length)."""
    joined: list[list[int]] = []
    for low, high in sorted(spans):
        low, high = max(low, 0), min(high, end)
        if joined and low <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], high)
        elif low < high:
            joined.append([low, high])
    return tuple((low, high - low) for low, high in joined)
