"""What the step harness reports of a case, as a result (see `popek.emulators.ia32.step`)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from popek.emulators.bochs import simulator as bochs
from popek.emulators.ia32.step_case import (
    ARENA_BYTES,
    MARKER,
    REGISTER_NAMES,
    SEGMENTS,
    STUBS,
    TSS_BYTES,
    VALID,
    Ia32StepCase,
    Prepared,
    msr_reads,
    opcode_of,
)
from popek.emulators.x86.expectation import StepResult

WITH_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
_TASK_BYTES = 8 + TSS_BYTES
_RAM_END = 0x2000000
_CAUGHT_BYTES = 2 + 10 * 12 + 7 * 4 + 8 * 4 + 10 * 4 + 4 * 4 + 7 * 4
_REAL_STUBS = 0xF000, STUBS - 0xF0000  # CS and IP of the first stub in real-address mode
_TSS_FIELDS = (
    *("eip", "eflags", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    *("es", "cs", "ss", "ds", "fs", "gs"),
)
_RF, _VM, _TS, _PE = 1 << 16, 1 << 17, 1 << 3, 1


def decode_all(batch: Sequence[Prepared], report: bytes) -> list[StepResult]:
    """Decode the complete results of a report, which may end early."""
    results = []
    at = 1
    for prepared in batch:
        if at + _CAUGHT_BYTES > len(report):
            break
        if report[at : at + 1] != b"R":
            raise bochs.BochsError(f"the guest's report is garbled at byte {at}")
        size = _CAUGHT_BYTES
        if report[at + 1]:
            (tr,) = struct.unpack_from("<H", report, at + 2 + 9 * 12)
            size += _TASK_BYTES if _in_task(prepared.case, tr) else 0
            size += sum(length for _, length in prepared.case.watch) + 8 * len(msr_reads(prepared.case))
        if at + size > len(report):
            break
        results.append(_decode(prepared, report[at : at + size]))
        at += size
    return results


def _decode(prepared: Prepared, report: bytes) -> StepResult:
    caught, frame, launched = _parse(report)
    if not report[1]:
        vector = _stub(caught, prepared.case)
        error = frame[0] if vector in WITH_ERROR_CODE else None
        return StepResult("setup-failed", vector, error)
    if any(launched[name] != prepared.loaded[name] for name in launched):
        return StepResult("setup-failed")
    at = _CAUGHT_BYTES
    in_task = _in_task(prepared.case, caught["tr"])
    task = report[at : at + _TASK_BYTES]
    at += len(task) if in_task else 0
    memory: list[bytes] = []
    for _, length in prepared.case.watch:
        memory.append(report[at : at + length])
        at += length
    reads = msr_reads(prepared.case)
    msrs = dict(zip(reads, struct.unpack_from(f"<{len(reads)}Q", report, at), strict=True))
    vector = _stub(caught, prepared.case)
    if vector is None:
        return _decode_direct(prepared, caught, tuple(memory), msrs)
    if not caught["cr0"] & _PE:
        return _decode_vector(prepared, vector, caught, frame, (tuple(memory), msrs))
    if in_task:
        return _decode_task(prepared, vector, caught, frame, task, tuple(memory), msrs)
    return _decode_gate(prepared, vector, caught, frame, (tuple(memory), msrs))


Shown = tuple[tuple[bytes, ...], Mapping[int, int]]
"""The watched memory and the MSRs of a case."""


def _decode_vector(
    prepared: Prepared, vector: int, caught: dict[str, int], frame: tuple[int, ...], shown: Shown
) -> StepResult:
    """Decode a step that ended in real-address mode, through the interrupt vector table."""
    (memory, msrs), first, state = shown, prepared.registers, dict(caught)
    mask = 0xFFFFFFFF if caught["ss.access"] & 1 << 22 else 0xFFFF
    at = (caught["ss.base"] + (caught["esp"] & mask)) & 0xFFFFFFFF
    memory = _without_frame(prepared, memory, at, at + 6)
    state["eip"], state["cs"] = frame[0] & 0xFFFF, frame[0] >> 16
    state["eflags"] = (caught["eflags"] & 0xFFFF0000 | frame[1] & 0xFFFF) & ~_RF
    state["esp"] = caught["esp"] & ~mask | (caught["esp"] + 6) & mask
    for part in ("base", "limit", "access"):
        del state[f"cs.{part}"]
    opcode = opcode_of(prepared.case.code)
    after = first["eip"] + len(prepared.case.code) & 0xFFFF
    moved = (state["eip"], state["cs"]) != (first["eip"], first["cs"])
    debug = (state["dr6"] & ~first["dr6"]) & 0xE00F
    if vector == 1 and not debug and not (opcode == b"\xf1" and state["eip"] == after):
        state["eip"] = state["eip"] - 1 & 0xFFFF
        return StepResult("next", registers=state, memory=memory, msrs=msrs)
    if vector == 6 and moved:
        return StepResult("next", registers=state, memory=memory, msrs=msrs)
    return StepResult("trap", vector, None, state, memory, msrs)


def _parse(report: bytes) -> tuple[dict[str, int], tuple[int, ...], dict[str, int]]:
    """Split what the ROM reports of every case: saved state, top of the stack, first selectors."""
    state: dict[str, int] = {}
    for index, name in enumerate((*SEGMENTS, "gdtr", "ldtr", "idtr", "tr")):
        selector, attributes, limit, base = struct.unpack_from("<HHII", report, 2 + 12 * index)
        state[f"{name}.base"], state[f"{name}.limit"] = base, limit
        if not name.startswith(("gdtr", "idtr")):
            state[name] = selector
            # What remains of the access rights of an unusable register is of no consequence.
            access = (attributes & 0xFF) << 8 | (attributes & 0xF000) << 8
            state[f"{name}.access"] = access if attributes & VALID else 0
    names = (
        *("cr4", "cr3", "cr0", "dr7", "dr6", "eflags", "eip"),
        *("edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax"),
    )
    words = struct.unpack_from("<36I", report, 2 + 120)
    state.update(zip(names, words[:15], strict=True))
    frame = words[15:25]
    launched = dict(zip(("ds", "es", "fs", "gs"), words[25:29], strict=True))
    state.update(zip(("cr2", "dr0", "dr1", "dr2", "dr3", "xcr0", "pkru"), words[29:], strict=True))
    state["cpl"] = _level(state)
    return state, frame, launched


def _level(state: Mapping[str, int]) -> int:
    """The privilege level of a state."""
    if not state["cr0"] & _PE:
        return 0
    return 3 if state["eflags"] & _VM else state["cs"] & 3


def _in_task(case: Ia32StepCase, tr: int) -> bool:
    """Tell whether TR holds one of the harness's own tasks."""
    return tr in (case.reserved + 0x10, case.reserved + 0x18)


