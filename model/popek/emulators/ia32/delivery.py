"""How an interrupt reaches the step harness from a state: through a gate or the vector table, and what it shows.

Faults, landing places and software interrupts all end there, so the frame that is pushed must have room, and
tells the interrupted state.
"""

from __future__ import annotations

from typing import Final

from popek.architectures.ia32.stacks import inner_stack
from popek.architectures.ia32.state import ESP, Ia32
from popek.architectures.x86.access import within
from popek.architectures.x86.descriptors import TASK_GATE
from popek.emulators.ia32.step import ARENA_BYTES, VECTOR_TABLE
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

_STUBS: Final = 0xF8000
_RF = 1 << 16
_VM = 1 << 17


def entered_stub(after: Ia32, reserved: int) -> int | None:
    """The vector whose stub the instruction entered, if it did."""
    real = bool(after.real)
    selector, first = (0xF000, _STUBS - 0xF0000) if real else (reserved, _STUBS)
    entered = int(after.eip) - first
    inside = int(after.cs.selector.value) == selector and 0 <= entered < 0x400 and entered % 4 == 0
    return entered // 4 if inside else None


def interrupted(after: Ia32, registers: dict[str, int]) -> tuple[dict[str, int], int, int]:
    """The registers of the interrupted state, read from the frame; where the frame is and how long (bytes)."""
    shown = dict(registers)
    wide = bool(after.ss.rights.db)
    offset = int(after.gpr[ESP]) if wide else int(after.gpr[ESP]) & 0xFFFF
    at = int(after.ss.base) + offset & 0xFFFFFFFF
    size = 2 if after.real else 4
    frame = [int(after.memory.load_little_endian(Word(32, at + size * i), size)) for i in range(9)]
    shown["eip"], shown["cs"], flags = frame[0], frame[1] & 0xFFFF, frame[2] & ~_RF
    virtual = bool(flags & _VM) and size == 4
    shown["eflags"] = flags if size == 4 else registers["eflags"] & 0xFFFF0000 | flags
    shown["cpl"] = 0 if size == 2 else 3 if virtual else shown["cs"] & 3
    unknown, pushed = ["cs"], 3 * size
    if shown["cpl"]:
        shown["esp"], shown["ss"] = frame[3], frame[4] & 0xFFFF
        unknown.append("ss")
        pushed = 20
    else:
        mask = 0xFFFFFFFF if wide else 0xFFFF
        shown["esp"] = registers["esp"] & ~mask | registers["esp"] + pushed & mask
    if virtual:
        unknown += ["es", "ds", "fs", "gs"]
        shown |= {name: word & 0xFFFF for name, word in zip(("es", "ds", "fs", "gs"), frame[5:], strict=True)}
        pushed = 36
    for name in unknown:
        for part in ("base", "limit", "access"):
            shown.pop(f"{name}.{part}", None)
    return shown, at, pushed


def through_task(state: Ia32, vector: int) -> bool:
    """Whether the gate of a vector is a task gate."""
    if state.real:
        return False
    kind = state.memory.load(state.idtr.base + (8 * vector + 5))
    return int(kind) & 0x1F == TASK_GATE


def deliverable(state: Ia32, vector: int, with_code: bool) -> bool:
    """Whether the harness's interrupt gate can be entered from here."""
    if through_task(state, vector):
        return True
    size, pushed = 4, 4 if with_code else 3
    if state.real:
        if int(state.idtr.base) != VECTOR_TABLE or int(state.idtr.limit) < 4 * vector + 3:
            raise OutsideError("a vector table that does not lead to the harness")
        if int(state.ss.limit) < 0xFFFF:
            raise OutsideError("a stack in real-address mode that may have no room")
        if 0 < int(state.gpr[ESP]) & 0xFFFF < 6 and not state.ss.rights.db:
            raise OutsideError("a frame that wraps around 64 KiB")
        size, pushed = 2, 3
    segment, pointer = state.ss, state.gpr[ESP]
    wide = state.ss.rights.db
    if state.cpl.value != 0:
        try:
            stack = inner_stack(state, Word(2, 0))
        except Fault:
            return False
        probe = state.copy()
        probe.ss.base, probe.ss.limit = stack.descriptor.base, stack.descriptor.limit
        probe.ss.rights = stack.descriptor.rights
        segment, pointer, wide = probe.ss, stack.pointer, probe.ss.rights.db
        pushed += 6 if state.virtual_8086 else 2
    for i in range(1, pushed + 1):
        top = pointer - size * i
        offset = ite(wide, top, top.truncate(16).zero_extend(32))
        if not within(segment, offset, size):
            if int(segment.limit) == 0xFFFFFFFF or state.real:
                raise OutsideError("a stack that wraps around 4 GiB")
            return False
        if int(segment.base + offset) >= ARENA_BYTES:
            raise OutsideError("a stack outside the arena")
    return True