def _stub(caught: Mapping[str, int], case: Ia32StepCase) -> int | None:
    """Return the vector whose stub raised the interrupt, if one did."""
    real = not caught["cr0"] & _PE
    selector, first = _REAL_STUBS if real else (case.reserved, STUBS)
    at = caught["eip"] - 2 - first
    if caught["cs"] == selector and 0 <= at < 4 * 256 and at % 4 == 0:
        return at // 4
    return None


def _decode_direct(
    prepared: Prepared, caught: dict[str, int], memory: tuple[bytes, ...], msrs: Mapping[int, int]
) -> StepResult:
    """Decode a step that ended without a gate: at the marker after the instruction, or by the watchdog."""
    caught["eflags"] &= ~_RF
    linear = (caught["cs.base"] + caught["eip"]) & 0xFFFFFFFF
    if linear == prepared.end + len(MARKER):
        mask = 0xFFFFFFFF if caught["cs.access"] & 1 << 22 else 0xFFFF
        caught["eip"] = (caught["eip"] - len(MARKER)) & mask
        return StepResult("next", registers=caught, memory=memory, msrs=msrs)
    # The instruction itself may have written the port.
    ended = linear == prepared.end and opcode_of(prepared.case.code)[:1] in (
        b"\xe6",
        b"\xe7",
        b"\xee",
        b"\xef",
    )
    return StepResult("next" if ended else "hang", registers=caught, memory=memory, msrs=msrs)


def _decode_gate(
    prepared: Prepared, vector: int, caught: dict[str, int], frame: tuple[int, ...], shown: Shown
) -> StepResult:
    """Decode a step that ended in one of the harness's interrupt gates."""
    memory, msrs = shown
    first = prepared.registers
    state = dict(caught)
    mask = 0xFFFFFFFF if caught["ss.access"] & 1 << 22 else 0xFFFF
    at = (caught["ss.base"] + (caught["esp"] & mask)) & 0xFFFFFFFF
    if not (at + 64 <= 0xA0000 or 0x100000 <= at <= _RAM_END - 64):
        # The frame was pushed where nothing keeps it.
        for name in ("eip", "cs", "eflags", "cpl"):
            del state[name]
        return StepResult("trap", vector, None, state, memory, msrs)
    opcode = opcode_of(prepared.case.code)
    after = (first["eip"] + len(prepared.case.code)) & 0xFFFFFFFF
    # INT 13, say, pushes no error code.
    software = opcode == bytes([0xCD, vector]) and (frame[0], frame[1] & 0xFFFF) == (after, first["cs"])
    error = None
    pushed = 12
    if vector in WITH_ERROR_CODE and not software:
        error, frame = frame[0], frame[1:]
        pushed += 4
    state["eip"], state["cs"], state["eflags"] = frame[0], frame[1] & 0xFFFF, frame[2]
    state["cpl"] = state["cs"] & 3
    unknown = ["cs"]
    if state["cpl"] or state["eflags"] & _VM:
        state["esp"], state["ss"] = frame[3], frame[4] & 0xFFFF
        pushed += 8
        unknown.append("ss")
        if state["eflags"] & _VM:
            state["cpl"] = 3
            pushed += 16
            state.update(zip(("es", "ds", "fs", "gs"), (word & 0xFFFF for word in frame[5:9]), strict=True))
            unknown += ["es", "ds", "fs", "gs"]
    else:
        state["esp"] = caught["esp"] & ~mask | (caught["esp"] + pushed) & mask
    for name in unknown:
        for part in ("base", "limit", "access"):
            del state[f"{name}.{part}"]
    memory = _without_frame(prepared, memory, at, at + pushed)

    moved = (state["eip"], state["cs"]) != (first["eip"], first["cs"])
    debug = (state["dr6"] & ~first["dr6"]) & 0xE00F or first["eflags"] & first["dr6"] >> 6 & 0x100
    landed = vector == 1 and not debug and not (opcode == b"\xf1" and state["eip"] == after)
    faulted_later = vector == 6 and moved
    faulted_at_marker = vector == 13 and error == 0 and moved and state["eip"] == after
    if landed:
        state["eip"] -= 1
    if landed or faulted_later or faulted_at_marker:
        state["eflags"] &= ~_RF
        return StepResult("next", registers=state, memory=memory, msrs=msrs)
    state["eflags"] = state["eflags"] & ~_RF | (0 if moved else first["eflags"] & _RF)
    return StepResult("trap", vector, error, state, memory, msrs)


def _decode_task(
    prepared: Prepared,
    vector: int,
    caught: dict[str, int],
    frame: tuple[int, ...],
    task: bytes,
    memory: tuple[bytes, ...],
    msrs: Mapping[int, int],
) -> StepResult:
    """Decode a step that ended in the task gate of #DF or #TS: the state is in the TSS it left."""
    first = prepared.registers
    state = {name: caught[name] for name in REGISTER_NAMES}
    state["tr"], at, *words = struct.unpack_from("<II32x16I", task)
    for name, value in zip(_TSS_FIELDS, words, strict=True):
        state[name] = value & 0xFFFF if len(name) == 2 else value
    # Entering the task set TS and replaced LDTR; but an earlier task switch, of the case itself, did so too.
    switched = state["tr"] != first["tr"]
    state["cr0"] = state["cr0"] & ~_TS | (_TS if switched else first["cr0"] & _TS)
    state["ldtr"] = task[8 + 0x60] | task[8 + 0x61] << 8 if switched else first["ldtr"]
    state["cpl"] = state["cs"] & 3
    moved = (state["eip"], state["cs"]) != (first["eip"], first["cs"])
    shown = _without_frame(prepared, memory, at + 0x20, at + 0x60)
    kind = prepared.arena[first["gdtr.base"] + (first["tr"] & 0xFFF8) + 5]
    if not kind & 8:  # a 16-bit TSS has IP at 0EH and CS at 24H, and half of every register
        (ip,), (cs,) = struct.unpack_from("<H", task, 8 + 0x0E), struct.unpack_from("<H", task, 8 + 0x24)
        moved = (ip, cs) != (first["eip"] & 0xFFFF, first["cs"])
        shown = _without_frame(prepared, memory, at + 0x0E, at + 0x2A)
    state["eflags"] = state["eflags"] & ~_RF | (0 if moved else first["eflags"] & _RF)
    # The interrupt that ends the step could not be delivered; its own faults have EXT = 1.
    if moved and (vector == 8 or frame[0] & 1):
        return StepResult("next", registers=state, memory=shown, msrs=msrs)
    return StepResult("trap", vector, frame[0], state, shown, msrs)


def _without_frame(prepared: Prepared, memory: tuple[bytes, ...], start: int, end: int) -> tuple[bytes, ...]:
    """Put the bytes from `start` to `end` back to what they were before the step."""
    shown = []
    for (address, length), data in zip(prepared.case.watch, memory, strict=True):
        low, high = max(start, address), min(end, address + length, ARENA_BYTES)
        if low < high:
            data = data[: low - address] + prepared.arena[low:high] + data[high - address :]
        shown.append(data)
    return tuple(shown)
